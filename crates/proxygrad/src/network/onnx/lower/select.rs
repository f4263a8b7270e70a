//! Comparisons, logic and selection. Truth values are the numbers 0 and 1.

use super::super::graph_builder::{BuilderId, GraphBuilder};
use super::super::image_tensor::ImageTensor;
use super::super::node_context::NodeContext;
use super::broadcast::{Aligned, AlignedOperand, align};
use super::elementwise::{affine, combine};
use crate::network::{Array, Binary, Op, Unary};

/// <https://onnx.ai/onnx/operators/onnx__Less.html>
pub(super) fn less(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    combine(builder, ctx, Binary::Less, ctx.required(0)?, ctx.required(1)?)
}

/// <https://onnx.ai/onnx/operators/onnx__LessOrEqual.html>
pub(super) fn less_or_equal(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    combine(builder, ctx, Binary::LessOrEqual, ctx.required(0)?, ctx.required(1)?)
}

/// <https://onnx.ai/onnx/operators/onnx__Greater.html>
pub(super) fn greater(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    combine(builder, ctx, Binary::Less, ctx.required(1)?, ctx.required(0)?)
}

/// <https://onnx.ai/onnx/operators/onnx__GreaterOrEqual.html>
pub(super) fn greater_or_equal(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    combine(builder, ctx, Binary::LessOrEqual, ctx.required(1)?, ctx.required(0)?)
}

/// <https://onnx.ai/onnx/operators/onnx__Equal.html>
pub(super) fn equal(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    combine(builder, ctx, Binary::Equal, ctx.required(0)?, ctx.required(1)?)
}

/// <https://onnx.ai/onnx/operators/onnx__And.html>
pub(super) fn and(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    combine(builder, ctx, Binary::Min, ctx.required(0)?, ctx.required(1)?)
}

/// <https://onnx.ai/onnx/operators/onnx__Or.html>
pub(super) fn or(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    combine(builder, ctx, Binary::Max, ctx.required(0)?, ctx.required(1)?)
}

/// <https://onnx.ai/onnx/operators/onnx__Xor.html>
pub(super) fn xor(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let difference = combine(builder, ctx, Binary::Sub, ctx.required(0)?, ctx.required(1)?)?;
    Ok(ImageTensor { id: builder.push(Op::Unary(Unary::Abs), &[difference.id])?, ..difference })
}

/// <https://onnx.ai/onnx/operators/onnx__Not.html>
pub(super) fn not(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let (input, shape) = ctx.dynamic_with_shape(builder, 0)?;
    let channels = ctx.checked_elements(&[shape.channels()])?;
    affine(builder, input, vec![-1.0; channels], vec![1.0; channels], false)
}

/// <https://onnx.ai/onnx/operators/onnx__IsNaN.html>: only NaN differs from itself.
pub(super) fn is_nan(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let input = ctx.dynamic(0)?;
    let channels = ctx.checked_elements(&[builder.node(input).shape.channels()])?;
    let same = builder.push(Op::Binary(Binary::Equal), &[input, input])?;
    affine(builder, same, vec![-1.0; channels], vec![1.0; channels], false)
}

/// <https://onnx.ai/onnx/operators/onnx__IsInf.html>
pub(super) fn is_inf(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let input = ctx.dynamic(0)?;
    let detects = |name: &str| ctx.int(name).map(|value| value.unwrap_or(1) != 0);
    let (value, bound) = match (detects("detect_positive")?, detects("detect_negative")?) {
        (true, true) => (builder.push(Op::Unary(Unary::Abs), &[input])?, f32::INFINITY),
        (true, false) => (input, f32::INFINITY),
        (false, true) => (input, f32::NEG_INFINITY),
        (false, false) => (input, f32::NAN),
    };
    let bound = builder.push_constant(Array::new([], [bound])?)?;
    builder.push(Op::Binary(Binary::Equal), &[value, bound])
}

/// <https://onnx.ai/onnx/operators/onnx__Where.html>
pub(super) fn r#where(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let inputs = [ctx.required(0)?, ctx.required(1)?, ctx.required(2)?];
    let Aligned { operands, batch } = align(builder, ctx, &inputs, |_| true)?;
    let sized = operands.iter().any(AlignedOperand::is_sized);
    let inputs = operands.into_iter().map(|operand| operand.into_node(builder)).collect::<Result<Vec<_>, _>>()?;
    Ok(ImageTensor { id: builder.push_sized(Op::Select, &inputs, sized)?, batch })
}
