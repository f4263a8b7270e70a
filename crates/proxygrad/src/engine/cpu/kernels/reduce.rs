//! Reductions over axes, where every value belongs to one group.

use crate::engine::cpu::kernel::BackwardNeeds;
use crate::engine::cpu::kernels::memory_order::{for_each_index, offset};
use crate::engine::cpu::kernels::scalar::ScalarOp;
use crate::engine::cpu::layout::Layout;
use crate::network::Reduce;

/// Group of every value when `axes` are reduced, as an index in the memory order of the remaining shape.
fn owners(axes: &[usize], input: &Layout, left: &Layout) -> Vec<u32> {
    let (from, to) = (input.strides(), left.strides());
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
    pub(crate) fn new(kind: Reduce, axes: &[usize], input: &Layout, output: &Layout) -> Self {
        Self { kind, owners: owners(axes, input, output), groups: output.elements() }
    }

    /// The value of every group: `start`, then every value of the group in turn combined with it.
    fn fold(&self, start: f64, values: &[f32], combine: impl Fn(f64, f64, usize) -> f64) -> Vec<f64> {
        let mut folded = vec![start; self.groups];
        for (&value, &owner) in values.iter().zip(&self.owners) {
            let group = &mut folded[owner as usize];
            *group = combine(*group, f64::from(value), owner as usize);
        }
        folded
    }

    /// Share of every value in its group's mean.
    fn share(&self) -> f64 {
        self.groups as f64 / self.owners.len().max(1) as f64
    }

    /// Which values equal the result of their group, and how many do in each group.
    fn extremes(&self, x: &[f32], output: &[f32]) -> Vec<f64> {
        self.fold(0.0, x, |ties, value, group| ties + f64::from(u8::from(value == f64::from(output[group]))))
    }
}

/// Whether the backward pass of a reduction reads its input and output.
pub(crate) fn reduction_needs(kind: Reduce) -> BackwardNeeds {
    let both = !matches!(kind, Reduce::Mean | Reduce::Sum);
    BackwardNeeds { inputs: both, output: both }
}

impl ScalarOp for ScalarReduce {
    fn backward_needs(&self) -> BackwardNeeds {
        reduction_needs(self.kind)
    }

    fn forward(&self, inputs: &[&[f32]], output: &mut [f32]) {
        let x = inputs[0];
        let results = match self.kind {
            Reduce::Mean | Reduce::Sum => self.fold(0.0, x, |sum, value, _| sum + value),
            Reduce::Max => self.fold(f64::NEG_INFINITY, x, |largest, value, _| largest.max(value)),
            Reduce::Min => self.fold(f64::INFINITY, x, |smallest, value, _| smallest.min(value)),
            Reduce::Product => self.fold(1.0, x, |product, value, _| product * value),
            Reduce::L1 => self.fold(0.0, x, |sum, value, _| sum + value.abs()),
            Reduce::L2 => self.fold(0.0, x, |sum, value, _| sum + value * value),
            Reduce::LogSumExp => {
                let largest = self.fold(f64::NEG_INFINITY, x, |largest, value, _| largest.max(value));
                let sums = self.fold(0.0, x, |sum, value, group| sum + (value - largest[group]).exp());
                sums.into_iter().zip(largest).map(|(sum, largest)| sum.ln() + largest).collect()
            }
        };
        for (value, result) in output.iter_mut().zip(results) {
            *value = match self.kind {
                Reduce::Mean => result * self.share(),
                Reduce::L2 => result.sqrt(),
                _ => result,
            } as f32;
        }
    }

    /// Equal extremes share the gradient evenly.
    fn backward(&self, _: usize, inputs: &[&[f32]], output: &[f32], gradient: &[f32], sink: &mut [f32]) {
        let (x, share) = (inputs[0], self.share());
        let mut add = |slope: &dyn Fn(f64, f64, usize) -> f64| {
            for (at, (sum, &owner)) in sink.iter_mut().zip(&self.owners).enumerate() {
                let group = owner as usize;
                let (value, result) =
                    (x.get(at).copied().unwrap_or_default(), output.get(group).copied().unwrap_or_default());
                *sum += gradient[group] * slope(f64::from(value), f64::from(result), group) as f32;
            }
        };
        match self.kind {
            Reduce::Sum => add(&|_, _, _| 1.0),
            Reduce::Mean => add(&|_, _, _| share),
            Reduce::Max | Reduce::Min => {
                let ties = self.extremes(x, output);
                add(&|value, result, group| if value == result { 1.0 / ties[group] } else { 0.0 });
            }
            Reduce::Product => {
                let zeros = self.fold(0.0, x, |count, value, _| count + f64::from(u8::from(value == 0.0)));
                let others =
                    self.fold(1.0, x, |product, value, _| if value == 0.0 { product } else { product * value });
                add(&|value, _, group| match (zeros[group], value) {
                    (0.0, _) => others[group] / value,
                    (1.0, 0.0) => others[group],
                    _ => 0.0,
                });
            }
            Reduce::L1 => add(&|value, _, _| if value == 0.0 { 0.0 } else { value.signum() }),
            Reduce::L2 => add(&|value, result, _| if result == 0.0 { 0.0 } else { value / result }),
            Reduce::LogSumExp => add(&|value, result, _| (value - result).exp()),
        }
    }
}
