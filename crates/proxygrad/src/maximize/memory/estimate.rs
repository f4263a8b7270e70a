//! How much memory a run takes, known before it starts.
//!
//! Everything that a run holds at its worst moment is added up: the engine's plan, exactly; images, what optimizers and
//! parameterizations remember of them, views, seeds, candidates and frames by what the code that makes them allocates,
//! rounded up. The sum is at least what the process grows by; it is not the least such number.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::{EngineError, Footprint, MemoryModel, Target};
use crate::maximize::error::MaximizeError;
use crate::maximize::gate_schedule::GateKind;
use crate::maximize::model_runner::Aimed;
use crate::maximize::model_runner::sources;
use crate::maximize::optimizer::OptimizerKind;
use crate::maximize::parameterization::ParameterizationKind;
use crate::maximize::request::Settings;
use crate::maximize::start::Start;
use crate::maximize::task::Task;
use crate::maximize::transform::Transform;
use crate::maximize::transform::TransformKind;
use crate::network::{Model, NodeId, Op, Reduction, Selection, Shape, Unit};

/// What a run of any size takes beside all that is counted: stacks, small buffers, and what the allocator does not give
/// back between two steps.
const BASE: u64 = 24 << 20;
/// Bytes of sums, which run in f64.
const SUM: u64 = 8;
/// Bytes of a point of a trajectory: in the search, in the findings, and in the documents that they become.
const POINT: u64 = 96;
/// Bytes of a stimulus and of each of its objective's terms beside everything that is counted.
const STIMULUS: u64 = 16 << 10;

/// Bytes that a run takes at its worst moment, at most; by what a request can do about them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RunMemory {
    /// Weights, and whatever else does not depend on the stimuli.
    pub fixed: u64,
    /// What one stimulus after the other adds: activations, images, and what is computed of them.
    pub stimuli: u64,
    /// Of that, what candidates beyond the first add.
    pub candidates: u64,
    /// Frames of animations, raw and encoded.
    pub frames: u64,
    /// Certificates.
    pub certificates: u64,
    /// What is kept of every stimulus that was found: PNGs and trajectories.
    pub found: u64,
}

impl RunMemory {
    /// Of a run of these tasks in one batch, on an engine of which `memory` knows. At least one task.
    ///
    /// # Errors
    /// When the tasks cannot run: a layer does not exist, or the network does not work at that size.
    pub fn new(
        memory: &MemoryModel,
        model: &Model,
        tasks: &[Task],
        settings: &Settings,
    ) -> Result<Self, MaximizeError> {
        Sizes::new(memory, model, tasks, settings)?.run(tasks, settings)
    }

    /// The sum of all of it.
    pub fn bytes(&self) -> u64 {
        let Self { fixed, stimuli, candidates, frames, certificates, found } = *self;
        [fixed, stimuli, candidates, frames, certificates, found].into_iter().fold(0, u64::saturating_add)
    }
}

/// Bytes that are kept of so many stimuli that were found, until their job ends.
pub fn found_bytes(settings: &Settings, channels: usize, stimuli: usize) -> u64 {
    // The PNG of noise is a little larger than its pixels; it is held once more while it is stored.
    let png = 2 * (area(settings.size) * (channels as u64 + 1)) * 102 / 100;
    let scored = if settings.transforms.is_empty() { 1 } else { settings.score_every.max(1) };
    let points = u64::from(settings.steps / scored) + 2;
    (stimuli as u64).saturating_mul(png + POINT * points + STIMULUS)
}

fn area([height, width]: [usize; 2]) -> u64 {
    (height as u64).saturating_mul(width as u64)
}

/// Sizes that everything else is a multiple of, in bytes.
struct Sizes<'a> {
    model: &'a Model,
    aimed: Aimed<'a>,
    shapes: BTreeMap<NodeId, Shape>,
    plan: Footprint,
    /// What measuring the scales of activations takes, before the plan is made.
    scales: u64,
    /// Of a value.
    value: u64,
    channels: u64,
    /// Pixels of an image.
    area: u64,
    /// An image.
    image: u64,
    /// Whether images live in main memory.
    host: bool,
}

