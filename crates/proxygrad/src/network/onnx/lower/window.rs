//! Sliding windows of convolutions and pools: kernel, stride, dilation and padding.

use super::super::graph_builder::{BuilderId, GraphBuilder};
use super::super::node_context::{NodeContext, window_length};
use crate::network::{Array, Axis, Op, Padding, Shape, SizeBound, Window};

/// Which of a node's spatial axes a window slides along.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Number of spatial axes of the node.
    pub axes: usize,
    /// The axis along which it slides vertically; `None` if it does not.
    pub vertical: Option<usize>,
    /// The axis along which it slides horizontally.
    pub horizontal: Option<usize>,
}

impl Place {
    /// All axes of a line or map.
    pub fn whole(axes: usize) -> Self {
        match axes {
            1 => Self { axes, vertical: None, horizontal: Some(0) },
            _ => Self { axes, vertical: Some(0), horizontal: Some(1) },
        }
    }

    /// The values of an attribute with one value per axis, `missing` along no axis; `None` if it is omitted.
    fn values<T: Copy>(self, all: &[T], name: &str, missing: T) -> Result<Option<[T; 2]>, String> {
        match all.len() {
            0 => Ok(None),
            found if found == self.axes => {
                Ok(Some([self.vertical, self.horizontal].map(|axis| axis.map_or(missing, |axis| all[axis]))))
            }
            found => Err(format!("{name} has {found} values; expected {}", self.axes)),
        }
    }

    fn lengths(self, ctx: &NodeContext, name: &str) -> Result<[usize; 2], String> {
        let all = ctx.ints(name)?.unwrap_or_default();
        let [a, b] = self.values(all, name, 1)?.unwrap_or([1, 1]);
        Ok([window_length(a, name)?, window_length(b, name)?])
    }

    fn padding(self, ctx: &NodeContext) -> Result<Padding, String> {
        let all = ctx.ints("pads")?.unwrap_or_default();
        if all.len() % 2 != 0 {
            return Err(format!("pads has {} values; expected {}", all.len(), 2 * self.axes));
        }
        let (before, after) = all.split_at(all.len() / 2);
        let side = |values: &[i64]| -> Result<[usize; 2], String> {
            let [a, b] = self.values(values, "one side of pads", 0)?.unwrap_or([0, 0]);
            Ok([window_length(a, "pads")?, window_length(b, "pads")?])
        };
        let ([top, left], [bottom, right]) = (side(before)?, side(after)?);
        Ok(Padding { top, left, bottom, right })
    }
}

