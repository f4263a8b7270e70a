//! Activations that are a single node.

use super::super::graph_builder::{BuilderId, GraphBuilder};
use super::super::image_tensor::ImageTensor;
use super::super::node_context::{NodeContext, Operand};
use super::broadcast::{Aligned, AlignedOperand, align, per_channel};
use super::elementwise::affine;
use crate::network::{Activation, Array, Binary, Op, QUICK_GELU_FACTOR, SELU_ALPHA, SELU_LAMBDA, Unary, broadcast};

/// <https://onnx.ai/onnx/operators/onnx__Relu.html>
pub(super) fn relu(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    activation(builder, ctx, Activation::Relu)
}

/// <https://onnx.ai/onnx/operators/onnx__LeakyRelu.html>
pub(super) fn leaky_relu(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    activation(builder, ctx, Activation::LeakyRelu { slope: ctx.float("alpha", 0.01)? })
}

/// <https://onnx.ai/onnx/operators/onnx__PRelu.html>. With one slope, or one per channel, it is an activation; with
/// other slopes it is `slope * x + (1 - slope) * relu(x)`.
pub(super) fn prelu(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let operands = [Operand::Dynamic(ctx.image_tensor(0)?), Operand::Constant(ctx.constant(1)?.clone())];
    let Aligned { operands, batch } = align(builder, ctx, &operands.each_ref(), |_| true)?;
    let [AlignedOperand::Node(input), AlignedOperand::Constant(slopes, sized)] = operands.as_slice() else {
        return Err("the slopes must be constant".into());
    };
    let shape = &builder.node(*input).shape;
    let simple = if slopes.len() == 1 { Some(slopes.data().to_vec()) } else { per_channel(slopes, shape) };
    if let Some(simple) = simple {
        let op = Op::Activation(Activation::PRelu { slopes: Array::vector(simple) });
        return Ok(ImageTensor { id: builder.push_sized(op, &[*input], *sized)?, batch });
    }
    if broadcast(&slopes.shape().to_vec().into(), shape).as_ref() != Ok(shape) {
        return Err(format!("slopes of shape {:?} do not broadcast to the input {shape}", slopes.shape()));
    }
    let rest: Vec<f32> = slopes.data().iter().map(|slope| 1.0 - slope).collect();
    let rest = builder.push_constant(Array::new(slopes.shape(), rest)?)?;
    let slopes = builder.push_constant(slopes.clone())?;
    let rectified = builder.push(Op::Activation(Activation::Relu), &[*input])?;
    let product = Op::Binary(Binary::Mul);
    let (below, above) = (
        builder.push_sized(product.clone(), &[*input, slopes], *sized)?,
        builder.push_sized(product, &[rectified, rest], *sized)?,
    );
    Ok(ImageTensor { id: builder.push(Op::Binary(Binary::Add), &[below, above])?, batch })
}

/// <https://onnx.ai/onnx/operators/onnx__Clip.html>; bounds are attributes before opset 11, then inputs.
pub(super) fn clip(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let bound = |name: &str, i: usize, open: f32| match ctx.optional_constant(i)? {
        Some(value) => value.scalar(),
        None => ctx.float(name, open),
    };
    let min = bound("min", 1, f32::NEG_INFINITY)?;
    let max = bound("max", 2, f32::INFINITY)?;
    clipped(builder, ctx.dynamic(0)?, min, max)
}

/// Clips to a range. The largest f32 means infinity; a range from 0 without an upper bound is a ReLU.
///
/// # Errors
/// When the range is empty.
pub(super) fn clipped(builder: &mut GraphBuilder, input: BuilderId, min: f32, max: f32) -> Result<BuilderId, String> {
    let min = if min == f32::MIN { f32::NEG_INFINITY } else { min };
    let max = if max == f32::MAX { f32::INFINITY } else { max };
    match (min, max) {
        (f32::NEG_INFINITY, f32::INFINITY) => Ok(input),
        (0.0, f32::INFINITY) => builder.push(Op::Activation(Activation::Relu), &[input]),
        _ => builder.push(Op::Activation(Activation::Clip { min, max }), &[input]),
    }
}

/// <https://onnx.ai/onnx/operators/onnx__HardSigmoid.html>
pub(super) fn hard_sigmoid(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let (alpha, beta) = (ctx.float("alpha", 0.2)?, ctx.float("beta", 0.5)?);
    activation(builder, ctx, Activation::HardSigmoid { alpha, beta })
}

/// <https://onnx.ai/onnx/operators/onnx__HardSwish.html>
pub(super) fn hard_swish(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    activation(builder, ctx, Activation::HardSwish)
}

/// <https://onnx.ai/onnx/operators/onnx__Sigmoid.html>
pub(super) fn sigmoid(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    activation(builder, ctx, Activation::Sigmoid)
}

/// <https://onnx.ai/onnx/operators/onnx__Tanh.html>
pub(super) fn tanh(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    activation(builder, ctx, Activation::Tanh)
}

/// <https://onnx.ai/onnx/operators/onnx__Elu.html>
pub(super) fn elu(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    activation(builder, ctx, Activation::Elu { alpha: ctx.float("alpha", 1.0)? })
}

