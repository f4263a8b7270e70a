//! Receptive fields: the region of the image that a value of a layer depends on.

use std::ops::Range;

use super::graph::{Network, NodeId};
use super::normalize::Normalize;
use super::op::{Op, PadMode};
use super::shape::Shape;
use super::window::Window;

/// A box of a tensor: one range of indices per axis, without the batch axis.
type Region = Vec<Range<usize>>;

impl Network {
    /// Receptive field of a layer at `position` (row and column): the rows and columns of the image, at the network's
    /// own input size, in the smallest box that contains every pixel read, clipped to the image. Without a position, or
    /// for a layer that is not a feature map, the receptive field of all its values. `None` if the layer does not
    /// depend on the image.
    pub fn receptive_field(&self, layer: NodeId, position: Option<[usize; 2]>) -> Option<[Range<usize>; 2]> {
        let shape = &self.node(layer).shape;
        let mut region = whole(shape);
        if let ([_, rows, columns], Some([y, x])) = (region.as_mut_slice(), position) {
            (*rows, *columns) = (y..y + 1, x..x + 1);
        }
        let mut regions: Vec<Option<Region>> = vec![None; layer.0 + 1];
        regions[layer.0] = Some(region);
        for id in (1..=layer.0).rev() {
            let Some(region) = regions[id].take() else { continue };
            let node = self.node(NodeId(id));
            let shapes: Vec<&Shape> = node.inputs.iter().map(|&input| &self.node(input).shape).collect();
            for (i, input) in node.inputs.iter().enumerate() {
                if let Some(read) = read_region(&node.op, &region, &node.shape, &shapes, i) {
                    let known = &mut regions[input.0];
                    *known = Some(known.take().map_or_else(|| read.clone(), |known| hull(&known, &read)));
                }
            }
        }
        let [_, rows, columns] = <[Range<usize>; 3]>::try_from(regions[Self::INPUT.0].take()?).ok()?;
        Some([rows, columns])
    }
}

fn whole(shape: &Shape) -> Region {
    shape.iter().map(|&length| 0..length).collect()
}

/// The smallest box around two boxes.
fn hull(a: &[Range<usize>], b: &[Range<usize>]) -> Region {
    a.iter().zip(b).map(|(a, b)| a.start.min(b.start)..a.end.max(b.end)).collect()
}

