//! `Attention`, as matrix products and a softmax.

use super::super::const_tensor::{ConstData, ConstTensor};
use super::super::graph_builder::{BuilderId, GraphBuilder};
use super::super::image_tensor::ImageTensor;
use super::super::node_context::{NodeContext, Operand, length};
use super::activation::times;
use super::broadcast::{is_same_for_all_images, without_axis};
use super::transpose::push_transpose;
use crate::network::{Activation, Array, Axis, Binary, Op, Shape, broadcast};

/// Queries, keys and values.
struct Inputs {
    /// Each `[h,L,d]` or `[L,h*d]`, behind `lead` axes that they share.
    nodes: [BuilderId; 3],
    /// 0 if every tensor has its batch axis first, which the nodes leave out; 1 if that axis holds several maps of one
    /// image, such as windows.
    lead: usize,
}

/// <https://onnx.ai/onnx/operators/onnx__Attention.html> without a cache of keys and values: `softmax(scale * Q * Kᵀ +
/// mask) * V` for every head.
pub(super) fn attention(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    for (i, name) in [(4, "past_key"), (5, "past_value"), (6, "nonpad_kv_seqlen")] {
        if ctx.input(i).is_some() {
            return Err(format!("a cache of keys and values ({name}) is not supported"));
        }
    }
    let rank = match rank(builder, ctx.required(0)?) {
        rank @ (3 | 4) => rank,
        rank => return Err(format!("the queries have {rank} axes; expected [N,L,h*d] or [N,h,L,d]")),
    };
    let Inputs { nodes: [q, k, v], lead } = inputs(builder, ctx, rank)?;
    let (q_heads, kv_heads) = match rank {
        3 => (head_count(ctx, "q_num_heads")?, head_count(ctx, "kv_num_heads")?),
        _ => (builder.node(q).shape[lead], builder.node(k).shape[lead]),
    };
    if kv_heads == 0 || !q_heads.is_multiple_of(kv_heads) {
        return Err(format!("{q_heads} heads of queries cannot share {kv_heads} heads of keys"));
    }
    let [q, k, v] = match rank {
        3 => [
            by_head(builder, q, lead, q_heads)?,
            by_head(builder, k, lead, kv_heads)?,
            by_head(builder, v, lead, kv_heads)?,
        ],
        _ => [q, k, v],
    };
    let (k, v) = (repeated(builder, k, lead, q_heads)?, repeated(builder, v, lead, q_heads)?);

    let width = builder.node(q).shape[lead + 2];
    let scale = ctx.float("scale", 1.0 / (width as f32).sqrt())?;
    let q = times(builder, ctx, q, scale, "scale")?;
    let last = [lead + 2, lead + 1];
    let turned = push_transpose(builder, k, (0..=lead).chain(last).collect())?;
    let mut scores = builder.push(Op::MatMul, &[q, turned])?;
    let cap = ctx.float("softcap", 0.0)?;
    if cap != 0.0 {
        let small = times(builder, ctx, scores, 1.0 / cap, "1 / softcap")?;
        let capped = builder.push(Op::Activation(Activation::Tanh), &[small])?;
        scores = times(builder, ctx, capped, cap, "softcap")?;
    }
    if let Some((mask, sized)) = mask(builder, ctx, scores, lead)? {
        let mask = builder.push_constant(mask)?;
        scores = builder.push_sized(Op::Binary(Binary::Add), &[scores, mask], sized)?;
    }
    let weights = builder.push(Op::Softmax { axis: lead + 2 }, &[scores])?;
    let output = builder.push(Op::MatMul, &[weights, v])?;
    let id = if rank == 3 { joined_heads(builder, output, lead)? } else { output };
    Ok(ImageTensor { id, batch: (lead == 0).then_some(0) })
}

/// Number of axes in the file.
fn rank(builder: &GraphBuilder, operand: &Operand) -> usize {
    match operand {
        Operand::Dynamic(tensor) => tensor.rank(builder),
        Operand::Constant(value) => value.shape().len(),
        Operand::Unavailable(_) => 0,
    }
}