/// The sliding window along some axes of a node, on a map of shape `input`.
///
/// SAME padding is computed for that input; the bound states for which other sizes it is the same.
///
/// # Errors
/// When an attribute is out of range or has another number of values than the node has spatial axes.
pub(super) fn window(
    ctx: &NodeContext,
    kernel: [usize; 2],
    input: &Shape,
    ceil: bool,
    place: Place,
) -> Result<(Window, Option<SizeBound>), String> {
    let [_, height, width] = feature_map(input)?;
    let mut window = Window {
        stride: place.lengths(ctx, "strides")?,
        dilation: place.lengths(ctx, "dilations")?,
        ceil,
        ..Window::new(kernel)
    };
    if window.kernel.contains(&0) || window.stride.contains(&0) || window.dilation.contains(&0) {
        return Err("a kernel, stride or dilation is zero".into());
    }
    let upper = match ctx.text("auto_pad", "NOTSET")? {
        "NOTSET" | "" => {
            window.padding = place.padding(ctx)?;
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
    let bound = match place.axes {
        _ if window.stride == [1, 1] => None,
        1 | 2 => Some(SizeBound::Remainder(window.stride)),
        // The rows of a volume are not those of the image.
        _ => Some(SizeBound::Exact),
    };
    Ok((window, bound))
}

/// `[C,H,W]` of an input that must be a feature map.
///
/// # Errors
/// When it has another rank.
pub(super) fn feature_map(input: &Shape) -> Result<[usize; 3], String> {
    input.feature_map().ok_or_else(|| match input.len() {
        2 => "the input is one-dimensional, but the window is not".into(),
        4 => "the input is three-dimensional; only images and lines are supported".into(),
        _ => format!("the input has shape {input}; expected a feature map [C,H,W]"),
    })
}

/// An input of a window with `axes` axes as a map: a line `[C,L]` becomes `[C,1,L]`. Also whether it was one.
///
/// # Errors
/// When the input has another number of axes.
pub(super) fn planar(builder: &mut GraphBuilder, input: BuilderId, axes: usize) -> Result<(BuilderId, bool), String> {
    let shape = &builder.node(input).shape;
    match (axes, shape.len()) {
        (1, 2) => {
            let map = vec![Axis::Copy(0), Axis::Exact(1), Axis::Copy(1)];
            Ok((builder.push_reshape(input, map, false)?, true))
        }
        (1, _) => Err(format!("a 1-dimensional kernel does not fit an input of shape {shape}")),
        _ => feature_map(shape).map(|_| (input, false)),
    }
}

/// The result of an operation on the map of a line, as a line.
///
/// # Errors
/// As [`GraphBuilder::push_reshape`].
pub(super) fn line(builder: &mut GraphBuilder, output: BuilderId, is_line: bool) -> Result<BuilderId, String> {
    match is_line {
        true => builder.push(Op::Reshape(vec![Axis::Copy(0), Axis::Copy(2)]), &[output]),
        false => Ok(output),
    }
}

/// Weights `[O,C,k]` for lines as weights `[O,C,1,k]` for maps; others unchanged.
///
/// # Errors
/// When there are three spatial axes.
pub(super) fn planar_kernel(weight: Array) -> Result<Array, String> {
    match *weight.shape() {
        [out, inputs, kernel] => Ok(weight.reshape([out, inputs, 1, kernel])?),
        [_, _, _, _, _] => Err("3-D convolutions are not supported, only 1-D and 2-D".into()),
        _ => Ok(weight),
    }
}

/// The kernel's height and width.
///
/// # Errors
/// When it has more than two dimensions.
pub(super) fn kernel(lengths: &[usize]) -> Result<[usize; 2], String> {
    match *lengths {
        [length] => Ok([1, length]),
        [height, width] => Ok([height, width]),
        _ => Err(format!("{}-dimensional kernels are not supported, only 1- and 2-dimensional", lengths.len())),
    }
}

/// An attribute that holds a length for the height and one for the width.
///
/// # Errors
/// When it holds another number of values, or negative ones.
pub(super) fn pair(ctx: &NodeContext, name: &str) -> Result<Option<[usize; 2]>, String> {
    let Some(values) = ctx.ints(name)? else { return Ok(None) };
    match *values {
        [] => Ok(None),
        // The rows of a line are one high.
        [only] => Ok(Some([1, window_length(only, name)?])),
        [a, b] => Ok(Some([window_length(a, name)?, window_length(b, name)?])),
        _ => Err(format!("{name} has {} values; expected 2 or 1", values.len())),
    }
}

pub(super) fn explicit_padding(ctx: &NodeContext) -> Result<Padding, String> {
    match *ctx.ints("pads")?.unwrap_or_default() {
        [] => Ok(Padding::default()),
        [left, right] => {
            let (left, right) = (window_length(left, "pads")?, window_length(right, "pads")?);
            Ok(Padding { left, right, ..Padding::default() })
        }
        [top, left, bottom, right] => Ok(Padding {
            top: window_length(top, "pads")?,
            left: window_length(left, "pads")?,
            bottom: window_length(bottom, "pads")?,
            right: window_length(right, "pads")?,
        }),
        ref other => Err(format!("pads has {} values; expected 4 or 2", other.len())),
    }
}

/// Padding before and after an axis such that the output has `size / stride` elements, rounded up.
fn same_padding(size: usize, stride: usize, extent: usize, upper: bool) -> (usize, usize) {
    let total = ((size.div_ceil(stride) - 1) * stride + extent).saturating_sub(size);
    let small = total / 2;
    if upper { (small, total - small) } else { (total - small, small) }
}
