//! Activation maximization, from tasks to outcomes.

mod best;
mod bounded;
mod image_state;
mod optimization;
pub(super) mod stimulus_state;
mod successive_halving;

pub use self::bounded::maximize_within;
use self::optimization::{Arm, Way};
use self::successive_halving::contest;
use crate::engine::Engine;
use crate::maximize::callback::Observer;
use crate::maximize::diagnostics::certify;
use crate::maximize::error::MaximizeError;
use crate::maximize::model_runner::Passes;
use crate::maximize::outcome::Outcome;
use crate::maximize::request::Settings;
use crate::maximize::task::Task;
use crate::network::Model;

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
