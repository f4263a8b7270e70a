//! Convolution as matrix products over blocks of pixels, and dense layers. Weights get no gradient.

use rayon::prelude::*;

use super::matrix::multiply_add;
use super::taps::Phase;
use super::{Kernel, Pass, View};
use crate::engine::Gate;
use crate::network::{self, Array, Shape};

/// Values of gathered taps that one block of pixels may have: half a common L2 cache.
const BLOCK: usize = 64 * 1024;

/// A convolution, forward and backward.
pub(super) struct Conv {
    forward: Direction,
    backward: Direction,
    /// `[O]`.
    bias: Option<Array>,
}

/// One direction: from a source map to a destination map, both channels-last.
struct Direction {
    phases: Vec<(Phase, Vec<f32>)>,
    groups: usize,
    /// Channels of the source and of the destination, over all groups.
    channels: [usize; 2],
    source: [usize; 2],
    destination: [usize; 2],
}

impl Conv {
    pub(super) fn new(conv: &network::Conv, input: &Shape, output: &Shape) -> Self {
        let (inside, outside) = ([input[1], input[2]], [output[1], output[2]]);
        let (from, to) = (conv.in_channels(), conv.out_channels());
        let forward = Direction {
            phases: vec![matrices(conv, Phase::forward(&conv.window, outside), false)],
            groups: conv.groups,
            channels: [from, to],
            source: inside,
            destination: outside,
        };
        let phases = Phase::backward(&conv.window, inside);
        let backward = Direction {
            phases: phases.into_iter().map(|phase| matrices(conv, phase, true)).collect(),
            groups: conv.groups,
            channels: [to, from],
            source: outside,
            destination: inside,
        };
        Self { forward, backward, bias: conv.bias.clone() }
    }
}

/// The weights of a phase's taps, for each group a matrix `[taps * source channels, destination channels]`.
fn matrices(conv: &network::Conv, phase: Phase, transposed: bool) -> (Phase, Vec<f32>) {
    let &[out, per_group, kh, kw] = conv.weight.shape() else { return (phase, Vec::new()) };
    let (window, out_per_group) = (kh * kw, out / conv.groups);
    let weight = |group: usize, o: usize, c: usize, tap: usize| {
        conv.weight.data()[((group * out_per_group + o) * per_group + c) * window + tap]
    };
    let mut matrix = Vec::with_capacity(phase.taps.len() * conv.weight.len() / window.max(1));
    for group in 0..conv.groups {
        for tap in &phase.taps {
            if transposed {
                for o in 0..out_per_group {
                    matrix.extend((0..per_group).map(|c| weight(group, o, c, tap.index)));
                }
            } else {
                for c in 0..per_group {
                    matrix.extend((0..out_per_group).map(|o| weight(group, o, c, tap.index)));
                }
            }
        }
    }
    (phase, matrix)
}

impl Direction {
    /// Adds the products to `destination`.
    fn run(&self, source: &[f32], destination: &mut [f32], spread: bool) {
        for (phase, matrix) in &self.phases {
            if self.is_pointwise(phase) {
                self.pointwise(matrix, source, destination, spread);
            } else {
                self.windows(phase, matrix, source, destination, spread);
            }
        }
    }

    /// Whether pixels of both maps correspond one to one, so that nothing is gathered.
    fn is_pointwise(&self, phase: &Phase) -> bool {
        self.groups == 1
            && self.source == self.destination
            && phase.stride == [1, 1]
            && phase.step == [1, 1]
            && matches!(phase.taps.as_slice(), [tap] if tap.offset == [0, 0])
    }

    fn pointwise(&self, matrix: &[f32], source: &[f32], destination: &mut [f32], spread: bool) {
        let [from, to] = self.channels;
        let pixels = block(from.max(to));
        let run = |(out, left): (&mut [f32], &[f32])| {
            multiply_add(out, left, matrix, [left.len() / from, from, to]);
        };
        if spread {
            destination.par_chunks_mut(pixels * to).zip(source.par_chunks(pixels * from)).for_each(run);
        } else {
            destination.chunks_mut(pixels * to).zip(source.chunks(pixels * from)).for_each(run);
        }
    }

