//! Arithmetic on constants, in the types that ONNX calculates with: i64 and f32.

use super::super::call::Call;
use super::super::elementary::Elementary;
use super::super::value::{Data, Origin, Value};
use super::broadcast::Together;
use crate::network::Activation;

type Folded = Result<Vec<Value>, String>;

/// <https://onnx.ai/onnx/operators/onnx__Add.html>
pub(super) fn add(call: &Call) -> Folded {
    binary(call, i64::checked_add, |a, b| a + b, Some(0))
}

/// <https://onnx.ai/onnx/operators/onnx__Sub.html>
pub(super) fn sub(call: &Call) -> Folded {
    binary(call, i64::checked_sub, |a, b| a - b, Some(0))
}

/// <https://onnx.ai/onnx/operators/onnx__Mul.html>
pub(super) fn mul(call: &Call) -> Folded {
    binary(call, i64::checked_mul, |a, b| a * b, Some(1))
}

/// <https://onnx.ai/onnx/operators/onnx__Div.html>; integers are cut off.
pub(super) fn div(call: &Call) -> Folded {
    binary(call, i64::checked_div, |a, b| a / b, Some(1))
}

/// <https://onnx.ai/onnx/operators/onnx__Mod.html>; the sign is that of the divisor, or of the dividend with `fmod`.
pub(super) fn modulo(call: &Call) -> Folded {
    let floored = |a: i64, b: i64| {
        let rest = a.checked_rem(b)?;
        Some(if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest })
    };
    match call.flag("fmod")? {
        true => binary(call, i64::checked_rem, |a, b| a % b, None),
        false => binary(call, floored, |a, b| a - b * (a / b).floor(), None),
    }
}

/// <https://onnx.ai/onnx/operators/onnx__Min.html>
pub(super) fn min(call: &Call) -> Folded {
    variadic(call, |a, b| Some(a.min(b)), f32::min)
}

/// <https://onnx.ai/onnx/operators/onnx__Max.html>
pub(super) fn max(call: &Call) -> Folded {
    variadic(call, |a, b| Some(a.max(b)), f32::max)
}

/// <https://onnx.ai/onnx/operators/onnx__Pow.html>; the exponent may be of another type.
pub(super) fn pow(call: &Call) -> Folded {
    let (base, exponent) = (call.required(0)?, call.required(1)?);
    if let (Data::Float(x), Data::Int(y)) = (base.data(), exponent.data()) {
        let both = Together::new(call, &[base, exponent])?;
        let pairs = both.indices(0).iter().zip(both.indices(1));
        let powers = pairs.map(|(&i, &j)| f64::from(x[i]).powf(y[j] as f64) as f32);
        let (data, origins) = (Data::Float(powers.collect()), both.origins());
        return Ok(vec![Value::with_origins(both.shape, data, origins)?]);
    }
    let power = |a: i64, b: i64| a.checked_pow(u32::try_from(b).ok()?);
    binary(call, power, f32::powf, None)
}

/// <https://onnx.ai/onnx/operators/onnx__Sum.html>
pub(super) fn sum(call: &Call) -> Folded {
    variadic(call, i64::checked_add, |a, b| a + b)
}

/// <https://onnx.ai/onnx/operators/onnx__Mean.html>
pub(super) fn mean(call: &Call) -> Folded {
    let count = call.inputs.len() as f32;
    let total = variadic(call, |_, _| None, |a, b| a + b)?;
    total.iter().map(|total| mapped(call, total, |_| None, |v| v / count)).collect()
}

/// <https://onnx.ai/onnx/operators/onnx__Neg.html>
pub(super) fn neg(call: &Call) -> Folded {
    unary(call, i64::checked_neg, |a| -a)
}

/// <https://onnx.ai/onnx/operators/onnx__Abs.html>
pub(super) fn abs(call: &Call) -> Folded {
    unary(call, i64::checked_abs, f32::abs)
}

/// <https://onnx.ai/onnx/operators/onnx__Floor.html>
pub(super) fn floor(call: &Call) -> Folded {
    unary(call, Some, f32::floor)
}

/// <https://onnx.ai/onnx/operators/onnx__Ceil.html>
pub(super) fn ceil(call: &Call) -> Folded {
    unary(call, Some, f32::ceil)
}

/// <https://onnx.ai/onnx/operators/onnx__Sqrt.html>
pub(super) fn sqrt(call: &Call) -> Folded {
    unary(call, |_| None, f32::sqrt)
}

/// <https://onnx.ai/onnx/operators/onnx__Log.html>
pub(super) fn log(call: &Call) -> Folded {
    unary(call, |_| None, f32::ln)
}

/// <https://onnx.ai/onnx/operators/onnx__Erf.html>
pub(super) fn erf(call: &Call) -> Folded {
    unary(call, |_| None, |v| Elementary::Erf.value(f64::from(v)) as f32)
}

/// <https://onnx.ai/onnx/operators/onnx__Sign.html>
pub(super) fn sign(call: &Call) -> Folded {
    unary(call, |v| Some(v.signum()), |v| if v == 0.0 { 0.0 } else { v.signum() })
}

/// <https://onnx.ai/onnx/operators/onnx__Round.html>: halves go to the even neighbour.
pub(super) fn round(call: &Call) -> Folded {
    unary(call, Some, f32::round_ties_even)
}

