//! Memory estimate of a run, made before it starts.
//!
//! An upper bound on the peak: the exact size of the engine's plan, plus the allocations for images, optimizer and
//! parameterization state, transformed images, seeds, candidates and frames, rounded up.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::{EngineError, Footprint, MemoryModel, Target};
use crate::maximize::error::MaximizeError;
use crate::maximize::gate_schedule::GateKind;
use crate::maximize::model_runner::Targets;
use crate::maximize::model_runner::sources;
use crate::maximize::optimizer::OptimizerKind;
use crate::maximize::parameterization::ParameterizationKind;
use crate::maximize::request::Settings;
use crate::maximize::start::Start;
use crate::maximize::task::Task;
use crate::maximize::transform::Transform;
use crate::maximize::transform::TransformKind;
use crate::network::{Array, Model, NodeId, Normalize, Op, Reduction, Selection, Shape, Unit};

/// Memory of a run of any size that is not counted elsewhere: stacks, small buffers, and what the allocator retains
/// between steps.
const BASE: u64 = 24 << 20;
/// Bytes of an element of a sum, `f64`.
const SUM: u64 = 8;
/// Bytes of a point of a trajectory: in the stimulus state, in the findings and in their documents.
const POINT: u64 = 96;
/// Bytes of a stimulus, and of each term of its objective, that are not counted elsewhere.
const STIMULUS: u64 = 16 << 10;

/// Upper bound on the peak memory of a run in bytes, by the settings that determine it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryEstimate {
    /// Weights and everything else that does not depend on the stimuli.
    pub fixed: u64,
    /// Activations and images of the stimuli, and the intermediate results of a step.
    pub stimuli: u64,
    /// Candidates of a search.
    pub candidates: u64,
    /// Frames of animations, raw and encoded.
    pub frames: u64,
    /// Diagnostics.
    pub diagnostics: u64,
    /// Outcomes: PNGs and trajectories.
    pub outcomes: u64,
}

impl MemoryEstimate {
    /// Estimate for these tasks in one batch, on an engine with this memory model. At least one task.
    ///
    /// # Errors
    /// When a layer does not exist or the network does not work at that size.
    pub fn new(
        memory: &MemoryModel,
        model: &Model,
        tasks: &[Task],
        settings: &Settings,
    ) -> Result<Self, MaximizeError> {
        let full = Estimator::new(memory, model, tasks, settings)?.estimate(tasks, settings)?;
        let Some(coarse) = settings.coarse.as_ref().filter(|coarse| coarse.size != settings.size) else {
            return Ok(full);
        };
        // Both plans exist for the whole run; candidates may be in different stages.
        let smaller = Settings { size: coarse.size, transforms: coarse.transforms.clone(), ..settings.clone() };
        let smaller = Estimator::new(memory, model, tasks, &smaller)?.estimate(tasks, &smaller)?;
        Ok(Self {
            fixed: full.fixed.saturating_add(smaller.fixed.saturating_sub(BASE + weights(model))),
            stimuli: full.stimuli.saturating_add(smaller.stimuli),
            candidates: full.candidates.saturating_add(smaller.candidates),
            ..full
        })
    }

    /// The sum of all parts.
    pub fn bytes(&self) -> u64 {
        let Self { fixed, stimuli, candidates, frames, diagnostics, outcomes } = *self;
        [fixed, stimuli, candidates, frames, diagnostics, outcomes].into_iter().fold(0, u64::saturating_add)
    }
}

/// Bytes of the outcomes of `stimuli` stimuli, which are held until their job ends.
pub fn outcome_bytes(settings: &Settings, channels: usize, stimuli: usize) -> u64 {
    // A PNG of noise is slightly larger than its pixels. There is a second copy while it is stored.
    let png = 2 * (area(settings.size) * (channels as u64 + 1)) * 102 / 100;
    let scored = if settings.transforms.is_empty() { 1 } else { settings.score_every.max(1) };
    let points = u64::from(settings.steps / scored) + 2;
    (stimuli as u64).saturating_mul(png + POINT * points + STIMULUS)
}

fn area([height, width]: [usize; 2]) -> u64 {
    (height as u64).saturating_mul(width as u64)
}

/// Sizes in bytes from which the estimate is computed.
struct Estimator<'a> {
    model: &'a Model,
    read: Targets<'a>,
    shapes: BTreeMap<NodeId, Shape>,
    plan: Footprint,
    /// Measuring the activation scales, before the plan is made.
    activation_scales: u64,
    /// Bytes of an activation.
    value: u64,
    channels: u64,
    /// Pixels of an image.
    area: u64,
    /// An image.
    image: u64,
    /// Whether images are in main memory.
    host: bool,
}

