//! Passes through the part of a network below its targets: from pixels forward, and back to pixels.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::Tensor;

use super::activation_scales::{IMAGES, scales};
use super::targets::Aimed;
use crate::engine::{Engine, EngineError, Forward, Gate, Plan};
use crate::maximize::diversity::Penalty;
use crate::maximize::error::MaximizeError;
use crate::maximize::objective::{Aims, Scoring};
use crate::maximize::ops::placement::Placement;
use crate::maximize::parameterization::Painter;
use crate::maximize::preprocessor::Pixels;
use crate::maximize::request::Settings;
use crate::maximize::run::stimulus_state::Search;
use crate::maximize::task::Task;
use crate::network::{ImageSource, Model, NodeId, Shape};

/// A model prepared for the layers that the objectives of some tasks look at.
pub(in crate::maximize) struct Passes<'a> {
    pub(in crate::maximize) placement: Placement,
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
    pub(in crate::maximize) image: [usize; 3],
    /// Whether an objective looks at the values of a softmax.
    pub(in crate::maximize) is_softmax: bool,
    /// What keeps the stimuli of a group unlike each other.
    pub(in crate::maximize) penalty: Option<Penalty>,
}

impl<'a> Passes<'a> {
    pub(in crate::maximize) fn new(
        engine: &'a dyn Engine,
        model: &'a Model,
        tasks: &'a [Task],
        settings: &'a Settings,
    ) -> Result<Self, MaximizeError> {
        let network = &model.network;
        let Aimed { layers, ids, objectives, targets, penalty } = Aimed::new(model, tasks, settings)?;
        let below = network.below(&ids);
        let [height, width] = settings.size;
        let image = [network.input_shape()[0], height, width];
        let input = Shape::from(image);
        let placement = Placement::of(engine);
        let pixels = Pixels::new(&model.preprocessing, &placement)?;
        let relative = settings.gates().any(|gate| gate.relative == Some(true));
        let scales = relative.then(|| scales(engine, model, &ids, image, &pixels)).transpose()?;
        let plan = engine.plan(network, &targets, &input)?;
        let shapes = network
            .shapes_at(&input, &below)
            .map_err(|source| EngineError::Size { input: input.clone(), source: Box::new(source) })?;
        Ok(Self {
            placement,
            model,
            pixels,
            plan,
            scales,
            scaled: false,
            layers,
            targets: ids.iter().map(|id| shapes[id].clone()).collect(),
            image,
            penalty,
            is_softmax: objectives.iter().any(|&id| network.is_softmax(id)),
        })
    }

    /// What makes images of the settings' parameters.
    pub(in crate::maximize) fn painter(&self, settings: &Settings) -> candle_core::Result<Painter> {
        let measured = self.model.statistics.spectrum.as_deref();
        Painter::new(&settings.parameterization, measured, self.image, &self.placement)
    }

    /// The objective of a task, aimed at the plan's targets.
    pub(in crate::maximize) fn aims(&self, task: &Task) -> Aims {
        Aims::new(&task.objective, |layer| self.layers.iter().position(|&name| name == layer))
    }

    /// Aims at what images of clients are like: runs every image that these objectives of tasks compare with.
    pub(in crate::maximize) fn refer(&mut self, searches: &mut [Search], tasks: &[Task]) -> Result<(), MaximizeError> {
        let mut pictures: BTreeMap<String, Tensor> = BTreeMap::new();
        for search in searches.iter_mut() {
            let mut own = BTreeSet::new();
            for image in search.aims.images() {
                let picture = tasks[search.task].pictures.find(image)?;
                let name = picture.known().sha256;
                pictures.insert(name.clone(), picture.pixels(&self.placement.device, self.placement.dtype)?);
                own.insert(name);
            }
            search.passes += own.len() as u32;
        }
        if pictures.is_empty() {
            return Ok(());
        }
        let pixels: Vec<&Tensor> = pictures.values().collect();
        let outputs = self.forward(&Tensor::stack(&pixels, 0)?, Forward::Original)?;
        let values = |image: &ImageSource, target: usize| {
            let row = pictures.keys().position(|sha256| matches!(image, ImageSource::Known(k) if k.sha256 == *sha256));
            outputs[target].get(row.unwrap_or_default())?.copy()
        };
        for search in searches {
            search.aims.refer(values)?;
        }
        Ok(())
    }

    /// These objectives, one per image of a batch, at work on the targets' outputs.
    pub(in crate::maximize) fn scoring(&self, aims: &[&Aims]) -> candle_core::Result<Scoring> {
        let shapes: Vec<&[usize]> = self.targets.iter().map(|shape| &shape[..]).collect();
        Scoring::new(aims, &shapes, &self.placement)
    }

    /// The targets' outputs for pixels `[N,C,H,W]` in [0, 1].
    pub(in crate::maximize) fn forward(
        &mut self,
        pixels: &Tensor,
        forward: Forward,
    ) -> Result<Vec<Tensor>, MaximizeError> {
        Ok(self.plan.forward(&self.pixels.to_input(pixels)?, forward)?)
    }

    /// Passes that were made before the first step.
    pub(in crate::maximize) fn preparation(&self) -> u32 {
        if self.scales.is_some() { IMAGES } else { 0 }
    }

    /// The gradient `[N,C,H,W]` by the pixels of the last [`Passes::forward`]. The temperature of a soft gate may be
    /// relative to the scales of the activations.
    pub(in crate::maximize) fn backward(
        &mut self,
        seeds: &[Tensor],
        gate: Gate,
        relative: bool,
    ) -> Result<Tensor, MaximizeError> {
        if relative != self.scaled {
            let none = BTreeMap::new();
            self.plan.set_scales(self.scales.as_ref().filter(|_| relative).unwrap_or(&none));
            self.scaled = relative;
        }
        Ok(self.pixels.gradient(&self.plan.backward(seeds, gate)?)?)
    }
}
