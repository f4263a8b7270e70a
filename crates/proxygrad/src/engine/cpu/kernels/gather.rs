//! Selection of indices of an axis, and constants.

use std::sync::Arc;

use crate::engine::cpu::kernels::memory_order::load;
use crate::engine::cpu::kernels::scalar::ScalarOp;
use crate::engine::cpu::layout::Layout;
use crate::network::Array;

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
