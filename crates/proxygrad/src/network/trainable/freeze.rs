//! From a trainable network and its parameters to a network with frozen weights.

use super::{BatchNorm, Parameters, TrainableNetwork, TrainableOp};
use crate::network::error::GraphError;
use crate::network::graph::{Network, NodeId};
use crate::network::op::{Conv, Op};
use crate::network::{Array, ArrayError};

impl TrainableNetwork {
    /// The network at inference. A batch normalization is folded into the convolution before it if nothing else reads
    /// that convolution, which then also has the normalization's name; otherwise it becomes an affine node.
    ///
    /// # Errors
    /// When the parameters do not belong to this network.
    pub fn freeze(&self, parameters: &Parameters) -> Result<Network, GraphError> {
        let [channels, height, width] = self.input_shape().feature_map().unwrap_or([1, 1, 1]);
        let mut network = Network::new(channels, height, width);
        let mut ids: Vec<NodeId> = vec![Network::INPUT];
        let invalid = |name: &str, why: ArrayError| GraphError::Trainable(format!("{name}: {why}"));
        for (index, node) in self.nodes().iter().enumerate().skip(1) {
            let array = |id| parameters.array(self, id).map_err(|why| invalid(&node.name, why));
            let inputs: Vec<NodeId> = node.inputs.iter().map(|&input| ids[input]).collect();
            let folded = self.norm_of_conv(index);
            let op = match (&node.op, folded) {
                (TrainableOp::Conv { .. }, Some(norm)) => {
                    let Op::Conv(conv) = node.op.with_values(array)? else { continue };
                    let (scale, shift) = affine(norm, parameters);
                    Op::Conv(scaled(&conv, &scale, &shift).map_err(|why| invalid(&node.name, why))?)
                }
                (TrainableOp::BatchNorm(_), _) if self.folds(index) => {
                    network.add_alias(&node.name, inputs[0]);
                    ids.push(inputs[0]);
                    continue;
                }
                (TrainableOp::BatchNorm(norm), _) => {
                    let (scale, shift) = affine(norm, parameters);
                    Op::Affine { scale: Array::vector(scale), shift: Array::vector(shift) }
                }
                (op, _) => op.with_values(array)?,
            };
            ids.push(network.push(&node.name, op, &inputs)?);
        }
        network.set_outputs(ids.last().copied().into_iter().collect());
        Ok(network)
    }

    /// The batch normalization that is folded into this convolution.
    fn norm_of_conv(&self, index: usize) -> Option<&BatchNorm> {
        let mut readers = self.nodes().iter().filter(|node| node.inputs.contains(&index));
        match (&self.nodes()[index].op, readers.next(), readers.next()) {
            (TrainableOp::Conv { .. }, Some(reader), None) => match &reader.op {
                TrainableOp::BatchNorm(norm) => Some(norm),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether this batch normalization is folded.
    fn folds(&self, index: usize) -> bool {
        self.nodes()[index].inputs.first().is_some_and(|&conv| self.norm_of_conv(conv).is_some())
    }
}

/// Factor and offset of a batch normalization at inference.
fn affine(norm: &BatchNorm, parameters: &Parameters) -> (Vec<f32>, Vec<f32>) {
    let [scale, shift, mean, variance] =
        [norm.scale, norm.shift, norm.mean, norm.variance].map(|id| parameters.get(id));
    (0..scale.len())
        .map(|c| {
            let [scale, shift, mean, variance] = [scale, shift, mean, variance].map(|values| f64::from(values[c]));
            let factor = scale / (variance + f64::from(norm.epsilon)).sqrt();
            (factor as f32, (shift - mean * factor) as f32)
        })
        .unzip()
}

/// The convolution with its outputs multiplied by `scale` and increased by `shift`.
fn scaled(conv: &Conv, scale: &[f32], shift: &[f32]) -> Result<Conv, ArrayError> {
    let fan = conv.weight.len() / scale.len().max(1);
    let weight: Vec<f32> = conv.weight.data().iter().enumerate().map(|(i, &w)| w * scale[i / fan.max(1)]).collect();
    let old = |o: usize| conv.bias.as_ref().map_or(0.0, |bias| f64::from(bias.data()[o]));
    let bias = (0..scale.len()).map(|o| (old(o) * f64::from(scale[o]) + f64::from(shift[o])) as f32);
    Ok(Conv {
        weight: Array::new(conv.weight.shape(), weight)?,
        bias: Some(Array::vector(bias.collect::<Vec<f32>>())),
        window: conv.window,
        groups: conv.groups,
    })
}
