//! The loop of activation maximization.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::gate_schedule::GateKind;
use super::objective::Objective;
use super::optimizer::Ascent;
use super::outcome::{Observer, Outcome, Point, Warning};
use super::pixels::{Levels, Pixels};
use super::score::Scorer;
use super::settings::Settings;
use super::view::View;
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
    let mut run = Run::new(engine, model, tasks, settings)?;
    for step in 0..settings.steps {
        run.drop_unwanted(observer);
        if run.searches.is_empty() {
            break;
        }
        run.step(step, observer)?;
    }
    run.drop_unwanted(observer);
    run.finish(tasks.len(), observer)
}

struct Run<'a> {
    engine: &'a dyn Engine,
    settings: &'a Settings,
    pixels: Pixels,
    plan: Box<dyn Plan>,
    searches: Vec<Search>,
    behind_softmax: bool,
}

/// The search for one stimulus.
struct Search {
    /// Index of its task.
    task: usize,
    scorer: Scorer,
    rng: ChaCha8Rng,
    ascent: Ascent,
    /// Pixels `[C,H,W]` in [0, 1].
    image: Tensor,
    best: Option<(Point, Tensor)>,
    trajectory: Vec<Point>,
    passes: u32,
    /// Whether a gradient other than zero ever reached the image.
    moved: bool,
    non_finite: bool,
}

impl Search {
    /// Takes note of the score of the present image.
    fn note(&mut self, point: Point, observer: &mut dyn Observer) {
        if point.score.is_finite() {
            if self.best.as_ref().is_none_or(|(best, _)| point.score > best.score) {
                self.best = Some((point, self.image.clone()));
            }
            self.trajectory.push(point);
        } else {
            self.non_finite = true;
        }
        observer.scored(self.task, point);
    }
}

impl<'a> Run<'a> {
    fn new(
        engine: &'a dyn Engine,
        model: &Model,
        tasks: &[Task],
        settings: &'a Settings,
    ) -> Result<Self, MaximizeError> {
        let network = &model.network;
        let mut layers: BTreeMap<&str, NodeId> = BTreeMap::new();
        for term in tasks.iter().flat_map(|task| &task.objective.terms) {
            let layer = term.unit.layer.as_str();
            let id = network.find(layer).ok_or_else(|| MaximizeError::Layer(layer.to_owned()))?;
            layers.insert(layer, id);
        }
        let targets: Vec<NodeId> = layers.values().copied().collect();
        let [height, width] = settings.size;
        let shape = [network.input_shape()[0], height, width];
        let plan = engine.plan(network, &targets, &Shape::from(shape))?;
        let (device, dtype) = (engine.device(), engine.dtype());
        let searches = tasks.iter().enumerate().map(|(i, task)| {
            let mut rng = ChaCha8Rng::seed_from_u64(task.seed);
            rng.set_stream(task.stream);
            Ok(Search {
                task: i,
                scorer: Scorer::new(&task.objective, |layer| layers.keys().position(|&name| name == layer)),
                image: settings.start.draw(&mut rng, shape, device, dtype)?,
                rng,
                ascent: Ascent::new(&settings.optimizer),
                best: None,
                trajectory: Vec::new(),
                passes: 0,
                moved: false,
                non_finite: false,
            })
        });
        let searches = searches.collect::<Result<Vec<_>, MaximizeError>>()?;
        let below = network.below(&targets);
        let behind_softmax = below.iter().any(|&id| matches!(network.node(id).op, Op::Softmax { .. }));
        let pixels = Pixels::new(&model.preprocessing, device, dtype)?;
        Ok(Self { engine, settings, pixels, plan, searches, behind_softmax })
    }

    fn drop_unwanted(&mut self, observer: &mut dyn Observer) {
        self.searches.retain(|search| observer.keep(search.task));
    }

    /// Runs images `[C,H,W]`, one per search, forward; gives each sample's outputs, one per target.
    fn forward(&mut self, images: &[Tensor], forward: Forward) -> Result<Vec<Vec<Tensor>>, MaximizeError> {
        let input = self.pixels.to_input(&Tensor::stack(images, 0)?)?;
        let outputs = self.plan.forward(&input, forward)?;
        for search in &mut self.searches {
            search.passes += 1;
        }
        let sample = |n: usize| outputs.iter().map(|output| output.get(n)).collect::<candle_core::Result<Vec<_>>>();
        Ok((0..images.len()).map(sample).collect::<candle_core::Result<Vec<_>>>()?)
    }

