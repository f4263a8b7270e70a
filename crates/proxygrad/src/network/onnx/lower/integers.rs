//! Operators on integers, of which quantized networks consist.
//!
//! They are computed on the numbers that the integers stand for: a quantized operator dequantizes its inputs, and
//! quantizes its output, with the gradient of [`quantize`](super::quantize). Integers whose scale depends on the image
//! are those numbers themselves, with a scale of 1 and a zero point of 0.

use super::super::const_tensor::{ConstData, ConstTensor};
use super::super::graph_builder::{BuilderId, GraphBuilder};
use super::super::image_tensor::ImageTensor;
use super::super::node_context::{NodeContext, Operand};
use super::super::proto::AttributeProto;
use super::super::stored_tensor::data_type;
use super::composed::{Part, int, tensor};
use crate::network::Op;

/// <https://onnx.ai/onnx/operators/onnx__DynamicQuantizeLinear.html>
pub(super) fn dynamic_quantize_linear(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<Vec<Operand>, String> {
    let input = ctx.image_tensor(0)?;
    let quantized = ImageTensor { id: builder.push(Op::DynamicQuantize, &[input.id])?, ..input };
    let zero = ConstTensor::new(Vec::new(), ConstData::Int(vec![0].into()))?.stored_as(data_type::UINT8);
    Ok(vec![Operand::Dynamic(quantized), Operand::Constant(number(1.0)?), Operand::Constant(zero)])
}

/// <https://onnx.ai/onnx/operators/onnx__QLinearConv.html>
pub(super) fn q_linear_conv(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let input = dequantized(builder, ctx, [0, 1, 2], 1)?;
    let weight = dequantized(builder, ctx, [3, 4, 5], 0)?;
    let bias = scaled_bias(ctx, 8, [1, 4])?;
    let part = Part::new("Conv", [Some(input), Some(weight), bias]).with(ctx.node.attribute.clone());
    let output = part.output(builder, ctx)?;
    Ok(tensor(&quantized(builder, ctx, output, [6, 7])?)?.id)
}

/// <https://onnx.ai/onnx/operators/onnx__QLinearMatMul.html>
pub(super) fn q_linear_mat_mul(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let first = dequantized(builder, ctx, [0, 1, 2], -2)?;
    let second = dequantized(builder, ctx, [3, 4, 5], -1)?;
    let output = Part::new("MatMul", [Some(first), Some(second)]).output(builder, ctx)?;
    tensor(&quantized(builder, ctx, output, [6, 7])?)
}

/// <https://onnx.ai/onnx/operators/onnx__ConvInteger.html>
pub(super) fn conv_integer(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let input = difference(builder, ctx, [0, 2], 1)?;
    let weight = difference(builder, ctx, [1, 3], 0)?;
    let part = Part::new("Conv", [Some(input), Some(weight)]).with(ctx.node.attribute.clone());
    Ok(tensor(&part.output(builder, ctx)?)?.id)
}

/// <https://onnx.ai/onnx/operators/onnx__MatMulInteger.html>
pub(super) fn mat_mul_integer(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let first = difference(builder, ctx, [0, 2], -2)?;
    let second = difference(builder, ctx, [1, 3], -1)?;
    tensor(&Part::new("MatMul", [Some(first), Some(second)]).output(builder, ctx)?)
}

/// `MatMulIntegerToFloat` of ONNX Runtime: the product of two quantized matrices, and a bias.
pub(super) fn mat_mul_integer_to_float(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let first = dequantized(builder, ctx, [0, 2, 4], -2)?;
    let second = dequantized(builder, ctx, [1, 3, 5], -1)?;
    product(builder, ctx, first, second, 6)
}

/// `DynamicQuantizeMatMul` of ONNX Runtime: the product of a tensor, quantized with its own range, and a quantized
/// matrix, and a bias.
pub(super) fn dynamic_quantize_mat_mul(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let first = Part::new("DynamicQuantizeLinear", [ctx.input(0).cloned()]).output(builder, ctx)?;
    let second = dequantized(builder, ctx, [1, 2, 3], -1)?;
    product(builder, ctx, first, second, 4)
}

/// `QGemm` of ONNX Runtime: a quantized `Gemm`, whose output is quantized if it has a scale.
pub(super) fn q_gemm(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let columns = if ctx.flag("transB")? { 0 } else { 1 };
    let first = dequantized(builder, ctx, [0, 1, 2], 0)?;
    let second = dequantized(builder, ctx, [3, 4, 5], columns)?;
    let bias = scaled_bias(ctx, 6, [1, 4])?;
    let attributes = ctx.node.attribute.iter().filter(|attribute| attribute.name != "beta").cloned();
    let output = Part::new("Gemm", [Some(first), Some(second), bias]).with(attributes).output(builder, ctx)?;
    tensor(&if ctx.input(7).is_some() { quantized(builder, ctx, output, [7, 8])? } else { output })
}

/// An operator of ONNX Runtime on two quantized tensors: `QLinearAdd`, `QLinearMul`.
pub(super) fn of_two(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let first = dequantized(builder, ctx, [0, 1, 2], 1)?;
    let second = dequantized(builder, ctx, [3, 4, 5], 1)?;
    let output = Part::new(plain(ctx), [Some(first), Some(second)]).output(builder, ctx)?;
    tensor(&quantized(builder, ctx, output, [6, 7])?)
}

/// An operator of ONNX Runtime on one quantized tensor: `QLinearSigmoid`, `QLinearSoftmax`, pools.
pub(super) fn of_one(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    if ctx.flag("channels_last")? {
        return Err("channels_last is not supported".into());
    }
    let input = dequantized(builder, ctx, [0, 1, 2], 1)?;
    let own = |attribute: &&AttributeProto| !matches!(attribute.name.as_str(), "channels_last" | "opset");
    let mut part = Part::new(plain(ctx), [Some(input)]).with(ctx.node.attribute.iter().filter(own).cloned());
    if let Some(opset) = ctx.int("opset")? {
        part = part.of_opset(opset);
    }
    let output = part.output(builder, ctx)?;
    tensor(&quantized(builder, ctx, output, [3, 4])?)
}

/// `QLinearConcat` of ONNX Runtime: the scale and zero point of the output come first.
pub(super) fn q_linear_concat(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let starts = (2..ctx.inputs.len()).step_by(3);
    let inputs = starts.map(|i| dequantized(builder, ctx, [i, i + 1, i + 2], 1)).collect::<Result<Vec<_>, _>>()?;
    let part = Part::new("Concat", inputs.into_iter().map(Some)).with(ctx.node.attribute.clone());
    let output = part.output(builder, ctx)?;
    tensor(&quantized(builder, ctx, output, [0, 1])?)
}

/// The operator of ONNX that a quantized one of ONNX Runtime is named after.
fn plain<'a>(ctx: &'a NodeContext) -> &'a str {
    let name = ctx.node.op_type.as_str();
    name.strip_prefix("QLinear").unwrap_or(name)
}

