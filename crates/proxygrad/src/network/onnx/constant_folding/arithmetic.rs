//! Arithmetic on constants, in i64 and f32.

use super::super::const_tensor::{ConstData, ConstTensor, Provenance};
use super::super::node_context::NodeContext;
use super::broadcast::Broadcast;

type Folded = Result<Vec<ConstTensor>, String>;

/// <https://onnx.ai/onnx/operators/onnx__Add.html>
pub(super) fn add(ctx: &NodeContext) -> Folded {
    binary(ctx, i64::checked_add, |a, b| a + b, Some(0))
}

/// <https://onnx.ai/onnx/operators/onnx__Sub.html>
pub(super) fn sub(ctx: &NodeContext) -> Folded {
    binary(ctx, i64::checked_sub, |a, b| a - b, Some(0))
}

/// <https://onnx.ai/onnx/operators/onnx__Mul.html>
pub(super) fn mul(ctx: &NodeContext) -> Folded {
    binary(ctx, i64::checked_mul, |a, b| a * b, Some(1))
}

/// <https://onnx.ai/onnx/operators/onnx__Div.html>; integer division truncates.
pub(super) fn div(ctx: &NodeContext) -> Folded {
    binary(ctx, i64::checked_div, |a, b| a / b, Some(1))
}

/// <https://onnx.ai/onnx/operators/onnx__Mod.html>; the sign is that of the divisor, or of the dividend with `fmod`.
pub(super) fn modulo(ctx: &NodeContext) -> Folded {
    let floored = |a: i64, b: i64| {
        let rest = a.checked_rem(b)?;
        Some(if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest })
    };
    match ctx.flag("fmod")? {
        true => binary(ctx, i64::checked_rem, |a, b| a % b, None),
        false => binary(ctx, floored, |a, b| a - b * (a / b).floor(), None),
    }
}

/// <https://onnx.ai/onnx/operators/onnx__Min.html>
pub(super) fn min(ctx: &NodeContext) -> Folded {
    variadic(ctx, |a, b| Some(a.min(b)), f32::min)
}

/// <https://onnx.ai/onnx/operators/onnx__Max.html>
pub(super) fn max(ctx: &NodeContext) -> Folded {
    variadic(ctx, |a, b| Some(a.max(b)), f32::max)
}

/// <https://onnx.ai/onnx/operators/onnx__Pow.html>; the exponent may be of another type.
pub(super) fn pow(ctx: &NodeContext) -> Folded {
    let (base, exponent) = (ctx.constant(0)?, ctx.constant(1)?);
    if let (ConstData::Float(x), ConstData::Int(y)) = (base.data(), exponent.data()) {
        let operands = Broadcast::new(ctx, &[base, exponent])?;
        let pairs = operands.indices(0).iter().zip(operands.indices(1));
        let powers = pairs.map(|(&i, &j)| f64::from(x[i]).powf(y[j] as f64) as f32);
        let (data, provenance) = (ConstData::Float(powers.collect()), operands.provenance());
        return Ok(vec![ConstTensor::with_provenance(operands.shape, data, provenance)?]);
    }
    let power = |a: i64, b: i64| a.checked_pow(u32::try_from(b).ok()?);
    binary(ctx, power, f32::powf, None)
}

/// <https://onnx.ai/onnx/operators/onnx__Sum.html>
pub(super) fn sum(ctx: &NodeContext) -> Folded {
    variadic(ctx, i64::checked_add, |a, b| a + b)
}

/// <https://onnx.ai/onnx/operators/onnx__Mean.html>
pub(super) fn mean(ctx: &NodeContext) -> Folded {
    let count = ctx.inputs.len() as f32;
    let total = variadic(ctx, |_, _| None, |a, b| a + b)?;
    total.iter().map(|total| mapped(ctx, total, |_| None, |v| v / count)).collect()
}

/// <https://onnx.ai/onnx/operators/onnx__Neg.html>
pub(super) fn neg(ctx: &NodeContext) -> Folded {
    unary(ctx, i64::checked_neg, |a| -a)
}

/// <https://onnx.ai/onnx/operators/onnx__Abs.html>
pub(super) fn abs(ctx: &NodeContext) -> Folded {
    unary(ctx, i64::checked_abs, f32::abs)
}

/// <https://onnx.ai/onnx/operators/onnx__Sign.html>
pub(super) fn sign(ctx: &NodeContext) -> Folded {
    unary(ctx, |v| Some(v.signum()), |v| if v == 0.0 { 0.0 } else { v.signum() })
}

