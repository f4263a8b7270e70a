//! Operations that move values.

use super::{Values, positions};
use crate::network::{PadMode, Shape};

/// Values whose index along `axis` is `source` of that of the output.
pub(super) fn along(axis: usize, input: &Values, output: &Shape, source: impl Fn(usize) -> usize) -> Vec<f64> {
    let mut from = vec![0; output.len()];
    positions(output, |at| {
        from.copy_from_slice(at);
        from[axis] = source(at[axis]);
        input.at(&from)
    })
}

/// See [`Op::Transpose`](crate::network::Op::Transpose).
pub(super) fn transpose(order: &[usize], input: &Values, output: &Shape) -> Vec<f64> {
    let mut from = vec![0; output.len()];
    positions(output, |at| {
        for (&axis, &i) in order.iter().zip(at) {
            from[axis] = i;
        }
        input.at(&from)
    })
}

/// See [`Op::Concat`](crate::network::Op::Concat).
pub(super) fn concat(axis: usize, inputs: &[&Values]) -> Vec<f64> {
    let outer: usize = inputs[0].shape[..axis].iter().product();
    let mut values = Vec::with_capacity(inputs.iter().map(|input| input.data.len()).sum());
    for i in 0..outer {
        for input in inputs {
            let block = input.data.len() / outer;
            values.extend_from_slice(&input.data[i * block..(i + 1) * block]);
        }
    }
    values
}

/// See [`Op::Pad`](crate::network::Op::Pad).
pub(super) fn pad(before: &[usize], mode: PadMode, input: &Values, output: &Shape) -> Vec<f64> {
    let mut from = vec![0; output.len()];
    positions(output, |at| {
        for axis in 0..at.len() {
            let last = input.shape[axis] as isize - 1;
            let position = at[axis] as isize - before[axis] as isize;
            let nearest = position.clamp(0, last);
            let source = match mode {
                PadMode::Constant(value) if position != nearest => return f64::from(value),
                PadMode::Reflect => 2 * nearest - position,
                PadMode::Constant(_) | PadMode::Edge => nearest,
            };
            from[axis] = source.unsigned_abs();
        }
        input.at(&from)
    })
}
