//! Quantization with the range of each image.

use crate::engine::cpu::kernels::scalar::ScalarOp;
use crate::network::DynamicLevels;

/// See [`DynamicLevels`].
pub(crate) struct ScalarDynamicQuantize;

impl ScalarOp for ScalarDynamicQuantize {
    fn forward(&self, inputs: &[&[f32]], output: &mut [f32]) {
        let levels = DynamicLevels::<f32>::of(inputs[0].iter().copied());
        for (value, &x) in output.iter_mut().zip(inputs[0]) {
            *value = levels.nearest(x);
        }
    }

    fn backward(&self, _: usize, _: &[&[f32]], _: &[f32], gradient: &[f32], sink: &mut [f32]) {
        for (sum, gradient) in sink.iter_mut().zip(gradient) {
            *sum += gradient;
        }
    }
}
