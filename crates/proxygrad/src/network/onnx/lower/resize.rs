//! `Resize` and its predecessor `Upsample`.

use super::super::call::{Call, distinct_axes};
use super::super::draft::{Draft, Id};
use super::super::value::{Origin, Value};
use super::windows::feature_map;
use crate::network::{Coordinates, Interpolation, Op, Resize, ResizeTarget, Rounding};

/// <https://onnx.ai/onnx/operators/onnx__Upsample.html>
pub(super) fn upsample(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    early(draft, call)
}

/// <https://onnx.ai/onnx/operators/onnx__Resize.html>
pub(super) fn resize(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    if call.opset < 11 {
        return early(draft, call);
    }
    let (input, shape) = call.shaped(draft, 0)?;
    let [channels, height, width] = feature_map(shape)?;
    let axes = match call.ints("axes")? {
        Some(axes) => distinct_axes(axes, 4)?,
        None => vec![0, 1, 2, 3],
    };
    let given = |i: usize| call.value(i).map(|value| value.filter(|value| value.len() > 0));
    let (target, sized) = match (given(2)?, given(3)?) {
        (Some(scales), None) => (ResizeTarget::Scales(scale_pair(scales.floats()?, &axes)?), scales.is_sized()),
        (None, Some(sizes)) => {
            let policy = call.text("keep_aspect_ratio_policy", "stretch")?;
            if policy != "stretch" {
                return Err(format!("has keep_aspect_ratio_policy {policy}; only stretch is supported"));
            }
            (ResizeTarget::Sizes(size_pair(sizes, &axes, [channels, height, width], call.batch)?), sizes.is_sized())
        }
        _ => return Err("needs either scales or sizes".into()),
    };
    let interpolation = match call.text("mode", "nearest")? {
        "nearest" => Interpolation::Nearest(match call.text("nearest_mode", "round_prefer_floor")? {
            "round_prefer_floor" => Rounding::HalfDown,
            "round_prefer_ceil" => Rounding::HalfUp,
            "floor" => Rounding::Floor,
            "ceil" => Rounding::Ceil,
            other => return Err(format!("has an unknown nearest_mode {other}")),
        }),
        "linear" => Interpolation::Linear,
        other => return Err(format!("has mode {other}; only nearest and linear are supported")),
    };
    let mut resize = Resize { target, interpolation, coordinates: Coordinates::HalfPixel };
    let output = resize.output([height, width])?;
    resize.coordinates = match call.text("coordinate_transformation_mode", "half_pixel")? {
        "half_pixel" => Coordinates::HalfPixel,
        "pytorch_half_pixel" => Coordinates::PytorchHalfPixel,
        "asymmetric" => Coordinates::Asymmetric,
        "align_corners" => Coordinates::AlignCorners,
        // The same as half_pixel, unless the scale does not divide the size.
        "half_pixel_symmetric" if is_exact(target, [height, width], output) => Coordinates::HalfPixel,
        other => return Err(format!("has coordinate_transformation_mode {other}, which is not supported")),
    };
    if call.flag("antialias")? && (output[0] < height || output[1] < width) {
        return Err("shrinks with antialiasing, which is not supported".into());
    }
    draft.push_sized(Op::Resize(resize), &[input], sized)
}

/// `Upsample`, and `Resize` before opset 11: scales only, positions counted from the first pixel; the nearest pixel is
/// rounded down when enlarging and up when shrinking, as ONNX Runtime does.
fn early(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    let (input, shape) = call.shaped(draft, 0)?;
    feature_map(shape)?;
    // Up to opset 8 the scales are an attribute.
    let (scales, sized) = match call.floats("scales")? {
        Some(scales) => (scale_pair(scales, &[0, 1, 2, 3])?, false),
        None => {
            let value = call.required(1)?;
            (scale_pair(value.floats()?, &[0, 1, 2, 3])?, value.is_sized())
        }
    };
    let interpolation = match call.text("mode", "nearest")? {
        "nearest" if scales.iter().all(|&s| s >= 1.0) => Interpolation::Nearest(Rounding::Floor),
        "nearest" if scales.iter().all(|&s| s <= 1.0) => Interpolation::Nearest(Rounding::Ceil),
        "nearest" => return Err("enlarges one axis and shrinks the other".into()),
        "linear" => Interpolation::Linear,
        other => return Err(format!("has mode {other}; only nearest and linear are supported")),
    };
    let resize = Resize { target: ResizeTarget::Scales(scales), interpolation, coordinates: Coordinates::Asymmetric };
    draft.push_sized(Op::Resize(resize), &[input], sized)
}

/// Factors for height and width from one per axis.
fn scale_pair(given: &[f32], axes: &[usize]) -> Result<[f32; 2], String> {
    if given.len() != axes.len() {
        return Err(format!("has {} scales for {} axes", given.len(), axes.len()));
    }
    let mut scales = [1.0; 4];
    for (&axis, &scale) in axes.iter().zip(given.iter()) {
        scales[axis] = scale;
    }
    match scales {
        [1.0, 1.0, height, width] if height > 0.0 && width > 0.0 => Ok([height, width]),
        _ => Err(format!("has scales {scales:?}; only height and width can be resized")),
    }
}

/// Height and width from one length per axis.
fn size_pair(
    value: &Value,
    axes: &[usize],
    [channels, height, width]: [usize; 3],
    batch: Option<usize>,
) -> Result<[usize; 2], String> {
    let given = value.int_dims()?;
    if given.len() != axes.len() {
        return Err(format!("has {} sizes for {} axes", given.len(), axes.len()));
    }
    let mut sizes = [batch.unwrap_or(1), channels, height, width];
    for (&axis, &(size, origin)) in axes.iter().zip(&given) {
        match origin {
            Origin::Batch if axis == 0 => continue,
            Origin::Batch | Origin::Mixed => return Err("computes its sizes from the batch".into()),
            Origin::Constant | Origin::Size => {}
        }
        sizes[axis] = usize::try_from(size).map_err(|_| format!("has a size of {size}"))?;
    }
    if sizes[0] != batch.unwrap_or(1) || sizes[1] != channels {
        return Err(format!("has sizes {sizes:?}; only height and width can be resized"));
    }
    Ok([sizes[2], sizes[3]])
}

fn is_exact(target: ResizeTarget, input: [usize; 2], output: [usize; 2]) -> bool {
    match target {
        ResizeTarget::Sizes(_) => true,
        ResizeTarget::Scales(scales) => (0..2).all(|i| scales[i] * input[i] as f32 == output[i] as f32),
    }
}
