//! `Shape` and `Size` of tensors that depend on the image.

use super::super::const_tensor::{ConstTensor, Dim, Provenance};
use super::super::graph_builder::GraphBuilder;
use super::super::node_context::{NodeContext, Operand};

/// <https://onnx.ai/onnx/operators/onnx__Shape.html>: known, but depends on the batch and possibly on the image size.
pub(super) fn shape(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<Vec<Operand>, String> {
    let dims = dims(builder, ctx)?;
    let rank = dims.len() as i64;
    let bound = |value: i64| (if value < 0 { value.saturating_add(rank) } else { value }).clamp(0, rank) as usize;
    let start = bound(ctx.int("start")?.unwrap_or(0));
    let end = bound(ctx.int("end")?.unwrap_or(rank));
    Ok(vec![Operand::Constant(ConstTensor::dims(dims.get(start..end).unwrap_or_default()))])
}

/// <https://onnx.ai/onnx/operators/onnx__Size.html>
pub(super) fn size(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<Vec<Operand>, String> {
    let product =
        dims(builder, ctx)?.iter().try_fold(1i64, |n, d| n.checked_mul(d.0)).ok_or("the number of values overflows")?;
    let value = ConstTensor::dims(&[(product, Provenance::BatchDerived)]).reshape(Vec::new())?;
    Ok(vec![Operand::Constant(value)])
}

fn dims(builder: &GraphBuilder, ctx: &NodeContext) -> Result<Vec<Dim>, String> {
    let (input, shape) = ctx.dynamic_with_shape(builder, 0)?;
    let batch = (ctx.batch.map_or(1, |batch| batch as i64), Provenance::Batch);
    let rest = shape.iter().enumerate().map(|(axis, &length)| {
        let is_size_dependent = builder.depends_on_image_size(input, axis);
        (length as i64, if is_size_dependent { Provenance::ImageSize } else { Provenance::Constant })
    });
    Ok(std::iter::once(batch).chain(rest).collect())
}
