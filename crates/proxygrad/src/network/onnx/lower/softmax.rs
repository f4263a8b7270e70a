//! `Softmax` and its logarithm.

use super::super::call::{Call, image_axis};
use super::super::draft::{Draft, DraftOp, Id};
use crate::network::Op;

/// <https://onnx.ai/onnx/operators/onnx__Softmax.html>
pub(super) fn softmax(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    let (input, axis) = normalized(draft, call)?;
    draft.push(Op::Softmax { axis }, &[input])
}

/// <https://onnx.ai/onnx/operators/onnx__LogSoftmax.html>
pub(super) fn log_softmax(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    let (input, axis) = normalized(draft, call)?;
    draft.push(Op::LogSoftmax { axis }, &[input])
}

/// The logarithm of a softmax as one operation, which stays exact where the softmax is rounded to 0; `None` when `input`
/// is no softmax.
pub(super) fn log_of_softmax(draft: &mut Draft, input: Id) -> Result<Option<Id>, String> {
    let node = draft.node(input);
    let (DraftOp::Op(Op::Softmax { axis }), &[before]) = (&node.op, node.inputs.as_slice()) else { return Ok(None) };
    let axis = *axis;
    draft.push(Op::LogSoftmax { axis }, &[before]).map(Some)
}

/// The input and the axis that is normalized. Before opset 13 these are all axes from the given one on, which is only
/// supported when at most one of them is longer than 1.
fn normalized(draft: &Draft, call: &Call) -> Result<(Id, usize), String> {
    let (input, shape) = call.shaped(draft, 0)?;
    if call.opset >= 13 {
        return Ok((input, image_axis(call.int("axis")?.unwrap_or(-1), shape)?));
    }
    let first = image_axis(call.int("axis")?.unwrap_or(1), shape)?;
    let mut long = (first..shape.len()).filter(|&axis| shape[axis] != 1 || draft.varies(input, axis));
    match (long.next(), long.next()) {
        (axis, None) => Ok((input, axis.unwrap_or(first))),
        _ => Err(format!("normalizes over several axes of {shape} at once (opset {})", call.opset)),
    }
}
