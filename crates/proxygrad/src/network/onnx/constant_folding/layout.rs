//! Reshaping, slicing, joining and repeating of constants.

use super::super::const_tensor::{ConstData, ConstTensor, Dim, derived_from, row_major, strided};
use super::super::node_context::{NodeContext, axis, distinct_axes, length};
use super::broadcast::repeated;
use crate::network::{Shape, broadcast};

type Folded = Result<Vec<ConstTensor>, String>;

/// <https://onnx.ai/onnx/operators/onnx__Gather.html>
pub(super) fn gather(ctx: &NodeContext) -> Folded {
    let (value, wanted) = (ctx.constant(0)?, ctx.constant(1)?);
    let shape = value.shape();
    let axis = axis(ctx.int("axis")?.unwrap_or(0), shape.len())?;
    let total = shape[axis];
    let indices = wanted.ints()?.iter().map(|&i| {
        let counted = if i < 0 { i.saturating_add(total as i64) } else { i };
        let index = usize::try_from(counted).ok().filter(|&index| index < total);
        index.ok_or_else(|| format!("index {i} is outside of an axis of length {total}"))
    });
    let indices = indices.collect::<Result<Vec<usize>, _>>()?;
    let (before, after) = (&shape[..axis], &shape[axis + 1..]);
    let target: Vec<usize> = before.iter().chain(wanted.shape()).chain(after).copied().collect();
    let count = ctx.checked_elements(&target)?;
    let block: usize = after.iter().product();
    let mut picked = Vec::with_capacity(count);
    for outer in 0..before.iter().product::<usize>() {
        for index in &indices {
            let start = (outer * total + index) * block;
            picked.extend(start..start + block);
        }
    }
    Ok(vec![value.pick(target, &picked)?])
}

/// <https://onnx.ai/onnx/operators/onnx__Concat.html>
pub(super) fn concat(ctx: &NodeContext) -> Folded {
    let values = ctx.constants()?;
    let first = *values.first().ok_or("the node has no inputs")?;
    let axis = axis(ctx.int("axis")?.ok_or("axis is missing")?, first.shape().len())?;
    let mut shape = first.shape().to_vec();
    shape[axis] = 0;
    for value in &values {
        let found = value.shape();
        let fits = found.len() == shape.len() && (0..shape.len()).all(|i| i == axis || found[i] == shape[i]);
        if !fits {
            return Err(format!(
                "constants of shape {:?} and {found:?} cannot be concatenated along axis {axis}",
                first.shape()
            ));
        }
        shape[axis] = shape[axis].saturating_add(found[axis]);
    }
    let count = ctx.checked_elements(&shape)?;
    let outer: usize = shape[..axis].iter().product();
    // For each result, the index of its tensor and of the element in it.
    let mut places = Vec::with_capacity(count);
    for i in 0..outer {
        for (which, value) in values.iter().enumerate() {
            let block = value.len() / outer.max(1);
            places.extend((i * block..(i + 1) * block).map(|index| (which, index)));
        }
    }
    let provenance = places.iter().map(|&(which, i)| values[which].provenance(i)).collect();
    let data = match first.data() {
        ConstData::Int(_) => ConstData::Int(joined(&values, &places, |data| match data {
            ConstData::Int(data) => Some(data),
            _ => None,
        })?),
        ConstData::Float(_) => ConstData::Float(joined(&values, &places, |data| match data {
            ConstData::Float(data) => Some(data),
            _ => None,
        })?),
        ConstData::Bool(_) => return Err("concatenating booleans is not supported".into()),
    };
    Ok(vec![ConstTensor::with_provenance(shape, data, Some(provenance))?])
}

fn joined<T: Copy, C: FromIterator<T>>(
    values: &[&ConstTensor],
    places: &[(usize, usize)],
    typed: impl Fn(&ConstData) -> Option<&std::sync::Arc<[T]>>,
) -> Result<C, String> {
    let all: Option<Vec<_>> = values.iter().map(|value| typed(value.data())).collect();
    let all = all.ok_or("the constants have different types")?;
    Ok(places.iter().map(|&(which, i)| all[which][i]).collect())
}

