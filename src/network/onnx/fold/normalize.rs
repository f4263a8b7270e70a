//! Normalized weights.

use super::super::call::Call;
use super::super::value::{Data, Value};

/// <https://onnx.ai/onnx/operators/onnx__BatchNormalization.html> with given statistics, along axis 1. Weights are
/// standardized so, as if they were a batch.
pub(super) fn batch_normalization(call: &Call) -> Result<Vec<Value>, String> {
    if call.flag("training_mode")? {
        return Err("is in training mode; export the network for inference".into());
    }
    let value = call.required(0)?;
    let data = value.floats()?;
    let [gamma, beta, mean, variance] = [1, 2, 3, 4].map(|i| call.required(i).and_then(|value| value.floats()));
    let (gamma, beta, mean, variance) = (gamma?, beta?, mean?, variance?);
    let epsilon = f64::from(call.float("epsilon", 1e-5)?);
    let channels = value.shape().get(1).copied().unwrap_or(1);
    if [gamma, beta, mean, variance].iter().any(|values| values.len() != channels) {
        return Err(format!("has parameters for {} channels, but its input has {channels}", gamma.len()));
    }
    call.claim(value.shape())?;
    let per_channel: usize = value.shape().iter().skip(2).product();
    let normalized = data.iter().enumerate().map(|(i, &x)| {
        let c = i / per_channel % channels;
        let scaled = (f64::from(x) - f64::from(mean[c])) / (f64::from(variance[c]) + epsilon).sqrt();
        (scaled * f64::from(gamma[c]) + f64::from(beta[c])) as f32
    });
    Ok(vec![Value::new(value.shape().to_vec(), Data::Float(normalized.collect()))?])
}