/// <https://onnx.ai/onnx/operators/onnx__Selu.html>. Constants other than the usual ones make a multiple of an ELU.
pub(super) fn selu(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let (alpha, gamma) = (ctx.float("alpha", SELU_ALPHA as f32)?, ctx.float("gamma", SELU_LAMBDA as f32)?);
    let is_near = |found: f32, usual: f64| (f64::from(found) - usual).abs() <= 1e-6;
    if is_near(alpha, SELU_ALPHA) && is_near(gamma, SELU_LAMBDA) {
        return activation(builder, ctx, Activation::Selu);
    }
    let elu = activation(builder, ctx, Activation::Elu { alpha })?;
    times(builder, ctx, elu, gamma, "gamma")
}

/// <https://onnx.ai/onnx/operators/onnx__Celu.html>: an ELU whose argument and value are scaled.
pub(super) fn celu(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let alpha = ctx.float("alpha", 1.0)?;
    let scaled = times(builder, ctx, ctx.dynamic(0)?, 1.0 / alpha, "1 / alpha")?;
    let elu = builder.push(Op::Activation(Activation::Elu { alpha: 1.0 }), &[scaled])?;
    times(builder, ctx, elu, alpha, "alpha")
}

/// <https://onnx.ai/onnx/operators/onnx__Swish.html>: `x * sigmoid(alpha * x)`, a SiLU whose argument and value are
/// scaled.
pub(super) fn swish(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let alpha = ctx.float("alpha", 1.0)?;
    if alpha == QUICK_GELU_FACTOR as f32 {
        return activation(builder, ctx, Activation::QuickGelu);
    }
    if alpha == 0.0 {
        return times(builder, ctx, ctx.dynamic(0)?, 0.5, "x");
    }
    let scaled = times(builder, ctx, ctx.dynamic(0)?, alpha, "alpha")?;
    let silu = builder.push(Op::Activation(Activation::Silu), &[scaled])?;
    times(builder, ctx, silu, 1.0 / alpha, "1 / alpha")
}

/// <https://onnx.ai/onnx/operators/onnx__Softsign.html>: `x / (1 + |x|)`.
pub(super) fn softsign(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let input = ctx.dynamic(0)?;
    let absolute = builder.push(Op::Unary(Unary::Abs), &[input])?;
    let channels = ctx.checked_elements(&[builder.node(input).shape.channels()])?;
    let divisor = affine(builder, absolute, vec![1.0; channels], vec![1.0; channels], false)?;
    builder.push(Op::Binary(Binary::Div), &[input, divisor])
}

/// <https://onnx.ai/onnx/operators/onnx__ThresholdedRelu.html>: `x` above `alpha`, 0 elsewhere.
pub(super) fn thresholded_relu(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let input = ctx.dynamic(0)?;
    let alpha = number(builder, ctx.float("alpha", 1.0)?)?;
    let zero = number(builder, 0.0)?;
    let above = builder.push(Op::Binary(Binary::Less), &[alpha, input])?;
    builder.push(Op::Select, &[above, input, zero])
}

/// <https://onnx.ai/onnx/operators/onnx__Shrink.html>: 0 from `-lambd` to `lambd`, and nearer to 0 by `bias` outside.
pub(super) fn shrink(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let input = ctx.dynamic(0)?;
    let (bias, bound) = (number(builder, ctx.float("bias", 0.0)?)?, number(builder, ctx.float("lambd", 0.5)?)?);
    let negative = number(builder, -ctx.float("lambd", 0.5)?)?;
    let zero = number(builder, 0.0)?;
    let [is_below, is_above] = [[input, negative], [bound, input]];
    let is_below = builder.push(Op::Binary(Binary::Less), &is_below)?;
    let is_above = builder.push(Op::Binary(Binary::Less), &is_above)?;
    let raised = builder.push(Op::Binary(Binary::Add), &[input, bias])?;
    let lowered = builder.push(Op::Binary(Binary::Sub), &[input, bias])?;
    let rest = builder.push(Op::Select, &[is_above, lowered, zero])?;
    builder.push(Op::Select, &[is_below, raised, rest])
}

/// <https://onnx.ai/onnx/operators/onnx__Mish.html>
pub(super) fn mish(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    activation(builder, ctx, Activation::Mish)
}

/// <https://onnx.ai/onnx/operators/onnx__Softplus.html>
pub(super) fn softplus(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    activation(builder, ctx, Activation::Softplus)
}

/// <https://onnx.ai/onnx/operators/onnx__Gelu.html>
pub(super) fn gelu(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let tanh = match ctx.text("approximate", "none")? {
        "none" => false,
        "tanh" => true,
        other => return Err(format!("approximate is {other}; expected none or tanh")),
    };
    activation(builder, ctx, Activation::Gelu { tanh })
}

fn activation(builder: &mut GraphBuilder, ctx: &NodeContext, activation: Activation) -> Result<BuilderId, String> {
    builder.push(Op::Activation(activation), &[ctx.dynamic(0)?])
}

/// A number as an operand.
fn number(builder: &mut GraphBuilder, value: f32) -> Result<BuilderId, String> {
    if value.is_nan() {
        return Err("an attribute is NaN".into());
    }
    builder.push_constant(Array::new([], [value])?)
}

/// All values times a finite number, which `name` describes.
pub(super) fn times(
    builder: &mut GraphBuilder,
    ctx: &NodeContext,
    input: BuilderId,
    factor: f32,
    name: &str,
) -> Result<BuilderId, String> {
    if !factor.is_finite() {
        return Err(format!("{name} is {factor}; expected a finite number"));
    }
    let channels = ctx.checked_elements(&[builder.node(input).shape.channels()])?;
    affine(builder, input, vec![factor; channels], vec![0.0; channels], false)
}
