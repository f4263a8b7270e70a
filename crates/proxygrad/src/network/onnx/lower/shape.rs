//! `Shape` and `Size`, and operators without effect at inference.

use super::super::const_tensor::{ConstData, ConstTensor, Dim, Provenance};
use super::super::graph_builder::{BuilderId, GraphBuilder};
use super::super::node_context::{NodeContext, Operand};
use super::super::stored_tensor::data_type;

/// <https://onnx.ai/onnx/operators/onnx__Identity.html>
pub(super) fn identity(_: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    ctx.dynamic(0)
}

/// <https://onnx.ai/onnx/operators/onnx__Dropout.html> at inference.
pub(super) fn dropout(_: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let training = ctx.optional_constant(2)?.is_some_and(|value| match value.data() {
        ConstData::Bool(flags) => flags.contains(&true),
        _ => false,
    });
    if training { Err("it is in training mode; export the network for inference".into()) } else { ctx.dynamic(0) }
}

/// <https://onnx.ai/onnx/operators/onnx__Cast.html> between floating-point types, all of which are f32 here.
pub(super) fn cast(_: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let to = ctx.int("to")?.and_then(|to| i32::try_from(to).ok()).ok_or("attribute to is missing or invalid")?;
    if !data_type::is_float(to) {
        return Err(format!("casting to {} is not supported, only to floating-point types", data_type::name(to)));
    }
    ctx.dynamic(0)
}

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
        (
            length as i64,
            if builder.depends_on_image_size(input, axis) { Provenance::ImageSize } else { Provenance::Constant },
        )
    });
    Ok(std::iter::once(batch).chain(rest).collect())
}
