//! Matrix products: with constant matrices, which are dense layers, and of two tensors.

use super::super::const_tensor::{ConstData, ConstTensor};
use super::super::graph_builder::GraphBuilder;
use super::super::image_tensor::ImageTensor;
use super::super::node_context::{NodeContext, Operand};
use super::broadcast::{Aligned, AlignedOperand, align};
use super::elementwise::{combine, scaled};
use super::transpose::push_transpose;
use crate::network::{Array, Axis, Binary, Op};

/// <https://onnx.ai/onnx/operators/onnx__Gemm.html>: `alpha * A * B + beta * C`.
pub(super) fn gemm(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let alpha = ctx.float("alpha", 1.0)?;
    let beta = ctx.float("beta", 1.0)?;
    let first = gemm_factor(builder, ctx, 0, ctx.flag("transA")?)?;
    let product = match (first, ctx.input(1)) {
        (Operand::Dynamic(input), Some(Operand::Constant(weight))) => {
            let weight = scaled_constant(weight, alpha)?;
            dense(builder, input, matrix(&weight, ctx.flag("transB")?)?, None)?
        }
        (first, _) => {
            let second = gemm_factor(builder, ctx, 1, ctx.flag("transB")?)?;
            let product = product(builder, ctx, &first, &second)?;
            scaled(builder, ctx, product, alpha)?
        }
    };
    let summand = match ctx.input(2) {
        None => return Ok(product),
        Some(Operand::Constant(value)) => Operand::Constant(scaled_constant(value, beta)?),
        Some(Operand::Dynamic(tensor)) => Operand::Dynamic(scaled(builder, ctx, *tensor, beta)?),
        Some(Operand::Unavailable(_)) => return Err("an input cannot be computed".into()),
    };
    combine(builder, ctx, Binary::Add, &Operand::Dynamic(product), &summand)
}

/// A factor of a `Gemm`, a matrix, transposed if `turned`.
fn gemm_factor(builder: &mut GraphBuilder, ctx: &NodeContext, i: usize, turned: bool) -> Result<Operand, String> {
    let factor = ctx.input(i).ok_or("a factor is missing")?;
    let rank = rank(builder, factor);
    if rank != 2 {
        return Err(format!("factor {i} has {rank} axes; expected a matrix"));
    }
    Ok(match factor {
        operand if !turned => operand.clone(),
        Operand::Dynamic(tensor) => Operand::Dynamic(match tensor.batch {
            Some(batch) => ImageTensor { batch: Some(1 - batch), ..*tensor },
            None => ImageTensor { id: push_transpose(builder, tensor.id, vec![1, 0])?, batch: None },
        }),
        Operand::Constant(value) => {
            let array = matrix(value, false)?;
            Operand::Constant(ConstTensor::new(array.shape().to_vec(), ConstData::Float(array.data().into()))?)
        }
        Operand::Unavailable(_) => return Err("an input cannot be computed".into()),
    })
}

/// <https://onnx.ai/onnx/operators/onnx__MatMul.html>, as in NumPy.
pub(super) fn mat_mul(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let (Some(first), Some(second)) = (ctx.input(0), ctx.input(1)) else {
        return Err("a factor is missing".into());
    };
    let ranks = [rank(builder, first), rank(builder, second)];
    if ranks.contains(&0) {
        return Err("a factor is one number; expected a vector or matrices".into());
    }
    // The first vector is a row, the second one a column.
    let (row, column) = (as_matrix(builder, first, 0)?, as_matrix(builder, second, 1)?);
    let mut output = product(builder, ctx, &row, &column)?;
    for i in [1, 0].into_iter().filter(|&i| ranks[i] == 1) {
        // After the columns, if those have been removed, come the rows.
        let axis = output.rank(builder) - 1 - usize::from(i == 0 && ranks[1] != 1);
        output = without_axis(builder, output, axis)?;
    }
    Ok(output)
}

/// A tensor without its axis `axis`, of length 1.
fn without_axis(builder: &mut GraphBuilder, tensor: ImageTensor, axis: usize) -> Result<ImageTensor, String> {
    let Some(removed) = tensor.node_axis(axis) else { return Ok(ImageTensor { batch: None, ..tensor }) };
    let kept = (0..builder.node(tensor.id).shape.len()).filter(|&own| own != removed).map(Axis::Copy).collect();
    let id = builder.push_reshape(tensor.id, kept, false)?;
    Ok(ImageTensor { id, batch: tensor.batch.map(|batch| batch - usize::from(batch > axis)) })
}

/// A vector with another axis of length 1 at `axis`; other operands as they are.
fn as_matrix(builder: &mut GraphBuilder, operand: &Operand, axis: usize) -> Result<Operand, String> {
    if rank(builder, operand) != 1 {
        return Ok(operand.clone());
    }
    Ok(match operand {
        // The new axis takes the place of the batch.
        Operand::Dynamic(tensor) => {
            Operand::Dynamic(ImageTensor { batch: Some(axis), ..tensor.with_batch(builder, None)? })
        }
        Operand::Constant(value) => {
            let mut shape = value.shape().to_vec();
            shape.insert(axis, 1);
            Operand::Constant(value.reshape(shape)?)
        }
        Operand::Unavailable(_) => operand.clone(),
    })
}

/// The product of two operands of at least two axes.
///
/// # Errors
/// When their matrices do not fit each other.
pub(super) fn product(
    builder: &mut GraphBuilder,
    ctx: &NodeContext,
    first: &Operand,
    second: &Operand,
) -> Result<ImageTensor, String> {
    if let (Operand::Dynamic(input), Operand::Constant(weight)) = (first, second)
        && let Some((outer, &matrix_shape)) = weight.shape().split_last_chunk::<2>()
        && outer.iter().all(|&length| length == 1)
        && weight.shape().len() <= input.rank(builder)
    {
        let weight = weight.reshape(matrix_shape.to_vec())?;
        return dense(builder, *input, matrix(&weight, false)?, None);
    }
    let most = rank(builder, first).max(rank(builder, second));
    let is_outer = |axis: usize| axis + 2 < most;
    let Aligned { operands, batch } = align(builder, ctx, &[first, second], is_outer)?;
    let sized = operands.iter().any(AlignedOperand::is_sized);
    let inputs = operands.into_iter().map(|operand| operand.into_node(builder)).collect::<Result<Vec<_>, _>>()?;
    Ok(ImageTensor { id: builder.push_sized(Op::MatMul, &inputs, sized)?, batch })
}

/// Number of axes in the file.
fn rank(builder: &GraphBuilder, operand: &Operand) -> usize {
    match operand {
        Operand::Dynamic(tensor) => tensor.rank(builder),
        Operand::Constant(value) => value.shape().len(),
        Operand::Unavailable(_) => 0,
    }
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
        return Err(format!("a factor has shape {:?}; expected a matrix", array.shape()));
    };
    if transposed {
        return Ok(array);
    }
    let data = array.data();
    let swapped: Vec<f32> = (0..columns).flat_map(|c| (0..rows).map(move |r| data[r * columns + c])).collect();
    Ok(Array::new([columns, rows], swapped)?)
}

/// A constant times a number.
fn scaled_constant(value: &ConstTensor, factor: f32) -> Result<ConstTensor, String> {
    if factor == 1.0 {
        return Ok(value.clone());
    }
    let data: Vec<f32> = value.floats()?.iter().map(|w| w * factor).collect();
    ConstTensor::new(value.shape().to_vec(), ConstData::Float(data.into()))
}
