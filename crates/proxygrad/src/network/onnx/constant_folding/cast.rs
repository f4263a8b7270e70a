//! Type casts, and operators that return their input.

use super::super::const_tensor::{ConstData, ConstTensor};
use super::super::node_context::NodeContext;
use super::super::stored_tensor::data_type;

type Folded = Result<Vec<ConstTensor>, String>;

/// <https://onnx.ai/onnx/operators/onnx__Identity.html>
pub(super) fn identity(ctx: &NodeContext) -> Folded {
    Ok(vec![ctx.constant(0)?.clone()])
}

/// <https://onnx.ai/onnx/operators/onnx__Cast.html>; all floating-point types become f32, all integer types i64.
pub(super) fn cast(ctx: &NodeContext) -> Folded {
    let to = ctx.int("to")?.and_then(|to| i32::try_from(to).ok()).ok_or("the target type is missing or invalid")?;
    Ok(vec![converted(ctx.constant(0)?, to)?])
}

/// <https://onnx.ai/onnx/operators/onnx__CastLike.html>
pub(super) fn cast_like(ctx: &NodeContext) -> Folded {
    let to = match ctx.constant(1)?.data() {
        ConstData::Float(_) => data_type::FLOAT,
        ConstData::Int(_) => data_type::INT64,
        ConstData::Bool(_) => data_type::BOOL,
    };
    Ok(vec![converted(ctx.constant(0)?, to)?])
}

/// <https://onnx.ai/onnx/operators/onnx__Dropout.html> at inference.
pub(super) fn dropout(ctx: &NodeContext) -> Folded {
    let training = ctx
        .optional_constant(2)?
        .is_some_and(|value| matches!(value.data(), ConstData::Bool(flags) if flags.contains(&true)));
    match training {
        true => Err("it is in training mode; export the network for inference".into()),
        false => Ok(vec![ctx.constant(0)?.clone()]),
    }
}

/// The values as another type.
///
/// # Errors
/// When that is not supported.
pub(super) fn converted(value: &ConstTensor, to: i32) -> Result<ConstTensor, String> {
    use data_type::*;
    let data = match (to, value.data()) {
        (to, ConstData::Float(_)) if is_float(to) => value.data().clone(),
        (to, ConstData::Int(x)) if is_float(to) => ConstData::Float(x.iter().map(|&v| v as f32).collect()),
        (to, ConstData::Bool(x)) if is_float(to) => ConstData::Float(x.iter().map(|&v| f32::from(v)).collect()),
        (BOOL, ConstData::Float(x)) => ConstData::Bool(x.iter().map(|&v| v != 0.0).collect()),
        (BOOL, ConstData::Int(x)) => ConstData::Bool(x.iter().map(|&v| v != 0).collect()),
        (BOOL, ConstData::Bool(_)) => value.data().clone(),
        (INT32 | INT64, ConstData::Float(x)) => ConstData::Int(x.iter().map(|&v| v as i64).collect()),
        (INT32 | INT64, ConstData::Int(_)) => value.data().clone(),
        (INT32 | INT64, ConstData::Bool(x)) => ConstData::Int(x.iter().map(|&v| v.into()).collect()),
        (other, _) => return Err(format!("casting a constant to {} is not supported", name(other))),
    };
    let provenance = (!value.is_constant()).then(|| (0..value.len()).map(|i| value.provenance(i)).collect());
    ConstTensor::with_provenance(value.shape().to_vec(), data, provenance)
}
