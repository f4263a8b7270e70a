//! Operators that only move values by constant indices: they are folded on the positions of their inputs' values, which
//! gives the position that every value of the output is read from.

use super::super::const_tensor::{ConstData, ConstTensor, row_major};
use super::super::constant_folding;
use super::super::graph_builder::{BuilderId, GraphBuilder};
use super::super::image_tensor::ImageTensor;
use super::super::node_context::{NodeContext, Operand};
use crate::network::{Axis, Op};

/// Operators that read or repeat values of their first input.
pub(super) fn of_first_input(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    moved(builder, ctx, &[0])
}

/// Operators that replace values of their first input by values of their third one.
pub(super) fn of_first_and_third_input(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    moved(builder, ctx, &[0, 2])
}

/// Lowers a node that moves values of the inputs `data`; its other inputs are constant.
fn moved(builder: &mut GraphBuilder, ctx: &NodeContext, data: &[usize]) -> Result<ImageTensor, String> {
    let mut folded = ctx.clone();
    let (mut nodes, mut batch, mut count) = (Vec::with_capacity(data.len()), None, 0i64);
    let mut sized = false;
    for &i in data {
        let (shape, node) = match ctx.required(i)? {
            Operand::Dynamic(tensor) => {
                batch = batch.or(tensor.batch);
                let tensor = tensor.with_batch(builder, None)?;
                let shape = builder.node(tensor.id).shape.to_vec();
                (shape, tensor.id)
            }
            _ => {
                let value = ctx.constant(i)?;
                sized |= value.depends_on_image_size();
                (value.shape().to_vec(), builder.push_constant(value.numbers()?)?)
            }
        };
        let end = count.saturating_add(ctx.checked_elements(&shape)? as i64);
        folded.inputs[i] = Some(Operand::Constant(ConstTensor::new(shape, ConstData::Int((count..end).collect()))?));
        (nodes, count) = ([nodes, vec![node]].concat(), end);
    }
    sized |=
        (0..ctx.inputs.len()).any(|i| matches!(ctx.input(i), Some(Operand::Constant(v)) if v.depends_on_image_size()));
    let fold = constant_folding::lookup(&ctx.node.op_type).ok_or("the operation is not supported")?;
    let places = fold(&folded)?.into_iter().next().ok_or("it has no output")?;
    let positions = places.ints()?.iter().map(|&at| u32::try_from(at).map_err(|_| "it moves too many values".into()));
    let positions = positions.collect::<Result<Vec<u32>, String>>()?;
    let id = match nodes.as_slice() {
        &[input] => read_positions(builder, input, positions, places.shape(), sized)?,
        several => {
            let flat = several.iter().map(|&node| builder.push_reshape(node, vec![Axis::Infer], false));
            let flat = flat.collect::<Result<Vec<_>, _>>()?;
            sized |= several.iter().any(|&node| varies(builder, node));
            let joined = builder.push_sized(Op::Concat { axis: 0 }, &flat, sized)?;
            read_positions(builder, joined, positions, places.shape(), sized)?
        }
    };
    let kept = batch.filter(|&batch| places.shape().get(batch) == Some(&1));
    ImageTensor { id, batch: None }.with_batch(builder, kept)
}

/// Whether a length of the tensor depends on the image size.
fn varies(builder: &GraphBuilder, id: BuilderId) -> bool {
    (0..builder.node(id).shape.len()).any(|axis| builder.depends_on_image_size(id, axis))
}

