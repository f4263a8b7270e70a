//! Other types for the same values.

use super::super::call::Call;
use super::super::tensor::data_type;
use super::super::value::{Data, Value};

type Folded = Result<Vec<Value>, String>;

/// <https://onnx.ai/onnx/operators/onnx__Identity.html>
pub(super) fn identity(call: &Call) -> Folded {
    Ok(vec![call.required(0)?.clone()])
}

/// <https://onnx.ai/onnx/operators/onnx__Cast.html>; all floating-point types are f32 here, all integer types i64.
pub(super) fn cast(call: &Call) -> Folded {
    let to = call.int("to")?.and_then(|to| i32::try_from(to).ok()).ok_or("has no target type")?;
    converted(call.required(0)?, to)
}

/// <https://onnx.ai/onnx/operators/onnx__CastLike.html>
pub(super) fn cast_like(call: &Call) -> Folded {
    let to = match call.required(1)?.data() {
        Data::Float(_) => data_type::FLOAT,
        Data::Int(_) => data_type::INT64,
        Data::Bool(_) => data_type::BOOL,
    };
    converted(call.required(0)?, to)
}

fn converted(value: &Value, to: i32) -> Folded {
    use data_type::*;
    let data = match (to, value.data()) {
        (to, Data::Float(_)) if is_float(to) => value.data().clone(),
        (to, Data::Int(x)) if is_float(to) => Data::Float(x.iter().map(|&v| v as f32).collect()),
        (to, Data::Bool(x)) if is_float(to) => Data::Float(x.iter().map(|&v| f32::from(v)).collect()),
        (BOOL, Data::Float(x)) => Data::Bool(x.iter().map(|&v| v != 0.0).collect()),
        (BOOL, Data::Int(x)) => Data::Bool(x.iter().map(|&v| v != 0).collect()),
        (BOOL, Data::Bool(_)) => value.data().clone(),
        (INT32 | INT64, Data::Float(x)) => Data::Int(x.iter().map(|&v| v as i64).collect()),
        (INT32 | INT64, Data::Int(_)) => value.data().clone(),
        (INT32 | INT64, Data::Bool(x)) => Data::Int(x.iter().map(|&v| v.into()).collect()),
        (other, _) => return Err(format!("casts a constant to {}, which is not supported", name(other))),
    };
    let origins = (!value.is_constant()).then(|| (0..value.len()).map(|i| value.origin(i)).collect());
    Ok(vec![Value::with_origins(value.shape().to_vec(), data, origins)?])
}
