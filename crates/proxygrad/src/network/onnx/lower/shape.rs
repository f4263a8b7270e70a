//! `Shape` and `Size` of tensors that depend on the image.

use super::super::const_tensor::{ConstTensor, Dim, Provenance, derived_from};
use super::super::constant_folding::eye;
use super::super::graph_builder::GraphBuilder;
use super::super::node_context::{NodeContext, Operand};

/// <https://onnx.ai/onnx/operators/onnx__Shape.html>: known, but may depend on the image size.
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
    let dims = dims(builder, ctx)?;
    let product = dims.iter().try_fold(1i64, |n, d| n.checked_mul(d.0)).ok_or("the number of values overflows")?;
    let value = ConstTensor::dims(&[(product, derived_from(&dims))]).reshape(Vec::new())?;
    Ok(vec![Operand::Constant(value)])
}

/// <https://onnx.ai/onnx/operators/onnx__EyeLike.html>: only the shape of the input matters.
pub(super) fn eye_like(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<Vec<Operand>, String> {
    let dims = dims(builder, ctx)?;
    let lengths: Vec<usize> = ctx.image_tensor(0)?.file_shape(builder).to_vec();
    let eye = eye(ctx, &lengths, None)?;
    Ok(vec![Operand::Constant(match derived_from(&dims) {
        Provenance::ImageSize => eye.of_image_size(),
        _ => eye,
    })])
}

/// Lengths of all axes for a batch of one.
fn dims(builder: &GraphBuilder, ctx: &NodeContext) -> Result<Vec<Dim>, String> {
    let tensor = ctx.image_tensor(0)?;
    let provenance = |axis: usize| match tensor.batch {
        Some(batch) if axis == batch => Provenance::Batch,
        _ if tensor.depends_on_image_size(builder, axis) => Provenance::ImageSize,
        _ => Provenance::Constant,
    };
    let shape = tensor.file_shape(builder);
    Ok(shape.iter().enumerate().map(|(axis, &length)| (length as i64, provenance(axis))).collect())
}