impl<'a> Estimator<'a> {
    fn new(
        memory: &MemoryModel,
        model: &'a Model,
        tasks: &'a [Task],
        settings: &'a Settings,
    ) -> Result<Self, MaximizeError> {
        let network = &model.network;
        let read = Targets::new(model, tasks, settings)?;
        let channels = network.input_shape()[0];
        let [height, width] = settings.size;
        let input = Shape::from([channels, height, width]);
        let plan = memory.footprint(network, &read.targets, &input)?;
        let below = network.below(&read.ids);
        let shapes = network
            .shapes_at(&input, &below)
            .map_err(|source| EngineError::Size { input: input.clone(), source: Box::new(source) })?;
        let (value, area) = (memory.value_bytes(), area(settings.size));
        let image = area.saturating_mul(channels as u64).saturating_mul(value);
        let mut activation_scales = 0;
        if settings.gates().any(|gate| gate.relative == Some(true)) {
            let (_, sources) = sources(network, &read.ids);
            if !sources.is_empty() {
                let outputs: u64 = sources.iter().filter_map(|id| shapes.get(id)).map(elements).sum();
                let plan = memory.footprint(network, &Target::whole(&sources), &input)?;
                activation_scales = plan.bytes(1, false) + 3 * outputs * value + 8 * image;
            }
        }
        let shapes = shapes.into_iter().collect();
        let (channels, host) = (channels as u64, memory.is_host());
        Ok(Self { model, read, shapes, plan, activation_scales, value, channels, area, image, host })
    }

    fn estimate(&self, tasks: &[Task], settings: &Settings) -> Result<MemoryEstimate, MaximizeError> {
        let count = tasks.len() as u64;
        let candidates = settings.search.as_ref().map_or(1, |halving| u64::from(halving.candidates()).max(1));
        // One more while rows of a batch are copied, or a rescue starts.
        let more = if settings.search.is_some() { candidates } else { 0 };
        let targets: u64 = self.read.ids.iter().map(|id| self.target(*id)).sum();
        let state = self.state(settings).saturating_add(targets);
        let temporaries = self.temporaries(settings).saturating_add(4 * targets);
        let terms: u64 = tasks.iter().flat_map(|task| &task.objective.terms).map(|term| self.term(&term.unit)).sum();
        let references = reference_images(tasks) as u64;
        let batch = tasks.len().max(references as usize);
        let soft = settings.gates().any(|gate| gate.kind == GateKind::Soft);
        let plan = self.plan.bytes(batch, soft);
        // Files, pixels and reference activations.
        let references = references.saturating_mul(4 * self.image + 2 * targets);
        let images = count.saturating_mul(state.saturating_add(temporaries));
        let work =
            [images, terms, references, self.diversity(tasks, settings)].into_iter().fold(plan, u64::saturating_add);
        let fixed = BASE + weights(self.model) + self.parameterization(settings);
        Ok(MemoryEstimate {
            fixed,
            stimuli: work.max(self.activation_scales),
            candidates: more.saturating_mul(count.saturating_mul(state)),
            frames: count.saturating_mul(self.frames(settings, candidates)),
            diagnostics: if settings.diagnostics { count.saturating_mul(self.diagnostics()) } else { 0 },
            outcomes: outcome_bytes(settings, self.channels as usize, tasks.len()),
        })
    }

    /// A target's activations on one image.
    fn target(&self, id: NodeId) -> u64 {
        self.shapes.get(&id).map_or(0, |shape| elements(shape).saturating_mul(self.value))
    }

    /// Coefficients of one image's half spectrum, real and imaginary parts.
    fn spectrum(&self, settings: &Settings) -> u64 {
        let [height, width] = settings.size;
        2 * self.channels * (height * (width / 2 + 1)) as u64 * self.value
    }

    /// Parameters of one image.
    fn parameters(&self, settings: &Settings) -> u64 {
        match settings.parameterization.kind {
            ParameterizationKind::Pixel => self.image,
            ParameterizationKind::Fourier => self.spectrum(settings),
            ParameterizationKind::Maco => self.spectrum(settings) / 2,
        }
    }

    /// Optimizer state of one image.
    fn optimizer_state(&self, settings: &Settings) -> u64 {
        match settings.optimizer.kind {
            OptimizerKind::Adam | OptimizerKind::Nadam => 2 * self.parameters(settings),
            OptimizerKind::Momentum => self.parameters(settings),
            OptimizerKind::L2Ascent | OptimizerKind::SpectralAscent => 0,
        }
    }

    /// State of one image between steps: pixels, parameters, the best image so far, optimizer state, saliency, and the
    /// start if the distance to it is limited.
    fn state(&self, settings: &Settings) -> u64 {
        let saliency = if settings.alpha { 4 * self.area } else { 0 };
        let start = if settings.start.max_rms_distance().is_some() { self.image } else { 0 };
        2 * self.image + self.parameters(settings) + self.optimizer_state(settings) + saliency + start
    }

