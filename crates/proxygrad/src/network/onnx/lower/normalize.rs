//! Normalizations with the statistics of the image itself: layer, instance, group and root mean square normalization,
//! division by a norm.

use super::super::const_tensor::ConstTensor;
use super::super::graph_builder::{BuilderId, GraphBuilder};
use super::super::image_tensor::ImageTensor;
use super::super::node_context::{NodeContext, axis, distinct_axes, length, window_length};
use super::broadcast::constant_operand;
use crate::network::{Array, LocalResponse, Norm, Normalize, Op, Shape};

/// <https://onnx.ai/onnx/operators/onnx__LayerNormalization.html>, without its outputs for training.
pub(super) fn layer_normalization(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    trailing(builder, ctx, Norm::Deviation)
}

/// <https://onnx.ai/onnx/operators/onnx__RMSNormalization.html>, and ONNX Runtime's `SimplifiedLayerNormalization`.
pub(super) fn rms_normalization(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    trailing(builder, ctx, Norm::RootMeanSquare)
}

/// Normalizes along the axes from `axis` on.
fn trailing(builder: &mut GraphBuilder, ctx: &NodeContext, kind: Norm) -> Result<ImageTensor, String> {
    let tensor = ctx.image_tensor(0)?;
    let rank = tensor.rank(builder);
    let first = axis(ctx.int("axis")?.unwrap_or(-1), rank)?;
    let parameters =
        |i: usize| ctx.optional_constant(i)?.map(|value| constant_operand(builder, ctx, tensor, value)).transpose();
    let normalize = Normalize {
        axes: (first..rank).filter_map(|axis| tensor.node_axis(axis)).collect(),
        groups: 1,
        kind,
        epsilon: ctx.float("epsilon", 1e-5)?,
        scale: parameters(1)?,
        shift: parameters(2)?,
    };
    if normalize.axes.is_empty() {
        return Err("normalizing along the batch axis only is not supported".into());
    }
    Ok(ImageTensor { id: push(builder, tensor.id, normalize)?, ..tensor })
}

/// <https://onnx.ai/onnx/operators/onnx__InstanceNormalization.html>
pub(super) fn instance_normalization(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let (input, shape) = ctx.dynamic_with_shape(builder, 0)?;
    let axes: Vec<usize> = (1..shape.len()).collect();
    if axes.is_empty() {
        return Err(format!("the input {shape} has only channels"));
    }
    let channels = shape.channels();
    let normalize = Normalize {
        axes,
        groups: 1,
        kind: Norm::Deviation,
        epsilon: ctx.float("epsilon", 1e-5)?,
        scale: Some(per_channel(ctx.constant(1)?, channels, shape)?),
        shift: Some(per_channel(ctx.constant(2)?, channels, shape)?),
    };
    push(builder, input, normalize)
}

/// <https://onnx.ai/onnx/operators/onnx__GroupNormalization.html>: scale and bias are per group before opset 21, then
/// per channel.
pub(super) fn group_normalization(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let (input, shape) = ctx.dynamic_with_shape(builder, 0)?;
    let groups = length(ctx.int("num_groups")?.ok_or("num_groups is missing")?, "num_groups")?;
    let channels = shape.channels();
    if groups == 0 || !channels.is_multiple_of(groups) {
        return Err(format!("num_groups is {groups}, which does not divide {channels} channels"));
    }
    let values = if ctx.opset < 21 { groups } else { channels };
    let normalize = Normalize {
        axes: (0..shape.len()).collect(),
        groups,
        kind: Norm::Deviation,
        epsilon: ctx.float("epsilon", 1e-5)?,
        scale: Some(per_channel(ctx.constant(1)?, values, shape)?),
        shift: Some(per_channel(ctx.constant(2)?, values, shape)?),
    };
    push(builder, input, normalize)
}