/// The box of input `i` that an operation reads for a region of its output, whose shape is `own`.
fn read_region(op: &Op, region: &[Range<usize>], own: &Shape, inputs: &[&Shape], i: usize) -> Option<Region> {
    let input = inputs[i];
    match op {
        Op::Input | Op::Constant(_) => None,
        Op::Dense { .. } => {
            let mut read = region.to_vec();
            let last = input.len() - 1;
            read[last] = 0..input[last];
            Some(read)
        }
        Op::MatMul => {
            // The axes before the matrices are broadcast; the first input is read by rows, the second by columns.
            let (skipped, outer) = (own.len() - input.len(), input.len() - 2);
            let mut read = whole(input);
            for (axis, range) in read.iter_mut().enumerate().take(outer).filter(|(axis, _)| input[*axis] != 1) {
                *range = region[skipped + axis].clone();
            }
            read[outer + i] = region[own.len() - 2 + i].clone();
            Some(read)
        }
        Op::Affine { .. } | Op::Activation(_) | Op::Unary(_) => Some(region.to_vec()),
        Op::Conv(conv) => window_region(&conv.window, 0..input.channels(), region, input),
        Op::MaxPool(window) | Op::AveragePool { window, .. } => window_region(window, region[0].clone(), region, input),
        // Shapes are aligned at the last axis, and axes of length 1 repeat.
        Op::Binary(_) | Op::Select => {
            let skipped = own.len() - input.len();
            let axis = |(range, &length): (&Range<usize>, &usize)| if length == 1 { 0..1 } else { range.clone() };
            Some(region[skipped..].iter().zip(input.iter()).map(axis).collect())
        }
        Op::Concat { axis } => {
            let offset: usize = inputs[..i].iter().map(|shape| shape[*axis]).sum();
            let mut part = region.to_vec();
            let there = &region[*axis];
            part[*axis] = there.start.saturating_sub(offset)..there.end.saturating_sub(offset).min(input[*axis]);
            (!part[*axis].is_empty()).then_some(part)
        }
        Op::Reduce { axes, keep, .. } => {
            let mut kept = region.iter();
            let axis = |(axis, &length): (usize, &usize)| match axes.contains(&axis) {
                false => kept.next().cloned().unwrap_or(0..length),
                true => {
                    if *keep {
                        kept.next();
                    }
                    0..length
                }
            };
            Some(input.iter().enumerate().map(axis).collect())
        }
        Op::Pad { before, mode, .. } => {
            let axis = |((range, &before), &length): ((&Range<usize>, &usize), &usize)| {
                unpadded_range(range, before, length, *mode)
            };
            region.iter().zip(before).zip(input.iter()).map(axis).collect()
        }
        Op::Reshape(_) => Some(reshaped_region(region, own, input)),
        Op::Transpose(order) => {
            let mut read = whole(input);
            for (&axis, range) in order.iter().zip(region) {
                read[axis] = range.clone();
            }
            Some(read)
        }
        Op::Slice { axis, start, step, .. } => {
            let mut read = region.to_vec();
            let there = &region[*axis];
            read[*axis] = start + there.start * step..start + (there.end - 1) * step + 1;
            Some(read)
        }
        Op::Gather { axis, indices } => {
            let mut read = region.to_vec();
            let used = indices[region[*axis].clone()].iter().map(|&index| index as usize);
            let (low, high) = used.fold((input[*axis], 0), |(low, high), at| (low.min(at), high.max(at + 1)));
            read[*axis] = low..high;
            Some(read)
        }
        Op::Resize(resize) => {
            let mut read = region.to_vec();
            for axis in 0..2 {
                let (input, output) = (input[axis + 1], own[axis + 1]);
                let taps = resize.taps(axis, input, output);
                let used = taps[region[axis + 1].clone()].iter().flatten();
                let (low, high) = used.fold((input, 0), |(low, high), &(at, _)| (low.min(at), high.max(at + 1)));
                if low >= high {
                    return None;
                }
                read[axis + 1] = low..high;
            }
            Some(read)
        }
        Op::Normalize(Normalize { axes, groups, .. }) => {
            let mut read = region.to_vec();
            for &axis in &axes[1..] {
                read[axis] = 0..input[axis];
            }
            let first = axes[0];
            let group = input[first] / groups;
            let there = &region[first];
            read[first] = there.start / group * group..there.end.div_ceil(group) * group;
            Some(read)
        }
        Op::LocalResponse(norm) => {
            let mut read = region.to_vec();
            let window = |channel: usize| norm.window(channel, input[0]);
            read[0] = window(region[0].start).start..window(region[0].end - 1).end;
            Some(read)
        }
        Op::DynamicQuantize => Some(input.iter().map(|&length| 0..length).collect()),
        Op::Softmax { axis } | Op::LogSoftmax { axis } => {
            let mut read = region.to_vec();
            read[*axis] = 0..input[*axis];
            Some(read)
        }
    }
}

/// The region of a tensor of shape `input` that a region of the same values in shape `own` reads. Axes that have the same
/// number of values together are treated on their own, such as the rows and columns that become tokens.
fn reshaped_region(region: &[Range<usize>], own: &[usize], input: &[usize]) -> Region {
    let mut read = Region::with_capacity(input.len());
    let (mut next, mut from) = (0, 0);
    while from < input.len() {
        let (mut rows, mut values) = (next, 1usize);
        let (first, mut count) = (from, 1usize);
        // The next axes of both shapes, until they have the same number of values.
        loop {
            if count <= values && from < input.len() && (count < values || from == first) {
                count = count.saturating_mul(input[from]);
                from += 1;
            } else if values < count && rows < own.len() {
                values = values.saturating_mul(own[rows]);
                rows += 1;
            } else {
                break;
            }
        }
        read.extend(box_of(flat_range(&region[next..rows], &own[next..rows]), &input[first..from]));
        next = rows;
    }
    read
}

/// The range of indices, in row-major order, between the first and the last value of a region.
fn flat_range(region: &[Range<usize>], shape: &[usize]) -> Range<usize> {
    let flat = |index: &dyn Fn(&Range<usize>) -> usize| {
        region.iter().zip(shape).fold(0usize, |flat, (range, length)| flat.saturating_mul(*length) + index(range))
    };
    flat(&|range| range.start)..flat(&|range| range.end - 1) + 1
}

