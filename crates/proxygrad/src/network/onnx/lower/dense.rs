//! Matrix products with constant matrices: dense layers.

use super::super::call::Call;
use super::super::draft::{Draft, Id};
use super::super::value::Value;
use crate::network::{Array, Op};

/// <https://onnx.ai/onnx/operators/onnx__Gemm.html>: `alpha * x * B + beta * C` with constant B and C.
pub(super) fn gemm(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    if call.flag("transA")? {
        return Err("has transA 1, which mixes the images of a batch".into());
    }
    let input = call.map(0)?;
    let alpha = call.float("alpha", 1.0)?;
    let beta = call.float("beta", 1.0)?;
    let weight = scaled(&matrix(call.required(1)?, call.flag("transB")?)?, alpha)?;
    let bias = call.value(2)?.map(|bias| row(bias, weight.shape()[0], beta)).transpose()?;
    draft.push(Op::Dense { weight, bias }, &[input])
}

/// <https://onnx.ai/onnx/operators/onnx__MatMul.html>: vectors times a constant matrix.
pub(super) fn mat_mul(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    let (input, shape) = call.shaped(draft, 0)?;
    if shape.len() != 1 {
        return Err(format!("multiplies tensors {shape}; only vectors [K] are supported"));
    }
    let weight = matrix(call.required(1)?, false)?;
    draft.push(Op::Dense { weight, bias: None }, &[input])
}

/// A constant matrix as `[O,I]`; it is stored so if `transposed`, and `[I,O]` otherwise.
fn matrix(value: &Value, transposed: bool) -> Result<Array, String> {
    let array = value.array()?;
    let &[rows, columns] = array.shape() else {
        return Err(format!("multiplies by a tensor {:?}; expected a matrix", array.shape()));
    };
    if transposed {
        return Ok(array);
    }
    let data = array.data();
    let turned: Vec<f32> = (0..columns).flat_map(|c| (0..rows).map(move |r| data[r * columns + c])).collect();
    Ok(Array::new([columns, rows], turned)?)
}

fn scaled(weight: &Array, factor: f32) -> Result<Array, String> {
    if factor == 1.0 {
        return Ok(weight.clone());
    }
    Ok(Array::new(weight.shape(), weight.data().iter().map(|w| w * factor).collect::<Vec<_>>())?)
}

/// `factor` times a constant that is broadcast to a row of `length` values.
fn row(value: &Value, length: usize, factor: f32) -> Result<Array, String> {
    let data = value.floats()?;
    let is_row = value.shape().iter().rev().skip(1).all(|&axis| axis == 1) && value.shape().len() <= 2;
    match data.len() {
        n if n == length && is_row => Ok(Array::vector(data.iter().map(|b| b * factor).collect::<Vec<_>>())),
        1 if is_row => Ok(Array::vector(vec![data[0] * factor; length])),
        _ => Err(format!("adds a constant {:?} to vectors of {length} values", value.shape())),
    }
}
