//! Activation maximization, from tasks to outcomes.

use super::arm::{Arm, Way};
use super::certificate::certify;
use super::contest::contest;
use super::objective::Objective;
use super::outcome::{Observer, Outcome};
use super::passes::Passes;
use super::picture::Pictures;
use super::settings::Settings;
use crate::engine::{Engine, EngineError};
use crate::network::Model;

/// One stimulus to find.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// What it maximizes.
    pub objective: Objective,
    /// Seed of its start and its transforms.
    pub seed: u64,
    /// Tells stimuli of one seed apart: the stimulus' index in its request.
    pub stream: u64,
    /// Tasks with one number are kept unlike each other, where the settings ask for diversity.
    pub group: u64,
    /// The images that its objective and the settings name.
    pub pictures: Pictures,
}

/// Why no stimulus could be found.
#[derive(Debug, thiserror::Error)]
pub enum MaximizeError {
    /// An objective's layer does not exist in the model; [`Request::resolve`](super::Request::resolve) finds this first.
    #[error("the model has no layer {0}")]
    Layer(String),
    /// An image that an objective or the start names is not there; [`Request::resolve`](super::Request::resolve) reads
    /// them.
    #[error("there is no image {0}")]
    Picture(String),
    /// The model's input has neither one (grey) nor three (RGB) channels, so that there is no image to show.
    #[error("images have 1 or 3 channels, but the model's input has {0}")]
    Channels(usize),
    /// Not even one stimulus, or one group of stimuli that are kept unlike each other, can be made with so much memory.
    #[error("a run takes up to {needed} bytes of memory, but no more than {allowed} are allowed")]
    Memory {
        /// Bytes that it takes, at most.
        needed: u64,
        /// Bytes that it may take.
        allowed: u64,
    },
    /// The network could not be run.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The stimulus could not be written as a PNG.
    #[error("the stimulus could not be written as a PNG: {0}")]
    Png(#[from] image::ImageError),
    /// The animation could not be written.
    #[error("the animation could not be written: {0}")]
    Animation(#[from] png::EncodingError),
}

impl From<candle_core::Error> for MaximizeError {
    fn from(error: candle_core::Error) -> Self {
        Self::Engine(error.into())
    }
}

/// Finds a stimulus for every task, all in one batch; `None` stands for those that the observer dropped.
///
/// Each result is the same as if the task (with diversity: its group) had run alone: its random numbers come from its own
/// seed and stream, and no image looks at other neighbours. Blocks until done.
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
    let mut outcomes: Vec<Option<Outcome>> = (0..tasks.len()).map(|_| None).collect();
    if tasks.is_empty() {
        return Ok(outcomes);
    }
    let mut passes = Passes::new(engine, model, tasks, settings)?;
    let found = match &settings.search {
        Some(halving) => contest(&mut passes, tasks, settings, halving, observer)?,
        None => single(&mut passes, tasks, settings, observer)?,
    };
    for (task, mut outcome) in found {
        outcome.findings.passes += passes.preparation();
        outcomes[task] = Some(outcome);
    }
    certify(&mut passes, model, tasks, settings, &mut outcomes, observer)?;
    Ok(outcomes)
}

/// Runs `tasks` under one gate from one start each. Outcomes by task.
fn single(
    passes: &mut Passes<'_>,
    tasks: &[Task],
    settings: &Settings,
    observer: &mut dyn Observer,
) -> Result<Vec<(usize, Outcome)>, MaximizeError> {
    let way = Way { gate: &settings.gate, restart: 0, steps: settings.steps };
    let mut arm = Arm::new(passes, tasks, settings, way)?;
    for step in 0..settings.steps {
        if !arm.ask(passes, observer)? {
            return Ok(Vec::new());
        }
        arm.step(passes, step, observer)?;
    }
    arm.ask(passes, observer)?;
    arm.finish(passes, settings.steps, observer)
}
