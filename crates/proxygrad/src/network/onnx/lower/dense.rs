//! Dense layers: matrix products with constant matrices.

use super::super::const_tensor::ConstTensor;
use super::super::graph_builder::{BuilderId, GraphBuilder};
use super::super::node_context::{NodeContext, Operand};
use crate::network::{Array, Op};

/// <https://onnx.ai/onnx/operators/onnx__Gemm.html>: `alpha * x * B + beta * C` with constant B and C.
pub(super) fn gemm(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    if ctx.flag("transA")? {
        return Err("transA 1 would mix the images of a batch".into());
    }
    let input = ctx.dynamic(0)?;
    let alpha = ctx.float("alpha", 1.0)?;
    let beta = ctx.float("beta", 1.0)?;
    let weight = scaled(&matrix(ctx.constant(1)?, ctx.flag("transB")?)?, alpha)?;
    let bias = ctx.optional_constant(2)?.map(|bias| row(bias, weight.shape()[0], beta)).transpose()?;
    builder.push(Op::Dense { weight, bias }, &[input])
}

/// <https://onnx.ai/onnx/operators/onnx__MatMul.html> of a tensor and a constant matrix, or of two tensors.
pub(super) fn mat_mul(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    if let Some(Operand::Dynamic(second)) = ctx.input(1) {
        let first = ctx.dynamic(0)?;
        if builder.node(first).shape.len() != builder.node(*second).shape.len() {
            let (a, b) = (&builder.node(first).shape, &builder.node(*second).shape);
            return Err(format!("the inputs {a} and {b} have different ranks, so their batch axes do not align"));
        }
        return builder.push(Op::MatMul, &[first, *second]);
    }
    let input = ctx.dynamic(0)?;
    let weight = matrix(ctx.constant(1)?, false)?;
    builder.push(Op::Dense { weight, bias: None }, &[input])
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
