//! Elementwise arithmetic.

use super::super::graph_builder::{BuilderId, GraphBuilder};
use super::super::image_tensor::ImageTensor;
use super::super::node_context::{NodeContext, Operand};
use super::super::unary_functions::unary_function;
use super::activation::clipped;
use super::broadcast::{Aligned, AlignedOperand, align, per_channel};
use super::softmax::log_of_softmax;
use crate::network::{Array, Binary, Op, Shape, Unary, broadcast};

/// <https://onnx.ai/onnx/operators/onnx__Add.html>
pub(super) fn add(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    binary(builder, ctx, Binary::Add)
}

/// <https://onnx.ai/onnx/operators/onnx__Sub.html>
pub(super) fn sub(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    binary(builder, ctx, Binary::Sub)
}

/// <https://onnx.ai/onnx/operators/onnx__Mul.html>
pub(super) fn mul(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    binary(builder, ctx, Binary::Mul)
}

/// <https://onnx.ai/onnx/operators/onnx__Div.html>
pub(super) fn div(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    binary(builder, ctx, Binary::Div)
}

/// <https://onnx.ai/onnx/operators/onnx__Sum.html>: any number of summands.
pub(super) fn sum(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let summands = operands(ctx)?;
    combine_all(builder, ctx, Binary::Add, &summands)
}

/// <https://onnx.ai/onnx/operators/onnx__Mean.html>: the mean of any number of tensors.
pub(super) fn mean(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let summands = operands(ctx)?;
    let total = combine_all(builder, ctx, Binary::Add, &summands)?;
    let channels = ctx.checked_elements(&[builder.node(total.id).shape.channels()])?;
    let scale = vec![1.0 / summands.len() as f32; channels];
    Ok(ImageTensor { id: affine(builder, total.id, scale, vec![0.0; channels], false)?, ..total })
}

/// <https://onnx.ai/onnx/operators/onnx__Max.html>: the part with constant numbers is an activation.
pub(super) fn max(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let (tensors, bounds) = tensors_and_bounds(ctx)?;
    let largest = combine_all(builder, ctx, Binary::Max, &tensors)?;
    let bound = bounds.into_iter().fold(f32::NEG_INFINITY, f32::max);
    Ok(ImageTensor { id: clipped(builder, largest.id, bound, f32::INFINITY)?, ..largest })
}

/// <https://onnx.ai/onnx/operators/onnx__Min.html>: the part with constant numbers is an activation.
pub(super) fn min(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let (tensors, bounds) = tensors_and_bounds(ctx)?;
    let smallest = combine_all(builder, ctx, Binary::Min, &tensors)?;
    let bound = bounds.into_iter().fold(f32::INFINITY, f32::min);
    Ok(ImageTensor { id: clipped(builder, smallest.id, f32::NEG_INFINITY, bound)?, ..smallest })
}

/// <https://onnx.ai/onnx/operators/onnx__Neg.html>
pub(super) fn neg(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let (input, shape) = ctx.dynamic_with_shape(builder, 0)?;
    let channels = ctx.checked_elements(&[shape.channels()])?;
    affine(builder, input, vec![-1.0; channels], vec![0.0; channels], false)
}

/// <https://onnx.ai/onnx/operators/onnx__Pow.html>
pub(super) fn pow(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let (base, exponent) = (ctx.required(0)?, ctx.required(1)?);
    match (base, exponent) {
        (Operand::Dynamic(base), Operand::Constant(exponent))
            if exponent.len() == 1 && exponent.shape().len() <= base.rank(builder) =>
        {
            let exponent = f64::from(exponent.numbers()?.data()[0]);
            let power = |builder: &mut GraphBuilder| builder.push(Op::Unary(Unary::Power(exponent)), &[base.id]);
            Ok(ImageTensor { id: if exponent == 1.0 { base.id } else { power(builder)? }, ..*base })
        }
        _ => combine(builder, ctx, Binary::Pow, base, exponent),
    }
}

/// <https://onnx.ai/onnx/operators/onnx__Log.html>
pub(super) fn log(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    match log_of_softmax(builder, ctx.dynamic(0)?)? {
        Some(output) => Ok(output),
        None => function(builder, ctx),
    }
}

/// Any operator of [`unary_function`].
pub(super) fn function(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let function = unary_function(&ctx.node.op_type).ok_or("it is no function of one number")?;
    builder.push(Op::Unary(function), &[ctx.dynamic(0)?])
}

/// All inputs.
fn operands<'a>(ctx: &'a NodeContext) -> Result<Vec<&'a Operand>, String> {
    (0..ctx.inputs.len()).map(|i| ctx.required(i)).collect()
}

/// The inputs that are tensors, and those that are constant numbers.
fn tensors_and_bounds<'a>(ctx: &'a NodeContext) -> Result<(Vec<&'a Operand>, Vec<f32>), String> {
    let (mut tensors, mut bounds) = (Vec::new(), Vec::new());
    for operand in operands(ctx)? {
        match operand {
            Operand::Constant(value) if value.len() == 1 => bounds.push(value.scalar()?),
            tensor => tensors.push(tensor),
        }
    }
    Ok((tensors, bounds))
}

