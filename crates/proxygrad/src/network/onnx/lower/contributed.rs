//! Operators of ONNX Runtime (domain `com.microsoft`), which its optimizers write in place of several of ONNX's own:
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>.

use super::super::const_tensor::{ConstData, ConstTensor};
use super::super::graph_builder::GraphBuilder;
use super::super::image_tensor::ImageTensor;
use super::super::node_context::{NodeContext, Operand};
use super::super::proto::AttributeProto;
use super::composed::{Part, float, int, ints, tensor, text};
use super::{LowerFn, activation, integers, quantize};
use crate::network::QUICK_GELU_FACTOR;

/// The lowering of an operator with an input that depends on the image; `None` if it is not supported.
pub(super) fn contributed(op_type: &str) -> Option<LowerFn> {
    Some(match op_type {
        "QuantizeLinear" => LowerFn::Elementwise(quantize::quantize_linear),
        "DequantizeLinear" => LowerFn::Elementwise(quantize::dequantize_linear),
        "QLinearAdd" | "QLinearMul" => LowerFn::One(integers::of_two),
        "QLinearSigmoid"
        | "QLinearLeakyRelu"
        | "QLinearSoftmax"
        | "QLinearGlobalAveragePool"
        | "QLinearAveragePool" => LowerFn::One(integers::of_one),
        "QLinearConcat" => LowerFn::One(integers::q_linear_concat),
        "QGemm" => LowerFn::One(integers::q_gemm),
        "MatMulIntegerToFloat" => LowerFn::One(integers::mat_mul_integer_to_float),
        "DynamicQuantizeMatMul" => LowerFn::One(integers::dynamic_quantize_mat_mul),

        "Gelu" => LowerFn::Elementwise(activation::gelu),
        "BiasGelu" => LowerFn::One(bias_gelu),
        "FastGelu" => LowerFn::One(fast_gelu),
        "QuickGelu" => LowerFn::One(quick_gelu),
        "FusedMatMul" => LowerFn::One(fused_mat_mul),
        "FusedConv" => LowerFn::One(fused_conv),
        "FusedGemm" => LowerFn::One(fused_gemm),
        "SkipLayerNormalization" => LowerFn::Many(skip_layer_normalization),
        "SkipSimplifiedLayerNormalization" => LowerFn::Many(skip_simplified_layer_normalization),
        "Attention" => LowerFn::One(attention),
        "MultiHeadAttention" => LowerFn::One(multi_head_attention),
        _ => return None,
    })
}

/// `gelu(x + bias)`
fn bias_gelu(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let sum = sum(builder, ctx, [0, 1])?;
    tensor(&Part::new("Gelu", [Some(sum)]).output(builder, ctx)?)
}

/// `gelu(x + bias)` in its form with tanh; the bias is optional.
fn fast_gelu(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let sum = sum(builder, ctx, [0, 1])?;
    tensor(&Part::new("Gelu", [Some(sum)]).with([text("approximate", "tanh")]).output(builder, ctx)?)
}

/// `x * sigmoid(alpha * x)`
fn quick_gelu(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let input = Some(ctx.required(0)?.clone());
    let factor = float("alpha", ctx.float("alpha", QUICK_GELU_FACTOR as f32)?);
    tensor(&Part::new("Swish", [input]).with([factor]).output(builder, ctx)?)
}

/// `alpha * A * B`, with either matrix transposed.
fn fused_mat_mul(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let mut factors = Vec::new();
    for (i, turned, batched) in [(0, "transA", "transBatchA"), (1, "transB", "transBatchB")] {
        if ctx.flag(batched)? {
            return Err(format!("{batched} is not supported"));
        }
        let factor = ctx.required(i)?.clone();
        factors.push(Some(if ctx.flag(turned)? { transposed(builder, ctx, factor)? } else { factor }));
    }
    let product = Part::new("MatMul", factors).output(builder, ctx)?;
    match ctx.float("alpha", 1.0)? {
        1.0 => tensor(&product),
        alpha => {
            let factor = ConstTensor::new(Vec::new(), ConstData::Float(vec![alpha].into()))?;
            tensor(&Part::new("Mul", [Some(product), Some(Operand::Constant(factor))]).output(builder, ctx)?)
        }
    }
}