/// The smallest box that contains a range of indices in row-major order.
fn box_of(flat: Range<usize>, shape: &[usize]) -> Region {
    let (mut low, mut high) = (flat.start, flat.end - 1);
    let mut stride: usize = shape.iter().product();
    let mut found = Region::with_capacity(shape.len());
    for &length in shape {
        stride /= length;
        found.push(low / stride..high / stride + 1);
        // Several indices of this axis may contain all of the next ones.
        (low, high) = if low / stride == high / stride { (low % stride, high % stride) } else { (0, stride - 1) };
    }
    found
}

/// The region of the map `input` that a sliding window reads for a region of its output; `None` if it reads only
/// padding.
fn window_region(window: &Window, channels: Range<usize>, region: &[Range<usize>], input: &Shape) -> Option<Region> {
    let mut read = vec![channels];
    for axis in 0..2 {
        let (stride, dilation) = (window.stride[axis], window.dilation[axis]);
        let taps = |o: usize| (0..window.kernel[axis]).map(move |k| o * stride + k * dilation);
        // Taps on the padding read nothing.
        let inside = region[axis + 1].clone().flat_map(taps).filter_map(|tap| tap.checked_sub(window.before()[axis]));
        let inside = inside.filter(|&at| at < input[axis + 1]);
        let (low, high) = inside.fold((usize::MAX, 0), |(low, high), at| (low.min(at), high.max(at + 1)));
        read.push(low..high);
    }
    read.iter().all(|range| !range.is_empty()).then_some(read)
}

