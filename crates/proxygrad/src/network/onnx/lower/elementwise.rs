//! Elementwise arithmetic.

use super::super::graph_builder::{BuilderId, GraphBuilder, UnaryFunction};
use super::super::image_tensor::ImageTensor;
use super::super::node_context::{NodeContext, Operand};
use super::activation::clipped;
use super::broadcast::{Aligned, AlignedOperand, align, per_channel};
use super::softmax::log_of_softmax;
use crate::network::{Array, Binary, Op, Shape, broadcast};

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
    let mut summands =
        (0..ctx.inputs.len()).map(|i| ctx.input(i).ok_or_else(|| format!("input number {i} is missing")));
    let first = summands.next().ok_or("the node has no inputs")??;
    let mut total = first.clone();
    for summand in summands {
        total = Operand::Dynamic(combine(builder, ctx, Binary::Add, &total, summand?)?);
    }
    match total {
        Operand::Dynamic(tensor) => Ok(tensor),
        _ => Err("all summands are constant".into()),
    }
}

/// <https://onnx.ai/onnx/operators/onnx__Max.html> of a tensor and constant numbers.
pub(super) fn max(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let (input, bounds) = input_and_bounds(ctx)?;
    let min = bounds.into_iter().fold(f32::NEG_INFINITY, f32::max);
    Ok(ImageTensor { id: clipped(builder, input.id, min, f32::INFINITY)?, ..input })
}

/// <https://onnx.ai/onnx/operators/onnx__Min.html> of a tensor and constant numbers.
pub(super) fn min(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let (input, bounds) = input_and_bounds(ctx)?;
    let max = bounds.into_iter().fold(f32::INFINITY, f32::min);
    Ok(ImageTensor { id: clipped(builder, input.id, f32::NEG_INFINITY, max)?, ..input })
}

/// <https://onnx.ai/onnx/operators/onnx__Neg.html>
pub(super) fn neg(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let (input, shape) = ctx.dynamic_with_shape(builder, 0)?;
    let channels = ctx.checked_elements(&[shape.channels()])?;
    affine(builder, input, vec![-1.0; channels], vec![0.0; channels], false)
}

/// <https://onnx.ai/onnx/operators/onnx__Pow.html> with a constant exponent.
pub(super) fn pow(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let value = ctx.constant(1)?;
    let exponent = match value.ints() {
        Ok(&[exponent]) => exponent as f64,
        _ => value.scalar().map(f64::from).map_err(|why| format!("exponent: {why}"))?,
    };
    unary(builder, ctx, UnaryFunction::Power(exponent))
}

/// <https://onnx.ai/onnx/operators/onnx__Erf.html>
pub(super) fn erf(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    unary(builder, ctx, UnaryFunction::Erf)
}

/// <https://onnx.ai/onnx/operators/onnx__Exp.html>
pub(super) fn exp(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    unary(builder, ctx, UnaryFunction::Exp)
}

/// <https://onnx.ai/onnx/operators/onnx__Log.html>
pub(super) fn log(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    if let Some(output) = log_of_softmax(builder, ctx.dynamic(0)?)? {
        return Ok(output);
    }
    unary(builder, ctx, UnaryFunction::Log)
}

/// <https://onnx.ai/onnx/operators/onnx__Sqrt.html>
pub(super) fn sqrt(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    unary(builder, ctx, UnaryFunction::Sqrt)
}

/// <https://onnx.ai/onnx/operators/onnx__Abs.html>
pub(super) fn abs(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    unary(builder, ctx, UnaryFunction::Abs)
}

/// <https://onnx.ai/onnx/operators/onnx__Reciprocal.html>
pub(super) fn reciprocal(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    unary(builder, ctx, UnaryFunction::Power(-1.0))
}

fn unary(builder: &mut GraphBuilder, ctx: &NodeContext, function: UnaryFunction) -> Result<BuilderId, String> {
    Ok(builder.push_unary(function, ctx.dynamic(0)?))
}

/// The only input that depends on the image, and all others as numbers.
fn input_and_bounds(ctx: &NodeContext) -> Result<(ImageTensor, Vec<f32>), String> {
    let (mut input, mut bounds) = (None, Vec::new());
    for i in 0..ctx.inputs.len() {
        match ctx.input(i) {
            Some(Operand::Dynamic(tensor)) if input.replace(*tensor).is_none() => {}
            Some(Operand::Dynamic(_)) => {
                return Err("only one input may depend on the image".into());
            }
            _ => bounds.push(ctx.constant(i)?.scalar()?),
        }
    }
    input.map(|input| (input, bounds)).ok_or_else(|| "no input depends on the image".into())
}

fn binary(builder: &mut GraphBuilder, ctx: &NodeContext, kind: Binary) -> Result<ImageTensor, String> {
    match (ctx.input(0), ctx.input(1)) {
        (Some(a), Some(b)) => combine(builder, ctx, kind, a, b),
        _ => Err("an input is missing".into()),
    }
}

fn combine(
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
            (Binary::Div, true) => {}
        }
    }
    let constant = builder.push_constant(constant)?;
    let inputs = if reversed { [constant, input] } else { [input, constant] };
    builder.push_sized(Op::Binary(kind), &inputs, sized)
}

/// `scale * x + shift` per channel; adds no node if that is `x`.
fn affine(
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
