//! `BatchNormalization`.

use super::super::graph_builder::GraphBuilder;
use super::super::image_tensor::ImageTensor;
use super::super::node_context::NodeContext;
use crate::network::{Array, Binary, Op};

/// <https://onnx.ai/onnx/operators/onnx__BatchNormalization.html> with its running statistics: a scale and a shift per
/// index of axis 1. The first axis may hold the batch or, as `[N*L,C]`, tokens of one image.
pub(super) fn batch_normalization(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    if ctx.flag("training_mode")? {
        return Err("it is in training mode; export the network for inference".into());
    }
    if ctx.int("spatial")?.is_some_and(|spatial| spatial == 0) {
        return Err("spatial 0 is not supported".into());
    }
    let tensor = ctx.image_tensor(0)?;
    let tensor = if tensor.batch == Some(1) { tensor.with_batch(builder, None)? } else { tensor };
    let epsilon = f64::from(ctx.float("epsilon", 1e-5)?);
    let [gamma, beta, mean, variance] = [1, 2, 3, 4].map(|i| ctx.constant(i).and_then(|value| value.floats()));
    let (gamma, beta, mean, variance) = (gamma?, beta?, mean?, variance?);
    // A vector `[C]` of one image has its channels along the only axis.
    let axis = tensor.node_axis(1).unwrap_or(0);
    let shape = &builder.node(tensor.id).shape;
    let channels = shape.get(axis).copied().unwrap_or(1);
    if [gamma, beta, mean, variance].iter().any(|values| values.len() != channels) {
        return Err(format!("the parameters are for {} channels, but the input has {channels}", gamma.len()));
    }
    let factor = |c: usize| f64::from(gamma[c]) / (f64::from(variance[c]) + epsilon).sqrt();
    let scale: Vec<f32> = (0..channels).map(|c| factor(c) as f32).collect();
    let shift: Vec<f32> = (0..channels).map(|c| (f64::from(beta[c]) - f64::from(mean[c]) * factor(c)) as f32).collect();
    if axis == 0 {
        let affine = Op::Affine { scale: Array::vector(scale), shift: Array::vector(shift) };
        return Ok(ImageTensor { id: builder.push(affine, &[tensor.id])?, ..tensor });
    }
    let mut along = vec![1; shape.len() - axis];
    along[0] = channels;
    let mut id = tensor.id;
    for (kind, values) in [(Binary::Mul, scale), (Binary::Add, shift)] {
        if values.iter().any(|value| !value.is_finite()) {
            return Err("the weights contain infinite or NaN values".into());
        }
        let constant = builder.push_constant(Array::new(along.clone(), values)?)?;
        id = builder.push(Op::Binary(kind), &[id, constant])?;
    }
    Ok(ImageTensor { id, ..tensor })
}
