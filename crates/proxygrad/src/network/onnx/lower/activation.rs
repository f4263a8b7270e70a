//! Activations that are a single node.

use super::super::graph_builder::{BuilderId, GraphBuilder};
use super::super::image_tensor::ImageTensor;
use super::super::node_context::{NodeContext, Operand};
use super::broadcast::{Aligned, AlignedOperand, align, per_channel};
use crate::network::{Activation, Array, Op, SELU_ALPHA, SELU_LAMBDA};

/// <https://onnx.ai/onnx/operators/onnx__Relu.html>
pub(super) fn relu(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    activation(builder, ctx, Activation::Relu)
}

/// <https://onnx.ai/onnx/operators/onnx__LeakyRelu.html>
pub(super) fn leaky_relu(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    activation(builder, ctx, Activation::LeakyRelu { slope: ctx.float("alpha", 0.01)? })
}

/// <https://onnx.ai/onnx/operators/onnx__PRelu.html> with one slope, or one per channel.
pub(super) fn prelu(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let operands = [Operand::Dynamic(ctx.image_tensor(0)?), Operand::Constant(ctx.constant(1)?.clone())];
    let Aligned { operands, batch } = align(builder, ctx, &operands.each_ref(), |_| true)?;
    let [AlignedOperand::Node(input), AlignedOperand::Constant(slopes, sized)] = operands.as_slice() else {
        return Err("the slopes must be constant".into());
    };
    let shape = &builder.node(*input).shape;
    let slopes = if slopes.len() == 1 { Some(slopes.data().to_vec()) } else { per_channel(slopes, shape) };
    let slopes = slopes.ok_or("slopes that differ within a channel are not supported")?;
    let op = Op::Activation(Activation::PRelu { slopes: Array::vector(slopes) });
    Ok(ImageTensor { id: builder.push_sized(op, &[*input], *sized)?, batch })
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

/// <https://onnx.ai/onnx/operators/onnx__Selu.html> with its usual constants.
pub(super) fn selu(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    for (name, usual) in [("alpha", SELU_ALPHA), ("gamma", SELU_LAMBDA)] {
        let found = ctx.float(name, usual as f32)?;
        if (f64::from(found) - usual).abs() > 1e-6 {
            return Err(format!("{name} is {found}; only {usual} is supported"));
        }
    }
    activation(builder, ctx, Activation::Selu)
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
