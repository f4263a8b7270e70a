//! Quantized activations: a pair of `QuantizeLinear` and `DequantizeLinear` rounds to multiples of the scale.
//!
//! Rounding has no useful derivative. It is passed straight through, and the range of the integers is an ordinary clip:
//! the proxy network has the values of the quantized network, and the gradient of the one before quantization.

use super::super::constant_folding::quantized_range;
use super::super::graph_builder::{BuilderId, GraphBuilder};
use super::super::node_context::NodeContext;
use super::activation::clipped;
use super::elementwise::affine;
use crate::network::{Op, Unary};

/// <https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html> with one scale.
pub(super) fn quantize_linear(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let (scale, zero) = parameters(ctx)?;
    let (low, high, _) = quantized_range(ctx)?;
    let bound = |integer: f64| ((integer - f64::from(zero)) * f64::from(scale)) as f32;
    let clipped = clipped(builder, ctx.dynamic(0)?, bound(low), bound(high))?;
    let rounded = builder.push(Op::Unary(Unary::RoundTo(scale)), &[clipped])?;
    uniform(builder, ctx, rounded, 1.0 / scale, zero)
}

/// <https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html> with one scale.
pub(super) fn dequantize_linear(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let (scale, zero) = parameters(ctx)?;
    let quantized = builder.node(ctx.dynamic(0)?);
    let undone = |op: &Op| match op {
        Op::Affine { scale: factor, shift } => {
            (factor.data().first(), shift.data().first()) == (Some(&(1.0 / scale)), Some(&zero))
        }
        _ => false,
    };
    let rounds = |op: &Op| matches!(op, Op::Unary(Unary::RoundTo(step)) if *step == scale);
    // The inverse of the last step of `quantize_linear`, whose integers nothing else needs to know.
    if let &[rounded] = quantized.inputs.as_slice()
        && undone(&quantized.op)
        && rounds(&builder.node(rounded).op)
    {
        return Ok(rounded);
    }
    uniform(builder, ctx, ctx.dynamic(0)?, scale, -zero * scale)
}

/// Scale and zero point.
fn parameters(ctx: &NodeContext) -> Result<(f32, f32), String> {
    let one = "several scales are only supported for weights, not for tensors that depend on the image";
    let scale = ctx.constant(1)?;
    if scale.len() != 1 {
        return Err(one.into());
    }
    let scale = scale.scalar()?;
    if !(scale.is_finite() && scale > 0.0) {
        return Err(format!("its scale is {scale}; expected a number above 0"));
    }
    match ctx.optional_constant(2)?.map(|zero| zero.ints()).transpose()? {
        None => Ok((scale, 0.0)),
        Some(&[zero]) => Ok((scale, zero as f32)),
        Some(_) => Err(one.into()),
    }
}

/// `scale * x + shift`
fn uniform(
    builder: &mut GraphBuilder,
    ctx: &NodeContext,
    input: BuilderId,
    scale: f32,
    shift: f32,
) -> Result<BuilderId, String> {
    let channels = ctx.checked_elements(&[builder.node(input).shape.channels()])?;
    affine(builder, input, vec![scale; channels], vec![shift; channels], false)
}
