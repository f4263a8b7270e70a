//! The loop of activation maximization.
//!
//! The images of all searches are one tensor, and everything that a step needs of them stays on the engine's device.
//! Only scores come back, in blocks.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::ascent::Ascent;
use super::best::Best;
use super::gate_schedule::GateKind;
use super::levels::Levels;
use super::objective::Objective;
use super::outcome::{Observer, Outcome, Point};
use super::pixels::Pixels;
use super::scoring::{Aims, Scoring};
use super::search::{Ending, Search};
use super::settings::Settings;
use super::view::Views;
use crate::engine::{Engine, EngineError, Forward, Gate, Plan};
use crate::network::{Model, NodeId, Op, Shape};

/// One stimulus to find.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// What it maximizes.
    pub objective: Objective,
    /// Seed of its start and its transforms.
    pub seed: u64,
    /// Tells stimuli of one seed apart: the stimulus' index in its request.
    pub stream: u64,
}

/// Why no stimulus could be found.
#[derive(Debug, thiserror::Error)]
pub enum MaximizeError {
    /// An objective's layer does not exist in the model; [`Request::resolve`](super::Request::resolve) finds this first.
    #[error("the model has no layer {0}")]
    Layer(String),
    /// The model's input has neither one (grey) nor three (RGB) channels, so that there is no image to show.
    #[error("images have 1 or 3 channels, but the model's input has {0}")]
    Channels(usize),
    /// The network could not be run.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The stimulus could not be written as a PNG.
    #[error("the stimulus could not be written as a PNG: {0}")]
    Png(#[from] image::ImageError),
}

impl From<candle_core::Error> for MaximizeError {
    fn from(error: candle_core::Error) -> Self {
        Self::Engine(error.into())
    }
}

/// Finds a stimulus for every task, all in one batch; `None` stands for those that the observer dropped.
///
/// Each result is the same as if the task had run alone: its random numbers come from its own seed and stream, and no
/// image looks at its neighbours. Blocks until done.
///
/// # Errors
/// When the network cannot run; then nothing was found.
pub fn maximize(
    engine: &dyn Engine,
    model: &Model,
    tasks: &[Task],
    settings: &Settings,
    observer: &mut dyn Observer,
) -> Result<Vec<Option<Outcome>>, MaximizeError> {
    let channels = model.network.input_shape()[0];
    if model.preprocessing.channels.count() != channels {
        return Err(MaximizeError::Channels(channels));
    }
    let mut run = match tasks {
        [] => return Ok(Vec::new()),
        tasks => Run::new(engine, model, tasks, settings)?,
    };
    for step in 0..settings.steps {
        run.drop_unwanted(observer)?;
        if run.searches.is_empty() {
            break;
        }
        run.step(step, observer)?;
    }
    run.drop_unwanted(observer)?;
    run.finish(tasks.len(), observer)
}

/// How many scores of a batch wait on a device before they are read: reading waits for the device to be done.
const SCORES_AT_ONCE: usize = 16;

struct Run<'a> {
    engine: &'a dyn Engine,
    settings: &'a Settings,
    pixels: Pixels,
    plan: Box<dyn Plan>,
    /// Shape of every target for one image.
    targets: Vec<Shape>,
    behind_softmax: bool,
    /// One per image of the batch.
    searches: Vec<Search>,
    scoring: Scoring,
    ascent: Ascent,
    best: Best,
    /// Pixels `[N,C,H,W]` in [0, 1].
    images: Tensor,
    /// Scores `[N]` that nobody has read yet, by step.
    unread: Vec<(u32, Tensor)>,
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

impl<'a> Run<'a> {
    fn new(
        engine: &'a dyn Engine,
        model: &Model,
        tasks: &[Task],
        settings: &'a Settings,
    ) -> Result<Self, MaximizeError> {
        let network = &model.network;
        let layers = layers(model, tasks)?;
        let ids: Vec<NodeId> = layers.values().copied().collect();
        let below = network.below(&ids);
        let [height, width] = settings.size;
        let shape = [network.input_shape()[0], height, width];
        let input = Shape::from(shape);
        let plan = engine.plan(network, &ids, &input)?;
        let shapes = network.shapes_at(&input, &below).map_err(EngineError::Mismatch)?;
        let targets: Vec<Shape> = ids.iter().map(|id| shapes[id].clone()).collect();
        let search = |(i, task): (usize, &Task)| {
            let aims = Aims::new(&task.objective, |layer| layers.keys().position(|&name| name == layer));
            Search::new(i, task, aims)
        };
        let mut searches: Vec<Search> = tasks.iter().enumerate().map(search).collect();
        let (device, dtype) = (engine.device(), engine.dtype());
        let starts = searches.iter_mut().map(|search| settings.start.draw(&mut search.rng, shape, device, dtype));
        let images = Tensor::stack(&starts.collect::<candle_core::Result<Vec<_>>>()?, 0)?;
        Ok(Self {
            engine,
            settings,
            pixels: Pixels::new(&model.preprocessing, device, dtype)?,
            plan,
            behind_softmax: below.iter().any(|&id| matches!(network.node(id).op, Op::Softmax { .. })),
            scoring: scoring(engine, &searches, &targets)?,
            targets,
            searches,
            ascent: Ascent::new(&settings.optimizer, &images, settings.steps)?,
            best: Best::new(&images)?,
            images,
            unread: Vec::new(),
        })
    }