impl<'a> Sizes<'a> {
    fn new(
        memory: &MemoryModel,
        model: &'a Model,
        tasks: &'a [Task],
        settings: &'a Settings,
    ) -> Result<Self, MaximizeError> {
        let network = &model.network;
        let aimed = Aimed::new(model, tasks, settings)?;
        let channels = network.input_shape()[0];
        let [height, width] = settings.size;
        let input = Shape::from([channels, height, width]);
        let plan = memory.footprint(network, &aimed.targets, &input)?;
        let below = network.below(&aimed.ids);
        let shapes = network
            .shapes_at(&input, &below)
            .map_err(|source| EngineError::Size { input: input.clone(), source: Box::new(source) })?;
        let (value, area) = (memory.value_bytes(), area(settings.size));
        let image = area.saturating_mul(channels as u64).saturating_mul(value);
        let mut scales = 0;
        if settings.gates().any(|gate| gate.relative == Some(true)) {
            let (_, sources) = sources(network, &aimed.ids);
            if !sources.is_empty() {
                let outputs: u64 = sources.iter().filter_map(|id| shapes.get(id)).map(elements).sum();
                let plan = memory.footprint(network, &Target::whole(&sources), &input)?;
                scales = plan.bytes(1, false) + 3 * outputs * value + 8 * image;
            }
        }
        let shapes = shapes.into_iter().collect();
        let (channels, host) = (channels as u64, memory.is_host());
        Ok(Self { model, aimed, shapes, plan, scales, value, channels, area, image, host })
    }

    fn run(&self, tasks: &[Task], settings: &Settings) -> Result<RunMemory, MaximizeError> {
        let count = tasks.len() as u64;
        let candidates = settings.search.as_ref().map_or(1, |halving| u64::from(halving.candidates()).max(1));
        // One more while images are picked out of a batch, or some begin anew.
        let more = if settings.search.is_some() { candidates } else { 0 };
        let targets: u64 = self.aimed.ids.iter().map(|id| self.target(*id)).sum();
        let held = self.held(settings).saturating_add(targets);
        let passing = self.passing(settings).saturating_add(4 * targets);
        let terms: u64 = tasks.iter().flat_map(|task| &task.objective.terms).map(|term| self.term(&term.unit)).sum();
        let pictures = pictures(tasks) as u64;
        let walked = tasks.len().max(pictures as usize);
        let soft = settings.gates().any(|gate| gate.kind == GateKind::Soft);
        let plan = self.plan.bytes(walked, soft);
        // Files, pixels, and the layers' values on them.
        let shown = pictures.saturating_mul(4 * self.image + 2 * targets);
        let images = count.saturating_mul(held.saturating_add(passing));
        let work = [images, terms, shown, self.diversity(tasks, settings)].into_iter().fold(plan, u64::saturating_add);
        let fixed = BASE + weights(self.model) + self.parameterization(settings);
        Ok(RunMemory {
            fixed,
            stimuli: work.max(self.scales),
            candidates: more.saturating_mul(count.saturating_mul(held)),
            frames: count.saturating_mul(self.frames(settings, candidates)),
            certificates: if settings.certificates { count.saturating_mul(self.certificate()) } else { 0 },
            found: found_bytes(settings, self.channels as usize, tasks.len()),
        })
    }

    /// Of a target's values on one image.
    fn target(&self, id: NodeId) -> u64 {
        self.shapes.get(&id).map_or(0, |shape| elements(shape).saturating_mul(self.value))
    }

    /// Coefficients of one image's half spectrum, real and imaginary parts.
    fn spectrum(&self, settings: &Settings) -> u64 {
        let [height, width] = settings.size;
        2 * self.channels * (height * (width / 2 + 1)) as u64 * self.value
    }

