//! Parts of tensors, and parts put together.

use super::super::call::{Call, Tensor, distinct_axes, image_axis, length};
use super::super::draft::{Draft, Id};
use super::super::value::Value;
use super::broadcast::beside_batch;
use crate::network::{Axis, Op};

/// An end that stands for the end of the axis, whatever its length.
const OPEN_END: i64 = i32::MAX as i64;

/// <https://onnx.ai/onnx/operators/onnx__Slice.html> forwards; parameters are attributes before opset 10.
pub(super) fn slice(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    let (mut input, shape) = call.shaped(draft, 0)?;
    let rank = shape.len() + 1;
    let starts = call.ints_or_input("starts", 1)?.ok_or("has no starts")?;
    let ends = call.ints_or_input("ends", 2)?.ok_or("has no ends")?;
    let axes = match call.ints_or_input("axes", 3)? {
        Some(axes) => distinct_axes(axes, rank)?,
        None => (0..starts.len().min(rank)).collect(),
    };
    let steps = call.value(4)?.map(Value::ints).transpose()?;
    let steps = steps.map_or_else(|| vec![1; starts.len()], <[i64]>::to_vec);
    if [ends.len(), axes.len(), steps.len()].iter().any(|&n| n != starts.len()) {
        return Err("has different numbers of starts, ends, axes and steps".into());
    }
    let sized = (1..call.inputs.len()).any(|i| call.value(i).is_ok_and(|value| value.is_some_and(Value::is_sized)));
    for (i, &axis) in axes.iter().enumerate() {
        let step = length(steps[i], "steps").ok().filter(|&step| step > 0);
        let step = step.ok_or_else(|| format!("has step {}; only positive steps are supported", steps[i]))?;
        let Some(axis) = axis.checked_sub(1) else {
            if (starts[i], step) == (0, 1) && ends[i] >= OPEN_END {
                continue;
            }
            return Err("takes some images of a batch".into());
        };
        input = slice_axis(draft, input, axis, [starts[i], ends[i]], step, sized)?;
    }
    Ok(input)
}

/// A slice along one axis, whose bounds may count from its end.
fn slice_axis(
    draft: &mut Draft,
    input: Id,
    axis: usize,
    bounds: [i64; 2],
    step: usize,
    sized: bool,
) -> Result<Id, String> {
    let total = draft.node(input).shape[axis];
    let [start, end] = bounds.map(|bound| {
        let counted = if bound < 0 { bound.saturating_add(total as i64).max(0) } else { bound };
        usize::try_from(counted).unwrap_or(usize::MAX)
    });
    let varies = draft.varies(input, axis);
    let open = end >= total && (!varies || bounds[1] >= OPEN_END);
    let end = if open { usize::MAX } else { end };
    if start == 0 && open && step == 1 {
        return Ok(input);
    }
    let counts_back = varies && bounds.iter().any(|&bound| bound < 0);
    draft.push_sized(Op::Slice { axis, start, end, step }, &[input], sized || counts_back)
}

/// <https://onnx.ai/onnx/operators/onnx__Split.html>: sizes as attribute or input, or a number of equal parts.
pub(super) fn split(draft: &mut Draft, call: &Call) -> Result<Vec<Tensor>, String> {
    let (input, shape) = call.shaped(draft, 0)?;
    let axis = image_axis(call.int("axis")?.unwrap_or(0), shape)?;
    let total = shape[axis];
    let sizes: Vec<usize> = match call.ints_or_input("split", 1)? {
        Some(sizes) => sizes.iter().map(|&n| length(n, "split")).collect::<Result<_, _>>()?,
        None => {
            let stated = call.int("num_outputs")?.and_then(|n| usize::try_from(n).ok());
            let parts = stated.unwrap_or(call.node.output.len()).clamp(1, total);
            let size = total.div_ceil(parts);
            (0..parts).map(|i| size.min(total.saturating_sub(i * size))).collect()
        }
    };
    if sizes.iter().sum::<usize>() != total || sizes.len() != call.node.output.len() {
        return Err(format!("splits {total} values into {} parts of {sizes:?}", call.node.output.len()));
    }
    let sized = draft.varies(input, axis) || call.value(1)?.is_some_and(Value::is_sized);
    let mut outputs = Vec::with_capacity(sizes.len());
    let mut start = 0;
    for size in sizes {
        let op = Op::Slice { axis, start, end: start + size, step: 1 };
        outputs.push(Tensor::Map(draft.push_sized(op, &[input], sized)?));
        start += size;
    }
    Ok(outputs)
}