    /// Scores the images as they are.
    fn score(&mut self, step: u32, observer: &mut dyn Observer) -> Result<(), MaximizeError> {
        let images: Vec<Tensor> = self.searches.iter().map(|search| search.image.clone()).collect();
        let outputs = self.forward(&images, Forward::Original)?;
        for (search, outputs) in self.searches.iter_mut().zip(outputs) {
            let score = search.scorer.score(&outputs)?;
            search.note(Point { step, score }, observer);
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
        let (device, dtype) = (self.engine.device(), self.engine.dtype());
        let mut views = Vec::with_capacity(self.searches.len());
        let mut images = Vec::with_capacity(self.searches.len());
        for search in &mut self.searches {
            let view = View::draw(&settings.transforms, &mut search.rng, settings.size, device, dtype)?;
            images.push(view.apply(&search.image)?);
            views.push(view);
        }
        let outputs = self.forward(&images, forward)?;
        let mut seeds: Vec<Vec<Tensor>> = vec![Vec::with_capacity(images.len()); outputs[0].len()];
        for (search, outputs) in self.searches.iter_mut().zip(&outputs) {
            let scored = search.scorer.score_and_seed(outputs)?;
            if free {
                search.note(Point { step, score: scored.score }, observer);
            }
            for ((slot, seed), output) in seeds.iter_mut().zip(scored.seeds).zip(outputs) {
                slot.push(seed.map_or_else(|| output.zeros_like(), Ok)?);
            }
        }
        let seeds = seeds.iter().map(|samples| Tensor::stack(samples, 0)).collect::<candle_core::Result<Vec<_>>>()?;
        let gradients = self.pixels.gradient(&self.plan.backward(&seeds, gate)?)?;
        for (n, (search, view)) in self.searches.iter_mut().zip(&views).enumerate() {
            search.passes += 1;
            let gradient = view.adjoint(&gradients.get(n)?)?;
            let largest = gradient.abs()?.max_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
            // The maximum ignores values that are not a number; their sum does not.
            let sum = gradient.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
            if !largest.is_finite() || sum.is_nan() {
                search.non_finite = true;
                continue;
            }
            search.moved |= largest > 0.0;
            search.image = search.ascent.step(&search.image, &gradient, largest)?;
        }
        Ok(())
    }

    /// Scores the last images, and once more the best ones as 8-bit images.
    fn finish(mut self, tasks: usize, observer: &mut dyn Observer) -> Result<Vec<Option<Outcome>>, MaximizeError> {
        let mut outcomes: Vec<Option<Outcome>> = (0..tasks).map(|_| None).collect();
        if self.searches.is_empty() {
            return Ok(outcomes);
        }
        self.score(self.settings.steps, observer)?;
        let (device, dtype) = (self.engine.device(), self.engine.dtype());
        let best = |search: &Search| Levels::round(search.best.as_ref().map_or(&search.image, |(_, image)| image));
        let levels = self.searches.iter().map(best).collect::<candle_core::Result<Vec<_>>>()?;
        let pixels = levels.iter().map(|levels| levels.pixels(device, dtype));
        let outputs = self.forward(&pixels.collect::<candle_core::Result<Vec<_>>>()?, Forward::Original)?;
        for ((search, outputs), levels) in self.searches.iter().zip(outputs).zip(levels) {
            let outcome = search.outcome(search.scorer.score(&outputs)?, &levels, self.behind_softmax)?;
            outcomes[search.task] = Some(outcome);
        }
        Ok(outcomes)
    }
}

impl Search {
    fn outcome(&self, score: f32, levels: &Levels, behind_softmax: bool) -> Result<Outcome, MaximizeError> {
        let mut warnings = Vec::new();
        if !self.moved {
            warnings.push(Warning::DeadUnit);
        }
        if behind_softmax {
            warnings.push(Warning::SoftmaxTarget);
        }
        if levels.saturated() > 0.5 {
            warnings.push(Warning::SaturatedPixels);
        }
        if self.non_finite {
            warnings.push(Warning::NonFinite);
        }
        let end = |point: Option<&Point>| point.map_or(score, |point| point.score);
        Ok(Outcome {
            png: levels.png()?,
            score,
            initial_score: end(self.trajectory.first()),
            final_score: end(self.trajectory.last()),
            best_step: self.best.as_ref().map_or(0, |(point, _)| point.step),
            trajectory: self.trajectory.clone(),
            passes: self.passes,
            warnings,
        })
    }
}
