//! Operations with a window that slides over a map.

use super::{Values, positions};
use crate::network::{Conv, Resize, Shape, Window};

/// The taps of the window at an output pixel that are inside of a map of height and width `size`: each its index within
/// the kernel, and its pixel.
fn taps(window: &Window, size: [usize; 2], output: [usize; 2]) -> Vec<(usize, [usize; 2])> {
    let source = |i: usize, k: usize| {
        let position = output[i] * window.stride[i] + k * window.dilation[i];
        position.checked_sub(window.before()[i]).filter(|&at| at < size[i])
    };
    let mut found = Vec::with_capacity(window.kernel[0] * window.kernel[1]);
    for ky in 0..window.kernel[0] {
        let Some(y) = source(0, ky) else { continue };
        for kx in 0..window.kernel[1] {
            if let Some(x) = source(1, kx) {
                found.push((ky * window.kernel[1] + kx, [y, x]));
            }
        }
    }
    found
}

/// See [`Conv`].
pub(super) fn convolution(conv: &Conv, input: &Values, output: &Shape) -> Vec<f64> {
    let size = [input.shape[1], input.shape[2]];
    let (area, inputs) = (conv.window.kernel[0] * conv.window.kernel[1], conv.weight.shape()[1]);
    let per_group = conv.out_channels() / conv.groups;
    let bias = |o: usize| conv.bias.as_ref().map_or(0.0, |bias| f64::from(bias.data()[o]));
    positions(output, |at| {
        let (o, mut sum) = (at[0], bias(at[0]));
        for (tap, [y, x]) in taps(&conv.window, size, [at[1], at[2]]) {
            for c in 0..inputs {
                let weight = f64::from(conv.weight.data()[(o * inputs + c) * area + tap]);
                let channel = o / per_group * inputs + c;
                sum += weight * input.data[(channel * size[0] + y) * size[1] + x];
            }
        }
        sum
    })
}

/// See [`Op::MaxPool`](crate::network::Op::MaxPool).
pub(super) fn max_pool(window: &Window, input: &Values, output: &Shape) -> Vec<f64> {
    let size = [input.shape[1], input.shape[2]];
    positions(output, |at| {
        let taps = taps(window, size, [at[1], at[2]]).into_iter();
        let values = taps.map(|(_, [y, x])| input.data[(at[0] * size[0] + y) * size[1] + x]);
        values.fold(f64::NEG_INFINITY, f64::max)
    })
}

/// See [`Op::AveragePool`](crate::network::Op::AveragePool).
pub(super) fn average_pool(window: &Window, count_padding: bool, input: &Values, output: &Shape) -> Vec<f64> {
    let size = [input.shape[1], input.shape[2]];
    let counts = [0, 1].map(|i| window.counts(i, size[i], output[i + 1], count_padding));
    positions(output, |at| {
        let taps = taps(window, size, [at[1], at[2]]).into_iter();
        let sum: f64 = taps.map(|(_, [y, x])| input.data[(at[0] * size[0] + y) * size[1] + x]).sum();
        sum / (counts[0][at[1]] * counts[1][at[2]]) as f64
    })
}

/// See [`Resize`].
pub(super) fn resize(resize: &Resize, input: &Values, output: &Shape) -> Vec<f64> {
    let size = [input.shape[1], input.shape[2]];
    let [rows, columns] = [0, 1].map(|axis| resize.taps(axis, size[axis], output[axis + 1]));
    positions(output, |at| {
        let mut sum = 0.0;
        for (y, row_weight) in &rows[at[1]] {
            for (x, column_weight) in &columns[at[2]] {
                sum += row_weight * column_weight * input.data[(at[0] * size[0] + y) * size[1] + x];
            }
        }
        sum
    })
}
