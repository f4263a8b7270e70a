//! Dense layers: matrix products with constant matrices.

use super::super::const_tensor::ConstTensor;
use super::super::graph_builder::GraphBuilder;
use super::super::image_tensor::ImageTensor;
use super::super::node_context::{NodeContext, Operand};
use super::broadcast::{Aligned, AlignedOperand, align};
use super::transpose::push_transpose;
use crate::network::{Array, Op};

/// <https://onnx.ai/onnx/operators/onnx__Gemm.html>: `alpha * x * B + beta * C` with constant B and C.
pub(super) fn gemm(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let mut input = ctx.image_tensor(0)?;
    if input.rank(builder) != 2 {
        return Err(format!("the first factor has {} axes; expected a matrix", input.rank(builder)));
    }
    if ctx.flag("transA")? {
        input = match input.batch {
            Some(batch) => ImageTensor { batch: Some(1 - batch), ..input },
            None => ImageTensor { id: push_transpose(builder, input.id, vec![1, 0])?, batch: None },
        };
    }
    let alpha = ctx.float("alpha", 1.0)?;
    let beta = ctx.float("beta", 1.0)?;
    let weight = scaled(&matrix(ctx.constant(1)?, ctx.flag("transB")?)?, alpha)?;
    let bias = ctx.optional_constant(2)?.map(|bias| row(bias, weight.shape()[0], beta)).transpose()?;
    dense(builder, input, weight, bias)
}

/// <https://onnx.ai/onnx/operators/onnx__MatMul.html> of a tensor and a constant matrix, or of two tensors.
pub(super) fn mat_mul(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let (Some(first), Some(second)) = (ctx.input(0), ctx.input(1)) else {
        return Err("a factor is missing".into());
    };
    if let (Operand::Dynamic(input), Operand::Constant(weight)) = (first, second)
        && weight.shape().len() == 2
    {
        return dense(builder, *input, matrix(weight, false)?, None);
    }
    let rank = |operand: &Operand| match operand {
        Operand::Dynamic(tensor) => tensor.rank(builder),
        Operand::Constant(value) => value.shape().len(),
        Operand::Unavailable(_) => 0,
    };
    let (a, b) = (rank(first), rank(second));
    if a.min(b) < 2 {
        return Err(format!("the factors have {a} and {b} axes; expected matrices"));
    }
    let is_outer = |axis: usize| axis + 2 < a.max(b);
    let Aligned { operands, batch } = align(builder, ctx, &[first, second], is_outer)?;
    let sized = operands.iter().any(AlignedOperand::is_sized);
    let inputs = operands.into_iter().map(|operand| operand.into_node(builder)).collect::<Result<Vec<_>, _>>()?;
    Ok(ImageTensor { id: builder.push_sized(Op::MatMul, &inputs, sized)?, batch })
}

/// Multiplies along the last axis, which is not the batch.
fn dense(
    builder: &mut GraphBuilder,
    input: ImageTensor,
    weight: Array,
    bias: Option<Array>,
) -> Result<ImageTensor, String> {
    let is_last = input.batch.is_some_and(|batch| batch + 1 == input.rank(builder));
    let input = if is_last { input.with_batch(builder, None)? } else { input };
    Ok(ImageTensor { id: builder.push(Op::Dense { weight, bias }, &[input.id])?, ..input })
}

/// A constant matrix as `[O,I]`; it is stored as `[O,I]` if `transposed`, and as `[I,O]` otherwise.
fn matrix(value: &ConstTensor, transposed: bool) -> Result<Array, String> {
    let array = value.array()?;
    let &[rows, columns] = array.shape() else {
        return Err(format!("the second factor has shape {:?}; expected a matrix", array.shape()));
    };
    if transposed {
        return Ok(array);
    }
    let data = array.data();
    let swapped: Vec<f32> = (0..columns).flat_map(|c| (0..rows).map(move |r| data[r * columns + c])).collect();
    Ok(Array::new([columns, rows], swapped)?)
}

fn scaled(weight: &Array, factor: f32) -> Result<Array, String> {
    if factor == 1.0 {
        return Ok(weight.clone());
    }
    Ok(Array::new(weight.shape(), weight.data().iter().map(|w| w * factor).collect::<Vec<_>>())?)
}

/// `factor` times a constant that is broadcast to a row of `length` values.
fn row(value: &ConstTensor, length: usize, factor: f32) -> Result<Array, String> {
    let data = value.floats()?;
    let is_row = value.shape().iter().rev().skip(1).all(|&axis| axis == 1) && value.shape().len() <= 2;
    match data.len() {
        n if n == length && is_row => Ok(Array::vector(data.iter().map(|b| b * factor).collect::<Vec<_>>())),
        1 if is_row => Ok(Array::vector(vec![data[0] * factor; length])),
        _ => Err(format!("a constant of shape {:?} cannot be added to vectors of {length} values", value.shape())),
    }
}
