//! `ConvTranspose` as a convolution of stride 1 that computes all phases of the output as channels, followed by a
//! rearrangement of these channels to pixels.

use super::super::graph_builder::{BuilderId, GraphBuilder};
use super::super::node_context::{NodeContext, length, window_length};
use super::depth_space::joined;
use super::window;
use crate::network::{Array, Axis, Conv, Op, Padding, Window};

/// One axis of a transposed convolution.
#[derive(Debug, Clone, Copy)]
struct Along {
    /// Taps of the kernel, the distance between two of them, and the distance between two inputs in the output.
    kernel: usize,
    dilation: usize,
    stride: usize,
    /// Values left out before the output.
    begin: usize,
    /// Taps of the convolution, and its border.
    taps: usize,
    before: usize,
    after: usize,
    /// Values of the output, and those that the phases have in excess of them.
    output: usize,
    excess: usize,
}

/// <https://onnx.ai/onnx/operators/onnx__ConvTranspose.html> with constant weights `[C,O/groups,kh,kw]`.
pub(super) fn conv_transpose(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let weight = ctx.constant(1)?.array()?;
    let (input, is_line) = window::planar(builder, ctx.dynamic(0)?, weight.shape().len().saturating_sub(2))?;
    let [channels, height, width] = window::feature_map(&builder.node(input).shape)?;
    let weight = window::planar_kernel(weight)?;
    let &[inputs, per_group, kh, kw] = weight.shape() else {
        return Err(format!("the weights have shape {:?}; expected [C,O,kh,kw]", weight.shape()));
    };
    let groups = ctx.int("group")?.map_or(Ok(1), |groups| length(groups, "group"))?;
    if groups == 0 || inputs != channels || inputs % groups != 0 {
        let shape = weight.shape();
        return Err(format!("weights of shape {shape:?} in {groups} groups do not fit {channels} channels"));
    }
    let axes = [Along::new(ctx, 0, [kh, height])?, Along::new(ctx, 1, [kw, width])?];
    let [rows, columns] = axes;
    let phases = rows.stride * columns.stride;
    let outputs = per_group.checked_mul(groups).ok_or("the number of channels overflows")?;
    let shape = [outputs.saturating_mul(phases), inputs / groups, rows.taps, columns.taps];
    let mut data = vec![0.0; ctx.checked_elements(&shape)?];
    // Output channels are ordered by group, phase, and channel of the group.
    let taps = |axis: Along| (0..axis.kernel).map(move |k| (k, axis.tap(k)));
    for c in 0..inputs {
        for (y, (y_phase, y_tap)) in taps(rows) {
            for (x, (x_phase, x_tap)) in taps(columns) {
                for o in 0..per_group {
                    let phase = y_phase * columns.stride + x_phase;
                    let (group, own) = (c / shape[1], c % shape[1]);
                    let row = ((group * phases + phase) * per_group + o) * shape[1] + own;
                    let from = ((c * per_group + o) * kh + y) * kw + x;
                    data[(row * rows.taps + y_tap) * columns.taps + x_tap] = weight.data()[from];
                }
            }
        }
    }
    let bias = ctx.optional_constant(2)?.map(|bias| bias.array()).transpose()?;
    if let Some(bias) = bias.as_ref().filter(|bias| bias.shape() != [outputs]) {
        return Err(format!("the bias has shape {:?} for {outputs} output channels", bias.shape()));
    }
    let repeated = |bias: Array| {
        let of_group = |group: &[f32]| group.repeat(phases);
        Array::vector(bias.data().chunks(per_group.max(1)).flat_map(of_group).collect::<Vec<_>>())
    };
    let padding = Padding { top: rows.before, left: columns.before, bottom: rows.after, right: columns.after };
    let window = Window { padding, ..Window::new([rows.taps, columns.taps]) };
    let conv = Conv { weight: Array::new(shape, data)?, bias: bias.map(repeated), window, groups };
    let mut output = builder.push(Op::Conv(conv), &[input])?;
    if phases > 1 {
        let lengths = [groups, rows.stride, columns.stride, per_group].map(Axis::Exact);
        let parts = builder.push(Op::Reshape([&lengths[..], &[Axis::Copy(1), Axis::Copy(2)]].concat()), &[output])?;
        let turned = builder.push(Op::Transpose(vec![0, 3, 4, 1, 5, 2]), &[parts])?;
        let merged = [Axis::Exact(outputs), Axis::Copy(2), Axis::Copy(3), Axis::Copy(4), Axis::Copy(5)];
        let merged = builder.push_reshape(turned, merged.to_vec(), false)?;
        output = joined(builder, merged)?;
    }
    for (i, axis) in axes.into_iter().enumerate().filter(|(_, axis)| axis.excess > 0) {
        let sized = builder.depends_on_image_size(output, i + 1);
        let op = Op::Slice { axis: i + 1, start: 0, end: axis.output, step: 1 };
        output = builder.push_sized(op, &[output], sized)?;
    }
    window::line(builder, output, is_line)
}

