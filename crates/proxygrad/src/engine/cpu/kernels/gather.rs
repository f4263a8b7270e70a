//! Data movement by index table: pad, reshape, transpose, slice and gather. Every output value is one input value or a
//! constant.

use std::sync::Arc;

use crate::engine::cpu::kernels::memory_order::{for_each_index, load, offset};
use crate::engine::cpu::kernels::scalar::ScalarOp;
use crate::engine::cpu::layout::Layout;
use crate::network::{Array, PadMode};

/// Copies values by a table of source indices.
pub(crate) struct ScalarGather {
    /// Source index of every output value, or [`ScalarGather::BORDER`].
    sources: Vec<u32>,
    border: f32,
}

impl ScalarGather {
    const BORDER: u32 = u32::MAX;

    /// `source` maps an output index to an input index, or to None for the border.
    fn new(
        input: &Layout,
        output: &Layout,
        border: f32,
        mut source: impl FnMut(&[usize]) -> Option<Vec<usize>>,
    ) -> Self {
        let (from, to) = (input.strides(), output.strides());
        let mut sources = vec![Self::BORDER; output.elements()];
        for_each_index(output, |index| {
            if let Some(found) = source(index) {
                sources[offset(&to, index)] = offset(&from, &found) as u32;
            }
        });
        Self { sources, border }
    }

    pub(crate) fn reshape(input: &Layout, output: &Layout) -> Self {
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

    pub(crate) fn transpose(order: &[usize], input: &Layout, output: &Layout) -> Self {
        Self::new(input, output, 0.0, |index| {
            let mut source = vec![0; index.len()];
            for (&axis, &i) in order.iter().zip(index) {
                source[axis] = i;
            }
            Some(source)
        })
    }

    pub(crate) fn slice(axis: usize, start: usize, step: usize, input: &Layout, output: &Layout) -> Self {
        Self::new(input, output, 0.0, |index| {
            let mut source = index.to_vec();
            source[axis] = start + index[axis] * step;
            Some(source)
        })
    }

    pub(crate) fn pad(before: &[usize], mode: PadMode, input: &Layout, output: &Layout) -> Self {
        let border = if let PadMode::Constant(value) = mode { value } else { 0.0 };
        Self::new(input, output, border, |index| {
            let axis = |(axis, &i): (usize, &usize)| {
                let length = input[axis];
                match (i.checked_sub(before[axis]), mode) {
                    (Some(inside), _) if inside < length => Some(inside),
                    (_, PadMode::Constant(_)) => None,
                    (Some(beyond), PadMode::Reflect) => Some(2 * (length - 1) - beyond),
                    (None, PadMode::Reflect) => Some(before[axis] - i),
                    (Some(_), PadMode::Edge) => Some(length - 1),
                    (None, PadMode::Edge) => Some(0),
                }
            };
            index.iter().enumerate().map(axis).collect()
        })
    }
}

impl ScalarOp for ScalarGather {
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

/// Selection of indices of one axis, in runs that are contiguous in memory.
pub(crate) struct AxisGather {
    indices: Arc<[u32]>,
    /// Length of the axis in the input.
    length: usize,
    /// Values of one index that are contiguous.
    run: usize,
}

impl AxisGather {
    /// The output has its values in the same order as the input.
    pub(crate) fn new(axis: usize, indices: &Arc<[u32]>, input: &Layout) -> Self {
        Self { indices: Arc::clone(indices), length: input[axis], run: input.strides()[axis] }
    }
}

impl ScalarOp for AxisGather {
    fn forward(&self, inputs: &[&[f32]], output: &mut [f32]) {
        let run = self.run;
        let blocks = output.chunks_exact_mut(self.indices.len() * run).zip(inputs[0].chunks_exact(self.length * run));
        for (to, from) in blocks {
            for (to, &index) in to.chunks_exact_mut(run).zip(&*self.indices) {
                to.copy_from_slice(&from[index as usize * run..][..run]);
            }
        }
    }

    fn backward(&self, _: usize, _: &[&[f32]], _: &[f32], gradient: &[f32], sink: &mut [f32]) {
        let run = self.run;
        let blocks = gradient.chunks_exact(self.indices.len() * run).zip(sink.chunks_exact_mut(self.length * run));
        for (gradient, sink) in blocks {
            for (gradient, &index) in gradient.chunks_exact(run).zip(&*self.indices) {
                for (sum, part) in sink[index as usize * run..][..run].iter_mut().zip(gradient) {
                    *sum += part;
                }
            }
        }
    }
}

/// A tensor that does not depend on the image.
pub(crate) struct ScalarConstant {
    values: Vec<f32>,
}

impl ScalarConstant {
    pub(crate) fn new(array: &Array, shape: &Layout) -> Self {
        let mut values = vec![0.0; array.len()];
        load(array.data(), shape, &mut values);
        Self { values }
    }
}

impl ScalarOp for ScalarConstant {
    fn forward(&self, _: &[&[f32]], output: &mut [f32]) {
        output.copy_from_slice(&self.values);
    }

    fn backward(&self, _: usize, _: &[&[f32]], _: &[f32], _: &[f32], _: &mut [f32]) {}
}
