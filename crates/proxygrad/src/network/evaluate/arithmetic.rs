//! Matrix products and functions of each value.

use super::{Values, positions};
use crate::network::{Array, Shape};

/// A function of each value and its channel.
pub(super) fn per_channel(input: &Values, f: impl Fn(f64, usize) -> f64) -> Vec<f64> {
    let per_channel = input.shape.iter().skip(1).product::<usize>().max(1);
    input.data.iter().enumerate().map(|(i, &x)| f(x, i / per_channel)).collect()
}

/// See [`Op::Dense`](crate::network::Op::Dense).
pub(super) fn dense(weight: &Array, bias: Option<&Array>, input: &Values, output: &Shape) -> Vec<f64> {
    let features = weight.shape()[1];
    let mut values = Vec::with_capacity(output.elements());
    for vector in input.data.chunks(features.max(1)) {
        for (o, row) in weight.data().chunks(features.max(1)).enumerate() {
            let bias = bias.map_or(0.0, |bias| f64::from(bias.data()[o]));
            values.push(row.iter().zip(vector).map(|(&w, x)| f64::from(w) * x).sum::<f64>() + bias);
        }
    }
    values
}

/// See [`Op::MatMul`](crate::network::Op::MatMul).
pub(super) fn mat_mul(a: &Values, b: &Values, output: &Shape) -> Vec<f64> {
    let inner = a.shape.last().copied().unwrap_or(1);
    let last = output.len() - 1;
    let (mut left, mut right) = (vec![0; output.len()], vec![0; output.len()]);
    positions(output, |at| {
        left.copy_from_slice(at);
        right.copy_from_slice(at);
        let mut sum = 0.0;
        for k in 0..inner {
            (left[last], right[last - 1]) = (k, k);
            sum += a.at(&left) * b.at(&right);
        }
        sum
    })
}