    fn drop_unwanted(&mut self, observer: &mut dyn Observer) -> Result<(), MaximizeError> {
        let wanted: Vec<bool> = self.searches.iter().map(|search| observer.keep(search.task)).collect();
        if wanted.iter().all(|&wanted| wanted) {
            return Ok(());
        }
        self.read_scores(observer)?;
        let mut keep = wanted.iter();
        self.searches.retain(|_| keep.next().is_none_or(|&wanted| wanted));
        if self.searches.is_empty() {
            return Ok(());
        }
        let rows: Vec<u32> = (0..).zip(wanted).filter_map(|(row, wanted)| wanted.then_some(row)).collect();
        let rows = Tensor::from_vec(rows, self.searches.len(), self.engine.device())?;
        self.images = self.images.index_select(&rows, 0)?;
        self.best.keep(&rows)?;
        self.ascent.keep(&rows)?;
        self.scoring = scoring(self.engine, &self.searches, &self.targets)?;
        Ok(())
    }

    /// Runs pixels `[N,C,H,W]` forward; gives the targets' outputs.
    fn forward(&mut self, pixels: &Tensor, forward: Forward) -> Result<Vec<Tensor>, MaximizeError> {
        let outputs = self.plan.forward(&self.pixels.to_input(pixels)?, forward)?;
        self.count_pass();
        Ok(outputs)
    }

    fn count_pass(&mut self) {
        self.searches.iter_mut().for_each(|search| search.passes += 1);
    }

    /// Scores the images as they are.
    fn score(&mut self, step: u32, observer: &mut dyn Observer) -> Result<(), MaximizeError> {
        let outputs = self.forward(&self.images.clone(), Forward::Original)?;
        self.note(step, self.scoring.scores(&outputs)?, observer)
    }

    /// Takes note of scores `[N]` of the images as they are.
    fn note(&mut self, step: u32, scores: Tensor, observer: &mut dyn Observer) -> Result<(), MaximizeError> {
        self.best.offer(&scores, &self.images)?;
        self.unread.push((step, scores));
        let at_once = if self.engine.device().is_cpu() { 1 } else { SCORES_AT_ONCE };
        if self.unread.len() >= at_once { self.read_scores(observer) } else { Ok(()) }
    }