/// <https://onnx.ai/onnx/operators/onnx__Slice.html>; steps may be negative.
pub(super) fn slice(ctx: &NodeContext) -> Folded {
    let value = ctx.constant(0)?;
    let shape = value.shape();
    let starts = ctx.ints_or_input("starts", 1)?.ok_or("starts is missing")?;
    let ends = ctx.ints_or_input("ends", 2)?.ok_or("ends is missing")?;
    let axes = match ctx.ints_or_input("axes", 3)? {
        Some(axes) => distinct_axes(axes, shape.len())?,
        None => (0..starts.len().min(shape.len())).collect(),
    };
    let steps = ctx.optional_constant(4)?.map(ConstTensor::ints).transpose()?;
    let steps = steps.map_or_else(|| vec![1; starts.len()], <[i64]>::to_vec);
    if [ends.len(), axes.len(), steps.len()].iter().any(|&n| n != starts.len()) {
        return Err("starts, ends, axes and steps have different lengths".into());
    }
    let mut target = shape.to_vec();
    let mut strides = row_major(shape);
    let mut offset = 0;
    for (i, &axis) in axes.iter().enumerate() {
        let total = shape[axis] as i64;
        let step = steps[i];
        let counted = |v: i64| if v < 0 { v.saturating_add(total) } else { v };
        let (start, end) = match step {
            1.. => (counted(starts[i]).clamp(0, total), counted(ends[i]).clamp(0, total)),
            0 => return Err("step 0 is not allowed".into()),
            _ => (counted(starts[i]).clamp(0, (total - 1).max(0)), counted(ends[i]).clamp(-1, total - 1)),
        };
        let distance = if step > 0 { end - start } else { start - end };
        let count = distance.max(0).unsigned_abs().div_ceil(step.unsigned_abs());
        target[axis] = usize::try_from(count).unwrap_or(0);
        offset += usize::try_from(start).unwrap_or(0) * strides[axis].unsigned_abs();
        strides[axis] = if count > 1 { strides[axis] * step as isize } else { 0 };
    }
    let picked = strided(&target, &strides, offset);
    Ok(vec![value.pick(target, &picked)?])
}

/// <https://onnx.ai/onnx/operators/onnx__Split.html>
pub(super) fn split(ctx: &NodeContext) -> Folded {
    let value = ctx.constant(0)?;
    let shape = value.shape();
    let axis = axis(ctx.int("axis")?.unwrap_or(0), shape.len())?;
    let (total, parts) = (shape[axis], ctx.node.output.len());
    let sizes: Vec<usize> = match ctx.ints_or_input("split", 1)? {
        Some(sizes) => sizes.iter().map(|&n| length(n, "split")).collect::<Result<_, _>>()?,
        None if parts == 0 => return Err("the node has no outputs".into()),
        None => {
            let size = total.div_ceil(parts);
            (0..parts).map(|i| size.min(total.saturating_sub(i * size))).collect()
        }
    };
    if sizes.iter().sum::<usize>() != total || sizes.len() != parts {
        return Err(format!("an axis of length {total} cannot be split into {parts} parts of {sizes:?}"));
    }
    let strides = row_major(shape);
    let mut start = 0;
    let mut values = Vec::with_capacity(parts);
    for size in sizes {
        let mut target = shape.to_vec();
        target[axis] = size;
        let picked = strided(&target, &strides, start * strides[axis].unsigned_abs());
        values.push(value.pick(target, &picked)?);
        start += size;
    }
    Ok(values)
}

/// <https://onnx.ai/onnx/operators/onnx__Transpose.html>
pub(super) fn transpose(ctx: &NodeContext) -> Folded {
    let value = ctx.constant(0)?;
    let shape = value.shape();
    let order = match ctx.ints("perm")? {
        Some(order) => distinct_axes(order, shape.len())?,
        None => (0..shape.len()).rev().collect(),
    };
    if order.len() != shape.len() {
        return Err(format!("perm is {order:?} for a constant of shape {shape:?}"));
    }
    let steps = row_major(shape);
    let target: Vec<usize> = order.iter().map(|&a| shape[a]).collect();
    let strides: Vec<isize> = order.iter().map(|&a| steps[a]).collect();
    let picked = strided(&target, &strides, 0);
    Ok(vec![value.pick(target, &picked)?])
}

/// <https://onnx.ai/onnx/operators/onnx__Expand.html>
pub(super) fn expand(ctx: &NodeContext) -> Folded {
    let value = ctx.constant(0)?;
    let dims = ctx.constant(1)?.int_dims()?;
    let wanted = dims.iter().map(|&(v, _)| length(v, "shape")).collect::<Result<Vec<_>, _>>()?;
    let target = broadcast(&Shape::from(value.shape().to_vec()), &Shape::from(wanted))?.to_vec();
    ctx.checked_elements(&target)?;
    sized_by(&dims, value.pick(target.clone(), &repeated(value.shape(), &target))?)
}

