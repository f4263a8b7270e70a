//! `Resize` and its predecessor `Upsample`.

use super::super::const_tensor::ConstTensor;
use super::super::graph_builder::{BuilderId, GraphBuilder};
use super::super::node_context::{NodeContext, distinct_axes};
use super::window::{feature_map, line, planar};
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
    let (input, is_line) = map(builder, ctx)?;
    let size @ [_, height, width] = feature_map(&builder.node(input).shape)?;
    let rank = if is_line { 3 } else { 4 };
    let axes = match ctx.ints("axes")? {
        Some(axes) => distinct_axes(axes, rank)?,
        None => (0..rank).collect(),
    };
    let axes = &axes;
    let given = |i: usize| ctx.optional_constant(i).map(|value| value.filter(|value| value.len() > 0));
    let (target, sized) = match (given(2)?, given(3)?) {
        (Some(scales), None) => {
            (ResizeTarget::Scales(scale_pair(scales.floats()?, axes, rank)?), scales.depends_on_image_size())
        }
        (None, Some(sizes)) => {
            let policy = ctx.text("keep_aspect_ratio_policy", "stretch")?;
            if policy != "stretch" {
                return Err(format!("keep_aspect_ratio_policy {policy} is not supported, only stretch"));
            }
            (ResizeTarget::Sizes(size_pair(sizes, axes, size, rank, ctx.batch)?), sizes.depends_on_image_size())
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
        "cubic" => Interpolation::Cubic(ctx.float("cubic_coeff_a", -0.75)?),
        other => return Err(format!("mode {other} is not supported, only nearest, linear and cubic")),
    };
    let coordinates = match ctx.text("coordinate_transformation_mode", "half_pixel")? {
        "half_pixel" => Coordinates::HalfPixel,
        "half_pixel_symmetric" => Coordinates::HalfPixelSymmetric,
        "pytorch_half_pixel" => Coordinates::PytorchHalfPixel,
        "tf_half_pixel_for_nn" => Coordinates::HalfPixelToInteger,
        "asymmetric" => Coordinates::Asymmetric,
        "align_corners" => Coordinates::AlignCorners,
        "tf_crop_and_resize" => crop(ctx, axes, rank)?,
        other => return Err(format!("coordinate_transformation_mode {other} is not supported")),
    };
    let (antialias, exclude_outside) = (ctx.flag("antialias")?, ctx.flag("exclude_outside")?);
    let resize = Resize { antialias, exclude_outside, ..Resize::new(target, interpolation, coordinates) };
    resize.output([height, width])?;
    let output = builder.push_sized(Op::Resize(resize), &[input], sized)?;
    line(builder, output, is_line)
}

/// `Upsample`, and `Resize` before opset 11: only scales, with asymmetric coordinates; nearest rounds down when
/// enlarging and up when shrinking, as in ONNX Runtime.
fn upsample_or_resize_10(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let (input, is_line) = map(builder, ctx)?;
    let (axes, rank): (&[usize], usize) = if is_line { (&[0, 1, 2], 3) } else { (&[0, 1, 2, 3], 4) };
    // Scales are an attribute up to opset 8.
    let (scales, sized) = match ctx.floats("scales")? {
        Some(scales) => (scale_pair(scales, axes, rank)?, false),
        None => {
            let value = ctx.constant(1)?;
            (scale_pair(value.floats()?, axes, rank)?, value.depends_on_image_size())
        }
    };
    let interpolation = match ctx.text("mode", "nearest")? {
        "nearest" if scales.iter().all(|&s| s >= 1.0) => Interpolation::Nearest(Rounding::Floor),
        "nearest" if scales.iter().all(|&s| s <= 1.0) => Interpolation::Nearest(Rounding::Ceil),
        "nearest" => return Err("enlarging one axis and shrinking the other is not supported".into()),
        "linear" => Interpolation::Linear,
        other => return Err(format!("mode {other} is not supported, only nearest and linear")),
    };
    let resize = Resize::new(ResizeTarget::Scales(scales), interpolation, Coordinates::Asymmetric);
    let output = builder.push_sized(Op::Resize(resize), &[input], sized)?;
    line(builder, output, is_line)
}

