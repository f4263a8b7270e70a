//! Measuring a network on images: loss, accuracy and dead units.

use super::data::Dataset;
use super::error::TrainError;
use super::loss::cross_entropy;
use super::metrics::Layer;
use crate::engine::{Forward, Mode, TrainingPlan};
use crate::network::trainable::{Parameters, TrainableNetwork, TrainableOp};
use crate::network::{Activation, Op, Preprocessing};

/// Most images of a forward pass, and most pixels of one.
const BATCH: usize = 250;
const BATCH_PIXELS: usize = 1 << 18;

/// Appends the values of an image `[C,H,W]` as the network reads them.
pub(super) fn append(preprocessing: &Preprocessing, image: &[u8], to: &mut Vec<f32>) {
    let Preprocessing { channels, range, mean, std } = preprocessing;
    let plane = image.len() / mean.len().max(1);
    for (c, (mean, std)) in mean.iter().zip(std).enumerate() {
        let plane = &image[channels.source(c) * plane..][..plane];
        to.extend(plane.iter().map(|&value| (f32::from(value) / 255.0 * range - mean) / std));
    }
}

impl Dataset {
    /// An image `[C,H,W]` as a network with this preprocessing reads it.
    pub(crate) fn input(&self, index: usize, preprocessing: &Preprocessing) -> Vec<f32> {
        let mut input = Vec::with_capacity(self.size().iter().product());
        append(preprocessing, self.image(index), &mut input);
        input
    }
}

/// Measurements on the first images of a dataset.
#[derive(Default)]
pub(super) struct Measuring {
    pub(super) images: usize,
    loss_sum: f64,
    correct: usize,
    /// For every rectifier, which channels were positive.
    alive: Vec<Vec<bool>>,
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

/// Runs the network at inference over the images that were not measured yet. After every batch, `on_batch` is called with
/// the number of images measured, and pauses by returning true; then there is no result yet.
///
/// # Errors
/// When the engine fails.
pub(super) fn evaluate(
    network: &TrainableNetwork,
    plan: &mut dyn TrainingPlan,
    parameters: &mut Parameters,
    preprocessing: &Preprocessing,
    data: &Dataset,
    so_far: &mut Measuring,
    on_batch: &mut dyn FnMut(usize) -> bool,
) -> Result<Option<Evaluation>, TrainError> {
    let is_rectifier = |op: &TrainableOp| {
        matches!(op, TrainableOp::Fixed(Op::Activation(Activation::Relu | Activation::LeakyRelu { .. })))
    };
    let nodes = network.nodes();
    let rectifiers: Vec<usize> = (0..nodes.len()).filter(|&node| is_rectifier(&nodes[node].op)).collect();
    if so_far.images == 0 {
        so_far.alive = rectifiers.iter().map(|&node| vec![false; nodes[node].shape.channels()]).collect();
    }
    let [_, height, width] = data.size();
    let batch = (BATCH_PIXELS / (height * width)).clamp(1, BATCH);
    while so_far.images < data.len() {
        let indices = so_far.images..data.len().min(so_far.images + batch);
        let mut images = Vec::new();
        indices.clone().for_each(|index| append(preprocessing, data.image(index), &mut images));
        let labels: Vec<u32> = indices.clone().map(|index| data.label(index)).collect();
        let logits = plan.forward(&images, parameters, Mode::Inference, Forward::Original)?;
        let loss = cross_entropy(&logits, &labels, 0.0);
        so_far.loss_sum += loss.mean * indices.len() as f64;
        so_far.correct += loss.correct;
        for (&node, alive) in rectifiers.iter().zip(&mut so_far.alive) {
            let positive = positive_channels(&plan.value(node)?, alive.len(), indices.len());
            alive.iter_mut().zip(positive).for_each(|(alive, positive)| *alive |= positive);
        }
        so_far.images = indices.end;
        if on_batch(so_far.images) {
            return Ok(None);
        }
    }
    let layer = |(&node, alive): (&usize, &Vec<bool>)| Layer {
        name: nodes[node].name.clone(),
        channels: alive.len(),
        dead: alive.iter().filter(|alive| !**alive).count(),
    };
    Ok(Some(Evaluation {
        loss: so_far.loss_sum / data.len() as f64,
        accuracy: so_far.correct as f64 / data.len() as f64,
        layers: rectifiers.iter().zip(&so_far.alive).map(layer).collect(),
    }))
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