/// A number of heads.
///
/// # Errors
/// When it is missing or not a number from 1 on.
pub(super) fn head_count(ctx: &NodeContext, name: &str) -> Result<usize, String> {
    match length(ctx.int(name)?.ok_or_else(|| format!("{name} is missing"))?, name)? {
        0 => Err(format!("{name} is 0")),
        count => Ok(count),
    }
}

/// Queries, keys and values of the same rank.
fn inputs(builder: &mut GraphBuilder, ctx: &NodeContext, rank: usize) -> Result<Inputs, String> {
    let mut lead = 0;
    for i in 0..3 {
        let operand = ctx.required(i)?;
        let (shape, is_shared) = match operand {
            Operand::Dynamic(tensor) => {
                let shape = tensor.file_shape(builder);
                let is_single = shape.first() == Some(&1);
                (shape, is_single)
            }
            Operand::Constant(value) => (value.shape().to_vec().into(), is_same_for_all_images(value, 0, ctx.batch)?),
            Operand::Unavailable(_) => return Err("an input cannot be computed".into()),
        };
        if shape.len() != rank {
            return Err(format!("input {i} has {} axes, but the queries have {rank}", shape.len()));
        }
        lead |= usize::from(!is_shared);
    }
    let batch = (lead == 0).then_some(0);
    let mut nodes = [GraphBuilder::INPUT; 3];
    for (i, node) in nodes.iter_mut().enumerate() {
        *node = match ctx.required(i)? {
            Operand::Constant(value) => builder.push_constant(without_axis(value, batch)?)?,
            operand => operand.dynamic().ok_or("an input cannot be computed")?.with_batch(builder, batch)?.id,
        };
    }
    Ok(Inputs { nodes, lead })
}

/// `[L,h*d]` as `[L,h,d]`.
///
/// # Errors
/// When the values cannot be divided into heads.
pub(super) fn split_heads(
    builder: &mut GraphBuilder,
    input: BuilderId,
    lead: usize,
    heads: usize,
    hidden: usize,
) -> Result<BuilderId, String> {
    if !hidden.is_multiple_of(heads) {
        return Err(format!("{hidden} values cannot be divided into {heads} heads"));
    }
    let axes = (0..=lead).map(Axis::Copy).chain([Axis::Exact(heads), Axis::Exact(hidden / heads)]).collect();
    builder.push_reshape(input, axes, false)
}

/// `[L,h*d]` as `[h,L,d]`.
fn by_head(builder: &mut GraphBuilder, input: BuilderId, lead: usize, heads: usize) -> Result<BuilderId, String> {
    let hidden = builder.node(input).shape[lead + 1];
    let split = split_heads(builder, input, lead, heads, hidden)?;
    push_transpose(builder, split, (0..lead).chain([lead + 1, lead, lead + 2]).collect())
}

/// `[h,L,d]` as `[L,h*d]`.
fn joined_heads(builder: &mut GraphBuilder, input: BuilderId, lead: usize) -> Result<BuilderId, String> {
    let shape = &builder.node(input).shape;
    let hidden = shape[lead].saturating_mul(shape[lead + 2]);
    let turned = push_transpose(builder, input, (0..lead).chain([lead + 1, lead, lead + 2]).collect())?;
    builder.push_reshape(turned, (0..=lead).map(Axis::Copy).chain([Axis::Exact(hidden)]).collect(), false)
}

/// Keys or values of which each head serves as many heads of queries as it must.
fn repeated(builder: &mut GraphBuilder, input: BuilderId, lead: usize, heads: usize) -> Result<BuilderId, String> {
    let own = builder.node(input).shape[lead];
    if own == heads {
        return Ok(input);
    }
    if own == 0 || !heads.is_multiple_of(own) {
        return Err(format!("{heads} heads of queries cannot share {own} heads"));
    }
    let indices = (0..heads).map(|head| (head / (heads / own)) as u32).collect();
    builder.push(Op::Gather { axis: lead, indices }, &[input])
}

