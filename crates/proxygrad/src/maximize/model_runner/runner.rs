//! Forward and backward passes from the pixels of a batch to the layers that its objectives read.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::Tensor;

use super::activation_scales::{IMAGES, activation_scales};
use super::targets::Targets;
use crate::engine::{Engine, EngineError, Forward, Gate, Plan};
use crate::maximize::diversity::DiversityPenalty;
use crate::maximize::error::MaximizeError;
use crate::maximize::objective::{BoundObjective, Scoring};
use crate::maximize::ops::Placement;
use crate::maximize::parameterization::ImageDecoder;
use crate::maximize::preprocessor::Preprocessor;
use crate::maximize::request::Settings;
use crate::maximize::task::Task;
use crate::network::{ImageSource, Model, NodeId, Shape};

/// A model prepared for the objectives of a batch of tasks.
pub(in crate::maximize) struct ModelRunner<'a> {
    pub(in crate::maximize) placement: Placement,
    pub(in crate::maximize) model: &'a Model,
    preprocessor: Preprocessor,
    plan: Box<dyn Plan>,
    /// Scales of the activations; `None` unless the temperature of some gate is relative to them.
    activation_scales: Option<BTreeMap<NodeId, f32>>,
    /// Whether the plan currently uses the scales.
    scales_set: bool,
    /// Names of the target layers, in the order of the plan's targets.
    layers: Vec<&'a str>,
    /// Shape of every target for one image.
    shapes: Vec<Shape>,
    /// `[C,H,W]` of an image.
    pub(in crate::maximize) image_shape: [usize; 3],
    /// Whether an objective reads the values of a softmax.
    pub(in crate::maximize) is_softmax: bool,
    pub(in crate::maximize) diversity: Option<DiversityPenalty>,
}

impl<'a> ModelRunner<'a> {
    /// For images of height and width `size`.
    pub(in crate::maximize) fn new(
        engine: &dyn Engine,
        model: &'a Model,
        tasks: &'a [Task],
        settings: &'a Settings,
        [height, width]: [usize; 2],
    ) -> Result<Self, MaximizeError> {
        let network = &model.network;
        let Targets { layers, ids, objective_layers, targets, diversity } = Targets::new(model, tasks, settings)?;
        let below = network.below(&ids);
        let image_shape = [network.input_shape()[0], height, width];
        let input = Shape::from(image_shape);
        let placement = Placement::of(engine);
        let preprocessor = Preprocessor::new(&model.preprocessing, &placement)?;
        let relative = settings.gates().any(|gate| gate.relative == Some(true));
        let activation_scales =
            relative.then(|| activation_scales(engine, model, &ids, image_shape, &preprocessor)).transpose()?;
        let plan = engine.plan(network, &targets, &input)?;
        let shapes = network
            .shapes_at(&input, &below)
            .map_err(|source| EngineError::Size { input: input.clone(), source: Box::new(source) })?;
        Ok(Self {
            placement,
            model,
            preprocessor,
            plan,
            activation_scales,
            scales_set: false,
            layers,
            shapes: ids.iter().map(|id| shapes[id].clone()).collect(),
            image_shape,
            diversity,
            is_softmax: objective_layers.iter().any(|&id| network.is_softmax(id)),
        })
    }

    /// The settings' image parameterization.
    pub(in crate::maximize) fn decoder(&self, settings: &Settings) -> candle_core::Result<ImageDecoder> {
        let measured = self.model.statistics.spectrum.as_deref();
        ImageDecoder::new(&settings.parameterization, measured, self.image_shape, &self.placement)
    }

    /// Binds the objectives of tasks to the plan's targets and computes their reference activations, in one batch.
    /// Returns each objective with the number of passes that its reference images took.
    pub(in crate::maximize) fn bind_objectives<'t>(
        &mut self,
        tasks: impl IntoIterator<Item = &'t Task>,
    ) -> Result<Vec<(BoundObjective, u32)>, MaximizeError> {
        let mut images: BTreeMap<String, Tensor> = BTreeMap::new();
        let mut objectives = Vec::new();
        for task in tasks {
            let objective =
                BoundObjective::new(&task.objective, |layer| self.layers.iter().position(|&name| name == layer));
            let mut own = BTreeSet::new();
            for image in objective.images() {
                let image = task.reference_images.find(image)?;
                let sha256 = image.known().sha256;
                images.insert(sha256.clone(), image.pixels(&self.placement.device, self.placement.dtype)?);
                own.insert(sha256);
            }
            objectives.push((objective, own.len() as u32));
        }
        if images.is_empty() {
            return Ok(objectives);
        }
        let pixels: Vec<&Tensor> = images.values().collect();
        let outputs = self.forward(&Tensor::stack(&pixels, 0)?, Forward::Original)?;
        let reference = |image: &ImageSource, target: usize| {
            let row = images.keys().position(|sha256| matches!(image, ImageSource::Known(k) if k.sha256 == *sha256));
            outputs[target].get(row.unwrap_or_default())?.copy()
        };
        for (objective, _) in &mut objectives {
            objective.set_references(reference)?;
        }
        Ok(objectives)
    }

    /// Scores and gradients of objectives, one per image of a batch, at the plan's targets.
    pub(in crate::maximize) fn scoring(&self, objectives: &[&BoundObjective]) -> candle_core::Result<Scoring> {
        let shapes: Vec<&[usize]> = self.shapes.iter().map(|shape| &shape[..]).collect();
        Scoring::new(objectives, &shapes, &self.placement)
    }

    /// The targets' outputs for pixels `[N,C,H,W]` in [0, 1].
    pub(in crate::maximize) fn forward(
        &mut self,
        pixels: &Tensor,
        forward: Forward,
    ) -> Result<Vec<Tensor>, MaximizeError> {
        Ok(self.plan.forward(&self.preprocessor.to_input(pixels)?, forward)?)
    }

    /// See [`Plan::allow_reduced_precision`].
    pub(in crate::maximize) fn allow_reduced_precision(&mut self, allow: bool) {
        self.plan.allow_reduced_precision(allow);
    }

    /// Number of passes made before the first step.
    pub(in crate::maximize) fn preparation_passes(&self) -> u32 {
        if self.activation_scales.is_some() { IMAGES } else { 0 }
    }

    /// The gradient `[N,C,H,W]` with respect to the pixels of the last [`ModelRunner::forward`]. With `relative`, the
    /// temperature of a soft gate is in units of the activation scales.
    pub(in crate::maximize) fn backward(
        &mut self,
        seeds: &[Tensor],
        gate: Gate,
        relative: bool,
    ) -> Result<Tensor, MaximizeError> {
        if relative != self.scales_set {
            let none = BTreeMap::new();
            self.plan.set_scales(self.activation_scales.as_ref().filter(|_| relative).unwrap_or(&none));
            self.scales_set = relative;
        }
        Ok(self.preprocessor.gradient(&self.plan.backward(seeds, gate)?)?)
    }
}
