//! Comparisons, logic and selection of constants.

use super::super::const_tensor::{ConstData, ConstTensor, Provenance};
use super::super::node_context::NodeContext;
use super::broadcast::Broadcast;

type Folded = Result<Vec<ConstTensor>, String>;

/// <https://onnx.ai/onnx/operators/onnx__Equal.html>
pub(super) fn equal(ctx: &NodeContext) -> Folded {
    compare(ctx, |a, b| a == b, |a, b| a == b)
}

/// <https://onnx.ai/onnx/operators/onnx__Less.html>
pub(super) fn less(ctx: &NodeContext) -> Folded {
    compare(ctx, |a, b| a < b, |a, b| a < b)
}

/// <https://onnx.ai/onnx/operators/onnx__Greater.html>
pub(super) fn greater(ctx: &NodeContext) -> Folded {
    compare(ctx, |a, b| a > b, |a, b| a > b)
}

/// <https://onnx.ai/onnx/operators/onnx__LessOrEqual.html>
pub(super) fn less_or_equal(ctx: &NodeContext) -> Folded {
    compare(ctx, |a, b| a <= b, |a, b| a <= b)
}

/// <https://onnx.ai/onnx/operators/onnx__GreaterOrEqual.html>
pub(super) fn greater_or_equal(ctx: &NodeContext) -> Folded {
    compare(ctx, |a, b| a >= b, |a, b| a >= b)
}

/// <https://onnx.ai/onnx/operators/onnx__And.html>
pub(super) fn and(ctx: &NodeContext) -> Folded {
    logic(ctx, |a, b| a && b)
}

/// <https://onnx.ai/onnx/operators/onnx__Or.html>
pub(super) fn or(ctx: &NodeContext) -> Folded {
    logic(ctx, |a, b| a || b)
}

/// <https://onnx.ai/onnx/operators/onnx__Xor.html>
pub(super) fn xor(ctx: &NodeContext) -> Folded {
    logic(ctx, |a, b| a != b)
}

/// <https://onnx.ai/onnx/operators/onnx__Not.html>
pub(super) fn not(ctx: &NodeContext) -> Folded {
    let value = ctx.constant(0)?;
    let operands = Broadcast::new(ctx, &[value])?;
    let data = ConstData::Bool(flags(value)?.iter().map(|&flag| !flag).collect());
    Ok(vec![ConstTensor::with_provenance(value.shape().to_vec(), data, operands.provenance())?])
}

/// <https://onnx.ai/onnx/operators/onnx__IsNaN.html>
pub(super) fn is_nan(ctx: &NodeContext) -> Folded {
    classify(ctx, f32::is_nan)
}

/// <https://onnx.ai/onnx/operators/onnx__IsInf.html>
pub(super) fn is_inf(ctx: &NodeContext) -> Folded {
    let detects = |name: &str| ctx.int(name).map(|value| value.unwrap_or(1) != 0);
    let (positive, negative) = (detects("detect_positive")?, detects("detect_negative")?);
    classify(ctx, |v| (positive && v == f32::INFINITY) || (negative && v == f32::NEG_INFINITY))
}

fn classify(ctx: &NodeContext, is: impl Fn(f32) -> bool) -> Folded {
    let value = ctx.constant(0)?;
    let operands = Broadcast::new(ctx, &[value])?;
    let data = ConstData::Bool(value.floats()?.iter().map(|&v| is(v)).collect());
    Ok(vec![ConstTensor::with_provenance(value.shape().to_vec(), data, operands.provenance())?])
}