/// What is added to the scores `[h,L,S]`, and whether it is valid at this image size only: the constant mask, and minus
/// infinity where a query must not see a key.
fn mask(
    builder: &GraphBuilder,
    ctx: &NodeContext,
    scores: BuilderId,
    lead: usize,
) -> Result<Option<(Array, bool)>, String> {
    let shape = &builder.node(scores).shape;
    let (queries, keys) = (shape[lead + 1], shape[lead + 2]);
    let bound = |name: &str| ctx.int(name).map(|value| value.filter(|&size| size >= 0));
    let (left, right) = (bound("left_window_size")?, bound("right_window_size")?);
    let right = if ctx.flag("is_causal")? { Some(0) } else { right };
    let is_local = left.is_some() || right.is_some();
    let varies = [lead + 1, lead + 2].iter().any(|&axis| builder.depends_on_image_size(scores, axis));
    let (given, sized) = match ctx.input(3) {
        None if !is_local => return Ok(None),
        None => (Array::new([], [0.0])?, varies),
        Some(Operand::Constant(value)) => {
            (additive(value, keys, lead, ctx.batch)?, value.depends_on_image_size() || varies)
        }
        Some(_) => return Err("the mask must be constant, but depends on the image".into()),
    };
    let target = broadcast(&given.shape().to_vec().into(), &[queries, keys].into())?;
    let fits = broadcast(&target, shape).is_ok_and(|joined| joined == *shape);
    if !fits {
        return Err(format!("a mask of shape {:?} does not fit scores of shape {shape}", given.shape()));
    }
    let rank = target.len();
    let (outer, count) = (target.elements(), ctx.checked_elements(&target)?);
    let sees = |query: usize, key: usize| {
        let distance = key as i64 - query as i64;
        left.is_none_or(|left| -distance <= left) && right.is_none_or(|right| distance <= right)
    };
    let mut values = Vec::with_capacity(count);
    for position in 0..outer {
        let (query, key) = (position / keys % queries, position % keys);
        let value = given.data()[source(position, &target, given.shape(), rank)];
        values.push(if sees(query, key) { value } else { f32::NEG_INFINITY });
    }
    if values.chunks(keys.max(1)).any(|row| row.iter().all(|&value| value == f32::NEG_INFINITY)) {
        return Err("a query sees no key at all, which is not supported".into());
    }
    Ok(Some((Array::new(target.to_vec(), values)?, sized)))
}

/// The position in an array of shape `from` that broadcasts to `position` of `to`.
fn source(mut position: usize, to: &Shape, from: &[usize], rank: usize) -> usize {
    let (mut at, mut stride) = (0, 1);
    for axis in (0..rank).rev() {
        let index = position % to[axis];
        position /= to[axis];
        if let Some(own) = (axis + from.len()).checked_sub(rank).map(|own| from[own]) {
            at += if own == 1 { 0 } else { index * stride };
            stride *= own;
        }
    }
    at
}

/// A mask that is added to scores over `keys` keys: of truth values, minus infinity where they are false. Missing keys
/// are not seen.
fn additive(value: &ConstTensor, keys: usize, lead: usize, batch: Option<usize>) -> Result<Array, String> {
    let numbers: Vec<f32> = match value.data() {
        ConstData::Float(data) => data.to_vec(),
        ConstData::Bool(data) => data.iter().map(|&seen| if seen { 0.0 } else { f32::NEG_INFINITY }).collect(),
        ConstData::Int(_) => {
            return Err("the mask holds integers; expected truth values or floating-point numbers".into());
        }
    };
    let mut shape = value.shape().to_vec();
    let own = shape.last().copied().ok_or("the mask is one number")?;
    if numbers.iter().any(|value| value.is_nan()) {
        return Err("the mask contains NaN".into());
    }
    let padding = if own == 1 { 0 } else { keys.saturating_sub(own) };
    let rows = numbers.chunks(own.max(1));
    let padded: Vec<f32> =
        rows.flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(f32::NEG_INFINITY, padding))).collect();
    if let Some(last) = shape.last_mut() {
        *last += padding;
    }
    let padded = ConstTensor::new(shape, ConstData::Float(padded.into()))?;
    let has_batch = lead == 0 && padded.shape().len() == 4;
    if has_batch && !is_same_for_all_images(&padded, 0, batch)? {
        return Err(format!("a mask of shape {:?} differs between the images of a batch", padded.shape()));
    }
    without_axis(&padded, has_batch.then_some(0))
}