/// <https://onnx.ai/onnx/operators/onnx__Tile.html>
pub(super) fn tile(ctx: &NodeContext) -> Folded {
    let value = ctx.constant(0)?;
    let dims = ctx.constant(1)?.int_dims()?;
    let shape = value.shape();
    let repeats = dims.iter().map(|&(v, _)| length(v, "repeats")).collect::<Result<Vec<_>, _>>()?;
    if repeats.len() != shape.len() {
        return Err(format!("{} repeats are given for {} axes", repeats.len(), shape.len()));
    }
    let target: Vec<usize> = shape.iter().zip(&repeats).map(|(n, r)| n.saturating_mul(*r)).collect();
    ctx.checked_elements(&target)?;
    // Each axis is split in two: the repeats, with stride 0, and the axis itself.
    let axes = |(r, n): (&usize, &usize)| [*r, *n];
    let split: Vec<usize> = repeats.iter().zip(shape).flat_map(axes).collect();
    let strides: Vec<isize> = row_major(shape).into_iter().flat_map(|step| [0, step]).collect();
    sized_by(&dims, value.pick(target, &strided(&split, &strides, 0))?)
}

/// A constant whose size is given by `dims` depends on what they depend on.
fn sized_by(dims: &[Dim], value: ConstTensor) -> Folded {
    let from_dims = derived_from(dims);
    let provenance = (0..value.len()).map(|i| value.provenance(i).max(from_dims)).collect();
    Ok(vec![ConstTensor::with_provenance(value.shape().to_vec(), value.data().clone(), Some(provenance))?])
}

/// <https://onnx.ai/onnx/operators/onnx__Reshape.html>
pub(super) fn reshape(ctx: &NodeContext) -> Folded {
    let value = ctx.constant(0)?;
    let zero_copies = !ctx.flag("allowzero")?;
    let mut target = Vec::new();
    let mut inferred = None;
    for (i, &wanted) in ctx.constant(1)?.ints()?.iter().enumerate() {
        target.push(match (wanted, usize::try_from(wanted)) {
            (-1, _) if inferred.replace(i).is_none() => 1,
            (0, _) if zero_copies => {
                *value.shape().get(i).ok_or("the target shape copies an axis that does not exist")?
            }
            (_, Ok(length)) => length,
            _ => return Err(format!("the target shape contains {wanted}")),
        });
    }
    if let Some(i) = inferred {
        let known = ctx.checked_elements(&target)?;
        target[i] = value.len().checked_div(known).unwrap_or(0);
    }
    Ok(vec![value.reshape(target)?])
}

/// <https://onnx.ai/onnx/operators/onnx__Flatten.html>
pub(super) fn flatten(ctx: &NodeContext) -> Folded {
    let value = ctx.constant(0)?;
    let rank = value.shape().len();
    let from = match ctx.int("axis")?.unwrap_or(1) {
        from if from == rank as i64 => rank,
        from => axis(from, rank)?,
    };
    let (outer, inner) = value.shape().split_at(from);
    Ok(vec![value.reshape(vec![outer.iter().product(), inner.iter().product()])?])
}

/// <https://onnx.ai/onnx/operators/onnx__Squeeze.html>
pub(super) fn squeeze(ctx: &NodeContext) -> Folded {
    let value = ctx.constant(0)?;
    let shape = value.shape();
    let removed = match ctx.ints_or_input("axes", 1)? {
        Some(axes) => distinct_axes(axes, shape.len())?,
        None => (0..shape.len()).filter(|&i| shape[i] == 1).collect(),
    };
    let kept = (0..shape.len()).filter(|i| !removed.contains(i)).map(|i| shape[i]).collect();
    Ok(vec![value.reshape(kept)?])
}

/// <https://onnx.ai/onnx/operators/onnx__Unsqueeze.html>
pub(super) fn unsqueeze(ctx: &NodeContext) -> Folded {
    let value = ctx.constant(0)?;
    let axes = ctx.ints_or_input("axes", 1)?.ok_or("axes is missing")?;
    let rank = value.shape().len() + axes.len();
    let added = distinct_axes(axes, rank)?;
    let mut lengths = value.shape().iter().copied();
    let shape = (0..rank).filter_map(|i| if added.contains(&i) { Some(1) } else { lengths.next() });
    Ok(vec![value.reshape(shape.collect())?])
}
