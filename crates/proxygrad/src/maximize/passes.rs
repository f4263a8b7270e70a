//! Passes through the part of a network below its targets: from pixels forward, and back to pixels.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::Tensor;

use super::diversity::Penalty;
use super::parameterization::Painter;
use super::pixels::Pixels;
use super::placement::Placement;
use super::run::{MaximizeError, Task};
use super::scales::{IMAGES, scales};
use super::scoring::{Aims, Scoring};
use super::search::Search;
use super::settings::Settings;
use crate::engine::{Engine, EngineError, Forward, Gate, Plan, Target};
use crate::network::{ImageSource, Model, NodeId, Selection, Shape};

/// A model prepared for the layers that the objectives of some tasks look at.
pub(super) struct Passes<'a> {
    pub(super) placement: Placement,
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
    /// Whether an objective looks at the values of a softmax.
    pub(super) is_softmax: bool,
    /// What keeps the stimuli of a group unlike each other.
    pub(super) penalty: Option<Penalty>,
}

/// The layers of these names.
fn layers<'a>(
    model: &Model,
    names: impl Iterator<Item = &'a String>,
) -> Result<BTreeMap<&'a str, NodeId>, MaximizeError> {
    let layer = |name: &'a String| {
        let id = model.network.layer(name).map_err(|_| MaximizeError::Layer(name.to_owned()))?;
        Ok((name.as_str(), id))
    };
    names.map(layer).collect()
}

/// The channels of a layer that the objectives of some tasks look at; none are named where one looks at all.
fn channels(tasks: &[Task], layer: &str) -> Option<BTreeSet<usize>> {
    let units = tasks.iter().flat_map(|task| &task.objective.terms).map(|term| &term.unit);
    let channel = |selection: &Selection| match *selection {
        Selection::Channel { channel, .. } | Selection::Neuron { channel, .. } => Some(channel),
        _ => None,
    };
    units.filter(|unit| unit.layer == layer).map(|unit| channel(&unit.selection)).collect()
}

/// What of a network some tasks and their settings look at.
pub(super) struct Aimed<'a> {
    /// Names of the target layers.
    layers: Vec<&'a str>,
    /// The same layers.
    pub(super) ids: Vec<NodeId>,
    /// Those of them that objectives look at.
    objectives: Vec<NodeId>,
    pub(super) targets: Vec<Target>,
    penalty: Option<Penalty>,
}

impl<'a> Aimed<'a> {
    pub(super) fn new(model: &Model, tasks: &'a [Task], settings: &'a Settings) -> Result<Self, MaximizeError> {
        let terms = tasks.iter().flat_map(|task| &task.objective.terms);
        let mut layers_by_name = layers(model, terms.map(|term| &term.unit.layer))?;
        let objectives: Vec<NodeId> = layers_by_name.values().copied().collect();
        layers_by_name.extend(layers(model, settings.diversity.iter().map(|diversity| &diversity.layer))?);
        let (layers, ids): (Vec<&str>, Vec<NodeId>) = layers_by_name.into_iter().unzip();
        let penalty = settings.diversity.as_ref().and_then(|diversity| {
            let target = layers.iter().position(|&name| name == diversity.layer)?;
            Some(Penalty { target, weight: f64::from(diversity.weight) })
        });
        let target = |(t, (&layer, &name)): (usize, (&NodeId, &&str))| {
            let is_compared = penalty.as_ref().is_some_and(|penalty| penalty.target == t);
            Target { layer, channels: if is_compared { None } else { channels(tasks, name) } }
        };
        let targets = ids.iter().zip(&layers).enumerate().map(target).collect();
        Ok(Self { layers, ids, objectives, targets, penalty })
    }
}

impl<'a> Passes<'a> {
    pub(super) fn new(
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
    pub(super) fn painter(&self, settings: &Settings) -> candle_core::Result<Painter> {
        let measured = self.model.statistics.spectrum.as_deref();
        Painter::new(&settings.parameterization, measured, self.image, &self.placement)
    }

    /// The objective of a task, aimed at the plan's targets.
    pub(super) fn aims(&self, task: &Task) -> Aims {
        Aims::new(&task.objective, |layer| self.layers.iter().position(|&name| name == layer))
    }

    /// Aims at what images of clients are like: runs every image that these objectives of tasks compare with.
    pub(super) fn refer(&mut self, searches: &mut [Search], tasks: &[Task]) -> Result<(), MaximizeError> {
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
    pub(super) fn scoring(&self, aims: &[&Aims]) -> candle_core::Result<Scoring> {
        let shapes: Vec<&[usize]> = self.targets.iter().map(|shape| &shape[..]).collect();
        Scoring::new(aims, &shapes, &self.placement)
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