/// A tensor with its last two axes exchanged.
fn transposed(builder: &mut GraphBuilder, ctx: &NodeContext, operand: Operand) -> Result<Operand, String> {
    let rank = match &operand {
        Operand::Dynamic(tensor) => tensor.rank(builder),
        Operand::Constant(value) => value.shape().len(),
        Operand::Unavailable(_) => return Err("an input cannot be computed".into()),
    };
    let mut order: Vec<i64> = (0..rank as i64).collect();
    if rank < 2 {
        return Err(format!("a factor has {rank} axes; expected matrices"));
    }
    order.swap(rank - 2, rank - 1);
    Part::new("Transpose", [Some(operand)]).with([ints("perm", order)]).output(builder, ctx)
}

/// A convolution, another summand if there is one, and an activation.
fn fused_conv(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let output = inner(ctx, "Conv").output(builder, ctx)?;
    let output = match ctx.input(3) {
        Some(summand) => Part::new("Add", [Some(output), Some(summand.clone())]).output(builder, ctx)?,
        None => output,
    };
    let parameters = ctx.floats("activation_params")?.unwrap_or_default();
    activated(builder, ctx, output, |i, _| parameters.get(i).copied())
}

/// A `Gemm` and an activation.
fn fused_gemm(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let output = inner(ctx, "Gemm").output(builder, ctx)?;
    let given = |name: &str| ctx.float(&format!("activation_{name}"), f32::NAN).ok().filter(|value| !value.is_nan());
    activated(builder, ctx, output, |_, name| given(name))
}

/// The operator that is fused with an activation, with its first three inputs.
fn inner<'a>(ctx: &NodeContext, op_type: &'a str) -> Part<'a> {
    let own = |attribute: &&AttributeProto| !attribute.name.starts_with("activation");
    let attributes = ctx.node.attribute.iter().filter(own).cloned();
    Part::new(op_type, (0..3).map(|i| ctx.input(i).cloned())).with(attributes)
}

/// Applies the activation that the attribute `activation` names; `parameter` returns its parameters by their position
/// and name.
fn activated(
    builder: &mut GraphBuilder,
    ctx: &NodeContext,
    input: Operand,
    parameter: impl Fn(usize, &str) -> Option<f32>,
) -> Result<ImageTensor, String> {
    let name = ctx.text("activation", "")?;
    let parameters: &[&str] = match name {
        "" => return tensor(&input),
        "Relu" | "Sigmoid" | "Tanh" | "HardSwish" | "Softplus" => &[],
        "LeakyRelu" | "Elu" => &["alpha"],
        "HardSigmoid" => &["alpha", "beta"],
        "Clip" => &["min", "max"],
        other => return Err(format!("activation {other} is not supported")),
    };
    let given = parameters.iter().enumerate().filter_map(|(i, name)| Some(float(name, parameter(i, name)?)));
    // Bounds are attributes before opset 11.
    let part = Part::new(name, [Some(input)]).with(given);
    tensor(&part.of_opset(if name == "Clip" { 10 } else { 21 }).output(builder, ctx)?)
}