    /// What the optimizer changes, of one image.
    fn changed(&self, settings: &Settings) -> u64 {
        match settings.parameterization.kind {
            ParameterizationKind::Pixel => self.image,
            ParameterizationKind::Fourier => self.spectrum(settings),
            ParameterizationKind::Maco => self.spectrum(settings) / 2,
        }
    }

    /// What the optimizer remembers of one image.
    fn moments(&self, settings: &Settings) -> u64 {
        match settings.optimizer.kind {
            OptimizerKind::Adam | OptimizerKind::Nadam => 2 * self.changed(settings),
            OptimizerKind::Momentum => self.changed(settings),
            OptimizerKind::L2Ascent | OptimizerKind::SpectralAscent => 0,
        }
    }

    /// What a candidate keeps of one image from step to step: pixels, parameters, the best image so far, moments, where it
    /// was looked at, and the start that it is held to.
    fn held(&self, settings: &Settings) -> u64 {
        let looks = if settings.alpha { 4 * self.area } else { 0 };
        let leash = if settings.start.leash().is_some() { self.image } else { 0 };
        2 * self.image + self.changed(settings) + self.moments(settings) + looks + leash
    }

    /// What is made of one image in the course of a step and dropped again.
    fn passing(&self, settings: &Settings) -> u64 {
        // Input, gradients by input and by pixels, the next image, the better ones, and one to spare.
        let mut bytes = 6 * self.image + 2 * self.changed(settings) + self.moments(settings);
        if settings.parameterization.kind != ParameterizationKind::Pixel {
            // Spectra there and back, colours mixed and unmixed.
            bytes += 6 * self.spectrum(settings) + 3 * self.image;
        }
        if settings.alpha {
            bytes += 3 * self.image;
        }
        bytes += settings.regularizers.len().min(2) as u64 * self.image;
        bytes += self.views(&settings.transforms, settings.size);
        // Tensor operations make a tensor for each of their terms.
        if self.host { bytes } else { 3 * bytes }
    }

    /// Of one image's views, there and back.
    fn views(&self, transforms: &[Transform], size: [usize; 2]) -> u64 {
        if transforms.is_empty() {
            return 0;
        }
        let margin = |transform: &Transform| match transform.kind {
            TransformKind::Pad { pixels } => pixels as usize,
            _ => 0,
        };
        let margin: usize = transforms.iter().map(margin).sum();
        let grown = area(size.map(|side| side + 2 * margin)) * self.value;
        let samples = |transform: &Transform| {
            use TransformKind::{Crop, Flip, Rotate, Scale};
            matches!(transform.kind, Scale { .. } | Rotate { .. } | Crop { .. } | Flip)
        };
        // Four planes at a time are laid side by side, and are added up in two halves.
        let sampled = if transforms.iter().any(samples) { 3 * 4 * self.channels.div_ceil(4) } else { 0 };
        (4 * self.channels + sampled) * grown
    }

    /// Of reading one unit on one image, and of its part of a seed.
    fn term(&self, unit: &Unit) -> u64 {
        let Some(shape) = self.model.network.find(&unit.layer).and_then(|id| self.shapes.get(&id)) else { return 0 };
        let all = elements(shape);
        let positions = all / (shape.channels().max(1) as u64);
        // A map, the same in f64, its derivative, weighted, and as a seed.
        let map = |positions: u64| positions.saturating_mul(2 * self.value + 4 * SUM);
        let sorted = |reduction: &Reduction| match reduction {
            Reduction::Max | Reduction::TopFraction(_) => positions.saturating_mul(4 * SUM),
            Reduction::Mean | Reduction::Center => 0,
        };
        // Values in every channel: a reference, the seed, and the seeds of all units side by side.
        let spread = all.saturating_mul(4 * self.value + 2 * SUM);
        STIMULUS
            + match &unit.selection {
                Selection::Channel { reduction, .. } | Selection::Class { reduction, .. } => {
                    map(positions) + sorted(reduction)
                }
                Selection::Neuron { .. } => map(positions),
                Selection::Direction { reduction, .. } => map(positions) + sorted(reduction) + spread,
                Selection::Caricature { .. } | Selection::Inversion { .. } => map(positions) + 2 * spread,
                Selection::Energy => map(all) + all.saturating_mul(2 * SUM),
            }
    }