    /// Temporaries of one image during a step.
    fn temporaries(&self, settings: &Settings) -> u64 {
        // Input, gradients by input and by pixels, the next image, the new best image, and one to spare.
        let mut bytes = 6 * self.image + 2 * self.parameters(settings) + self.optimizer_state(settings);
        if settings.parameterization.kind != ParameterizationKind::Pixel {
            // Spectra and colours, forward and adjoint.
            bytes += 6 * self.spectrum(settings) + 3 * self.image;
        }
        if settings.alpha {
            bytes += 3 * self.image;
        }
        bytes += settings.regularizers.len().min(2) as u64 * self.image;
        bytes += self.views(&settings.transforms, settings.size);
        // Device arithmetic allocates a tensor for each intermediate result.
        if self.host { bytes } else { 3 * bytes }
    }

    /// Transforms of one image and their adjoints.
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
        // Four planes at a time are interleaved, and accumulated in two halves.
        let sampled = if transforms.iter().any(samples) { 3 * 4 * self.channels.div_ceil(4) } else { 0 };
        (4 * self.channels + sampled) * grown
    }

    /// Reading one unit on one image, and its part of a seed.
    fn term(&self, unit: &Unit) -> u64 {
        let Some(shape) = self.model.network.find(&unit.layer).and_then(|id| self.shapes.get(&id)) else { return 0 };
        let all = elements(shape);
        let positions = all / (shape.channels().max(1) as u64);
        // A map, a copy in f64, its derivative, the weighted derivative, and a seed.
        let map = |positions: u64| positions.saturating_mul(2 * self.value + 4 * SUM);
        let sorted = |reduction: &Reduction| match reduction {
            Reduction::Max | Reduction::TopFraction(_) => positions.saturating_mul(4 * SUM),
            Reduction::Mean | Reduction::Center => 0,
        };
        // Values of all channels: a reference, the seed, and the stacked seeds of all units.
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

    /// Diversity penalty; groups are processed one after the other.
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
            // A Gram matrix per stimulus, and two to compare.
            (members + 2).saturating_mul(channels * channels)
        } else {
            (members * members + 2).saturating_mul(positions * positions)
        };
        // Values, gradients and their intermediate results; the seed and its rows.
        let values = (2 * members + 6).saturating_mul(all);
        SUM.saturating_mul(products.saturating_add(values)) + 3 * (tasks.len() as u64) * all * self.value
    }

    /// Tables of the parameterization, and temporaries of encoding the start of one image.
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

    /// Animation of one stimulus: frames of all candidates, which share the steps, and the file.
    fn frames(&self, settings: &Settings, candidates: u64) -> u64 {
        let Some(animation) = &settings.animation else { return 0 };
        let frame = self.area * self.channels + (settings.size[0] as u64);
        let horizon = settings.search.as_ref().and_then(|halving| halving.horizon(settings.steps));
        let strategies = u64::from(settings.steps).div_ceil(u64::from(horizon.unwrap_or(settings.steps)).max(1));
        let shown = u64::from(animation.frames);
        (frame * 102 / 100).saturating_mul(shown * strategies.min(candidates) + candidates + 2 * (shown + 2))
    }

    /// Diagnostics of one stimulus: images and gradients in f64, several at a time, and transformed images.
    fn diagnostics(&self) -> u64 {
        8 * SUM * self.area * self.channels
            + 8 * self.image
            + 4 * 4 * self.channels.div_ceil(4) * self.area * self.value
    }
}

fn elements(shape: &Shape) -> u64 {
    shape.elements() as u64
}

/// Number of reference images of these tasks.
fn reference_images(tasks: &[Task]) -> usize {
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
        Op::Normalize(Normalize { scale, shift, .. }) => [scale, shift].into_iter().flatten().map(Array::len).sum(),
        Op::Constant(array) => array.len(),
        Op::Gather { indices, .. } => indices.len(),
        Op::Input | Op::MatMul | Op::Activation(_) | Op::Unary(_) | Op::Binary(_) | Op::Select => 0,
        Op::Concat { .. } | Op::MaxPool(_) | Op::DynamicQuantize => 0,
        Op::AveragePool { .. } | Op::Reduce { .. } | Op::Pad { .. } | Op::Reshape(_) | Op::Transpose(_) => 0,
        Op::Slice { .. } | Op::Resize(_) | Op::Softmax { .. } | Op::LogSoftmax { .. } | Op::LocalResponse(_) => 0,
    };
    let values: usize = model.network.nodes().iter().map(|node| values(&node.op)).sum();
    (values * size_of::<f32>()) as u64
}