/// A tensor of shape `target` whose values are those of `input` at these row-major positions: as operations along one
/// axis or as a transposition where it is one, else value by value.
///
/// # Errors
/// When an operation does not accept its input.
pub(super) fn read_positions(
    builder: &mut GraphBuilder,
    input: BuilderId,
    positions: Vec<u32>,
    target: &[usize],
    sized: bool,
) -> Result<BuilderId, String> {
    let shape = builder.node(input).shape.to_vec();
    if let Some((axis, indices)) = along_one_axis(&shape, target, &positions) {
        let identity = indices.len() == shape[axis] && indices.iter().copied().eq(0..indices.len() as u32);
        let sized = sized || builder.depends_on_image_size(input, axis);
        return match identity {
            true => Ok(input),
            false => builder.push_sized(Op::Gather { axis, indices: indices.into() }, &[input], sized),
        };
    }
    let sized = sized || varies(builder, input);
    let exact = |lengths: &[usize]| lengths.iter().map(|&length| Axis::Exact(length)).collect::<Vec<_>>();
    if let Some(order) =
        transposition(target, &positions).filter(|_| positions.len() == shape.iter().product::<usize>())
    {
        let stored: Vec<usize> = order.iter().map(|&axis| target[axis]).collect();
        let parts = builder.push_reshape(input, exact(&stored), sized)?;
        let mut back = vec![0; order.len()];
        for (from, &to) in order.iter().enumerate() {
            back[to] = from;
        }
        return match back.iter().copied().eq(0..back.len()) {
            true => Ok(parts),
            false => builder.push_sized(Op::Transpose(back), &[parts], sized),
        };
    }
    let flat = builder.push_reshape(input, vec![Axis::Infer], false)?;
    let read = builder.push_sized(Op::Gather { axis: 0, indices: positions.into() }, &[flat], sized)?;
    builder.push_reshape(read, exact(target), sized)
}

/// The axis along which the positions select indices, and these, if all other axes are read unchanged.
fn along_one_axis(shape: &[usize], target: &[usize], positions: &[u32]) -> Option<(usize, Vec<u32>)> {
    if shape.len() != target.len() || positions.is_empty() {
        return None;
    }
    let differ: Vec<usize> = (0..shape.len()).filter(|&axis| shape[axis] != target[axis]).collect();
    let candidates = match differ.as_slice() {
        [] => (0..shape.len()).collect(),
        &[only] => vec![only],
        _ => return None,
    };
    let (from, to) = (row_major(shape), row_major(target));
    let [from, to] = [from, to].map(|strides| strides.iter().map(|stride| stride.unsigned_abs()).collect::<Vec<_>>());
    candidates.into_iter().find_map(|axis| {
        let index = |i: usize| positions[i * to[axis]] as usize / from[axis] % shape[axis];
        let indices: Vec<usize> = (0..target[axis]).map(index).collect();
        let source = |at: usize| {
            let along = |other: usize| at / to[other] % target[other];
            (0..shape.len())
                .map(|other| from[other] * if other == axis { indices[along(axis)] } else { along(other) })
                .sum::<usize>()
        };
        let matches = positions.iter().enumerate().all(|(at, &position)| position as usize == source(at));
        matches.then(|| (axis, indices.iter().map(|&index| index as u32).collect()))
    })
}

/// The axes of `target` in the order in which they are stored, outermost first, if every stored value is read once.
fn transposition(target: &[usize], positions: &[u32]) -> Option<Vec<usize>> {
    let strides = row_major(target);
    let step = |axis: usize| match target[axis] {
        0 | 1 => Some(0),
        _ => positions.get(strides[axis].unsigned_abs())?.checked_sub(*positions.first()?),
    };
    let steps = (0..target.len()).map(step).collect::<Option<Vec<u32>>>()?;
    let mut order: Vec<usize> = (0..target.len()).collect();
    // Axes of length 1 may be anywhere; a stable order keeps them near their places.
    order.sort_by_key(|&axis| std::cmp::Reverse(if target[axis] == 1 { u32::MAX } else { steps[axis] }));
    let mut expected = 1usize;
    for &axis in order.iter().rev().filter(|&&axis| target[axis] != 1) {
        if steps[axis] as usize != expected {
            return None;
        }
        expected = expected.checked_mul(target[axis])?;
    }
    let source = |at: usize| {
        let along = |axis: usize| at / strides[axis].unsigned_abs() % target[axis].max(1) * steps[axis] as usize;
        (0..target.len()).map(along).sum::<usize>()
    };
    let matches = positions.iter().enumerate().all(|(at, &position)| position as usize == source(at));
    (matches && positions.first() == Some(&0)).then_some(order)
}
