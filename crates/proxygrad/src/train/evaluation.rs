//! Measuring a network on images: loss, accuracy and dead units.

use super::data::Dataset;
use super::error::TrainError;
use super::loss::cross_entropy;
use super::metrics::Layer;
use crate::engine::{Forward, Mode, TrainingPlan};
use crate::network::trainable::{Parameters, TrainableNetwork, TrainableOp};
use crate::network::{Activation, Op};

/// Images of a forward pass.
const BATCH: usize = 250;

/// Mean and standard deviation of each channel, with white as 1.
#[derive(Debug, Clone)]
pub(super) struct Normalization {
    pub(super) mean: Vec<f32>,
    pub(super) std: Vec<f32>,
}

impl Normalization {
    /// That of a dataset.
    pub(super) fn of(data: &Dataset) -> Self {
        let (mean, std) = data.statistics();
        Self { mean, std }
    }

    /// Appends the normalized values of an image `[C,H,W]`.
    pub(super) fn append(&self, image: &[u8], to: &mut Vec<f32>) {
        let plane = image.len() / self.mean.len().max(1);
        for ((plane, mean), std) in image.chunks_exact(plane.max(1)).zip(&self.mean).zip(&self.std) {
            to.extend(plane.iter().map(|&value| (f32::from(value) / 255.0 - mean) / std));
        }
    }
}

/// What a network does on a dataset.
pub(super) struct Evaluation {
    /// Mean cross-entropy without label smoothing.
    pub(super) loss: f64,
    /// Share of the images that are classified correctly.
    pub(super) accuracy: f64,
    /// Dead units of every rectifier.
    pub(super) layers: Vec<Layer>,
}

/// Runs the network at inference over all images.
///
/// # Errors
/// When the engine fails.
pub(super) fn evaluate(
    network: &TrainableNetwork,
    plan: &mut dyn TrainingPlan,
    parameters: &mut Parameters,
    normalization: &Normalization,
    data: &Dataset,
) -> Result<Evaluation, TrainError> {
    let is_rectifier = |op: &TrainableOp| {
        matches!(op, TrainableOp::Fixed(Op::Activation(Activation::Relu | Activation::LeakyRelu { .. })))
    };
    let nodes = network.nodes();
    let rectifiers: Vec<usize> = (0..nodes.len()).filter(|&node| is_rectifier(&nodes[node].op)).collect();
    let mut alive: Vec<Vec<bool>> = rectifiers.iter().map(|&node| vec![false; nodes[node].shape.channels()]).collect();
    let (mut loss_sum, mut correct) = (0.0, 0);
    let all: Vec<usize> = (0..data.len()).collect();
    for indices in all.chunks(BATCH) {
        let mut images = Vec::new();
        indices.iter().for_each(|&index| normalization.append(data.image(index), &mut images));
        let labels: Vec<u32> = indices.iter().map(|&index| data.label(index)).collect();
        let logits = plan.forward(&images, parameters, Mode::Inference, Forward::Original)?;
        let loss = cross_entropy(&logits, &labels, 0.0);
        loss_sum += loss.mean * indices.len() as f64;
        correct += loss.correct;
        for (&node, alive) in rectifiers.iter().zip(&mut alive) {
            let positive = positive_channels(&plan.value(node)?, alive.len(), indices.len());
            alive.iter_mut().zip(positive).for_each(|(alive, positive)| *alive |= positive);
        }
    }
    let layer = |(&node, alive): (&usize, &Vec<bool>)| Layer {
        name: nodes[node].name.clone(),
        channels: alive.len(),
        dead: alive.iter().filter(|alive| !**alive).count(),
    };
    Ok(Evaluation {
        loss: loss_sum / data.len() as f64,
        accuracy: correct as f64 / data.len() as f64,
        layers: rectifiers.iter().zip(&alive).map(layer).collect(),
    })
}

/// For every channel of row-major values `[N,C,...]` of `images` images, whether it is positive anywhere.
fn positive_channels(values: &[f32], channels: usize, images: usize) -> Vec<bool> {
    let size = values.len() / (channels * images).max(1);
    let mut positive = vec![false; channels];
    for (plane, values) in values.chunks_exact(size.max(1)).enumerate() {
        positive[plane % channels] |= values.iter().any(|&value| value > 0.0);
    }
    positive
}
