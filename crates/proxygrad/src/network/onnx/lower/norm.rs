//! `BatchNormalization`.

use super::super::call::Call;
use super::super::draft::{Draft, Id};
use crate::network::{Array, Op};

/// <https://onnx.ai/onnx/operators/onnx__BatchNormalization.html> with its running statistics: a scale and a shift per
/// channel.
pub(super) fn batch_normalization(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    if call.flag("training_mode")? {
        return Err("is in training mode; export the network for inference".into());
    }
    if call.int("spatial")?.is_some_and(|spatial| spatial == 0) {
        return Err("has spatial 0, which is not supported".into());
    }
    let (input, shape) = call.shaped(draft, 0)?;
    let epsilon = f64::from(call.float("epsilon", 1e-5)?);
    let [gamma, beta, mean, variance] = [1, 2, 3, 4].map(|i| call.required(i).and_then(|value| value.floats()));
    let (gamma, beta, mean, variance) = (gamma?, beta?, mean?, variance?);
    let channels = shape.channels();
    if [gamma, beta, mean, variance].iter().any(|values| values.len() != channels) {
        return Err(format!("has parameters for {} channels, but its input has {channels}", gamma.len()));
    }
    let factor = |c: usize| f64::from(gamma[c]) / (f64::from(variance[c]) + epsilon).sqrt();
    let scale: Vec<f32> = (0..channels).map(|c| factor(c) as f32).collect();
    let shift: Vec<f32> = (0..channels).map(|c| (f64::from(beta[c]) - f64::from(mean[c]) * factor(c)) as f32).collect();
    draft.push(Op::Affine { scale: Array::vector(scale), shift: Array::vector(shift) }, &[input])
}