/// Most slices that one node may become.
const MOST_SLICES: usize = 64;

/// <https://onnx.ai/onnx/operators/onnx__Gather.html> of one index, which removes the axis, or of several in any order.
pub(super) fn gather(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    let (input, shape) = call.shaped(draft, 0)?;
    let axis = image_axis(call.int("axis")?.unwrap_or(0), shape)?;
    let (total, rank) = (shape[axis] as i64, shape.len());
    let value = call.required(1)?;
    let found = value.ints()?;
    let counts_back = draft.varies(input, axis) && found.iter().any(|&i| i < 0);
    let sized = value.is_sized() || counts_back;
    let indices: Vec<i64> = found.iter().map(|&i| if i < 0 { i.saturating_add(total) } else { i }).collect();
    if indices.is_empty() {
        return Err("takes nothing".into());
    }
    if let Some(outside) = indices.iter().find(|&&i| !(0..total).contains(&i)) {
        return Err(format!("takes index {outside} of an axis of {total}"));
    }
    if value.shape().len() > 1 {
        return Err(format!("takes indices of shape {:?}", value.shape()));
    }
    let runs = runs(&indices);
    if runs.len() > MOST_SLICES {
        return Err(format!("takes indices in an order that needs {} slices", runs.len()));
    }
    let mut parts = Vec::with_capacity(runs.len());
    for (start, last, step) in runs {
        let (start, end, step) = (start as usize, last as usize + 1, step as usize);
        parts.push(draft.push_sized(Op::Slice { axis, start, end, step }, &[input], sized)?);
    }
    let part = match parts.as_slice() {
        &[only] => only,
        _ => draft.push_sized(Op::Concat { axis }, &parts, sized)?,
    };
    if !value.shape().is_empty() {
        return Ok(part);
    }
    draft.push(Op::Reshape((0..rank).filter(|&i| i != axis).map(Axis::Copy).collect()), &[part])
}

/// Indices as runs that are evenly spaced upwards: first, last and distance of each.
fn runs(indices: &[i64]) -> Vec<(i64, i64, i64)> {
    let mut runs: Vec<(i64, i64, i64)> = Vec::new();
    for &index in indices {
        match runs.last_mut() {
            // A run of one takes any index after it.
            Some((first, last, step)) if first == last && index > *first => (*last, *step) = (index, index - *first),
            Some((first, last, step)) if first != last && index - *last == *step => *last = index,
            _ => runs.push((index, index, 1)),
        }
    }
    runs
}

/// <https://onnx.ai/onnx/operators/onnx__Concat.html>
pub(super) fn concat(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    let shape = call.inputs.iter().find_map(|input| match input {
        Some(Tensor::Map(id)) => Some(draft.node(*id).shape.clone()),
        _ => None,
    });
    let shape = shape.ok_or("joins nothing that depends on the image")?;
    let axis = image_axis(call.int("axis")?.ok_or("has no axis")?, &shape)?;
    let mut inputs = Vec::with_capacity(call.inputs.len());
    let mut sized = false;
    for i in 0..call.inputs.len() {
        inputs.push(match call.input(i) {
            Some(Tensor::Map(id)) => *id,
            _ => {
                let value = call.required(i)?;
                sized |= value.is_sized();
                draft.push_constant(beside_batch(value, shape.len())?)?
            }
        });
    }
    match inputs.as_slice() {
        &[only] => Ok(only),
        _ => draft.push_sized(Op::Concat { axis }, &inputs, sized),
    }
}
