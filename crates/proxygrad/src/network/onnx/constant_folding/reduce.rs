//! Reductions of constants.

use super::super::const_tensor::{ConstData, ConstTensor, Provenance, product as elements, row_major, strided};
use super::super::node_context::{NodeContext, distinct_axes};

type Folded = Result<Vec<ConstTensor>, String>;

/// <https://onnx.ai/onnx/operators/onnx__ReduceSum.html>
pub(super) fn sum(ctx: &NodeContext) -> Folded {
    reduce(ctx, i64::checked_add, |group| wide(group).sum::<f64>() as f32)
}

/// <https://onnx.ai/onnx/operators/onnx__ReduceProd.html>
pub(super) fn product(ctx: &NodeContext) -> Folded {
    reduce(ctx, i64::checked_mul, |group| group.iter().product())
}

/// <https://onnx.ai/onnx/operators/onnx__ReduceMean.html>
pub(super) fn mean(ctx: &NodeContext) -> Folded {
    reduce(ctx, |_, _| None, |group| (wide(group).sum::<f64>() / group.len() as f64) as f32)
}

/// <https://onnx.ai/onnx/operators/onnx__ReduceSumSquare.html>
pub(super) fn sum_of_squares(ctx: &NodeContext) -> Folded {
    reduce(ctx, |_, _| None, |group| wide(group).map(|v| v * v).sum::<f64>() as f32)
}

/// <https://onnx.ai/onnx/operators/onnx__ReduceL1.html>
pub(super) fn l1(ctx: &NodeContext) -> Folded {
    reduce(ctx, |_, _| None, |group| wide(group).map(f64::abs).sum::<f64>() as f32)
}

/// <https://onnx.ai/onnx/operators/onnx__ReduceL2.html>
pub(super) fn l2(ctx: &NodeContext) -> Folded {
    reduce(ctx, |_, _| None, |group| wide(group).map(|v| v * v).sum::<f64>().sqrt() as f32)
}

/// <https://onnx.ai/onnx/operators/onnx__ReduceMax.html>
pub(super) fn max(ctx: &NodeContext) -> Folded {
    reduce(ctx, |a, b| Some(a.max(b)), |group| group.iter().copied().fold(f32::NEG_INFINITY, f32::max))
}

/// <https://onnx.ai/onnx/operators/onnx__ReduceMin.html>
pub(super) fn min(ctx: &NodeContext) -> Folded {
    reduce(ctx, |a, b| Some(a.min(b)), |group| group.iter().copied().fold(f32::INFINITY, f32::min))
}

/// <https://onnx.ai/onnx/operators/onnx__ReduceLogSum.html>
pub(super) fn log_sum(ctx: &NodeContext) -> Folded {
    reduce(ctx, |_, _| None, |group| wide(group).sum::<f64>().ln() as f32)
}

/// <https://onnx.ai/onnx/operators/onnx__ReduceLogSumExp.html>
pub(super) fn log_sum_exp(ctx: &NodeContext) -> Folded {
    let exponentials = |group: &[f32]| {
        let largest = wide(group).fold(f64::NEG_INFINITY, f64::max);
        (wide(group).map(|v| (v - largest).exp()).sum::<f64>().ln() + largest) as f32
    };
    reduce(ctx, |_, _| None, exponentials)
}

fn wide(group: &[f32]) -> impl Iterator<Item = f64> + '_ {
    group.iter().map(|&v| f64::from(v))
}

fn reduce(ctx: &NodeContext, ints: impl Fn(i64, i64) -> Option<i64>, floats: impl Fn(&[f32]) -> f32) -> Folded {
    let value = ctx.constant(0)?;
    let shape = value.shape();
    let axes = ctx.ints_or_input("axes", 1)?.unwrap_or_default();
    let reduced: Vec<usize> = match axes {
        [] if ctx.flag("noop_with_empty_axes")? => return Ok(vec![value.clone()]),
        [] => (0..shape.len()).collect(),
        axes => distinct_axes(axes, shape.len())?,
    };
    let keep = ctx.int("keepdims")?.is_none_or(|keep| keep != 0);
    let steps = row_major(shape);
    let part = |chosen: bool| -> (Vec<usize>, Vec<isize>) {
        (0..shape.len()).filter(|i| reduced.contains(i) == chosen).map(|i| (shape[i], steps[i])).unzip()
    };
    let ((inner, inner_steps), (outer, outer_steps)) = (part(true), part(false));
    ctx.checked_elements(&outer)?;
    if elements(&inner) == Some(0) {
        return Err("the reduced axes are empty".into());
    }

    let groups: Vec<Vec<usize>> =
        strided(&outer, &outer_steps, 0).into_iter().map(|start| strided(&inner, &inner_steps, start)).collect();
    let data = match value.data() {
        ConstData::Int(data) => {
            let fold = |group: &Vec<usize>| {
                let (first, rest) = group.split_first()?;
                rest.iter().try_fold(data[*first], |total, &i| ints(total, data[i]))
            };
            ConstData::Int(
                groups.iter().map(fold).collect::<Option<_>>().ok_or("the result is not defined for these integers")?,
            )
        }
        ConstData::Float(data) => {
            let values = |group: &Vec<usize>| group.iter().map(|&i| data[i]).collect::<Vec<_>>();
            ConstData::Float(groups.iter().map(|group| floats(&values(group))).collect())
        }
        ConstData::Bool(_) => return Err("arithmetic on booleans is not supported".into()),
    };
    let of_group = |group: &Vec<usize>| {
        let largest = group.iter().map(|&i| value.provenance(i)).max().unwrap_or(Provenance::Constant);
        if group.len() > 1 { largest.derived() } else { largest }
    };
    let provenance = (!value.is_constant()).then(|| groups.iter().map(of_group).collect());
    let shape = match keep {
        true => (0..shape.len()).map(|i| if reduced.contains(&i) { 1 } else { shape[i] }).collect(),
        false => outer,
    };
    Ok(vec![ConstTensor::with_provenance(shape, data, provenance)?])
}
