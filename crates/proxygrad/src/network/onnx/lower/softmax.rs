//! `Softmax` and `LogSoftmax`.

use super::super::graph_builder::{BuilderId, GraphBuilder};
use super::super::image_tensor::ImageTensor;
use super::super::node_context::{NodeContext, axis};
use crate::network::{Axis, Op};

/// <https://onnx.ai/onnx/operators/onnx__Softmax.html>
pub(super) fn softmax(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    normalized(builder, ctx, |axis| Op::Softmax { axis })
}

/// <https://onnx.ai/onnx/operators/onnx__LogSoftmax.html>
pub(super) fn log_softmax(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    normalized(builder, ctx, |axis| Op::LogSoftmax { axis })
}

/// The logarithm of a softmax as one operation, which is accurate even where the softmax underflows to 0; `None` if
/// `input` is not a softmax.
pub(super) fn log_of_softmax(builder: &mut GraphBuilder, input: BuilderId) -> Result<Option<BuilderId>, String> {
    let node = builder.node(input);
    let (Op::Softmax { axis }, &[before]) = (&node.op, node.inputs.as_slice()) else { return Ok(None) };
    let axis = *axis;
    builder.push(Op::LogSoftmax { axis }, &[before]).map(Some)
}

/// Normalizes along one axis. Before opset 13 all axes starting from the given one are normalized together.
fn normalized(builder: &mut GraphBuilder, ctx: &NodeContext, op: fn(usize) -> Op) -> Result<ImageTensor, String> {
    let tensor = ctx.image_tensor(0)?;
    if ctx.opset >= 13 {
        let axis = tensor.image_axis(builder, ctx.int("axis")?.unwrap_or(-1))?;
        return Ok(ImageTensor { id: builder.push(op(axis), &[tensor.id])?, ..tensor });
    }
    let shape = tensor.file_shape(builder);
    let first = axis(ctx.int("axis")?.unwrap_or(1), shape.len())?;
    if tensor.batch.is_some_and(|batch| batch >= first) {
        return Err("operating along the batch axis is not supported".into());
    }
    let varies = |axis: usize| shape[axis] != 1 || tensor.depends_on_image_size(builder, axis);
    let long: Vec<usize> = (first..shape.len()).filter(|&axis| varies(axis)).collect();
    if let [] | [_] = long[..] {
        let axis = tensor.image_axis(builder, long.first().copied().unwrap_or(first) as i64)?;
        return Ok(ImageTensor { id: builder.push(op(axis), &[tensor.id])?, ..tensor });
    }
    let start = tensor.image_axis(builder, first as i64)?;
    let own = builder.node(tensor.id).shape.clone();
    let outer = || (0..start).map(Axis::Copy);
    let joined = builder.push_reshape(tensor.id, outer().chain([Axis::Infer]).collect(), false)?;
    let output = builder.push(op(start), &[joined])?;
    let sized = (start..own.len()).any(|axis| builder.depends_on_image_size(tensor.id, axis));
    let inner = own[start..].iter().map(|&length| Axis::Exact(length));
    Ok(ImageTensor { id: builder.push_reshape(output, outer().chain(inner).collect(), sized)?, ..tensor })
}
