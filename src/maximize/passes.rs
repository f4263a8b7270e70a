//! Passes through the part of a network below its targets: from pixels forward, and back to pixels.

use std::collections::BTreeMap;

use candle_core::Tensor;

use super::parameterization::Painter;
use super::pixels::Pixels;
use super::run::{MaximizeError, Task};
use super::scales::{IMAGES, scales};
use super::scoring::{Aims, Scoring};
use super::settings::Settings;
use crate::engine::{Engine, EngineError, Forward, Gate, Plan};
use crate::network::{Model, NodeId, Op, Shape};

/// A model prepared for the layers that the objectives of some tasks look at.
pub(super) struct Passes<'a> {
    pub(super) engine: &'a dyn Engine,
    model: &'a Model,
    pixels: Pixels,
    plan: Box<dyn Plan>,
    /// Scales of the activations, where some gate is relative to them.
    scales: Option<BTreeMap<NodeId, f32>>,
    /// Whether the plan has them now.
    scaled: bool,
    /// Names of the target layers, in the order of the plan's targets.
    layers: Vec<&'a str>,
    /// Shape of every target for one image.
    targets: Vec<Shape>,
    /// `[C,H,W]` of an image.
    pub(super) image: [usize; 3],
    pub(super) behind_softmax: bool,
}

/// The layers that objectives look at, by name.
fn layers<'a>(model: &Model, tasks: &'a [Task]) -> Result<BTreeMap<&'a str, NodeId>, MaximizeError> {
    let terms = tasks.iter().flat_map(|task| &task.objective.terms);
    let layer = |term: &'a super::Term| {
        let name = term.unit.layer.as_str();
        let id = model.network.find(name).ok_or_else(|| MaximizeError::Layer(name.to_owned()))?;
        Ok((name, id))
    };
    terms.map(layer).collect()
}

impl<'a> Passes<'a> {
    pub(super) fn new(
        engine: &'a dyn Engine,
        model: &'a Model,
        tasks: &'a [Task],
        settings: &Settings,
    ) -> Result<Self, MaximizeError> {
        let network = &model.network;
        let (layers, ids): (Vec<&str>, Vec<NodeId>) = layers(model, tasks)?.into_iter().unzip();
        let below = network.below(&ids);
        let [height, width] = settings.size;
        let image = [network.input_shape()[0], height, width];
        let input = Shape::from(image);
        let pixels = Pixels::new(&model.preprocessing, engine.device(), engine.dtype())?;
        let relative = settings.gates().any(|gate| gate.relative == Some(true));
        let scales = relative.then(|| scales(engine, model, &ids, image, &pixels)).transpose()?;
        let plan = engine.plan(network, &ids, &input)?;
        let shapes = network.shapes_at(&input, &below).map_err(EngineError::Mismatch)?;
        Ok(Self {
            engine,
            model,
            pixels,
            plan,
            scales,
            scaled: false,
            layers,
            targets: ids.iter().map(|id| shapes[id].clone()).collect(),
            image,
            behind_softmax: below.iter().any(|&id| matches!(network.node(id).op, Op::Softmax { .. })),
        })
    }

    /// What makes images of the settings' parameters.
    pub(super) fn painter(&self, settings: &Settings) -> candle_core::Result<Painter> {
        let measured = self.model.statistics.spectrum.as_deref();
        let (device, dtype) = (self.engine.device(), self.engine.dtype());
        Painter::new(&settings.parameterization, measured, self.image, device, dtype)
    }

    /// The objective of a task, aimed at the plan's targets.
    pub(super) fn aims(&self, task: &Task) -> Aims {
        Aims::new(&task.objective, |layer| self.layers.iter().position(|&name| name == layer))
    }

    /// These objectives, one per image of a batch, at work on the targets' outputs.
    pub(super) fn scoring(&self, aims: &[&Aims]) -> candle_core::Result<Scoring> {
        let shapes: Vec<&[usize]> = self.targets.iter().map(|shape| &shape[..]).collect();
        Scoring::new(aims, &shapes, self.engine.device(), self.engine.dtype())
    }

    /// The targets' outputs for pixels `[N,C,H,W]` in [0, 1].
    pub(super) fn forward(&mut self, pixels: &Tensor, forward: Forward) -> Result<Vec<Tensor>, MaximizeError> {
        Ok(self.plan.forward(&self.pixels.to_input(pixels)?, forward)?)
    }

    /// Passes that were made before the first step.
    pub(super) fn preparation(&self) -> u32 {
        if self.scales.is_some() { IMAGES } else { 0 }
    }

    /// The gradient `[N,C,H,W]` by the pixels of the last [`Passes::forward`]. The temperature of a soft gate may be
    /// relative to the scales of the activations.
    pub(super) fn backward(&mut self, seeds: &[Tensor], gate: Gate, relative: bool) -> Result<Tensor, MaximizeError> {
        if relative != self.scaled {
            let none = BTreeMap::new();
            self.plan.set_scales(self.scales.as_ref().filter(|_| relative).unwrap_or(&none));
            self.scaled = relative;
        }
        Ok(self.pixels.gradient(&self.plan.backward(seeds, gate)?)?)
    }
}
