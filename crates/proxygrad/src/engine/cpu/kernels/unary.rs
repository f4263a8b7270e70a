//! Elementwise functions that are no activations.

use crate::engine::cpu::kernel::BackwardNeeds;
use crate::engine::cpu::kernels::scalar::ScalarOp;
use crate::network::Unary;

/// A function of every value, from its f64 definition.
pub(crate) struct ScalarUnary(pub(crate) Unary);

impl ScalarOp for ScalarUnary {
    fn backward_needs(&self) -> BackwardNeeds {
        BackwardNeeds { inputs: true, output: false }
    }

    fn forward(&self, inputs: &[&[f32]], output: &mut [f32]) {
        for (value, &x) in output.iter_mut().zip(inputs[0]) {
            *value = self.0.value(f64::from(x)) as f32;
        }
    }

    fn backward(&self, _: usize, inputs: &[&[f32]], _: &[f32], gradient: &[f32], sink: &mut [f32]) {
        for ((sum, gradient), &x) in sink.iter_mut().zip(gradient).zip(inputs[0]) {
            *sum += gradient * self.0.derivative(f64::from(x)) as f32;
        }
    }
}