/// <https://onnx.ai/onnx/operators/onnx__Relu.html>
pub(super) fn relu(call: &Call) -> Folded {
    unary(call, |v| Some(v.max(0)), |v| v.max(0.0))
}

/// <https://onnx.ai/onnx/operators/onnx__Sigmoid.html>
pub(super) fn sigmoid(call: &Call) -> Folded {
    unary(call, |_| None, |v| Activation::Sigmoid.value(f64::from(v), 0) as f32)
}

/// <https://onnx.ai/onnx/operators/onnx__Tanh.html>
pub(super) fn tanh(call: &Call) -> Folded {
    unary(call, |_| None, f32::tanh)
}

/// <https://onnx.ai/onnx/operators/onnx__Exp.html>
pub(super) fn exp(call: &Call) -> Folded {
    unary(call, |_| None, f32::exp)
}

/// <https://onnx.ai/onnx/operators/onnx__Reciprocal.html>
pub(super) fn reciprocal(call: &Call) -> Folded {
    unary(call, |_| None, f32::recip)
}

/// <https://onnx.ai/onnx/operators/onnx__Clip.html> to constant bounds.
pub(super) fn clip(call: &Call) -> Folded {
    let (min, max) = (call.value(1)?, call.value(2)?);
    if [min, max].into_iter().flatten().any(|bound| !bound.is_constant() || bound.len() != 1) {
        return Err("clips a constant to bounds that are not single numbers".into());
    }
    let int = |bound: Option<&Value>, open: i64| bound.map_or(Ok(open), |bound| bound.ints().map(|v| v[0]));
    let float = |bound: Option<&Value>, name: &str, open: f32| {
        bound.map_or_else(|| call.float(name, open), |bound| bound.scalar())
    };
    match call.required(0)?.data() {
        Data::Int(_) => {
            let (min, max) = (int(min, i64::MIN)?, int(max, i64::MAX)?);
            unary(call, |v| Some(v.max(min).min(max)), |v| v)
        }
        _ => {
            let (min, max) = (float(min, "min", f32::NEG_INFINITY)?, float(max, "max", f32::INFINITY)?);
            unary(call, |_| None, |v| v.max(min).min(max))
        }
    }
}

/// `neutral` is the second operand that leaves the first as it is: the batch times 1 is still the batch.
fn binary(
    call: &Call,
    ints: impl Fn(i64, i64) -> Option<i64>,
    floats: impl Fn(f32, f32) -> f32,
    neutral: Option<i64>,
) -> Folded {
    let values = call.values()?;
    let &[a, b] = values.as_slice() else {
        return Err(format!("is computed with 2 constants only, not with {}", values.len()));
    };
    Ok(vec![pair(call, [a, b], &ints, &floats, neutral)?])
}

/// Any number of operands, from the first on.
fn variadic(call: &Call, ints: impl Fn(i64, i64) -> Option<i64>, floats: impl Fn(f32, f32) -> f32) -> Folded {
    let values = call.values()?;
    let (first, rest) = values.split_first().ok_or("has no inputs")?;
    let step = |total: Value, value: &&Value| pair(call, [&total, value], &ints, &floats, None);
    Ok(vec![rest.iter().try_fold((*first).clone(), step)?])
}

fn pair(
    call: &Call,
    [a, b]: [&Value; 2],
    ints: impl Fn(i64, i64) -> Option<i64>,
    floats: impl Fn(f32, f32) -> f32,
    neutral: Option<i64>,
) -> Result<Value, String> {
    let both = Together::new(call, &[a, b])?;
    let pairs = both.indices(0).iter().zip(both.indices(1));
    let mut origins = both.origins();
    let data = match (a.data(), b.data()) {
        (Data::Int(x), Data::Int(y)) => {
            for (place, (&i, &j)) in pairs.clone().enumerate() {
                if let Some(origins) = &mut origins
                    && a.origin(i) == Origin::Batch
                    && b.origin(j) == Origin::Constant
                    && neutral == Some(y[j])
                {
                    origins[place] = Origin::Batch;
                }
            }
            let results = pairs.map(|(&i, &j)| ints(x[i], y[j]));
            Data::Int(results.collect::<Option<_>>().ok_or("divides by zero or overflows")?)
        }
        (Data::Float(x), Data::Float(y)) => Data::Float(pairs.map(|(&i, &j)| floats(x[i], y[j])).collect()),
        _ => return Err("calculates with constants of different types".into()),
    };
    Value::with_origins(both.shape, data, origins)
}

fn unary(call: &Call, ints: impl Fn(i64) -> Option<i64>, floats: impl Fn(f32) -> f32) -> Folded {
    Ok(vec![mapped(call, call.required(0)?, ints, floats)?])
}

fn mapped(
    call: &Call,
    value: &Value,
    ints: impl Fn(i64) -> Option<i64>,
    floats: impl Fn(f32) -> f32,
) -> Result<Value, String> {
    let both = Together::new(call, &[value])?;
    let data = match value.data() {
        Data::Int(x) => {
            let results = x.iter().map(|&x| ints(x));
            Data::Int(results.collect::<Option<_>>().ok_or("is not defined for these integers")?)
        }
        Data::Float(x) => Data::Float(x.iter().map(|&x| floats(x)).collect()),
        Data::Bool(_) => return Err("calculates with truth values".into()),
    };
    Value::with_origins(value.shape().to_vec(), data, both.origins())
}
