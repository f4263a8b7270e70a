//! Max and average pooling of channels-last maps.

use rayon::prelude::*;

use super::taps::Phase;
use super::{Kernel, Pass, View};
use crate::engine::Gate;
use crate::network::{Shape, Window};

/// Max pooling; remembers which tap won.
pub(super) struct MaxPool {
    phase: Phase,
    channels: usize,
    input: [usize; 2],
}

impl MaxPool {
    pub(super) fn new(window: &Window, input: &Shape, output: &Shape) -> Self {
        let phase = Phase::forward(window, [output[1], output[2]]);
        Self { phase, channels: input[0], input: [input[1], input[2]] }
    }
}

/// Position of a tap's number in the memory: two bytes a value, since windows may have more than 256 taps.
const TAP_BYTES: usize = 2;

impl Kernel for MaxPool {
    fn forward(&self, inputs: &[&[f32]], output: &mut [f32], memory: &mut Vec<u8>, pass: Pass) {
        let (phase, channels) = (&self.phase, self.channels);
        let [height, width] = self.input;
        let source = inputs[0];
        memory.resize(output.len() * TAP_BYTES, 0);
        let row_length = phase.grid[1] * channels;
        let run = |(row, (out, winners)): (usize, (&mut [f32], &mut [u8]))| {
            out.fill(f32::NEG_INFINITY);
            winners.fill(0);
            for (t, tap) in phase.taps.iter().enumerate() {
                let Some(y) = phase.source(0, row, tap, height) else { continue };
                for column in phase.inside(1, tap, width) {
                    let x = (tap.offset[1] + (column * phase.stride[1]) as isize).unsigned_abs();
                    let from = (y * width + x) * channels;
                    let to = column * channels;
                    let pixel = out[to..to + channels].iter_mut();
                    let winner = winners[to * TAP_BYTES..(to + channels) * TAP_BYTES].chunks_exact_mut(TAP_BYTES);
                    for ((largest, winner), &value) in pixel.zip(winner).zip(&source[from..from + channels]) {
                        if value > *largest {
                            *largest = value;
                            winner.copy_from_slice(&(t as u16).to_le_bytes());
                        }
                    }
                }
            }
        };
        if pass.spread {
            let winners = memory.par_chunks_mut(row_length * TAP_BYTES);
            output.par_chunks_mut(row_length).zip(winners).enumerate().for_each(run);
        } else {
            let winners = memory.chunks_mut(row_length * TAP_BYTES);
            output.chunks_mut(row_length).zip(winners).enumerate().for_each(run);
        }
    }

    fn backward(&self, _: usize, view: &View<'_>, _: Gate, sink: &mut [f32]) {
        let phase = &self.phase;
        let [height, width] = self.input;
        for (i, (gradient, winner)) in view.gradient.iter().zip(view.memory.chunks_exact(TAP_BYTES)).enumerate() {
            let (pixel, channel) = (i / self.channels, i % self.channels);
            let (row, column) = (pixel / phase.grid[1], pixel % phase.grid[1]);
            let tap = &phase.taps[usize::from(u16::from_le_bytes([winner[0], winner[1]]))];
            let source = (phase.source(0, row, tap, height), phase.source(1, column, tap, width));
            // A window without any value above -inf has no winner.
            if let (Some(y), Some(x)) = source {
                sink[(y * width + x) * self.channels + channel] += gradient;
            }
        }
    }
}

/// Average pooling.
pub(super) struct AveragePool {
    phase: Phase,
    /// One over the number of values that count in each window.
    shares: Vec<f32>,
    channels: usize,
    input: [usize; 2],
}

impl AveragePool {
    pub(super) fn new(window: &Window, count_padding: bool, input: &Shape, output: &Shape) -> Self {
        let phase = Phase::forward(window, [output[1], output[2]]);
        let counts = [0, 1].map(|i| window.counts(i, input[i + 1], output[i + 1], count_padding));
        let shares = counts[0].iter().flat_map(|y| counts[1].iter().map(move |x| 1.0 / (y * x).max(1) as f32));
        Self { shares: shares.collect(), phase, channels: input[0], input: [input[1], input[2]] }
    }

    /// Calls `f` with the first index of a pixel's channels in the map and in the output, and the pixel's share.
    fn for_each_tap(&self, mut f: impl FnMut(usize, usize, f32)) {
        let phase = &self.phase;
        let [height, width] = self.input;
        for row in 0..phase.grid[0] {
            for tap in &phase.taps {
                let Some(y) = phase.source(0, row, tap, height) else { continue };
                for column in phase.inside(1, tap, width) {
                    let x = (tap.offset[1] + (column * phase.stride[1]) as isize).unsigned_abs();
                    let pixel = row * phase.grid[1] + column;
                    f((y * width + x) * self.channels, pixel * self.channels, self.shares[pixel]);
                }
            }
        }
    }
}

impl Kernel for AveragePool {
    fn forward(&self, inputs: &[&[f32]], output: &mut [f32], _: &mut Vec<u8>, _: Pass) {
        output.fill(0.0);
        self.for_each_tap(|from, to, share| {
            let values = &inputs[0][from..from + self.channels];
            for (sum, value) in output[to..to + self.channels].iter_mut().zip(values) {
                *sum += value * share;
            }
        });
    }

    fn backward(&self, _: usize, view: &View<'_>, _: Gate, sink: &mut [f32]) {
        self.for_each_tap(|from, to, share| {
            let gradient = &view.gradient[to..to + self.channels];
            for (sum, part) in sink[from..from + self.channels].iter_mut().zip(gradient) {
                *sum += part * share;
            }
        });
    }
}
