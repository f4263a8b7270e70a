//! `BatchNormalization`.

use super::super::graph_builder::{BuilderId, GraphBuilder};
use super::super::node_context::NodeContext;
use crate::network::{Array, Op};

/// <https://onnx.ai/onnx/operators/onnx__BatchNormalization.html> with its running statistics: a scale and a shift per
/// channel.
pub(super) fn batch_normalization(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    if ctx.flag("training_mode")? {
        return Err("it is in training mode; export the network for inference".into());
    }
    if ctx.int("spatial")?.is_some_and(|spatial| spatial == 0) {
        return Err("spatial 0 is not supported".into());
    }
    let (input, shape) = ctx.dynamic_with_shape(builder, 0)?;
    let epsilon = f64::from(ctx.float("epsilon", 1e-5)?);
    let [gamma, beta, mean, variance] = [1, 2, 3, 4].map(|i| ctx.constant(i).and_then(|value| value.floats()));
    let (gamma, beta, mean, variance) = (gamma?, beta?, mean?, variance?);
    let channels = shape.channels();
    if [gamma, beta, mean, variance].iter().any(|values| values.len() != channels) {
        return Err(format!("the parameters are for {} channels, but the input has {channels}", gamma.len()));
    }
    let factor = |c: usize| f64::from(gamma[c]) / (f64::from(variance[c]) + epsilon).sqrt();
    let scale: Vec<f32> = (0..channels).map(|c| factor(c) as f32).collect();
    let shift: Vec<f32> = (0..channels).map(|c| (f64::from(beta[c]) - f64::from(mean[c]) * factor(c)) as f32).collect();
    builder.push(Op::Affine { scale: Array::vector(scale), shift: Array::vector(shift) }, &[input])
}