    /// Of keeping the stimuli of a group unlike each other; groups take turns.
    fn diversity(&self, tasks: &[Task], settings: &Settings) -> u64 {
        let Some(diversity) = &settings.diversity else { return 0 };
        let shape = self.model.network.find(&diversity.layer).and_then(|id| self.shapes.get(&id));
        let Some(shape) = shape else { return 0 };
        let mut groups: BTreeMap<u64, u64> = BTreeMap::new();
        tasks.iter().for_each(|task| *groups.entry(task.group).or_default() += 1);
        let members = groups.into_values().max().unwrap_or(0);
        let (all, channels) = (elements(shape), shape.channels() as u64);
        let positions = all / channels.max(1);
        let products = if channels <= positions {
            // A Gram matrix each, and two to compare.
            (members + 2).saturating_mul(channels * channels)
        } else {
            (members * members + 2).saturating_mul(positions * positions)
        };
        // Values and slopes, and some on the way to a slope; rows of the seed and the seed.
        let values = (2 * members + 6).saturating_mul(all);
        SUM.saturating_mul(products.saturating_add(values)) + 3 * (tasks.len() as u64) * all * self.value
    }

    /// Tables of the parameterization, and what the start of one image passes through on its way to parameters.
    fn parameterization(&self, settings: &Settings) -> u64 {
        if settings.parameterization.kind == ParameterizationKind::Pixel {
            return 0;
        }
        let doubles = self.spectrum(settings) / self.value * SUM;
        let encoded = match settings.start {
            Start::Image { .. } => 8,
            Start::Uniform | Start::Grey { .. } => 2,
        };
        (4 + encoded) * doubles
    }

    /// Of one stimulus' animation: frames of all candidates, which share the steps, and the file.
    fn frames(&self, settings: &Settings, candidates: u64) -> u64 {
        let Some(animation) = &settings.animation else { return 0 };
        let frame = self.area * self.channels + (settings.size[0] as u64);
        let horizon = settings.search.as_ref().and_then(|halving| halving.horizon(settings.steps));
        let ways = u64::from(settings.steps).div_ceil(u64::from(horizon.unwrap_or(settings.steps)).max(1));
        let shown = u64::from(animation.frames);
        (frame * 102 / 100).saturating_mul(shown * ways.min(candidates) + candidates + 2 * (shown + 2))
    }

    /// Of one stimulus' certificates: images and gradients in f64, several at a time, and views.
    fn certificate(&self) -> u64 {
        8 * SUM * self.area * self.channels
            + 8 * self.image
            + 4 * 4 * self.channels.div_ceil(4) * self.area * self.value
    }
}

fn elements(shape: &Shape) -> u64 {
    shape.elements() as u64
}

/// Number of images that the objectives of these tasks compare with.
fn pictures(tasks: &[Task]) -> usize {
    let terms = tasks.iter().flat_map(|task| &task.objective.terms);
    let images = terms.filter_map(|term| term.unit.image()).map(|(_, image)| image.to_string());
    images.collect::<BTreeSet<String>>().len()
}

/// Bytes of a model's weights.
fn weights(model: &Model) -> u64 {
    let values = |op: &Op| match op {
        Op::Conv(conv) => conv.weight.len() + conv.bias.as_ref().map_or(0, |bias| bias.len()),
        Op::Dense { weight, bias } => weight.len() + bias.as_ref().map_or(0, |bias| bias.len()),
        Op::Affine { scale, shift } => scale.len() + shift.len(),
        Op::Constant(array) => array.len(),
        _ => 0,
    };
    let values: usize = model.network.nodes().iter().map(|node| values(&node.op)).sum();
    (values * size_of::<f32>()) as u64
}