/// `normalize(input + skip + bias) * scale + shift`, and the sum itself.
fn skip_layer_normalization(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<Vec<Operand>, String> {
    skipped(builder, ctx, "LayerNormalization", vec![ctx.input(2).cloned(), ctx.input(3).cloned()], 4)
}

/// `skip_layer_normalization` with the root mean square, and without a shift.
fn skip_simplified_layer_normalization(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<Vec<Operand>, String> {
    skipped(builder, ctx, "RMSNormalization", vec![ctx.input(2).cloned()], 3)
}

fn skipped(
    builder: &mut GraphBuilder,
    ctx: &NodeContext,
    op_type: &str,
    parameters: Vec<Option<Operand>>,
    bias: usize,
) -> Result<Vec<Operand>, String> {
    if ctx.node.output.iter().skip(1).take(2).any(|name| !name.is_empty()) {
        return Err("its mean and deviation are not supported as outputs".into());
    }
    let sum = sum(builder, ctx, [0, 1])?;
    let sum = match ctx.input(bias) {
        Some(bias) => Part::new("Add", [Some(sum), Some(bias.clone())]).output(builder, ctx)?,
        None => sum,
    };
    let epsilon = float("epsilon", ctx.float("epsilon", 1e-12)?);
    let part = Part::new(op_type, [Some(sum.clone())].into_iter().chain(parameters));
    let output = part.with([int("axis", -1), epsilon]).output(builder, ctx)?;
    // The outputs in between have no names.
    Ok(vec![output.clone(), output.clone(), output, sum])
}

/// The sum of two inputs, of which the second may be omitted.
fn sum(builder: &mut GraphBuilder, ctx: &NodeContext, [first, second]: [usize; 2]) -> Result<Operand, String> {
    let operand = ctx.required(first)?.clone();
    match ctx.input(second) {
        Some(other) => Part::new("Add", [Some(operand), Some(other.clone())]).output(builder, ctx),
        None => Ok(operand),
    }
}

/// Attention of a tensor `[N,L,D]` to itself: one matrix and bias for queries, keys and values.
fn attention(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    for (i, name) in [(3, "mask_index"), (4, "past")] {
        if ctx.input(i).is_some() {
            return Err(format!("{name} is not supported"));
        }
    }
    let projected = Part::new("MatMul", [Some(ctx.required(0)?.clone()), Some(ctx.required(1)?.clone())]);
    let mut projected = projected.output(builder, ctx)?;
    if let Some(bias) = ctx.input(2) {
        projected = Part::new("Add", [Some(projected), Some(bias.clone())]).output(builder, ctx)?;
    }
    let (sizes, parts) = match ctx.ints("qkv_hidden_sizes")?.filter(|sizes| !sizes.is_empty()) {
        Some(sizes) => {
            let sizes = ConstTensor::new(vec![sizes.len()], ConstData::Int(sizes.to_vec().into()))?;
            (Some(Operand::Constant(sizes)), None)
        }
        None => (None, Some(int("num_outputs", 3))),
    };
    let parts = Part::new("Split", [Some(projected), sizes]).with([int("axis", -1)]).with(parts);
    let parts = parts.outputs(builder, ctx)?;
    if parts.len() != 3 {
        return Err("qkv_hidden_sizes must be three numbers".into());
    }
    heads(builder, ctx, parts, 5)
}

/// Attention of queries, keys and values `[N,L,D]`.
fn multi_head_attention(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    for (i, name) in [(4, "key_padding_mask"), (6, "past_key"), (7, "past_value")] {
        if ctx.input(i).is_some() {
            return Err(format!("{name} is not supported"));
        }
    }
    let (Some(key), Some(value)) = (ctx.input(1), ctx.input(2)) else {
        return Err("queries, keys and values in one tensor are not supported".into());
    };
    let mut parts = vec![ctx.required(0)?.clone(), key.clone(), value.clone()];
    if let Some(bias) = ctx.optional_constant(3)? {
        // As many values as the three tensors have together along their last axis.
        let mut start = 0;
        for part in &mut parts {
            let width = tensor(part)?.file_shape(builder).last().copied().unwrap_or_default();
            let indices: Vec<usize> = (start..start + width).collect();
            if start + width > bias.len() {
                return Err(format!("the bias has {} values, less than queries, keys and values", bias.len()));
            }
            let own = Operand::Constant(bias.pick(vec![width], &indices)?);
            *part = Part::new("Add", [Some(part.clone()), Some(own)]).output(builder, ctx)?;
            start += width;
        }
    }
    heads(builder, ctx, parts, 5)
}

/// Attention of `num_heads` heads, with the summand of the scores in the input `bias`.
fn heads(
    builder: &mut GraphBuilder,
    ctx: &NodeContext,
    parts: Vec<Operand>,
    bias: usize,
) -> Result<ImageTensor, String> {
    let heads = ctx.int("num_heads")?.ok_or("num_heads is missing")?;
    let mut attributes = vec![int("q_num_heads", heads), int("kv_num_heads", heads)];
    // 0 stands for the default.
    match ctx.float("scale", 0.0)? {
        0.0 => {}
        scale => attributes.push(float("scale", scale)),
    }
    attributes.push(int("is_causal", i64::from(ctx.flag("unidirectional")?)));
    let inputs = parts.into_iter().map(Some).chain([ctx.input(bias).cloned()]);
    tensor(&Part::new("Attention", inputs).with(attributes).output(builder, ctx)?)
}
