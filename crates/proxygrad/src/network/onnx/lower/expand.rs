//! `Expand`.

use super::super::const_tensor::Provenance;
use super::super::graph_builder::{BuilderId, GraphBuilder};
use super::super::node_context::{NodeContext, length};
use crate::network::{Array, Binary, Op, Shape, broadcast};

/// <https://onnx.ai/onnx/operators/onnx__Expand.html>: axes of length 1 are repeated. Usually the tensor is expanded
/// to be combined with a larger one; then the elementwise operation reads it unexpanded.
pub(super) fn expand(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let (input, shape) = ctx.dynamic_with_shape(builder, 0)?;
    let target = ctx.constant(1)?.int_dims()?;
    if target.len() > shape.len() + 1 {
        return Err(format!("it would insert axes before the batch axis of {shape}"));
    }
    let inner = match target.split_first() {
        Some((&(first, provenance), inner)) if target.len() == shape.len() + 1 => {
            let is_batch = first == 1 || provenance == Provenance::Batch || usize::try_from(first).ok() == ctx.batch;
            if !is_batch {
                return Err(format!("it would repeat the batch {first} times"));
            }
            inner
        }
        _ => &target,
    };
    if inner.iter().any(|&(_, provenance)| provenance >= Provenance::Batch) {
        return Err("it would repeat an axis by the batch size".into());
    }
    let sized = inner.iter().any(|&(_, provenance)| provenance == Provenance::ImageSize);
    let wanted = inner.iter().map(|&(v, _)| length(v, "shape")).collect::<Result<Vec<_>, _>>()?;
    let expanded = broadcast(shape, &Shape::from(wanted))?;
    if expanded == *shape {
        return Ok(input);
    }
    let ones = vec![1.0; ctx.checked_elements(&expanded)?];
    let ones = builder.push_constant(Array::new(expanded.to_vec(), ones)?)?;
    let output = builder.push_sized(Op::Binary(Binary::Mul), &[input, ones], sized)?;
    builder.node_mut(output).expanded_from = Some(input);
    Ok(output)
}
