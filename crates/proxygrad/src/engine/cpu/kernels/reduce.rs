//! Reductions over axes, softmax and log-softmax, where every value belongs to one group.

use crate::engine::cpu::kernel::BackwardNeeds;
use crate::engine::cpu::kernels::memory_order::{for_each_index, offset, strides};
use crate::engine::cpu::kernels::scalar::ScalarOp;
use crate::network::{Reduce, Shape};

/// Group of every value when `axes` are reduced, as an index in the memory order of the remaining shape.
fn owners(axes: &[usize], input: &Shape, left: &Shape) -> Vec<u32> {
    let (from, to) = (strides(input), strides(left));
    let keep = left.len() == input.len();
    let mut owners = vec![0; input.elements()];
    for_each_index(input, |index| {
        let kept: Vec<usize> = index
            .iter()
            .enumerate()
            .filter_map(|(axis, &i)| match (axes.contains(&axis), keep) {
                (false, _) => Some(i),
                (true, true) => Some(0),
                (true, false) => None,
            })
            .collect();
        owners[offset(&from, index)] = offset(&to, &kept) as u32;
    });
    owners
}

/// A reduction over axes.
pub(crate) struct ScalarReduce {
    kind: Reduce,
    owners: Vec<u32>,
    groups: usize,
}

impl ScalarReduce {
    pub(crate) fn new(kind: Reduce, axes: &[usize], input: &Shape, output: &Shape) -> Self {
        Self { kind, owners: owners(axes, input, output), groups: output.elements() }
    }

    fn share(&self) -> f64 {
        match self.kind {
            Reduce::Mean => self.groups as f64 / self.owners.len().max(1) as f64,
            Reduce::Sum | Reduce::Max => 1.0,
        }
    }
}

impl ScalarOp for ScalarReduce {
    fn backward_needs(&self) -> BackwardNeeds {
        let largest = self.kind == Reduce::Max;
        BackwardNeeds { inputs: largest, output: largest }
    }

    fn forward(&self, inputs: &[&[f32]], output: &mut [f32]) {
        if self.kind == Reduce::Max {
            output.fill(f32::NEG_INFINITY);
            for (&value, &owner) in inputs[0].iter().zip(&self.owners) {
                let largest = &mut output[owner as usize];
                *largest = largest.max(value);
            }
            return;
        }
        let mut sums = vec![0f64; self.groups];
        for (&value, &owner) in inputs[0].iter().zip(&self.owners) {
            sums[owner as usize] += f64::from(value);
        }
        let share = self.share();
        for (value, sum) in output.iter_mut().zip(sums) {
            *value = (sum * share) as f32;
        }
    }

    /// Equal maxima share the gradient evenly.
    fn backward(&self, _: usize, inputs: &[&[f32]], output: &[f32], gradient: &[f32], sink: &mut [f32]) {
        let share = self.share() as f32;
        if self.kind != Reduce::Max {
            for (sum, &owner) in sink.iter_mut().zip(&self.owners) {
                *sum += gradient[owner as usize] * share;
            }
            return;
        }
        let is_largest = |(value, owner): (&f32, &u32)| *value == output[*owner as usize];
        let mut ties = vec![0f32; self.groups];
        for (value, owner) in inputs[0].iter().zip(&self.owners) {
            ties[*owner as usize] += f32::from(u8::from(is_largest((value, owner))));
        }
        for ((sum, value), owner) in sink.iter_mut().zip(inputs[0]).zip(&self.owners) {
            if is_largest((value, owner)) {
                *sum += gradient[*owner as usize] / ties[*owner as usize];
            }
        }
    }
}

/// Softmax or log-softmax along one axis.
pub(crate) struct ScalarSoftmax {
    owners: Vec<u32>,
    groups: usize,
    logarithm: bool,
}

impl ScalarSoftmax {
    pub(crate) fn new(axis: usize, input: &Shape, logarithm: bool) -> Self {
        let mut left = input.to_vec();
        left[axis] = 1;
        let left = Shape::from(left);
        Self { owners: owners(&[axis], input, &left), groups: left.elements(), logarithm }
    }

    /// Sum over every group.
    fn sums(&self, values: impl Iterator<Item = f64>) -> Vec<f64> {
        let mut sums = vec![0f64; self.groups];
        for (value, &owner) in values.zip(&self.owners) {
            sums[owner as usize] += value;
        }
        sums
    }
}

impl ScalarOp for ScalarSoftmax {
    fn backward_needs(&self) -> BackwardNeeds {
        BackwardNeeds { inputs: false, output: true }
    }

    fn forward(&self, inputs: &[&[f32]], output: &mut [f32]) {
        let mut largest = vec![f32::NEG_INFINITY; self.groups];
        for (&value, &owner) in inputs[0].iter().zip(&self.owners) {
            largest[owner as usize] = largest[owner as usize].max(value);
        }
        for ((out, &value), &owner) in output.iter_mut().zip(inputs[0]).zip(&self.owners) {
            let shifted = value - largest[owner as usize];
            *out = if self.logarithm { shifted } else { shifted.exp() };
        }
        if self.logarithm {
            let sums = self.sums(output.iter().map(|&shifted| f64::from(shifted).exp()));
            for (out, &owner) in output.iter_mut().zip(&self.owners) {
                *out = (f64::from(*out) - sums[owner as usize].ln()) as f32;
            }
        } else {
            let sums = self.sums(output.iter().map(|&exp| f64::from(exp)));
            for (out, &owner) in output.iter_mut().zip(&self.owners) {
                *out = (f64::from(*out) / sums[owner as usize]) as f32;
            }
        }
    }

    fn backward(&self, _: usize, _: &[&[f32]], output: &[f32], gradient: &[f32], sink: &mut [f32]) {
        if self.logarithm {
            let totals = self.sums(gradient.iter().map(|&gradient| f64::from(gradient)));
            let parts = gradient.iter().zip(output).zip(&self.owners);
            for (sum, ((&gradient, &value), &owner)) in sink.iter_mut().zip(parts) {
                *sum += (f64::from(gradient) - f64::from(value).exp() * totals[owner as usize]) as f32;
            }
            return;
        }
        let inner = self.sums(gradient.iter().zip(output).map(|(&g, &value)| f64::from(g) * f64::from(value)));
        let parts = gradient.iter().zip(output).zip(&self.owners);
        for (sum, ((&gradient, &value), &owner)) in sink.iter_mut().zip(parts) {
            *sum += value * (f64::from(gradient) - inner[owner as usize]) as f32;
        }
    }
}
