//! Sums, products and their relatives along axes of constants.

use super::super::call::{Call, distinct_axes};
use super::super::value::{Data, Origin, Value, product as elements, row_major, strided};

type Folded = Result<Vec<Value>, String>;

/// <https://onnx.ai/onnx/operators/onnx__ReduceSum.html>
pub(super) fn sum(call: &Call) -> Folded {
    reduce(call, i64::checked_add, |group| wide(group).sum::<f64>() as f32)
}

/// <https://onnx.ai/onnx/operators/onnx__ReduceProd.html>
pub(super) fn product(call: &Call) -> Folded {
    reduce(call, i64::checked_mul, |group| group.iter().product())
}

/// <https://onnx.ai/onnx/operators/onnx__ReduceMean.html>
pub(super) fn mean(call: &Call) -> Folded {
    reduce(call, |_, _| None, |group| (wide(group).sum::<f64>() / group.len() as f64) as f32)
}

/// <https://onnx.ai/onnx/operators/onnx__ReduceSumSquare.html>
pub(super) fn sum_of_squares(call: &Call) -> Folded {
    reduce(call, |_, _| None, |group| wide(group).map(|v| v * v).sum::<f64>() as f32)
}

/// <https://onnx.ai/onnx/operators/onnx__ReduceL1.html>
pub(super) fn l1(call: &Call) -> Folded {
    reduce(call, |_, _| None, |group| wide(group).map(f64::abs).sum::<f64>() as f32)
}

/// <https://onnx.ai/onnx/operators/onnx__ReduceL2.html>
pub(super) fn l2(call: &Call) -> Folded {
    reduce(call, |_, _| None, |group| wide(group).map(|v| v * v).sum::<f64>().sqrt() as f32)
}

/// <https://onnx.ai/onnx/operators/onnx__ReduceMax.html>
pub(super) fn max(call: &Call) -> Folded {
    reduce(call, |a, b| Some(a.max(b)), |group| group.iter().copied().fold(f32::NEG_INFINITY, f32::max))
}

/// <https://onnx.ai/onnx/operators/onnx__ReduceMin.html>
pub(super) fn min(call: &Call) -> Folded {
    reduce(call, |a, b| Some(a.min(b)), |group| group.iter().copied().fold(f32::INFINITY, f32::min))
}

fn wide(group: &[f32]) -> impl Iterator<Item = f64> + '_ {
    group.iter().map(|&v| f64::from(v))
}

fn reduce(call: &Call, ints: impl Fn(i64, i64) -> Option<i64>, floats: impl Fn(&[f32]) -> f32) -> Folded {
    let value = call.required(0)?;
    let shape = value.shape();
    let axes = call.ints_or_input("axes", 1)?.unwrap_or_default();
    let reduced: Vec<usize> = match axes {
        [] if call.flag("noop_with_empty_axes")? => return Ok(vec![value.clone()]),
        [] => (0..shape.len()).collect(),
        axes => distinct_axes(axes, shape.len())?,
    };
    let keep = call.int("keepdims")?.is_none_or(|keep| keep != 0);
    let steps = row_major(shape);
    let part = |chosen: bool| -> (Vec<usize>, Vec<isize>) {
        (0..shape.len()).filter(|i| reduced.contains(i) == chosen).map(|i| (shape[i], steps[i])).unzip()
    };
    let ((inner, inner_steps), (outer, outer_steps)) = (part(true), part(false));
    call.claim(&outer)?;
    if elements(&inner) == Some(0) {
        return Err("reduces nothing".into());
    }

    let groups: Vec<Vec<usize>> =
        strided(&outer, &outer_steps, 0).into_iter().map(|start| strided(&inner, &inner_steps, start)).collect();
    let data = match value.data() {
        Data::Int(data) => {
            let fold = |group: &Vec<usize>| {
                let (first, rest) = group.split_first()?;
                rest.iter().try_fold(data[*first], |total, &i| ints(total, data[i]))
            };
            Data::Int(groups.iter().map(fold).collect::<Option<_>>().ok_or("is not defined for these integers")?)
        }
        Data::Float(data) => {
            let values = |group: &Vec<usize>| group.iter().map(|&i| data[i]).collect::<Vec<_>>();
            Data::Float(groups.iter().map(|group| floats(&values(group))).collect())
        }
        Data::Bool(_) => return Err("calculates with truth values".into()),
    };
    let origin = |group: &Vec<usize>| {
        let origin = group.iter().map(|&i| value.origin(i)).max().unwrap_or(Origin::Constant);
        if origin == Origin::Batch && group.len() > 1 { Origin::Mixed } else { origin }
    };
    let origins = (!value.is_constant()).then(|| groups.iter().map(origin).collect());
    let shape = match keep {
        true => (0..shape.len()).map(|i| if reduced.contains(&i) { 1 } else { shape[i] }).collect(),
        false => outer,
    };
    Ok(vec![Value::with_origins(shape, data, origins)?])
}