/// <https://onnx.ai/onnx/operators/onnx__Clip.html> to constant bounds.
pub(super) fn clip(ctx: &NodeContext) -> Folded {
    let (min, max) = (ctx.optional_constant(1)?, ctx.optional_constant(2)?);
    if [min, max].into_iter().flatten().any(|bound| !bound.is_constant() || bound.len() != 1) {
        return Err("the bounds of a constant must be single numbers".into());
    }
    let int = |bound: Option<&ConstTensor>, open: i64| bound.map_or(Ok(open), |bound| bound.ints().map(|v| v[0]));
    let float = |bound: Option<&ConstTensor>, name: &str, open: f32| {
        bound.map_or_else(|| ctx.float(name, open), |bound| bound.scalar())
    };
    match ctx.constant(0)?.data() {
        ConstData::Int(_) => {
            let (min, max) = (int(min, i64::MIN)?, int(max, i64::MAX)?);
            unary(ctx, |v| Some(v.max(min).min(max)), |v| v)
        }
        _ => {
            let (min, max) = (float(min, "min", f32::NEG_INFINITY)?, float(max, "max", f32::INFINITY)?);
            unary(ctx, |_| None, |v| v.max(min).min(max))
        }
    }
}

/// `neutral` is the second operand that does not change the first: the batch size times 1 is still the batch size.
fn binary(
    ctx: &NodeContext,
    ints: impl Fn(i64, i64) -> Option<i64>,
    floats: impl Fn(f32, f32) -> f32,
    neutral: Option<i64>,
) -> Folded {
    let values = ctx.constants()?;
    let &[a, b] = values.as_slice() else {
        return Err(format!("expected 2 inputs, found {}", values.len()));
    };
    Ok(vec![pair(ctx, [a, b], &ints, &floats, neutral)?])
}

/// Any number of operands, combined from left to right.
fn variadic(ctx: &NodeContext, ints: impl Fn(i64, i64) -> Option<i64>, floats: impl Fn(f32, f32) -> f32) -> Folded {
    let values = ctx.constants()?;
    let (first, rest) = values.split_first().ok_or("the node has no inputs")?;
    let step = |total: ConstTensor, value: &&ConstTensor| pair(ctx, [&total, value], &ints, &floats, None);
    Ok(vec![rest.iter().try_fold((*first).clone(), step)?])
}

fn pair(
    ctx: &NodeContext,
    [a, b]: [&ConstTensor; 2],
    ints: impl Fn(i64, i64) -> Option<i64>,
    floats: impl Fn(f32, f32) -> f32,
    neutral: Option<i64>,
) -> Result<ConstTensor, String> {
    let operands = Broadcast::new(ctx, &[a, b])?;
    let pairs = operands.indices(0).iter().zip(operands.indices(1));
    let mut provenance = operands.provenance();
    let data = match (a.data(), b.data()) {
        (ConstData::Int(x), ConstData::Int(y)) => {
            for (place, (&i, &j)) in pairs.clone().enumerate() {
                if let Some(provenance) = &mut provenance
                    && a.provenance(i) == Provenance::Batch
                    && b.provenance(j) == Provenance::Constant
                    && neutral == Some(y[j])
                {
                    provenance[place] = Provenance::Batch;
                }
            }
            let results = pairs.map(|(&i, &j)| ints(x[i], y[j]));
            ConstData::Int(results.collect::<Option<_>>().ok_or("the computation divides by zero or overflows")?)
        }
        (ConstData::Float(x), ConstData::Float(y)) => {
            ConstData::Float(pairs.map(|(&i, &j)| floats(x[i], y[j])).collect())
        }
        _ => return Err("the constants have different types".into()),
    };
    ConstTensor::with_provenance(operands.shape, data, provenance)
}

fn unary(ctx: &NodeContext, ints: impl Fn(i64) -> Option<i64>, floats: impl Fn(f32) -> f32) -> Folded {
    Ok(vec![mapped(ctx, ctx.constant(0)?, ints, floats)?])
}

fn mapped(
    ctx: &NodeContext,
    value: &ConstTensor,
    ints: impl Fn(i64) -> Option<i64>,
    floats: impl Fn(f32) -> f32,
) -> Result<ConstTensor, String> {
    let operands = Broadcast::new(ctx, &[value])?;
    let data = match value.data() {
        ConstData::Int(x) => {
            let results = x.iter().map(|&x| ints(x));
            ConstData::Int(results.collect::<Option<_>>().ok_or("the result is not defined for these integers")?)
        }
        ConstData::Float(x) => ConstData::Float(x.iter().map(|&x| floats(x)).collect()),
        ConstData::Bool(_) => return Err("arithmetic on booleans is not supported".into()),
    };
    ConstTensor::with_provenance(value.shape().to_vec(), data, operands.provenance())
}