/// The product of two matrices, plus the bias in input `bias`, if any.
fn product(
    builder: &mut GraphBuilder,
    ctx: &NodeContext,
    first: Operand,
    second: Operand,
    bias: usize,
) -> Result<ImageTensor, String> {
    let output = Part::new("MatMul", [Some(first), Some(second)]).output(builder, ctx)?;
    match ctx.input(bias) {
        Some(bias) => tensor(&Part::new("Add", [Some(output), Some(bias.clone())]).output(builder, ctx)?),
        None => tensor(&output),
    }
}

/// The numbers that an input stands for; the three inputs are it, its scale and its zero point. If there are several
/// scales, they belong to the indices of `axis`.
fn dequantized(
    builder: &mut GraphBuilder,
    ctx: &NodeContext,
    inputs: [usize; 3],
    axis: i64,
) -> Result<Operand, String> {
    for i in &inputs[..2] {
        ctx.required(*i)?;
    }
    let part = Part::new("DequantizeLinear", inputs.map(|i| ctx.input(i).cloned()));
    part.with([int("axis", axis)]).output(builder, ctx)
}

/// The integers of an input minus their zero point; the two inputs are these.
fn difference(
    builder: &mut GraphBuilder,
    ctx: &NodeContext,
    [value, zero]: [usize; 2],
    axis: i64,
) -> Result<Operand, String> {
    let zero = ctx.optional_constant(zero)?;
    let shape = zero.map_or(Vec::new(), |zero| zero.shape().to_vec());
    let ones = ConstData::Float(vec![1.0; zero.map_or(1, ConstTensor::len)].into());
    let scale = Operand::Constant(ConstTensor::new(shape, ones)?);
    let inputs = [Some(ctx.required(value)?.clone()), Some(scale), zero.cloned().map(Operand::Constant)];
    Part::new("DequantizeLinear", inputs).with([int("axis", axis)]).output(builder, ctx)
}

/// A tensor, quantized with the scale and the zero point in these inputs.
fn quantized(
    builder: &mut GraphBuilder,
    ctx: &NodeContext,
    output: Operand,
    [scale, zero]: [usize; 2],
) -> Result<Operand, String> {
    let inputs = [Some(output), Some(ctx.required(scale)?.clone()), ctx.input(zero).cloned()];
    Part::new("QuantizeLinear", inputs).output(builder, ctx)
}

/// A bias of integers, in units of the product of two scales; `None` if it is omitted.
fn scaled_bias(ctx: &NodeContext, bias: usize, scales: [usize; 2]) -> Result<Option<Operand>, String> {
    let Some(bias) = ctx.optional_constant(bias)? else { return Ok(None) };
    let mut scaled = bias.ints()?.iter().map(|&value| value as f32).collect::<Vec<_>>();
    for scale in scales {
        let scale = ctx.constant(scale)?.floats()?;
        if scale.len() != 1 && scale.len() != scaled.len() {
            return Err(format!("it has {} scales for a bias of {} values", scale.len(), scaled.len()));
        }
        scaled.iter_mut().zip(scale.iter().cycle()).for_each(|(value, scale)| *value *= scale);
    }
    Ok(Some(Operand::Constant(ConstTensor::new(bias.shape().to_vec(), ConstData::Float(scaled.into()))?)))
}

fn number(value: f32) -> Result<ConstTensor, String> {
    ConstTensor::new(Vec::new(), ConstData::Float(vec![value].into()))
}