/// <https://onnx.ai/onnx/operators/onnx__LpNormalization.html>
pub(super) fn lp_normalization(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let tensor = ctx.image_tensor(0)?;
    let kind = match ctx.int("p")?.unwrap_or(2) {
        1 => Norm::L1,
        2 => Norm::L2,
        p => return Err(format!("p is {p}; expected 1 or 2")),
    };
    let axes = vec![tensor.image_axis(builder, ctx.int("axis")?.unwrap_or(-1))?];
    let normalize = Normalize { axes, groups: 1, kind, epsilon: 0.0, scale: None, shift: None };
    Ok(ImageTensor { id: push(builder, tensor.id, normalize)?, ..tensor })
}

/// <https://onnx.ai/onnx/operators/onnx__MeanVarianceNormalization.html>. The images of a batch are normalized apart
/// from each other, as in a batch of one.
pub(super) fn mean_variance_normalization(
    builder: &mut GraphBuilder,
    ctx: &NodeContext,
) -> Result<ImageTensor, String> {
    /// The operator adds 1e-9 to the standard deviation, which is the same to the precision of f32 where it is larger.
    const EPSILON: f32 = 1e-18;
    let tensor = ctx.image_tensor(0)?;
    let axes = ctx.ints("axes")?.unwrap_or(&[0, 2, 3]);
    let mut axes = distinct_axes(axes, tensor.rank(builder))?;
    axes.sort_unstable();
    let axes: Vec<usize> = axes.into_iter().filter_map(|axis| tensor.node_axis(axis)).collect();
    if axes.is_empty() {
        return Err("normalizing along the batch axis only is not supported".into());
    }
    let kind = Norm::Deviation;
    let normalize = Normalize { axes, groups: 1, kind, epsilon: EPSILON, scale: None, shift: None };
    Ok(ImageTensor { id: push(builder, tensor.id, normalize)?, ..tensor })
}

/// <https://onnx.ai/onnx/operators/onnx__LRN.html>
pub(super) fn lrn(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let size = window_length(ctx.int("size")?.ok_or("size is missing")?, "size")?;
    let (alpha, beta, bias) = (ctx.float("alpha", 1e-4)?, ctx.float("beta", 0.75)?, ctx.float("bias", 1.0)?);
    builder.push(Op::LocalResponse(LocalResponse { size, alpha, beta, bias }), &[ctx.dynamic(0)?])
}

/// Adds the operation in its simplest form.
fn push(builder: &mut GraphBuilder, input: BuilderId, normalize: Normalize) -> Result<BuilderId, String> {
    let normalize = simplified(normalize, &builder.node(input).shape);
    builder.push(Op::Normalize(normalize), &[input])
}

/// The same normalization without factors of 1 and summands of 0, and where every channel is a group of its own, along
/// the other axes only.
pub(in super::super) fn simplified(mut normalize: Normalize, shape: &Shape) -> Normalize {
    if let &[first, _, ..] = normalize.axes.as_slice()
        && normalize.groups > 1
        && shape.get(first) == Some(&normalize.groups)
    {
        normalize.axes.remove(0);
        normalize.groups = 1;
    }
    let is_trivial = |array: &Array, value: f32| array.data().iter().all(|&v| v == value);
    normalize.scale = normalize.scale.filter(|scale| !is_trivial(scale, 1.0));
    normalize.shift = normalize.shift.filter(|shift| !is_trivial(shift, 0.0));
    normalize
}

/// A vector with one value for each of `parts` equal parts of the channels, as an array that broadcasts over `shape`.
fn per_channel(value: &ConstTensor, parts: usize, shape: &Shape) -> Result<Array, String> {
    let values = value.floats()?;
    if value.shape() != [parts] {
        let expected = format!("expected [{parts}], for an input {shape}");
        return Err(format!("the scale or bias has shape {:?}; {expected}", value.shape()));
    }
    let repeats = shape.channels() / parts;
    let data: Vec<f32> = values.iter().flat_map(|&v| std::iter::repeat_n(v, repeats)).collect();
    let mut axes = vec![1; shape.len()];
    axes[0] = data.len();
    Ok(Array::new(axes, data)?)
}
