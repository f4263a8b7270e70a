//! Batch normalization of constants: weight standardization.

use super::super::const_tensor::{ConstData, ConstTensor};
use super::super::node_context::NodeContext;

/// <https://onnx.ai/onnx/operators/onnx__BatchNormalization.html> along axis 1, with the given statistics or, in
/// training mode, those of the values themselves. Exporters standardize weights this way, as if they were a batch.
pub(super) fn batch_normalization(ctx: &NodeContext) -> Result<Vec<ConstTensor>, String> {
    if ctx.int("spatial")?.is_some_and(|spatial| spatial == 0) {
        return Err("spatial 0 is not supported".into());
    }
    let value = ctx.constant(0)?;
    let data = value.floats()?;
    let parameters = [1, 2, 3, 4].map(|i| ctx.constant(i).and_then(|value| value.floats()));
    let [gamma, beta, mean, variance] = parameters;
    let (gamma, beta, mean, variance) = (gamma?, beta?, mean?, variance?);
    let epsilon = f64::from(ctx.float("epsilon", 1e-5)?);
    let channels = value.shape().get(1).copied().unwrap_or(1);
    if [gamma, beta, mean, variance].iter().any(|values| values.len() != channels) {
        return Err(format!("the parameters are for {} channels, but the input has {channels}", gamma.len()));
    }
    ctx.checked_elements(value.shape())?;
    let per_channel: usize = value.shape().iter().skip(2).product();
    if data.is_empty() {
        return Err("the input is empty".into());
    }
    let channel = |i: usize| i / per_channel % channels;
    let training = ctx.flag("training_mode")?;
    let (means, variances) = match training {
        true => statistics(data, channels, channel),
        false => (widened(mean), widened(variance)),
    };
    let normalized = data.iter().enumerate().map(|(i, &x)| {
        let c = channel(i);
        let scaled = (f64::from(x) - means[c]) / (variances[c] + epsilon).sqrt();
        (scaled * f64::from(gamma[c]) + f64::from(beta[c])) as f32
    });
    let mut outputs = vec![ConstTensor::new(value.shape().to_vec(), ConstData::Float(normalized.collect()))?];
    if training {
        let momentum = f64::from(ctx.float("momentum", 0.9)?);
        for (before, now) in [(mean, &means), (variance, &variances)] {
            let mixed = before
                .iter()
                .zip(now)
                .map(|(&before, now)| (f64::from(before) * momentum + now * (1.0 - momentum)) as f32);
            outputs.push(ConstTensor::new(vec![channels], ConstData::Float(mixed.collect()))?);
        }
    }
    Ok(outputs)
}

fn widened(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

/// Mean and variance (divided by the number of values) of each channel.
fn statistics(data: &[f32], channels: usize, channel: impl Fn(usize) -> usize) -> (Vec<f64>, Vec<f64>) {
    let count = (data.len() / channels) as f64;
    let mut means = vec![0.0; channels];
    for (i, &x) in data.iter().enumerate() {
        means[channel(i)] += f64::from(x) / count;
    }
    let mut variances = vec![0.0; channels];
    for (i, &x) in data.iter().enumerate() {
        let c = channel(i);
        variances[c] += (f64::from(x) - means[c]).powi(2) / count;
    }
    (means, variances)
}