/// Combines any number of operands, from left to right.
fn combine_all(
    builder: &mut GraphBuilder,
    ctx: &NodeContext,
    kind: Binary,
    operands: &[&Operand],
) -> Result<ImageTensor, String> {
    // Constants last, so that no two of them meet first.
    let is_constant = |operand: &&&Operand| matches!(operand, Operand::Constant(_));
    let (constants, tensors): (Vec<&Operand>, Vec<&Operand>) = operands.iter().partition(|o| is_constant(o));
    let mut all = tensors.into_iter().chain(constants);
    let mut total = all.next().ok_or("no input depends on the image")?.clone();
    for operand in all {
        total = Operand::Dynamic(combine(builder, ctx, kind, &total, operand)?);
    }
    match total {
        Operand::Dynamic(tensor) => Ok(tensor),
        _ => Err("no input depends on the image".into()),
    }
}

fn binary(builder: &mut GraphBuilder, ctx: &NodeContext, kind: Binary) -> Result<ImageTensor, String> {
    combine(builder, ctx, kind, ctx.required(0)?, ctx.required(1)?)
}

/// Combines two operands with broadcasting.
///
/// # Errors
/// When both are constant, or do not broadcast.
pub(super) fn combine(
    builder: &mut GraphBuilder,
    ctx: &NodeContext,
    kind: Binary,
    a: &Operand,
    b: &Operand,
) -> Result<ImageTensor, String> {
    let Aligned { operands, batch } = align(builder, ctx, &[a, b], |_| true)?;
    let mut operands = operands.into_iter();
    let id = match (operands.next(), operands.next()) {
        (Some(AlignedOperand::Node(a)), Some(AlignedOperand::Node(b))) => combine_dynamic(builder, kind, a, b)?,
        (Some(AlignedOperand::Node(input)), Some(AlignedOperand::Constant(value, sized))) => {
            combine_constant(builder, ctx, kind, (input, value, sized), false)?
        }
        (Some(AlignedOperand::Constant(value, sized)), Some(AlignedOperand::Node(input))) => {
            combine_constant(builder, ctx, kind, (input, value, sized), true)?
        }
        _ => return Err("both inputs are constant".into()),
    };
    Ok(ImageTensor { id, batch })
}

/// Combines two tensors that depend on the image.
fn combine_dynamic(builder: &mut GraphBuilder, kind: Binary, a: BuilderId, b: BuilderId) -> Result<BuilderId, String> {
    // Broadcasting makes an explicit expansion to the other operand's shape unnecessary.
    let unexpanded = |id: BuilderId, other: &Shape| {
        let node = builder.node(id);
        let source = node.expanded_from?;
        let same = broadcast(&builder.node(source).shape, other) == broadcast(&node.shape, other);
        same.then_some(source)
    };
    let first = unexpanded(a, &builder.node(b).shape).unwrap_or(a);
    let second = unexpanded(b, &builder.node(first).shape).unwrap_or(b);
    builder.push(Op::Binary(kind), &[first, second])
}

/// Combines a tensor with a constant; `reversed` if the constant comes first.
fn combine_constant(
    builder: &mut GraphBuilder,
    ctx: &NodeContext,
    kind: Binary,
    (input, constant, sized): (BuilderId, Array, bool),
    reversed: bool,
) -> Result<BuilderId, String> {
    let shape = builder.node(input).shape.clone();
    ctx.checked_elements(&[shape.channels()])?;
    if let Some(values) = per_channel(&constant, &shape) {
        let ones = vec![1.0; values.len()];
        let zeros = vec![0.0; values.len()];
        let negated = |values: &[f32]| values.iter().map(|v| -v).collect();
        match (kind, reversed) {
            (Binary::Add, _) => return affine(builder, input, ones, values, sized),
            (Binary::Sub, false) => return affine(builder, input, ones, negated(&values), sized),
            (Binary::Sub, true) => return affine(builder, input, negated(&ones), values, sized),
            (Binary::Mul, _) => return affine(builder, input, values, zeros, sized),
            (Binary::Div, false) => {
                return affine(builder, input, values.iter().map(|v| 1.0 / v).collect(), zeros, sized);
            }
            _ => {}
        }
    }
    let constant = builder.push_constant(constant)?;
    let inputs = if reversed { [constant, input] } else { [input, constant] };
    builder.push_sized(Op::Binary(kind), &inputs, sized)
}

/// All values times a number.
///
/// # Errors
/// When there are too many channels.
pub(super) fn scaled(
    builder: &mut GraphBuilder,
    ctx: &NodeContext,
    tensor: ImageTensor,
    factor: f32,
) -> Result<ImageTensor, String> {
    let channels = ctx.checked_elements(&[builder.node(tensor.id).shape.channels()])?;
    let id = affine(builder, tensor.id, vec![factor; channels], vec![0.0; channels], false)?;
    Ok(ImageTensor { id, ..tensor })
}

/// `scale * x + shift` per channel; adds no node if that is `x`.
pub(super) fn affine(
    builder: &mut GraphBuilder,
    input: BuilderId,
    scale: Vec<f32>,
    shift: Vec<f32>,
    sized: bool,
) -> Result<BuilderId, String> {
    if scale.iter().all(|&v| v == 1.0) && shift.iter().all(|&v| v == 0.0) {
        return Ok(input);
    }
    builder.push_sized(Op::Affine { scale: Array::vector(scale), shift: Array::vector(shift) }, &[input], sized)
}