impl Along {
    /// Axis `i` (0 = vertical) of a node with a kernel and an input of these lengths.
    fn new(ctx: &NodeContext, i: usize, [kernel, input]: [usize; 2]) -> Result<Self, String> {
        let lengths = |name: &str| Ok::<_, String>(window::pair(ctx, name)?.unwrap_or([1, 1])[i]);
        let (stride, dilation) = (lengths("strides")?, lengths("dilations")?);
        if kernel == 0 || stride == 0 || dilation == 0 || input == 0 {
            return Err("a kernel, stride or dilation is zero".into());
        }
        // One value per axis; a line has only the horizontal axis.
        let per_axis = |values: &[i64], name: &str, missing: usize| match (values, i) {
            ([], _) | ([_], 0) => Ok(missing),
            (&[only], _) => window_length(only, name),
            (values, i) => values.get(i).map_or(Ok(missing), |&value| window_length(value, name)),
        };
        let extra = per_axis(ctx.ints("output_padding")?.unwrap_or_default(), "output_padding", 0)?;
        let extent = dilation * (kernel - 1) + 1;
        let full = stride * (input - 1) + extent + extra;
        let (begin, output) = match ctx.ints("output_shape")?.filter(|shape| !shape.is_empty()) {
            Some(shape) => {
                let spatial = &shape[shape.len().saturating_sub(2)..];
                let wanted = per_axis(spatial, "output_shape", 1)?;
                (Self::begin_of(ctx, full, wanted)?, wanted)
            }
            None => match ctx.text("auto_pad", "NOTSET")? {
                "NOTSET" | "" => {
                    let pads = window::explicit_padding(ctx)?;
                    let (begin, end) = [(pads.top, pads.bottom), (pads.left, pads.right)][i];
                    let output = full.checked_sub(begin + end).filter(|&output| output > 0);
                    (begin, output.ok_or_else(|| format!("pads {begin} and {end} leave nothing of {full} values"))?)
                }
                "VALID" => (0, full),
                "SAME_UPPER" | "SAME_LOWER" => (Self::begin_of(ctx, full, stride * input)?, stride * input),
                other => return Err(format!("auto_pad is {other}; expected NOTSET, VALID, SAME_UPPER or SAME_LOWER")),
            },
        };
        if output == 0 {
            return Err("its output would be empty".into());
        }
        // Output `q * stride + phase` reads input `q + offset` with tap `k` where `offset * stride + k * dilation` is
        // `phase + begin`.
        let first = -(extent as isize - 1 - begin as isize).div_euclid(stride as isize).max(0);
        let steps = output.div_ceil(stride);
        let last = begin.div_ceil(stride) as isize;
        // The last step must be able to read at least as far as the border allows.
        let last = last.max(input as isize - steps as isize);
        let (before, taps) = (first.unsigned_abs(), (last - first + 1).unsigned_abs());
        let after = (steps + taps - 1).saturating_sub(input + before);
        Ok(Self { kernel, dilation, stride, begin, taps, before, after, output, excess: steps * stride - output })
    }

    /// Values left out before an output of `wanted` of `full` values.
    fn begin_of(ctx: &NodeContext, full: usize, wanted: usize) -> Result<usize, String> {
        let total = full.saturating_sub(wanted);
        Ok(if ctx.text("auto_pad", "NOTSET")? == "SAME_UPPER" { total / 2 } else { total - total / 2 })
    }

    /// The phase that tap `k` belongs to, and its tap in the convolution.
    fn tap(self, k: usize) -> (usize, usize) {
        let (stride, shift) = (self.stride as isize, (k * self.dilation) as isize - self.begin as isize);
        let phase = shift.rem_euclid(stride);
        let offset = (phase - shift) / stride;
        (phase.unsigned_abs(), (offset + self.before as isize).unsigned_abs())
    }
}
