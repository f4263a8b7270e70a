//! Normalization of groups in any order of the axes, without vector code.

use crate::engine::cpu::kernel::BackwardNeeds;
use crate::engine::cpu::kernels::memory_order::{for_each_index, offset};
use crate::engine::cpu::kernels::scalar::ScalarOp;
use crate::engine::cpu::layout::Layout;
use crate::network::{Array, Norm, Normalize, Statistics};

/// Normalization of groups that [`GroupLayout`](super::value_groups::GroupLayout) does not describe.
pub(crate) struct ScalarNormalize {
    kind: Norm,
    epsilon: f64,
    /// Group of every value.
    owners: Vec<u32>,
    groups: usize,
    /// One factor and one summand for every value.
    scale: Vec<f32>,
    shift: Vec<f32>,
}

impl ScalarNormalize {
    pub(crate) fn new(normalize: &Normalize, input: &Layout) -> Self {
        let Normalize { axes, groups, kind, epsilon, scale, shift } = normalize;
        let group_len = input[axes[0]] / groups;
        let lengths: Vec<usize> = (0..input.len())
            .map(|axis| match axes.contains(&axis) {
                true if axis == axes[0] => *groups,
                true => 1,
                false => input[axis],
            })
            .collect();
        let memory = input.strides();
        let mut owners = vec![0; input.elements()];
        for_each_index(input, |index| {
            let owner = index.iter().enumerate().fold(0, |owner, (axis, &i)| {
                let part = match axes.contains(&axis) {
                    true if axis == axes[0] => i / group_len,
                    true => 0,
                    false => i,
                };
                owner * lengths[axis] + part
            });
            owners[offset(&memory, index)] = owner as u32;
        });
        Self {
            kind: *kind,
            epsilon: f64::from(*epsilon),
            owners,
            groups: lengths.iter().product(),
            scale: spread(scale.as_ref(), input, 1.0),
            shift: spread(shift.as_ref(), input, 0.0),
        }
    }

    /// Sum over every group of a function of the index of a value and its group.
    fn sums(&self, value: impl Fn(usize, usize) -> f64) -> Vec<f64> {
        let mut sums = vec![0.0; self.groups];
        for (at, &owner) in self.owners.iter().enumerate() {
            sums[owner as usize] += value(at, owner as usize);
        }
        sums
    }

    fn statistics(&self, x: &[f32]) -> Vec<Statistics> {
        let count = self.owners.len() / self.groups;
        let centers = match self.kind.is_centered() {
            true => self.sums(|at, _| f64::from(x[at])).into_iter().map(|sum| sum / count as f64).collect(),
            false => vec![0.0; self.groups],
        };
        let sums = self.sums(|at, owner| {
            let value = f64::from(x[at]) - centers[owner];
            if self.kind == Norm::L1 { value.abs() } else { value * value }
        });
        centers
            .into_iter()
            .zip(sums)
            .map(|(center, sum)| self.kind.statistics(self.epsilon, count, center, sum))
            .collect()
    }
}

/// An array that broadcasts over a tensor, with one value for each of its values in memory order.
fn spread(values: Option<&Array>, input: &Layout, default: f32) -> Vec<f32> {
    let mut all = vec![default; input.elements()];
    if let Some(values) = values {
        let lead = input.len() - values.shape().len();
        let memory = input.strides();
        for_each_index(input, |index| {
            let axes = index[lead..].iter().zip(values.shape());
            let at = axes.fold(0, |at, (&i, &length)| at * length + if length == 1 { 0 } else { i });
            all[offset(&memory, index)] = values.data()[at];
        });
    }
    all
}

impl ScalarOp for ScalarNormalize {
    fn backward_needs(&self) -> BackwardNeeds {
        BackwardNeeds { inputs: true, output: false }
    }

    fn forward(&self, inputs: &[&[f32]], output: &mut [f32]) {
        let statistics = self.statistics(inputs[0]);
        for (at, out) in output.iter_mut().enumerate() {
            let Statistics { center, factor, .. } = statistics[self.owners[at] as usize];
            let normalized = (f64::from(inputs[0][at]) - center) * factor;
            *out = (normalized * f64::from(self.scale[at]) + f64::from(self.shift[at])) as f32;
        }
    }

    fn backward(&self, _: usize, inputs: &[&[f32]], _: &[f32], gradient: &[f32], sink: &mut [f32]) {
        let x = inputs[0];
        let statistics = self.statistics(x);
        let scaled = |at: usize| f64::from(gradient[at]) * f64::from(self.scale[at]);
        let normalized =
            |at: usize, owner: usize| (f64::from(x[at]) - statistics[owner].center) * statistics[owner].factor;
        let share = self.groups as f64 / self.owners.len() as f64;
        let means =
            if self.kind.is_centered() { self.sums(|at, _| scaled(at) * share) } else { vec![0.0; self.groups] };
        let along = self.sums(|at, owner| scaled(at) * normalized(at, owner));
        for (at, sum) in sink.iter_mut().enumerate() {
            let owner = self.owners[at] as usize;
            let direction = self.kind.direction(f64::from(x[at]), normalized(at, owner));
            let Statistics { factor, feedback, .. } = statistics[owner];
            *sum += (factor * (scaled(at) - means[owner] - direction * feedback * along[owner])) as f32;
        }
    }
}
