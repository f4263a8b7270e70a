//! Constants from nothing, and facts about constants.

use super::super::call::{Call, length};
use super::super::tensor;
use super::super::value::{Data, Dim, Origin, Value};

type Folded = Result<Vec<Value>, String>;

/// <https://onnx.ai/onnx/operators/onnx__Constant.html>
pub(super) fn constant(call: &Call) -> Folded {
    let value = if let Some(stored) = call.tensor("value")? {
        tensor::read(stored, call.files)?
    } else if let Some(ints) = call.ints("value_ints")? {
        Value::new(vec![ints.len()], Data::Int(ints.into()))?
    } else if let Some(floats) = call.floats("value_floats")? {
        Value::new(vec![floats.len()], Data::Float(floats.into()))?
    } else if let Some(int) = call.int("value_int")? {
        Value::new(Vec::new(), Data::Int([int].into()))?
    } else if call.node.attribute.iter().any(|attribute| attribute.name == "value_float") {
        Value::new(Vec::new(), Data::Float([call.float("value_float", 0.0)?].into()))?
    } else {
        return Err("has no tensor, number or list of numbers as its value".into());
    };
    Ok(vec![value])
}

/// <https://onnx.ai/onnx/operators/onnx__ConstantOfShape.html>
pub(super) fn constant_of_shape(call: &Call) -> Folded {
    let dims = call.required(0)?.int_dims()?;
    let shape = dims.iter().map(|&(v, _)| length(v, "shape")).collect::<Result<Vec<_>, _>>()?;
    let count = call.claim(&shape)?;
    let filled = match call.tensor("value")? {
        Some(stored) => tensor::read(stored, call.files)?,
        None => Value::new(vec![1], Data::Float([0.0].into()))?,
    };
    let one = filled.pick(Vec::new(), &[0]).map_err(|_| "has no value to fill with")?;
    let value = one.reshape(vec![1])?.pick(vec![count], &vec![0; count])?.reshape(shape)?;
    // How many values there are depends on what the shape depends on, and so do they.
    let origin = dims.iter().map(|d| d.1).max().unwrap_or(Origin::Constant);
    let origin = if origin == Origin::Batch { Origin::Mixed } else { origin };
    Ok(vec![Value::with_origins(value.shape().to_vec(), value.data().clone(), Some(vec![origin; count]))?])
}

/// <https://onnx.ai/onnx/operators/onnx__Range.html> of integers.
pub(super) fn range(call: &Call) -> Folded {
    let mut bounds: [Dim; 3] = [(0, Origin::Constant); 3];
    for (i, bound) in bounds.iter_mut().enumerate() {
        match call.required(i)?.int_dims()?.as_slice() {
            [dim] => *bound = *dim,
            _ => return Err("needs a start, a limit and a step".into()),
        }
    }
    let [(start, _), (limit, _), (step, _)] = bounds;
    if step == 0 {
        return Err("has step 0".into());
    }
    let distance = i128::from(limit) - i128::from(start);
    let step_wide = i128::from(step);
    let count = (distance + step_wide - step_wide.signum()) / step_wide;
    let count = call.claim(&[usize::try_from(count.max(0)).unwrap_or(usize::MAX)])?;
    let origin = bounds.iter().map(|d| d.1).max().unwrap_or(Origin::Constant);
    let origin = if origin == Origin::Batch { Origin::Mixed } else { origin };
    let dims: Vec<Dim> = (0..count as i64).map(|i| (start.wrapping_add(i.wrapping_mul(step)), origin)).collect();
    Ok(vec![Value::dims(&dims)])
}

/// <https://onnx.ai/onnx/operators/onnx__Shape.html>
pub(super) fn shape(call: &Call) -> Folded {
    let dims: Vec<Dim> = call.required(0)?.shape().iter().map(|&n| (n as i64, Origin::Constant)).collect();
    let rank = dims.len() as i64;
    let bound = |value: i64| (if value < 0 { value.saturating_add(rank) } else { value }).clamp(0, rank) as usize;
    let (start, end) = (bound(call.int("start")?.unwrap_or(0)), bound(call.int("end")?.unwrap_or(rank)));
    Ok(vec![Value::dims(dims.get(start..end).unwrap_or_default())])
}

/// <https://onnx.ai/onnx/operators/onnx__Size.html>
pub(super) fn size(call: &Call) -> Folded {
    let count = call.required(0)?.len();
    Ok(vec![Value::new(Vec::new(), Data::Int([count as i64].into()))?])
}
