//! `Softmax` and `LogSoftmax`.

use super::super::graph_builder::{BuilderId, BuilderOp, GraphBuilder};
use super::super::node_context::{NodeContext, image_axis};
use crate::network::Op;

/// <https://onnx.ai/onnx/operators/onnx__Softmax.html>
pub(super) fn softmax(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let (input, axis) = input_and_axis(builder, ctx)?;
    builder.push(Op::Softmax { axis }, &[input])
}

/// <https://onnx.ai/onnx/operators/onnx__LogSoftmax.html>
pub(super) fn log_softmax(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let (input, axis) = input_and_axis(builder, ctx)?;
    builder.push(Op::LogSoftmax { axis }, &[input])
}

/// The logarithm of a softmax as one operation, which is accurate even where the softmax underflows to 0; `None` if
/// `input` is not a softmax.
pub(super) fn log_of_softmax(builder: &mut GraphBuilder, input: BuilderId) -> Result<Option<BuilderId>, String> {
    let node = builder.node(input);
    let (BuilderOp::Op(Op::Softmax { axis }), &[before]) = (&node.op, node.inputs.as_slice()) else { return Ok(None) };
    let axis = *axis;
    builder.push(Op::LogSoftmax { axis }, &[before]).map(Some)
}

/// The input and the normalized axis. Before opset 13 all axes starting from the given one are normalized, which is
/// only supported if at most one of them is longer than 1.
fn input_and_axis(builder: &GraphBuilder, ctx: &NodeContext) -> Result<(BuilderId, usize), String> {
    let (input, shape) = ctx.dynamic_with_shape(builder, 0)?;
    if ctx.opset >= 13 {
        return Ok((input, image_axis(ctx.int("axis")?.unwrap_or(-1), shape)?));
    }
    let first = image_axis(ctx.int("axis")?.unwrap_or(1), shape)?;
    let mut long = (first..shape.len()).filter(|&axis| shape[axis] != 1 || builder.depends_on_image_size(input, axis));
    match (long.next(), long.next()) {
        (axis, None) => Ok((input, axis.unwrap_or(first))),
        _ => Err(format!("normalizing over several axes of {shape} is not supported (opset {})", ctx.opset)),
    }
}
