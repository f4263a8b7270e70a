//! One iteration: a unit's value and its gradient on a batch of images.

use std::sync::Arc;

use anyhow::Context;
use candle_core::{Device, Tensor};
use proxygrad::engine::{Engine, Forward, Gate, Plan, Target};
use proxygrad::network::Network;

use super::noise::Noise;

/// Channel of the target layer that is maximized, modulo its number of channels.
const CHANNEL: usize = 42;

/// A plan up to one layer, and the unit to maximize: a logit, or the mean of a channel.
pub struct Ascent {
    pub plan: Box<dyn Plan>,
    /// Gradient of the unit's value with respect to the layer's output, per image.
    pub seed: Tensor,
    gate: Gate,
}

impl Ascent {
    /// Plans `network` up to `layer`.
    ///
    /// # Errors
    /// When there is no such layer, or the network cannot be planned.
    pub fn new(
        engine: &dyn Engine,
        network: &Arc<Network>,
        layer: &str,
        batch: usize,
        gate: Gate,
    ) -> anyhow::Result<Self> {
        let input = super::input();
        // In files the logits have the exporter's name.
        let logits = || network.outputs().first().copied().filter(|_| layer == "logits");
        let target = network.find(layer).or_else(logits).with_context(|| format!("there is no layer {layer}"))?;
        let shape = network.shapes_at(&input, &network.below(&[target]))?;
        let shape = &shape[&target];
        let positions = shape.elements() / shape.channels();
        let channel = CHANNEL % shape.channels();
        let first = channel * positions;
        let mut seed = vec![0.0; shape.elements()];
        seed[first..][..positions].fill(1.0 / positions as f32);
        let dims = [&[batch], &shape[..]].concat();
        let seed = Tensor::from_vec(seed.repeat(batch), dims, &Device::Cpu)?;
        let mut plan = engine.plan(network, &[Target::channels(target, [channel])], &input)?;
        plan.allow_reduced_precision(true);
        Ok(Self { plan, seed, gate })
    }

    /// The layer's output, and the gradient of the sum of the unit's values over the batch.
    ///
    /// # Errors
    /// When `images` has another batch size.
    pub fn run(&mut self, images: &Tensor) -> anyhow::Result<(Tensor, Tensor)> {
        let output = self.plan.forward(images, Forward::Original)?.swap_remove(0);
        let gradient = self.plan.backward(std::slice::from_ref(&self.seed), self.gate)?;
        Ok((output, gradient))
    }
}

/// The start images of every measurement.
///
/// # Errors
/// Never on the CPU.
pub fn images(batch: usize) -> anyhow::Result<Tensor> {
    let dims = [&[batch], &super::input()[..]].concat();
    let values = Noise::default().values(dims.iter().product(), 1.0);
    Ok(Tensor::from_vec(values, dims, &Device::Cpu)?)
}