/// The input as a map `[C,H,W]`, and whether it is a line `[C,L]`.
fn map(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<(BuilderId, bool), String> {
    let (input, shape) = ctx.dynamic_with_shape(builder, 0)?;
    let axes = if shape.len() == 2 { 1 } else { 2 };
    planar(builder, input, axes)
}

/// The region of `tf_crop_and_resize`; what is outside of the map is 0.
fn crop(ctx: &NodeContext, axes: &[usize], rank: usize) -> Result<Coordinates, String> {
    let outside = ctx.float("extrapolation_value", 0.0)?;
    if outside != 0.0 {
        return Err(format!("extrapolation_value is {outside}; only 0 is supported"));
    }
    let region = ctx.constant(1)?.floats()?;
    if region.len() != 2 * axes.len() {
        return Err(format!(
            "roi has {} numbers for {} axes; expected a start and an end each",
            region.len(),
            axes.len()
        ));
    }
    let (first, last) = region.split_at(axes.len());
    let mut ends = [vec![0.0; rank], vec![1.0; rank]];
    for (i, &axis) in axes.iter().enumerate() {
        (ends[0][axis], ends[1][axis]) = (first[i], last[i]);
    }
    let [start, end] = ends;
    if (0..2).any(|axis| (start[axis], end[axis]) != (0.0, 1.0)) {
        return Err(format!("roi is {region:?}; only height and width can be cropped"));
    }
    let pair = |values: &[f32], row: f32| [if rank == 3 { row } else { values[2] }, values[rank - 1]];
    // The only row of a line stays what it is.
    Ok(Coordinates::Crop { start: pair(&start, 0.0), end: pair(&end, 1.0) })
}

/// Scales of height and width, from one scale per axis.
fn scale_pair(given: &[f32], axes: &[usize], rank: usize) -> Result<[f32; 2], String> {
    if given.len() != axes.len() {
        return Err(format!("{} scales are given for {} axes", given.len(), axes.len()));
    }
    let mut scales = vec![1.0; rank];
    for (&axis, &scale) in axes.iter().zip(given.iter()) {
        scales[axis] = scale;
    }
    let is_positive = |scale: f32| scale > 0.0 && scale.is_finite();
    match scales[..] {
        [1.0, 1.0, height, width] if is_positive(height) && is_positive(width) => Ok([height, width]),
        [1.0, 1.0, length] if is_positive(length) => Ok([1.0, length]),
        _ => Err(format!("scales are {scales:?}; only height and width can be resized, by numbers above 0")),
    }
}

/// Height and width, from one length per axis.
fn size_pair(
    value: &ConstTensor,
    axes: &[usize],
    [channels, height, width]: [usize; 3],
    rank: usize,
    batch: Option<usize>,
) -> Result<[usize; 2], String> {
    let given = value.int_dims()?;
    if given.len() != axes.len() {
        return Err(format!("{} sizes are given for {} axes", given.len(), axes.len()));
    }
    let batch = batch.unwrap_or(1);
    let mut sizes = if rank == 3 { vec![batch, channels, width] } else { vec![batch, channels, height, width] };
    for (&axis, &(size, _)) in axes.iter().zip(&given) {
        if axis == 0 && size == 1 {
            continue;
        }
        sizes[axis] = usize::try_from(size).map_err(|_| format!("sizes contains {size}"))?;
    }
    if sizes[0] != batch || sizes[1] != channels {
        return Err(format!("sizes are {sizes:?}; only height and width can be resized"));
    }
    Ok([if rank == 3 { height } else { sizes[2] }, sizes[rank - 1]])
}
