//! Comparisons and choices among constants.

use super::super::call::Call;
use super::super::value::{Data, Origin, Value};
use super::broadcast::Together;

type Folded = Result<Vec<Value>, String>;

/// <https://onnx.ai/onnx/operators/onnx__Equal.html>
pub(super) fn equal(call: &Call) -> Folded {
    compare(call, |a, b| a == b, |a, b| a == b)
}

/// <https://onnx.ai/onnx/operators/onnx__Less.html>
pub(super) fn less(call: &Call) -> Folded {
    compare(call, |a, b| a < b, |a, b| a < b)
}

/// <https://onnx.ai/onnx/operators/onnx__Greater.html>
pub(super) fn greater(call: &Call) -> Folded {
    compare(call, |a, b| a > b, |a, b| a > b)
}

/// <https://onnx.ai/onnx/operators/onnx__And.html>
pub(super) fn and(call: &Call) -> Folded {
    logic(call, |a, b| a && b)
}

/// <https://onnx.ai/onnx/operators/onnx__Or.html>
pub(super) fn or(call: &Call) -> Folded {
    logic(call, |a, b| a || b)
}

/// <https://onnx.ai/onnx/operators/onnx__Not.html>
pub(super) fn not(call: &Call) -> Folded {
    let value = call.required(0)?;
    let both = Together::new(call, &[value])?;
    let data = Data::Bool(flags(value)?.iter().map(|&flag| !flag).collect());
    Ok(vec![Value::with_origins(value.shape().to_vec(), data, both.origins())?])
}

/// <https://onnx.ai/onnx/operators/onnx__Where.html>
pub(super) fn r#where(call: &Call) -> Folded {
    let (condition, yes, no) = (call.required(0)?, call.required(1)?, call.required(2)?);
    let together = Together::new(call, &[condition, yes, no])?;
    let chosen: Vec<(bool, usize, Origin)> = (0..together.indices(0).len())
        .map(|place| {
            let asked = together.indices(0)[place];
            let flag = flags(condition).map(|flags| flags[asked])?;
            let (value, i) = if flag { (yes, together.indices(1)[place]) } else { (no, together.indices(2)[place]) };
            // A choice that depends on the image makes the result do so; otherwise the chosen value stays what it was.
            let origin = match condition.origin(asked) {
                Origin::Constant => value.origin(i),
                Origin::Size => value.origin(i).max(Origin::Size),
                Origin::Batch | Origin::Mixed => Origin::Mixed,
            };
            Ok::<_, String>((flag, i, origin))
        })
        .collect::<Result<_, _>>()?;
    let data = match (yes.data(), no.data()) {
        (Data::Float(a), Data::Float(b)) => {
            Data::Float(chosen.iter().map(|&(flag, i, _)| if flag { a[i] } else { b[i] }).collect())
        }
        (Data::Int(a), Data::Int(b)) => {
            Data::Int(chosen.iter().map(|&(flag, i, _)| if flag { a[i] } else { b[i] }).collect())
        }
        (Data::Bool(a), Data::Bool(b)) => {
            Data::Bool(chosen.iter().map(|&(flag, i, _)| if flag { a[i] } else { b[i] }).collect())
        }
        _ => return Err("chooses between constants of different types".into()),
    };
    let origins = chosen.iter().map(|c| c.2).collect();
    Ok(vec![Value::with_origins(together.shape, data, Some(origins))?])
}

fn compare(call: &Call, ints: impl Fn(i64, i64) -> bool, floats: impl Fn(f32, f32) -> bool) -> Folded {
    let (a, b) = (call.required(0)?, call.required(1)?);
    let both = Together::new(call, &[a, b])?;
    let pairs = both.indices(0).iter().zip(both.indices(1));
    let data = match (a.data(), b.data()) {
        (Data::Int(x), Data::Int(y)) => Data::Bool(pairs.map(|(&i, &j)| ints(x[i], y[j])).collect()),
        (Data::Float(x), Data::Float(y)) => Data::Bool(pairs.map(|(&i, &j)| floats(x[i], y[j])).collect()),
        _ => return Err("compares constants of different types".into()),
    };
    let mut origins = both.origins();
    if let (Some(origins), Data::Int(x), Data::Int(y)) = (&mut origins, a.data(), b.data()) {
        // Lengths are positive: whether one equals -1 depends on nothing.
        let is_length = |value: &Value, i: usize| matches!(value.origin(i), Origin::Size | Origin::Batch);
        for (place, (&i, &j)) in both.indices(0).iter().zip(both.indices(1)).enumerate() {
            let known = is_length(a, i) && b.origin(j) == Origin::Constant && y[j] <= 0
                || is_length(b, j) && a.origin(i) == Origin::Constant && x[i] <= 0;
            if known {
                origins[place] = Origin::Constant;
            }
        }
    }
    Ok(vec![Value::with_origins(both.shape, data, origins)?])
}

fn logic(call: &Call, combine: impl Fn(bool, bool) -> bool) -> Folded {
    let (a, b) = (call.required(0)?, call.required(1)?);
    let both = Together::new(call, &[a, b])?;
    let (x, y) = (flags(a)?, flags(b)?);
    let pairs = both.indices(0).iter().zip(both.indices(1));
    let data = Data::Bool(pairs.map(|(&i, &j)| combine(x[i], y[j])).collect());
    let origins = both.origins();
    Ok(vec![Value::with_origins(both.shape, data, origins)?])
}

fn flags(value: &Value) -> Result<&[bool], String> {
    match value.data() {
        Data::Bool(flags) => Ok(flags),
        _ => Err("needs truth values".into()),
    }
}