/// <https://onnx.ai/onnx/operators/onnx__Where.html>
pub(super) fn r#where(ctx: &NodeContext) -> Folded {
    let (condition, yes, no) = (ctx.constant(0)?, ctx.constant(1)?, ctx.constant(2)?);
    let operands = Broadcast::new(ctx, &[condition, yes, no])?;
    let chosen: Vec<(bool, usize, Provenance)> = (0..operands.indices(0).len())
        .map(|place| {
            let condition_index = operands.indices(0)[place];
            let flag = flags(condition).map(|flags| flags[condition_index])?;
            let (value, i) = if flag { (yes, operands.indices(1)[place]) } else { (no, operands.indices(2)[place]) };
            // The result depends on the condition and on the chosen value.
            let provenance = match condition.provenance(condition_index) {
                Provenance::Constant | Provenance::Batch => value.provenance(i),
                Provenance::ImageSize => Provenance::ImageSize,
            };
            Ok::<_, String>((flag, i, provenance))
        })
        .collect::<Result<_, _>>()?;
    let data = match (yes.data(), no.data()) {
        (ConstData::Float(a), ConstData::Float(b)) => {
            ConstData::Float(chosen.iter().map(|&(flag, i, _)| if flag { a[i] } else { b[i] }).collect())
        }
        (ConstData::Int(a), ConstData::Int(b)) => {
            ConstData::Int(chosen.iter().map(|&(flag, i, _)| if flag { a[i] } else { b[i] }).collect())
        }
        (ConstData::Bool(a), ConstData::Bool(b)) => {
            ConstData::Bool(chosen.iter().map(|&(flag, i, _)| if flag { a[i] } else { b[i] }).collect())
        }
        _ => return Err("the constants have different types".into()),
    };
    let provenance = chosen.iter().map(|c| c.2).collect();
    Ok(vec![ConstTensor::with_provenance(operands.shape, data, Some(provenance))?])
}

fn compare(ctx: &NodeContext, ints: impl Fn(i64, i64) -> bool, floats: impl Fn(f32, f32) -> bool) -> Folded {
    let (a, b) = (ctx.constant(0)?, ctx.constant(1)?);
    let operands = Broadcast::new(ctx, &[a, b])?;
    let pairs = operands.indices(0).iter().zip(operands.indices(1));
    let data = match (a.data(), b.data()) {
        (ConstData::Int(x), ConstData::Int(y)) => ConstData::Bool(pairs.map(|(&i, &j)| ints(x[i], y[j])).collect()),
        (ConstData::Float(x), ConstData::Float(y)) => {
            ConstData::Bool(pairs.map(|(&i, &j)| floats(x[i], y[j])).collect())
        }
        _ => return Err("the constants have different types".into()),
    };
    let mut provenance = operands.provenance();
    if let (Some(provenance), ConstData::Int(x), ConstData::Int(y)) = (&mut provenance, a.data(), b.data()) {
        // Lengths are positive, so comparing one with 0 or a negative number has a constant result.
        let is_length =
            |value: &ConstTensor, i: usize| matches!(value.provenance(i), Provenance::ImageSize | Provenance::Batch);
        for (place, (&i, &j)) in operands.indices(0).iter().zip(operands.indices(1)).enumerate() {
            let known = is_length(a, i) && b.provenance(j) == Provenance::Constant && y[j] <= 0
                || is_length(b, j) && a.provenance(i) == Provenance::Constant && x[i] <= 0;
            if known {
                provenance[place] = Provenance::Constant;
            }
        }
    }
    Ok(vec![ConstTensor::with_provenance(operands.shape, data, provenance)?])
}

fn logic(ctx: &NodeContext, combine: impl Fn(bool, bool) -> bool) -> Folded {
    let (a, b) = (ctx.constant(0)?, ctx.constant(1)?);
    let operands = Broadcast::new(ctx, &[a, b])?;
    let (x, y) = (flags(a)?, flags(b)?);
    let pairs = operands.indices(0).iter().zip(operands.indices(1));
    let data = ConstData::Bool(pairs.map(|(&i, &j)| combine(x[i], y[j])).collect());
    let provenance = operands.provenance();
    Ok(vec![ConstTensor::with_provenance(operands.shape, data, provenance)?])
}

fn flags(value: &ConstTensor) -> Result<&[bool], String> {
    match value.data() {
        ConstData::Bool(flags) => Ok(flags),
        _ => Err("expected booleans".into()),
    }
}
