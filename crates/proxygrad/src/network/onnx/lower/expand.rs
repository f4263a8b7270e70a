//! `Expand`.

use super::super::const_tensor::Provenance;
use super::super::graph_builder::GraphBuilder;
use super::super::image_tensor::ImageTensor;
use super::super::node_context::{NodeContext, length};
use crate::network::{Array, Binary, Op, Shape, broadcast};

/// <https://onnx.ai/onnx/operators/onnx__Expand.html>: axes of length 1 are repeated. Usually the tensor is expanded
/// to be combined with a larger one; then the elementwise operation reads it unexpanded.
pub(super) fn expand(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let mut tensor = ctx.image_tensor(0)?;
    let target = ctx.constant(1)?.int_dims()?;
    let mut wanted = target.iter().map(|&(v, _)| length(v, "shape")).collect::<Result<Vec<_>, _>>()?;
    let rank = tensor.rank(builder);
    let added = wanted.len().saturating_sub(rank);
    let missing = rank.saturating_sub(wanted.len());
    let mut batch = tensor.batch.map(|batch| batch + added);
    if let Some(position) = batch.and_then(|batch| batch.checked_sub(missing))
        && wanted[position] != 1
    {
        if Some(wanted[position]) == ctx.batch {
            // The length of the batch that the file was exported with.
            wanted[position] = 1;
        } else {
            batch = None;
            tensor = tensor.with_batch(builder, None)?;
        }
    }
    if let Some(position) = batch.and_then(|batch| batch.checked_sub(missing)) {
        wanted.remove(position);
    }
    let shape = &builder.node(tensor.id).shape;
    let expanded = broadcast(shape, &Shape::from(wanted))?;
    if expanded == *shape {
        return Ok(ImageTensor { id: tensor.id, batch });
    }
    let sized = target.iter().any(|&(_, provenance)| provenance == Provenance::ImageSize);
    let ones = vec![1.0; ctx.checked_elements(&expanded)?];
    let ones = builder.push_constant(Array::new(expanded.to_vec(), ones)?)?;
    let id = builder.push_sized(Op::Binary(Binary::Mul), &[tensor.id, ones], sized)?;
    builder.node_mut(id).expanded_from = Some(tensor.id);
    Ok(ImageTensor { id, batch })
}
