//! Resizing of feature maps by interpolation.

use crate::engine::cpu::kernels::scalar::ScalarOp;
use crate::network::{Resize, Shape};

/// Resizing by interpolation: every output pixel is a weighted sum of some input pixels.
pub(crate) struct ScalarResize {
    rows: Vec<Vec<(usize, f64)>>,
    columns: Vec<Vec<(usize, f64)>>,
    channels: usize,
    width: usize,
}

impl ScalarResize {
    pub(crate) fn new(resize: &Resize, input: &Shape, output: &Shape) -> Self {
        let (rows, columns) = (resize.taps(0, input[1], output[1]), resize.taps(1, input[2], output[2]));
        Self { rows, columns, channels: input[0], width: input[2] }
    }

    /// Calls `f` with the index of a pixel's first channel in the input and in the output, and the weight.
    fn for_each_tap(&self, mut f: impl FnMut(usize, usize, f32)) {
        for (row, row_taps) in self.rows.iter().enumerate() {
            for (column, column_taps) in self.columns.iter().enumerate() {
                for (y, wy) in row_taps {
                    for (x, wx) in column_taps {
                        let to = (row * self.columns.len() + column) * self.channels;
                        f((y * self.width + x) * self.channels, to, (wx * wy) as f32);
                    }
                }
            }
        }
    }
}

impl ScalarOp for ScalarResize {
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
