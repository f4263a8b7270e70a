//! `RotaryEmbedding`, as products with constants and a permutation.

use super::super::const_tensor::ConstTensor;
use super::super::graph_builder::{BuilderId, GraphBuilder};
use super::super::image_tensor::ImageTensor;
use super::super::node_context::{NodeContext, length};
use super::attention::{head_count, split_heads};
use super::broadcast::is_same_for_all_images;
use crate::network::{Array, Axis, Binary, Op};

/// <https://onnx.ai/onnx/operators/onnx__RotaryEmbedding.html>: pairs of values are rotated by constant angles.
pub(super) fn rotary_embedding(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let tensor = ctx.image_tensor(0)?;
    let rank = tensor.rank(builder);
    // Without the batch, or with an axis that holds several maps of one image.
    let lead = usize::from(tensor.file_shape(builder).first() != Some(&1));
    let tensor = tensor.with_batch(builder, (lead == 0).then_some(0))?;
    let shape = builder.node(tensor.id).shape.clone();
    let (x, positions) = match (rank, shape.get(lead..)) {
        (4, Some(&[_, positions, _])) => (tensor.id, positions),
        (3, Some(&[positions, hidden])) => {
            let heads = head_count(ctx, "num_heads")?;
            (split_heads(builder, tensor.id, lead, heads, hidden)?, positions)
        }
        _ => return Err(format!("the input has {rank} axes; expected [N,L,h*d] or [N,h,L,d]")),
    };
    let split = builder.node(x).shape.clone();
    let width = split[lead + 2];
    let rotated = match ctx.int("rotary_embedding_dim")?.unwrap_or(0) {
        0 => width,
        part => length(part, "rotary_embedding_dim")?,
    };
    if rotated > width || !rotated.is_multiple_of(2) {
        return Err(format!("rotary_embedding_dim is {rotated}; expected an even number up to {width}"));
    }
    let half = rotated / 2;
    let interleaved = ctx.flag("interleaved")?;
    // For each value its partner, the index of the pair, and the sign of the sine.
    let partner = |i: usize| match (interleaved, i < half) {
        _ if i >= rotated => (i, 0, 0.0),
        (true, _) => (i ^ 1, i / 2, if i.is_multiple_of(2) { -1.0 } else { 1.0 }),
        (false, true) => (i + half, i, -1.0),
        (false, false) => (i - half, i - half, 1.0),
    };
    let (cosines, sines) = (angles(ctx, 1, positions, half)?, angles(ctx, 2, positions, half)?);
    let blocks = cosines.len() / (positions * half).max(1);
    let blocks_fit = cosines.len() == sines.len() && (blocks == 1 || (lead == 1 && blocks == split[0]));
    if !blocks_fit {
        return Err(format!("the angles are those of {blocks} sequences; expected 1"));
    }
    ctx.checked_elements(&[blocks, positions, width])?;
    let factors = |table: &[f32], rest: f32, signed: bool| -> Vec<f32> {
        let rows = table.chunks(half.max(1)).take(blocks * positions);
        let value = |row: &[f32], i: usize| match partner(i) {
            (_, pair, sign) if i < rotated => {
                if signed {
                    sign * row[pair]
                } else {
                    row[pair]
                }
            }
            _ => rest,
        };
        rows.flat_map(|row| (0..width).map(move |i| value(row, i)).collect::<Vec<_>>()).collect()
    };
    // The heads come before the positions, or after them if they were split from the last axis.
    let axes = if rank == 3 { [blocks, positions, 1, width] } else { [blocks, 1, positions, width] };
    let axes = &axes[if blocks == 1 { 1 } else { 0 }..];
    let sized = ctx.constants_given().any(ConstTensor::depends_on_image_size);
    let product = |builder: &mut GraphBuilder, id: BuilderId, values: Vec<f32>| {
        let constant = builder.push_constant(Array::new(axes, values)?)?;
        builder.push_sized(Op::Binary(Binary::Mul), &[id, constant], sized)
    };
    let along = product(builder, x, factors(&cosines, 1.0, false))?;
    let indices = (0..width).map(|i| partner(i).0 as u32).collect();
    let swapped = builder.push(Op::Gather { axis: lead + 2, indices }, &[x])?;
    let across = product(builder, swapped, factors(&sines, 0.0, true))?;
    let mut id = builder.push(Op::Binary(Binary::Add), &[along, across])?;
    if rank == 3 {
        let axes = (0..=lead).map(Axis::Copy).chain([Axis::Exact(shape[lead + 1])]).collect();
        id = builder.push_reshape(id, axes, false)?;
    }
    Ok(ImageTensor { id, ..tensor })
}

/// The cosines or sines of the positions, `[sequences, positions, half]` or those of one sequence.
fn angles(ctx: &NodeContext, i: usize, positions: usize, half: usize) -> Result<Vec<f32>, String> {
    let value = ctx.constant(i)?;
    let table = value.floats()?;
    let fits = |shape: &[usize]| shape.ends_with(&[positions, half]);
    let rows = match (ctx.optional_constant(3)?, value.shape()) {
        (None, shape @ [_, _, _]) if fits(shape) => {
            let count = if is_same_for_all_images(value, 0, ctx.batch)? { positions * half } else { table.len() };
            return Ok(table[..count].to_vec());
        }
        (Some(ids), &[rows, width]) if width == half && ids.shape().last() == Some(&positions) => {
            let count = if is_same_for_all_images(ids, 0, ctx.batch)? { positions } else { ids.len() };
            let row = |&id: &i64| usize::try_from(id).ok().filter(|&id| id < rows).ok_or(id);
            ids.ints()?[..count].iter().map(row).collect::<Result<Vec<_>, _>>()
        }
        (ids, shape) => {
            let ids = ids.map(|ids| ids.shape());
            return Err(format!(
                "angles of shape {shape:?} and positions {ids:?} do not fit {positions} positions of {half} pairs"
            ));
        }
    };
    let rows = rows.map_err(|id| format!("position {id} does not exist"))?;
    ctx.checked_elements(&[rows.len(), half])?;
    Ok(rows.into_iter().flat_map(|row| table[row * half..(row + 1) * half].iter().copied()).collect())
}
