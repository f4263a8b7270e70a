//! Depthwise convolution: one filter per channel, all channels of a pixel side by side.

use rayon::prelude::*;

use super::conv::fill;
use super::taps::Phase;
use super::{Kernel, Pass, View};
use crate::engine::Gate;
use crate::network::{Array, Conv, Shape};

/// A depthwise convolution, forward and backward.
pub(super) struct Depthwise {
    forward: Phase,
    backward: Vec<Phase>,
    /// `[taps, C]` row-major.
    weight: Vec<f32>,
    bias: Option<Array>,
    channels: usize,
    input: [usize; 2],
    output: [usize; 2],
}

/// Whether every channel has exactly one filter of its own.
pub(super) fn fits(conv: &Conv) -> bool {
    conv.groups == conv.out_channels() && conv.weight.shape()[1] == 1
}

impl Depthwise {
    pub(super) fn new(conv: &Conv, input: &Shape, output: &Shape) -> Self {
        let (input, output) = ([input[1], input[2]], [output[1], output[2]]);
        let channels = conv.groups;
        let taps = conv.window.kernel[0] * conv.window.kernel[1];
        let weight = (0..taps).flat_map(|t| conv.weight.data()[t..].iter().step_by(taps).copied()).collect();
        Self {
            forward: Phase::forward(&conv.window, output),
            backward: Phase::backward(&conv.window, input),
            weight,
            bias: conv.bias.clone(),
            channels,
            input,
            output,
        }
    }

    /// Adds the products of one phase to `destination`, a map of width `width`.
    fn run(
        &self,
        phase: &Phase,
        (source, [height, source_width]): (&[f32], [usize; 2]),
        (destination, width): (&mut [f32], usize),
        spread: bool,
    ) {
        let channels = self.channels;
        let row_length = width * channels;
        let run = |(row, out): (usize, &mut [f32])| {
            if row >= phase.grid[0] {
                return;
            }
            for tap in &phase.taps {
                let Some(y) = phase.source(0, row, tap, height) else { continue };
                let weight = &self.weight[tap.index * channels..(tap.index + 1) * channels];
                for column in phase.inside(1, tap, source_width) {
                    let x = (tap.offset[1] + (column * phase.stride[1]) as isize).unsigned_abs();
                    let from = (y * source_width + x) * channels;
                    let to = (phase.start[1] + column * phase.step[1]) * channels;
                    let pixel = &mut out[to..to + channels];
                    for ((sum, value), weight) in pixel.iter_mut().zip(&source[from..from + channels]).zip(weight) {
                        *sum += value * weight;
                    }
                }
            }
        };
        let region = &mut destination[phase.start[0] * row_length..];
        let stride = phase.step[0] * row_length;
        if spread {
            region.par_chunks_mut(stride).enumerate().for_each(run);
        } else {
            region.chunks_mut(stride).enumerate().for_each(run);
        }
    }
}

impl Kernel for Depthwise {
    fn forward(&self, inputs: &[&[f32]], output: &mut [f32], _: &mut Vec<u8>, pass: Pass) {
        fill(output, self.bias.as_ref());
        self.run(&self.forward, (inputs[0], self.input), (output, self.output[1]), pass.spread);
    }

    fn backward(&self, _: usize, view: &View<'_>, _: Gate, sink: &mut [f32]) {
        for phase in &self.backward {
            self.run(phase, (view.gradient, self.output), (sink, self.input[1]), view.spread);
        }
    }
}