/// The range of an unpadded axis of length `length` that a range of the padded axis reads; `None` inside a constant
/// border.
fn unpadded_range(range: &Range<usize>, before: usize, length: usize, mode: PadMode) -> Option<Range<usize>> {
    let inside = range.start.saturating_sub(before)..range.end.saturating_sub(before).min(length);
    match mode {
        PadMode::Constant(_) => (!inside.is_empty()).then_some(inside),
        PadMode::Edge => {
            let at = |index: usize| index.saturating_sub(before).min(length - 1);
            Some(at(range.start)..at(range.end - 1) + 1)
        }
        PadMode::Reflect => {
            let last = length - 1;
            let at = |index: usize| match index.checked_sub(before) {
                None => before - index,
                Some(index) if index > last => 2 * last - index,
                Some(index) => index,
            };
            let indices = range.clone().map(at);
            let (low, high) = indices.fold((last, 0), |(low, high), at| (low.min(at), high.max(at)));
            Some(low..high + 1)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::network::{Activation, Array, Axis, Binary, Conv, Norm, Padding, Reduce};

    fn conv(kernel: usize, stride: usize, dilation: usize, padding: usize) -> Op {
        let window = Window {
            stride: [stride; 2],
            dilation: [dilation; 2],
            padding: Padding { top: padding, left: padding, bottom: padding, right: padding },
            ..Window::new([kernel; 2])
        };
        let weight = Array::new([1, 1, kernel, kernel], vec![1.0; kernel * kernel]).unwrap();
        Op::Conv(Conv { weight, bias: None, window, groups: 1 })
    }

    fn field(network: &Network, layer: &str, position: [usize; 2]) -> [Range<usize>; 2] {
        network.receptive_field(network.find(layer).unwrap(), Some(position)).unwrap()
    }

    #[test]
    fn windows_on_windows_grow_by_their_strides() {
        let mut network = Network::new(1, 32, 32);
        let a = network.push("a", conv(3, 2, 1, 1), &[Network::INPUT]).unwrap();
        let relu = network.push("relu", Op::Activation(Activation::Relu), &[a]).unwrap();
        let pool = Window { stride: [2, 2], ..Window::new([2, 2]) };
        let pool = network.push("pool", Op::MaxPool(pool), &[relu]).unwrap();
        let b = network.push("b", conv(3, 1, 2, 2), &[pool]).unwrap();
        assert_eq!(field(&network, "a", [0, 5]), [0..2, 9..12]);
        // Two windows of 3, two apart: 5.
        assert_eq!(field(&network, "pool", [2, 2]), [7..12, 7..12]);
        // Taps at -2, 0 and 2: 4 * 8 + 5 pixels, clipped to the image.
        assert_eq!(field(&network, "b", [4, 0]), [7..28, 0..12]);
        let flat = network.push("flat", Op::Reshape(vec![Axis::Infer]), &[b]).unwrap();
        let weight = Array::new([2, 64], vec![1.0; 128]).unwrap();
        let dense = network.push("dense", Op::Dense { weight, bias: None }, &[flat]).unwrap();
        assert_eq!(network.receptive_field(dense, None).unwrap(), [0..32, 0..32]);
    }

    #[test]
    fn branches_are_joined_and_a_global_one_reads_everything() {
        let mut network = Network::new(1, 9, 9);
        let near = network.push("near", conv(3, 1, 1, 1), &[Network::INPUT]).unwrap();
        let far = network.push("far", conv(5, 1, 1, 2), &[Network::INPUT]).unwrap();
        let both = network.push("both", Op::Concat { axis: 0 }, &[near, far]).unwrap();
        assert_eq!(field(&network, "both", [4, 4]), [2..7, 2..7]);
        let stacked = network.push("stacked", Op::Concat { axis: 1 }, &[near, far]).unwrap();
        assert_eq!(field(&network, "stacked", [4, 4]), [3..6, 3..6]);
        assert_eq!(field(&network, "stacked", [13, 4]), [2..7, 2..7]);
        let mean = Op::Reduce { kind: Reduce::Mean, axes: vec![1, 2], keep: true };
        let mean = network.push("mean", mean, &[both]).unwrap();
        network.push("scaled", Op::Binary(Binary::Mul), &[both, mean]).unwrap();
        assert_eq!(field(&network, "scaled", [4, 4]), [0..9, 0..9]);
        let rows = Op::Reduce { kind: Reduce::Mean, axes: vec![0], keep: true };
        network.push("rows", rows, &[stacked]).unwrap();
        assert_eq!(field(&network, "rows", [0, 8]), [0..2, 7..9]);
    }

    #[test]
    fn normalized_values_read_their_group() {
        let mut network = Network::new(1, 12, 9);
        let norm = |axes: &[usize], groups| {
            let (axes, kind) = (axes.to_vec(), Norm::Deviation);
            Op::Normalize(Normalize { axes, groups, kind, epsilon: 0.0, scale: None, shift: None })
        };
        for (name, op) in [("channels", norm(&[0], 1)), ("map", norm(&[1, 2], 1)), ("bands", norm(&[1], 3))] {
            network.push(name, op, &[Network::INPUT]).unwrap();
        }
        assert_eq!(field(&network, "channels", [4, 5]), [4..5, 5..6]);
        assert_eq!(field(&network, "map", [4, 5]), [0..12, 0..9]);
        assert_eq!(field(&network, "bands", [4, 5]), [4..8, 5..6]);
    }

    #[test]
    fn borders_slices_and_orders_keep_their_places() {
        let mut network = Network::new(1, 8, 8);
        for (name, mode) in [("zeros", PadMode::Constant(0.0)), ("mirror", PadMode::Reflect), ("edge", PadMode::Edge)] {
            let pad = Op::Pad { before: vec![0, 3, 0], after: vec![0, 0, 2], mode };
            network.push(name, pad, &[Network::INPUT]).unwrap();
        }
        let zeros = network.find("zeros").unwrap();
        assert_eq!(network.receptive_field(zeros, Some([1, 1])), None, "a border of zeros depends on nothing");
        assert_eq!(field(&network, "zeros", [5, 1]), [2..3, 1..2]);
        assert_eq!(field(&network, "mirror", [1, 9]), [2..3, 5..6]);
        assert_eq!(field(&network, "edge", [1, 9]), [0..1, 7..8]);
        let slice = Op::Slice { axis: 1, start: 1, end: 8, step: 3 };
        let slice = network.push("slice", slice, &[Network::INPUT]).unwrap();
        assert_eq!(field(&network, "slice", [2, 0]), [7..8, 0..1]);
        network.push("turned", Op::Transpose(vec![0, 2, 1]), &[slice]).unwrap();
        assert_eq!(field(&network, "turned", [5, 1]), [4..5, 5..6]);
    }
}
