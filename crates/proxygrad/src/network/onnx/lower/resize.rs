//! `Resize` and its predecessor `Upsample`.

use super::super::const_tensor::ConstTensor;
use super::super::graph_builder::{BuilderId, GraphBuilder};
use super::super::node_context::{NodeContext, distinct_axes};
use super::window::feature_map;
use crate::network::{Coordinates, Interpolation, Op, Resize, ResizeTarget, Rounding};

/// <https://onnx.ai/onnx/operators/onnx__Upsample.html>
pub(super) fn upsample(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    upsample_or_resize_10(builder, ctx)
}

/// <https://onnx.ai/onnx/operators/onnx__Resize.html>
pub(super) fn resize(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    if ctx.opset < 11 {
        return upsample_or_resize_10(builder, ctx);
    }
    let (input, shape) = ctx.dynamic_with_shape(builder, 0)?;
    let [channels, height, width] = feature_map(shape)?;
    let axes = match ctx.ints("axes")? {
        Some(axes) => distinct_axes(axes, 4)?,
        None => vec![0, 1, 2, 3],
    };
    let given = |i: usize| ctx.optional_constant(i).map(|value| value.filter(|value| value.len() > 0));
    let (target, sized) = match (given(2)?, given(3)?) {
        (Some(scales), None) => {
            (ResizeTarget::Scales(scale_pair(scales.floats()?, &axes)?), scales.depends_on_image_size())
        }
        (None, Some(sizes)) => {
            let policy = ctx.text("keep_aspect_ratio_policy", "stretch")?;
            if policy != "stretch" {
                return Err(format!("keep_aspect_ratio_policy {policy} is not supported, only stretch"));
            }
            (
                ResizeTarget::Sizes(size_pair(sizes, &axes, [channels, height, width], ctx.batch)?),
                sizes.depends_on_image_size(),
            )
        }
        _ => return Err("expected either scales or sizes".into()),
    };
    let interpolation = match ctx.text("mode", "nearest")? {
        "nearest" => Interpolation::Nearest(match ctx.text("nearest_mode", "round_prefer_floor")? {
            "round_prefer_floor" => Rounding::HalfDown,
            "round_prefer_ceil" => Rounding::HalfUp,
            "floor" => Rounding::Floor,
            "ceil" => Rounding::Ceil,
            other => return Err(format!("nearest_mode {other} is not supported")),
        }),
        "linear" => Interpolation::Linear,
        other => return Err(format!("mode {other} is not supported, only nearest and linear")),
    };
    let mut resize = Resize { target, interpolation, coordinates: Coordinates::HalfPixel };
    let output = resize.output([height, width])?;
    resize.coordinates = match ctx.text("coordinate_transformation_mode", "half_pixel")? {
        "half_pixel" => Coordinates::HalfPixel,
        "pytorch_half_pixel" => Coordinates::PytorchHalfPixel,
        "asymmetric" => Coordinates::Asymmetric,
        "align_corners" => Coordinates::AlignCorners,
        // Equal to half_pixel if the scaled size is an integer.
        "half_pixel_symmetric" if is_exact(target, [height, width], output) => Coordinates::HalfPixel,
        other => return Err(format!("coordinate_transformation_mode {other} is not supported")),
    };
    if ctx.flag("antialias")? && (output[0] < height || output[1] < width) {
        return Err("downsampling with antialiasing is not supported".into());
    }
    builder.push_sized(Op::Resize(resize), &[input], sized)
}

/// `Upsample`, and `Resize` before opset 11: only scales, with asymmetric coordinates; nearest rounds down when
/// enlarging and up when shrinking, as in ONNX Runtime.
fn upsample_or_resize_10(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let (input, shape) = ctx.dynamic_with_shape(builder, 0)?;
    feature_map(shape)?;
    // Scales are an attribute up to opset 8.
    let (scales, sized) = match ctx.floats("scales")? {
        Some(scales) => (scale_pair(scales, &[0, 1, 2, 3])?, false),
        None => {
            let value = ctx.constant(1)?;
            (scale_pair(value.floats()?, &[0, 1, 2, 3])?, value.depends_on_image_size())
        }
    };
    let interpolation = match ctx.text("mode", "nearest")? {
        "nearest" if scales.iter().all(|&s| s >= 1.0) => Interpolation::Nearest(Rounding::Floor),
        "nearest" if scales.iter().all(|&s| s <= 1.0) => Interpolation::Nearest(Rounding::Ceil),
        "nearest" => return Err("enlarging one axis and shrinking the other is not supported".into()),
        "linear" => Interpolation::Linear,
        other => return Err(format!("mode {other} is not supported, only nearest and linear")),
    };
    let resize = Resize { target: ResizeTarget::Scales(scales), interpolation, coordinates: Coordinates::Asymmetric };
    builder.push_sized(Op::Resize(resize), &[input], sized)
}

/// Scales of height and width, from one scale per axis.
fn scale_pair(given: &[f32], axes: &[usize]) -> Result<[f32; 2], String> {
    if given.len() != axes.len() {
        return Err(format!("{} scales are given for {} axes", given.len(), axes.len()));
    }
    let mut scales = [1.0; 4];
    for (&axis, &scale) in axes.iter().zip(given.iter()) {
        scales[axis] = scale;
    }
    match scales {
        [1.0, 1.0, height, width] if height > 0.0 && width > 0.0 => Ok([height, width]),
        _ => Err(format!("scales are {scales:?}; only height and width can be resized")),
    }
}

/// Height and width, from one length per axis.
fn size_pair(
    value: &ConstTensor,
    axes: &[usize],
    [channels, height, width]: [usize; 3],
    batch: Option<usize>,
) -> Result<[usize; 2], String> {
    let given = value.int_dims()?;
    if given.len() != axes.len() {
        return Err(format!("{} sizes are given for {} axes", given.len(), axes.len()));
    }
    let mut sizes = [batch.unwrap_or(1), channels, height, width];
    for (&axis, &(size, _)) in axes.iter().zip(&given) {
        if axis == 0 && size == 1 {
            continue;
        }
        sizes[axis] = usize::try_from(size).map_err(|_| format!("sizes contains {size}"))?;
    }
    if sizes[0] != batch.unwrap_or(1) || sizes[1] != channels {
        return Err(format!("sizes are {sizes:?}; only height and width can be resized"));
    }
    Ok([sizes[2], sizes[3]])
}

/// Whether the output size is the scaled input size without rounding.
fn is_exact(target: ResizeTarget, input: [usize; 2], output: [usize; 2]) -> bool {
    match target {
        ResizeTarget::Sizes(_) => true,
        ResizeTarget::Scales(scales) => (0..2).all(|i| scales[i] * input[i] as f32 == output[i] as f32),
    }
}
