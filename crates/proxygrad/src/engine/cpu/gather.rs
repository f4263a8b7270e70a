//! Operations that only move values: every output value is one input value or a constant.

use super::layout::{for_each_index, offset, strides};
use super::simple::Simple;
use crate::network::{Array, PadMode, Resize, Shape};

/// Copies by a table of sources.
pub(super) struct Gather {
    /// Source of every output value, or [`Gather::BORDER`].
    sources: Vec<u32>,
    border: f32,
}

impl Gather {
    const BORDER: u32 = u32::MAX;

    /// `source` maps an output index to an input index, or to none for the border.
    fn new(input: &Shape, output: &Shape, border: f32, mut source: impl FnMut(&[usize]) -> Option<Vec<usize>>) -> Self {
        let (from, to) = (strides(input), strides(output));
        let mut sources = vec![Self::BORDER; output.elements()];
        for_each_index(output, |index| {
            if let Some(found) = source(index) {
                sources[offset(&to, index)] = offset(&from, &found) as u32;
            }
        });
        Self { sources, border }
    }

    pub(super) fn reshape(input: &Shape, output: &Shape) -> Self {
        let mut position = 0;
        Self::new(input, output, 0.0, |_| {
            let mut rest = position;
            position += 1;
            let mut index = vec![0; input.len()];
            for axis in (0..input.len()).rev() {
                index[axis] = rest % input[axis];
                rest /= input[axis];
            }
            Some(index)
        })
    }

    pub(super) fn transpose(order: &[usize], input: &Shape, output: &Shape) -> Self {
        Self::new(input, output, 0.0, |index| {
            let mut source = vec![0; index.len()];
            for (&axis, &i) in order.iter().zip(index) {
                source[axis] = i;
            }
            Some(source)
        })
    }

    pub(super) fn slice(axis: usize, start: usize, step: usize, input: &Shape, output: &Shape) -> Self {
        Self::new(input, output, 0.0, |index| {
            let mut source = index.to_vec();
            source[axis] = start + index[axis] * step;
            Some(source)
        })
    }

    pub(super) fn pad(before: &[usize], mode: PadMode, input: &Shape, output: &Shape) -> Self {
        let border = if let PadMode::Constant(value) = mode { value } else { 0.0 };
        Self::new(input, output, border, |index| {
            let axis = |(axis, &i): (usize, &usize)| {
                let length = input[axis];
                match (i.checked_sub(before[axis]), mode) {
                    (Some(inside), _) if inside < length => Some(inside),
                    (_, PadMode::Constant(_)) => None,
                    (Some(behind), PadMode::Reflect) => Some(2 * (length - 1) - behind),
                    (None, PadMode::Reflect) => Some(before[axis] - i),
                    (Some(_), PadMode::Edge) => Some(length - 1),
                    (None, PadMode::Edge) => Some(0),
                }
            };
            index.iter().enumerate().map(axis).collect()
        })
    }
}

impl Simple for Gather {
    fn forward(&self, inputs: &[&[f32]], output: &mut [f32]) {
        for (value, &source) in output.iter_mut().zip(&self.sources) {
            *value = if source == Self::BORDER { self.border } else { inputs[0][source as usize] };
        }
    }

    fn backward(&self, _: usize, _: &[&[f32]], _: &[f32], gradient: &[f32], sink: &mut [f32]) {
        for (gradient, &source) in gradient.iter().zip(&self.sources) {
            if source != Self::BORDER {
                sink[source as usize] += gradient;
            }
        }
    }
}

/// A tensor that does not depend on the image.
pub(super) struct Constant {
    values: Vec<f32>,
}

impl Constant {
    pub(super) fn new(array: &Array, shape: &Shape) -> Self {
        let mut values = vec![0.0; array.len()];
        super::layout::load(array.data(), shape, &mut values);
        Self { values }
    }
}

impl Simple for Constant {
    fn forward(&self, _: &[&[f32]], output: &mut [f32]) {
        output.copy_from_slice(&self.values);
    }

    fn backward(&self, _: usize, _: &[&[f32]], _: &[f32], _: &[f32], _: &mut [f32]) {}
}

/// Inputs joined along one axis.
pub(super) struct Concat {
    /// Length of each input's contiguous run.
    runs: Vec<usize>,
}

impl Concat {
    pub(super) fn new(axis: usize, inputs: &[&Shape], output: &Shape) -> Self {
        // In memory the joined axis and those inside it make one run per input.
        let inner = strides(output)[axis];
        Self { runs: inputs.iter().map(|shape| shape[axis] * inner).collect() }
    }
}

impl Simple for Concat {
    fn forward(&self, inputs: &[&[f32]], output: &mut [f32]) {
        let total: usize = self.runs.iter().sum();
        let mut start = 0;
        for (input, &run) in inputs.iter().zip(&self.runs) {
            for (out, part) in output.chunks_exact_mut(total).zip(input.chunks_exact(run)) {
                out[start..start + run].copy_from_slice(part);
            }
            start += run;
        }
    }

    fn backward(&self, i: usize, _: &[&[f32]], _: &[f32], gradient: &[f32], sink: &mut [f32]) {
        let total: usize = self.runs.iter().sum();
        let start: usize = self.runs[..i].iter().sum();
        let run = self.runs[i];
        for (gradient, sum) in gradient.chunks_exact(total).zip(sink.chunks_exact_mut(run)) {
            for (sum, part) in sum.iter_mut().zip(&gradient[start..start + run]) {
                *sum += part;
            }
        }
    }
}

/// Interpolation: every output pixel is a weighted sum of four input pixels.
pub(super) struct Resized {
    rows: Vec<[(usize, f64); 2]>,
    columns: Vec<[(usize, f64); 2]>,
    channels: usize,
    width: usize,
}

impl Resized {
    pub(super) fn new(resize: &Resize, input: &Shape, output: &Shape) -> Self {
        let (rows, columns) = (resize.taps(0, input[1], output[1]), resize.taps(1, input[2], output[2]));
        Self { rows, columns, channels: input[0], width: input[2] }
    }

    /// Calls `f` with the first index of a pixel's channels in the input and in the output, and the weight.
    fn for_each_tap(&self, mut f: impl FnMut(usize, usize, f32)) {
        for (row, row_taps) in self.rows.iter().enumerate() {
            for (column, column_taps) in self.columns.iter().enumerate() {
                for (y, wy) in row_taps {
                    for (x, wx) in column_taps.iter().filter(|(_, wx)| wx * wy != 0.0) {
                        let to = (row * self.columns.len() + column) * self.channels;
                        f((y * self.width + x) * self.channels, to, (wx * wy) as f32);
                    }
                }
            }
        }
    }
}

impl Simple for Resized {
    fn forward(&self, inputs: &[&[f32]], output: &mut [f32]) {
        output.fill(0.0);
        self.for_each_tap(|from, to, weight| {
            for c in 0..self.channels {
                output[to + c] += inputs[0][from + c] * weight;
            }
        });
    }

    fn backward(&self, _: usize, _: &[&[f32]], _: &[f32], gradient: &[f32], sink: &mut [f32]) {
        self.for_each_tap(|from, to, weight| {
            for c in 0..self.channels {
                sink[from + c] += gradient[to + c] * weight;
            }
        });
    }
}
