//! Questions about shapes, and operations that do nothing at inference.

use super::super::call::{Call, Tensor};
use super::super::draft::{Draft, Id};
use super::super::tensor::data_type;
use super::super::value::{Dim, Origin, Value};

/// <https://onnx.ai/onnx/operators/onnx__Identity.html>
pub(super) fn identity(_: &mut Draft, call: &Call) -> Result<Id, String> {
    call.map(0)
}

/// <https://onnx.ai/onnx/operators/onnx__Dropout.html> at inference.
pub(super) fn dropout(_: &mut Draft, call: &Call) -> Result<Id, String> {
    let training = call.value(2)?.is_some_and(|value| match value.data() {
        super::super::value::Data::Bool(flags) => flags.contains(&true),
        _ => false,
    });
    if training { Err("is in training mode; export the network for inference".into()) } else { call.map(0) }
}

/// <https://onnx.ai/onnx/operators/onnx__Cast.html> between floating-point types, all of which are f32 here.
pub(super) fn cast(_: &mut Draft, call: &Call) -> Result<Id, String> {
    let to = call.int("to")?.and_then(|to| i32::try_from(to).ok()).ok_or("has no target type")?;
    if !data_type::is_float(to) {
        return Err(format!("casts to {}; only floating-point types are supported", data_type::name(to)));
    }
    call.map(0)
}

/// <https://onnx.ai/onnx/operators/onnx__Shape.html>: known, but depends on the batch and perhaps on the image's size.
pub(super) fn shape(draft: &mut Draft, call: &Call) -> Result<Vec<Tensor>, String> {
    let dims = dims(draft, call)?;
    let rank = dims.len() as i64;
    let bound = |value: i64| (if value < 0 { value.saturating_add(rank) } else { value }).clamp(0, rank) as usize;
    let start = bound(call.int("start")?.unwrap_or(0));
    let end = bound(call.int("end")?.unwrap_or(rank));
    Ok(vec![Tensor::Value(Value::dims(dims.get(start..end).unwrap_or_default()))])
}

/// <https://onnx.ai/onnx/operators/onnx__Size.html>
pub(super) fn size(draft: &mut Draft, call: &Call) -> Result<Vec<Tensor>, String> {
    let product =
        dims(draft, call)?.iter().try_fold(1i64, |n, d| n.checked_mul(d.0)).ok_or("counts too many values")?;
    let value = Value::dims(&[(product, Origin::Mixed)]).reshape(Vec::new())?;
    Ok(vec![Tensor::Value(value)])
}

fn dims(draft: &Draft, call: &Call) -> Result<Vec<Dim>, String> {
    let (input, shape) = call.shaped(draft, 0)?;
    let batch = (call.batch.map_or(1, |batch| batch as i64), Origin::Batch);
    let rest = shape.iter().enumerate().map(|(axis, &length)| {
        (length as i64, if draft.varies(input, axis) { Origin::Size } else { Origin::Constant })
    });
    Ok(std::iter::once(batch).chain(rest).collect())
}