    fn windows(&self, phase: &Phase, matrix: &[f32], source: &[f32], destination: &mut [f32], spread: bool) {
        let [from, to] = [self.channels[0] / self.groups, self.channels[1] / self.groups];
        let inner = phase.taps.len() * from;
        // Whole rows of the grid make a block; each starts in a destination row of its own.
        let rows = block(inner).div_ceil(phase.grid[1]).clamp(1, phase.grid[0]);
        let row_length = self.destination[1] * self.channels[1];
        let run = |(i, out): (usize, &mut [f32])| {
            let first = i * rows;
            let count = rows.min(phase.grid[0] - first);
            let pixels = count * phase.grid[1];
            let mut gathered = vec![0.0; pixels * inner];
            let mut products = vec![0.0; pixels * to];
            for group in 0..self.groups {
                self.gather(phase, source, group, first..first + count, &mut gathered);
                products.fill(0.0);
                let matrix = &matrix[group * inner * to..(group + 1) * inner * to];
                multiply_add(&mut products, &gathered, matrix, [pixels, inner, to]);
                for (pixel, product) in products.chunks_exact(to).enumerate() {
                    let (row, column) = (pixel / phase.grid[1], pixel % phase.grid[1]);
                    let at = (row * phase.step[0]) * row_length
                        + (phase.start[1] + column * phase.step[1]) * self.channels[1]
                        + group * to;
                    for (sum, part) in out[at..at + to].iter_mut().zip(product) {
                        *sum += part;
                    }
                }
            }
        };
        let region = &mut destination[phase.start[0] * row_length..];
        let stride = rows * phase.step[0] * row_length;
        if spread {
            region.par_chunks_mut(stride).enumerate().for_each(run);
        } else {
            region.chunks_mut(stride).enumerate().for_each(run);
        }
    }

    /// Fills `[pixels, taps * channels]` for some rows of the grid; taps outside the map are 0.
    fn gather(&self, phase: &Phase, source: &[f32], group: usize, rows: std::ops::Range<usize>, gathered: &mut [f32]) {
        let channels = self.channels[0];
        let from = channels / self.groups;
        let inner = phase.taps.len() * from;
        let [height, width] = self.source;
        for (row, line) in rows.zip(gathered.chunks_exact_mut(phase.grid[1] * inner)) {
            for (t, tap) in phase.taps.iter().enumerate() {
                let inside = phase.inside(1, tap, width);
                let y = phase.source(0, row, tap, height);
                for (column, pixel) in line.chunks_exact_mut(inner).enumerate() {
                    let slot = &mut pixel[t * from..(t + 1) * from];
                    match y {
                        Some(y) if inside.contains(&column) => {
                            let x = (tap.offset[1] + (column * phase.stride[1]) as isize).unsigned_abs();
                            let at = (y * width + x) * channels + group * from;
                            slot.copy_from_slice(&source[at..at + from]);
                        }
                        _ => slot.fill(0.0),
                    }
                }
            }
        }
    }
}

/// Number of pixels of a block whose pixels hold `values` each.
fn block(values: usize) -> usize {
    (BLOCK / values.max(1)).clamp(32, 512)
}

impl Kernel for Conv {
    fn forward(&self, inputs: &[&[f32]], output: &mut [f32], _: &mut Vec<u8>, pass: Pass) {
        fill(output, self.bias.as_ref());
        self.forward.run(inputs[0], output, pass.spread);
    }

    fn backward(&self, _: usize, view: &View<'_>, _: Gate, sink: &mut [f32]) {
        self.backward.run(view.gradient, sink, view.spread);
    }
}

/// Sets every pixel to the bias, or to 0.
pub(super) fn fill(output: &mut [f32], bias: Option<&Array>) {
    match bias {
        Some(bias) if !bias.is_empty() => {
            for pixel in output.chunks_exact_mut(bias.len()) {
                pixel.copy_from_slice(bias.data());
            }
        }
        _ => output.fill(0.0),
    }
}

/// A dense layer of a vector.
pub(super) struct Dense {
    /// `[I, O]` row-major.
    columns: Vec<f32>,
    /// `[O, I]` row-major.
    rows: Array,
    bias: Option<Array>,
    sizes: [usize; 2],
}

impl Dense {
    pub(super) fn new(weight: &Array, bias: Option<&Array>) -> Self {
        let (out, features) = (weight.shape()[0], weight.shape()[1]);
        let columns = (0..features).flat_map(|i| weight.data()[i..].iter().step_by(features).copied()).collect();
        Self { columns, rows: weight.clone(), bias: bias.cloned(), sizes: [features, out] }
    }
}

impl Kernel for Dense {
    fn forward(&self, inputs: &[&[f32]], output: &mut [f32], _: &mut Vec<u8>, _: Pass) {
        fill(output, self.bias.as_ref());
        let [features, out] = self.sizes;
        multiply_add(output, inputs[0], &self.columns, [1, features, out]);
    }

    fn backward(&self, _: usize, view: &View<'_>, _: Gate, sink: &mut [f32]) {
        let [features, out] = self.sizes;
        multiply_add(sink, view.gradient, self.rows.data(), [1, out, features]);
    }
}
