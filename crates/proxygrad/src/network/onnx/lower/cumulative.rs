//! `CumSum` and `Trilu`: operators that triangles of constants express.

use super::super::graph_builder::GraphBuilder;
use super::super::image_tensor::ImageTensor;
use super::super::node_context::{NodeContext, axis};
use super::transpose::push_transpose;
use crate::network::{Array, Op};

/// <https://onnx.ai/onnx/operators/onnx__CumSum.html> as a product with a triangle of ones.
pub(super) fn cum_sum(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let tensor = ctx.image_tensor(0)?;
    let along = match ctx.constant(1)?.ints()? {
        &[value] => axis(value, tensor.rank(builder))?,
        other => return Err(format!("axis is {other:?}; expected one number")),
    };
    let (exclusive, reverse) = (ctx.flag("exclusive")?, ctx.flag("reverse")?);
    let along = tensor.node_axis(along).ok_or("operating along the batch axis is not supported")?;
    let rank = builder.node(tensor.id).shape.len();
    let length = builder.node(tensor.id).shape[along];
    let sized = builder.depends_on_image_size(tensor.id, along);
    let mut weights = vec![0.0; ctx.checked_elements(&[length, length])?];
    for to in 0..length {
        for from in 0..length {
            let distance = if reverse { from as i64 - to as i64 } else { to as i64 - from as i64 };
            if distance > 0 || (distance == 0 && !exclusive) {
                weights[to * length + from] = 1.0;
            }
        }
    }
    // Swapping two axes is its own inverse.
    let mut order: Vec<usize> = (0..rank).collect();
    order.swap(along, rank - 1);
    let turned = push_transpose(builder, tensor.id, order.clone())?;
    let dense = Op::Dense { weight: Array::new([length, length], weights)?, bias: None };
    let summed = builder.push_sized(dense, &[turned], sized)?;
    Ok(ImageTensor { id: push_transpose(builder, summed, order)?, ..tensor })
}

/// <https://onnx.ai/onnx/operators/onnx__Trilu.html>: values outside of a triangle of the last two axes become 0.
pub(super) fn trilu(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let tensor = ctx.image_tensor(0)?.with_batch(builder, None)?;
    let shape = builder.node(tensor.id).shape.clone();
    let &[.., rows, columns] = &shape[..] else {
        return Err(format!("the input has the shape {shape}; expected matrices"));
    };
    let keeps = kept(ctx)?;
    let mask: Vec<f32> = (0..ctx.checked_elements(&[rows, columns])?)
        .map(|position| f32::from(u8::from(keeps(position / columns, position % columns))))
        .collect();
    let sized = [shape.len() - 2, shape.len() - 1].iter().any(|&axis| builder.depends_on_image_size(tensor.id, axis));
    let mask = builder.push_constant(Array::new([rows, columns], mask)?)?;
    let zero = builder.push_constant(Array::new([], [0.0])?)?;
    let id = builder.push_sized(Op::Select, &[mask, tensor.id, zero], sized)?;
    let batch = ctx.image_tensor(0)?.batch;
    ImageTensor { id, batch: None }.with_batch(builder, batch)
}

/// Whether `Trilu` keeps the value of a row and column.
///
/// # Errors
/// When its offset is not one integer.
pub(in super::super) fn kept(ctx: &NodeContext) -> Result<impl Fn(usize, usize) -> bool + use<>, String> {
    let upper = ctx.int("upper")?.unwrap_or(1) != 0;
    let offset = match ctx.optional_constant(1)?.map(|value| value.ints()).transpose()? {
        None | Some([]) => 0,
        Some(&[offset]) => offset,
        Some(other) => return Err(format!("k is {other:?}; expected one number")),
    };
    Ok(move |row: usize, column: usize| {
        let distance = column as i64 - row as i64;
        if upper { distance >= offset } else { distance <= offset }
    })
}
