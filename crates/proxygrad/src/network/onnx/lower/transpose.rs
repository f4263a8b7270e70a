//! `Transpose`.

use super::super::graph_builder::{BuilderId, GraphBuilder};
use super::super::image_tensor::ImageTensor;
use super::super::node_context::{NodeContext, distinct_axes};
use crate::network::Op;

/// <https://onnx.ai/onnx/operators/onnx__Transpose.html>; without an order, the axes are reversed.
pub(super) fn transpose(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let tensor = ctx.image_tensor(0)?;
    let rank = tensor.rank(builder);
    let order = match ctx.ints("perm")? {
        Some(order) => distinct_axes(order, rank)?,
        None => (0..rank).rev().collect(),
    };
    if order.len() != rank {
        return Err(format!("perm is {order:?} for a tensor of {rank} axes"));
    }
    let batch = order.iter().position(|&axis| Some(axis) == tensor.batch);
    let own = order.iter().filter_map(|&axis| tensor.node_axis(axis)).collect();
    Ok(ImageTensor { id: push_transpose(builder, tensor.id, own)?, batch })
}

/// Transposes `input`. Two transpositions in a row become one, or none if they cancel.
pub(super) fn push_transpose(
    builder: &mut GraphBuilder,
    input: BuilderId,
    order: Vec<usize>,
) -> Result<BuilderId, String> {
    let (source, order) = match &builder.node(input).op {
        Op::Transpose(first) if order.iter().all(|&axis| axis < first.len()) => {
            (builder.node(input).inputs[0], order.iter().map(|&axis| first[axis]).collect())
        }
        _ => (input, order),
    };
    if order.len() == builder.node(source).shape.len() && order.iter().copied().eq(0..order.len()) {
        return Ok(source);
    }
    builder.push(Op::Transpose(order), &[source])
}
