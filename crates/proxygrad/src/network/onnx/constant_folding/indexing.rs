//! Reading and replacing elements of constants by lists of indices.

use super::super::const_tensor::{ConstData, ConstTensor, row_major};
use super::super::node_context::{NodeContext, axis};

type Folded = Result<Vec<ConstTensor>, String>;

/// <https://onnx.ai/onnx/operators/onnx__GatherND.html>
pub(super) fn gather_nd(ctx: &NodeContext) -> Folded {
    let (value, wanted) = (ctx.constant(0)?, ctx.constant(1)?);
    let (shape, listed) = (value.shape(), wanted.shape());
    let batched = usize::try_from(ctx.int("batch_dims")?.unwrap_or(0)).unwrap_or(usize::MAX);
    let (Some(&depth), true) = (listed.last(), batched < listed.len() && batched < shape.len()) else {
        return Err(format!("batch_dims is {batched} for shapes {shape:?} and {listed:?}"));
    };
    if batched + depth > shape.len() || shape[..batched] != listed[..batched] {
        return Err(format!("indices of shape {listed:?} do not fit a tensor of shape {shape:?}"));
    }
    let rest = &shape[batched + depth..];
    let target: Vec<usize> = listed[..listed.len() - 1].iter().chain(rest).copied().collect();
    let mut picked = Vec::with_capacity(ctx.checked_elements(&target)?);
    let block: usize = rest.iter().product();
    let per_batch = listed[batched..listed.len() - 1].iter().product::<usize>().max(1);
    let inner: usize = shape[batched..].iter().product();
    for (i, tuple) in wanted.ints()?.chunks_exact(depth.max(1)).enumerate() {
        let start = i / per_batch * inner + place(tuple, &shape[batched..])?;
        picked.extend(start..start + block);
    }
    Ok(vec![value.pick(target, &picked)?])
}

/// <https://onnx.ai/onnx/operators/onnx__GatherElements.html>
pub(super) fn gather_elements(ctx: &NodeContext) -> Folded {
    let (value, wanted) = (ctx.constant(0)?, ctx.constant(1)?);
    let places = elements(ctx, value.shape(), wanted)?;
    Ok(vec![value.pick(wanted.shape().to_vec(), &places)?])
}

/// <https://onnx.ai/onnx/operators/onnx__ScatterND.html> that replaces elements.
pub(super) fn scatter_nd(ctx: &NodeContext) -> Folded {
    let (value, wanted, updates) = (ctx.constant(0)?, ctx.constant(1)?, ctx.constant(2)?);
    let shape = value.shape();
    let depth = wanted.shape().last().copied().filter(|&depth| depth > 0 && depth <= shape.len());
    let depth = depth.ok_or_else(|| format!("indices of shape {:?} do not fit {shape:?}", wanted.shape()))?;
    let block: usize = shape[depth..].iter().product();
    let mut places = Vec::with_capacity(ctx.checked_elements(updates.shape())?);
    for tuple in wanted.ints()?.chunks_exact(depth) {
        let start = place(tuple, shape)?;
        places.extend(start..start + block);
    }
    replaced(ctx, value, &places, updates)
}

/// <https://onnx.ai/onnx/operators/onnx__ScatterElements.html> that replaces elements.
pub(super) fn scatter_elements(ctx: &NodeContext) -> Folded {
    let (value, wanted, updates) = (ctx.constant(0)?, ctx.constant(1)?, ctx.constant(2)?);
    let places = elements(ctx, value.shape(), wanted)?;
    replaced(ctx, value, &places, updates)
}

/// Row-major position of an element, or of the first of a block, given indices of the leading axes.
fn place(indices: &[i64], shape: &[usize]) -> Result<usize, String> {
    let strides = row_major(shape);
    let mut place = 0;
    for (axis, &index) in indices.iter().enumerate() {
        place += counted(index, shape[axis])? * strides[axis].unsigned_abs();
    }
    Ok(place)
}

/// An index that may count from the end.
fn counted(index: i64, length: usize) -> Result<usize, String> {
    let counted = if index < 0 { index.saturating_add(length as i64) } else { index };
    let found = usize::try_from(counted).ok().filter(|&index| index < length);
    found.ok_or_else(|| format!("index {index} is outside of an axis of length {length}"))
}

/// For each index of `wanted`, the position of the element that it selects along the node's axis.
fn elements(ctx: &NodeContext, shape: &[usize], wanted: &ConstTensor) -> Result<Vec<usize>, String> {
    let axis = axis(ctx.int("axis")?.unwrap_or(0), shape.len())?;
    let own = wanted.shape();
    let fits = own.len() == shape.len() && (0..shape.len()).all(|i| i == axis || own[i] <= shape[i]);
    if !fits {
        return Err(format!("indices of shape {own:?} do not fit a tensor of shape {shape:?}"));
    }
    let (from, strides) = (row_major(own), row_major(shape));
    let position = |(i, &index): (usize, &i64)| {
        let mut place = counted(index, shape[axis])? * strides[axis].unsigned_abs();
        for other in (0..shape.len()).filter(|&other| other != axis) {
            place += i / from[other].unsigned_abs() % own[other] * strides[other].unsigned_abs();
        }
        Ok(place)
    };
    wanted.ints()?.iter().enumerate().map(position).collect()
}

/// A tensor with some elements replaced; of two values for one place the later one counts.
fn replaced(ctx: &NodeContext, value: &ConstTensor, places: &[usize], updates: &ConstTensor) -> Folded {
    let reduction = ctx.text("reduction", "none")?;
    if reduction != "none" {
        return Err(format!("reduction {reduction} is not supported, only none"));
    }
    if places.len() != updates.len() {
        return Err(format!("{} values are given for {} places", updates.len(), places.len()));
    }
    let mut provenance: Vec<_> = (0..value.len()).map(|i| value.provenance(i)).collect();
    for (i, &place) in places.iter().enumerate() {
        provenance[place] = updates.provenance(i);
    }
    fn with<T: Copy>(old: &[T], places: &[usize], new: &[T]) -> std::sync::Arc<[T]> {
        let mut values = old.to_vec();
        for (&place, &value) in places.iter().zip(new) {
            values[place] = value;
        }
        values.into()
    }
    let data = match (value.data(), updates.data()) {
        (ConstData::Float(old), ConstData::Float(new)) => ConstData::Float(with(old, places, new)),
        (ConstData::Int(old), ConstData::Int(new)) => ConstData::Int(with(old, places, new)),
        (ConstData::Bool(old), ConstData::Bool(new)) => ConstData::Bool(with(old, places, new)),
        _ => return Err("the constants have different types".into()),
    };
    Ok(vec![ConstTensor::with_provenance(value.shape().to_vec(), data, Some(provenance))?])
}
