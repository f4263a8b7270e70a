//! Sliding windows of convolutions and pools: kernel, stride, dilation and padding.

use super::super::node_context::{NodeContext, window_length};
use crate::network::{Padding, Shape, SizeBound, Window};

/// The sliding window of a node whose input has shape `input`.
///
/// SAME padding is computed for that input; the bound states for which other sizes it is the same.
///
/// # Errors
/// When the node is not two-dimensional or an attribute is out of range.
pub(super) fn window(
    ctx: &NodeContext,
    kernel: [usize; 2],
    input: &Shape,
    ceil: bool,
) -> Result<(Window, Option<SizeBound>), String> {
    let [_, height, width] = feature_map(input)?;
    let mut window = Window {
        stride: pair(ctx, "strides")?.unwrap_or([1, 1]),
        dilation: pair(ctx, "dilations")?.unwrap_or([1, 1]),
        ceil,
        ..Window::new(kernel)
    };
    if window.kernel.contains(&0) || window.stride.contains(&0) || window.dilation.contains(&0) {
        return Err("a kernel, stride or dilation is zero".into());
    }
    let upper = match ctx.text("auto_pad", "NOTSET")? {
        "NOTSET" | "" => {
            window.padding = explicit_padding(ctx)?;
            return Ok((window, None));
        }
        "VALID" => return Ok((window, None)),
        "SAME_UPPER" => true,
        "SAME_LOWER" => false,
        other => return Err(format!("auto_pad is {other}; expected NOTSET, VALID, SAME_UPPER or SAME_LOWER")),
    };
    window.ceil = false;
    let [(top, bottom), (left, right)] =
        [(0, height), (1, width)].map(|(i, size)| same_padding(size, window.stride[i], window.extent()[i], upper));
    window.padding = Padding { top, left, bottom, right };
    let bound = (window.stride != [1, 1]).then_some(SizeBound::Remainder(window.stride));
    Ok((window, bound))
}

/// `[C,H,W]` of an input that must be a feature map.
///
/// # Errors
/// When it has another rank.
pub(super) fn feature_map(input: &Shape) -> Result<[usize; 3], String> {
    input.feature_map().ok_or_else(|| match input.len() {
        2 => "the input is one-dimensional; only two-dimensional images are supported".into(),
        4 => "the input is three-dimensional; only two-dimensional images are supported".into(),
        _ => format!("the input has shape {input}; expected a feature map [C,H,W]"),
    })
}

/// The kernel's height and width.
///
/// # Errors
/// When it is not two-dimensional.
pub(super) fn kernel(lengths: &[usize]) -> Result<[usize; 2], String> {
    lengths
        .try_into()
        .map_err(|_| format!("{}-dimensional kernels are not supported, only 2-dimensional", lengths.len()))
}

/// An attribute that holds a length for the height and one for the width.
///
/// # Errors
/// When it holds another number of values, or negative ones.
pub(super) fn pair(ctx: &NodeContext, name: &str) -> Result<Option<[usize; 2]>, String> {
    let Some(values) = ctx.ints(name)? else { return Ok(None) };
    match *values {
        [] => Ok(None),
        [a, b] => Ok(Some([window_length(a, name)?, window_length(b, name)?])),
        _ => Err(format!("{name} has {} values; expected 2", values.len())),
    }
}

fn explicit_padding(ctx: &NodeContext) -> Result<Padding, String> {
    match *ctx.ints("pads")?.unwrap_or_default() {
        [] => Ok(Padding::default()),
        [top, left, bottom, right] => Ok(Padding {
            top: window_length(top, "pads")?,
            left: window_length(left, "pads")?,
            bottom: window_length(bottom, "pads")?,
            right: window_length(right, "pads")?,
        }),
        ref other => Err(format!("pads has {} values; expected 4", other.len())),
    }
}

/// Padding before and after an axis such that the output has `size / stride` elements, rounded up.
fn same_padding(size: usize, stride: usize, extent: usize, upper: bool) -> (usize, usize) {
    let total = ((size.div_ceil(stride) - 1) * stride + extent).saturating_sub(size);
    let small = total / 2;
    if upper { (small, total - small) } else { (total - small, small) }
}
