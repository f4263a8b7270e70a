//! `Softmax` and `LogSoftmax`.

use super::super::graph_builder::{BuilderId, GraphBuilder};
use super::super::image_tensor::ImageTensor;
use super::super::node_context::{NodeContext, axis};
use crate::network::Op;

/// <https://onnx.ai/onnx/operators/onnx__Softmax.html>
pub(super) fn softmax(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let (tensor, axis) = input_and_axis(builder, ctx)?;
    Ok(ImageTensor { id: builder.push(Op::Softmax { axis }, &[tensor.id])?, ..tensor })
}

/// <https://onnx.ai/onnx/operators/onnx__LogSoftmax.html>
pub(super) fn log_softmax(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let (tensor, axis) = input_and_axis(builder, ctx)?;
    Ok(ImageTensor { id: builder.push(Op::LogSoftmax { axis }, &[tensor.id])?, ..tensor })
}

/// The logarithm of a softmax as one operation, which is accurate even where the softmax underflows to 0; `None` if
/// `input` is not a softmax.
pub(super) fn log_of_softmax(builder: &mut GraphBuilder, input: BuilderId) -> Result<Option<BuilderId>, String> {
    let node = builder.node(input);
    let (Op::Softmax { axis }, &[before]) = (&node.op, node.inputs.as_slice()) else { return Ok(None) };
    let axis = *axis;
    builder.push(Op::LogSoftmax { axis }, &[before]).map(Some)
}

/// The input and its node's axis that is normalized. Before opset 13 all axes starting from the given one are
/// normalized, which is only supported if at most one of them is longer than 1.
fn input_and_axis(builder: &GraphBuilder, ctx: &NodeContext) -> Result<(ImageTensor, usize), String> {
    let tensor = ctx.image_tensor(0)?;
    if ctx.opset >= 13 {
        return Ok((tensor, tensor.image_axis(builder, ctx.int("axis")?.unwrap_or(-1))?));
    }
    let shape = tensor.file_shape(builder);
    let first = axis(ctx.int("axis")?.unwrap_or(1), shape.len())?;
    let varies = |&axis: &usize| shape[axis] != 1 || tensor.depends_on_image_size(builder, axis);
    let mut long = (first..shape.len()).filter(varies);
    match (long.next(), long.next()) {
        _ if tensor.batch.is_some_and(|batch| batch >= first) => {
            Err("operating along the batch axis is not supported".into())
        }
        (axis, None) => Ok((tensor, tensor.image_axis(builder, axis.unwrap_or(first) as i64)?)),
        _ => Err(format!("normalizing over several axes of {shape} is not supported (opset {})", ctx.opset)),
    }
}