    /// Reads the scores that wait and tells the observer.
    fn read_scores(&mut self, observer: &mut dyn Observer) -> Result<(), MaximizeError> {
        let (steps, scores): (Vec<u32>, Vec<Tensor>) = std::mem::take(&mut self.unread).into_iter().unzip();
        if scores.is_empty() {
            return Ok(());
        }
        for (step, scores) in steps.into_iter().zip(Tensor::stack(&scores, 0)?.to_vec2::<f32>()?) {
            for (search, score) in self.searches.iter_mut().zip(scores) {
                let point = Point { step, score };
                search.note(point);
                observer.scored(search.task, point);
            }
        }
        Ok(())
    }

    /// One update of every image.
    fn step(&mut self, step: u32, observer: &mut dyn Observer) -> Result<(), MaximizeError> {
        let settings = self.settings;
        let gate = settings.gate.at(step, settings.steps);
        let forward = match (settings.gate.kind, gate) {
            (GateKind::TrueProxy, Gate::Proxy { slope }) => Forward::Proxy { slope },
            _ => Forward::Original,
        };
        let as_it_is = settings.transforms.is_empty();
        let free = as_it_is && forward == Forward::Original;
        if !free && (as_it_is || step.is_multiple_of(settings.score_every)) {
            self.score(step, observer)?;
        }
        let streams = self.searches.iter_mut().map(|search| &mut search.rng);
        let views = Views::draw(&settings.transforms, streams, settings.size);
        let outputs = self.forward(&views.apply(&self.images)?, forward)?;
        let scored = self.scoring.scores_and_seeds(&outputs)?;
        if free {
            self.note(step, scored.scores, observer)?;
        }
        let gradients = self.plan.backward(&scored.seeds, gate)?;
        self.count_pass();
        let gradients = views.adjoint(&self.pixels.gradient(&gradients)?)?;
        self.images = self.ascent.step(&self.images, &gradients)?;
        Ok(())
    }

    /// Scores the last images, and once more the best ones as 8-bit images.
    fn finish(mut self, tasks: usize, observer: &mut dyn Observer) -> Result<Vec<Option<Outcome>>, MaximizeError> {
        let mut outcomes: Vec<Option<Outcome>> = (0..tasks).map(|_| None).collect();
        if self.searches.is_empty() {
            return Ok(outcomes);
        }
        self.score(self.settings.steps, observer)?;
        self.read_scores(observer)?;
        let (best, last) = (self.best.images().to_device(&Device::Cpu)?, self.images.to_device(&Device::Cpu)?);
        let levels = self.searches.iter().enumerate().map(|(n, search)| {
            // Where no score was finite there is no best image.
            Levels::round(&if search.best.is_some() { &best } else { &last }.get(n)?)
        });
        let levels = levels.collect::<candle_core::Result<Vec<_>>>()?;
        let (device, dtype) = (self.engine.device(), self.engine.dtype());
        let pixels = levels.iter().map(|levels| levels.pixels(device, dtype));
        let pixels = Tensor::stack(&pixels.collect::<candle_core::Result<Vec<_>>>()?, 0)?;
        let outputs = self.forward(&pixels, Forward::Original)?;
        let scores = self.scoring.scores(&outputs)?.to_vec1::<f32>()?;
        let fates = self.ascent.fates()?;
        for (((search, levels), score), (moved, broken)) in self.searches.iter().zip(&levels).zip(scores).zip(fates) {
            let ending = Ending { score, levels, moved, broken, behind_softmax: self.behind_softmax };
            outcomes[search.task] = Some(search.outcome(&ending)?);
        }
        Ok(outcomes)
    }
}

/// The objectives of these searches on targets with these shapes.
fn scoring(engine: &dyn Engine, searches: &[Search], targets: &[Shape]) -> candle_core::Result<Scoring> {
    let aims: Vec<&Aims> = searches.iter().map(|search| &search.aims).collect();
    let shapes: Vec<&[usize]> = targets.iter().map(|shape| &shape[..]).collect();
    Scoring::new(&aims, &shapes, engine.device(), engine.dtype())
}
