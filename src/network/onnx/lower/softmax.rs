//! `Softmax`.

use super::super::call::{Call, image_axis};
use super::super::draft::{Draft, Id};
use crate::network::Op;

/// <https://onnx.ai/onnx/operators/onnx__Softmax.html>. Before opset 13 it normalizes over all axes from the given one on,
/// which is only supported when at most one of them is longer than 1.
pub(super) fn softmax(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    let (input, shape) = call.shaped(draft, 0)?;
    let axis = if call.opset >= 13 {
        image_axis(call.int("axis")?.unwrap_or(-1), shape)?
    } else {
        let first = image_axis(call.int("axis")?.unwrap_or(1), shape)?;
        let mut long = (first..shape.len()).filter(|&axis| shape[axis] != 1 || draft.varies(input, axis));
        match (long.next(), long.next()) {
            (axis, None) => axis.unwrap_or(first),
            _ => return Err(format!("normalizes over several axes of {shape} at once (opset {})", call.opset)),
        }
    };
    draft.push(Op::Softmax { axis }, &[input])
}
