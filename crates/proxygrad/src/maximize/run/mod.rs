//! The optimization loop: from tasks to outcomes.

mod best;
mod bounded;
mod context;
mod ending;
mod image_state;
mod judged;
mod optimization;
mod patience;
mod stage;
mod stimulus_state;
mod successive_halving;

pub use self::bounded::maximize_within;
use self::context::Run;
pub use self::judged::{judges_too_large, maximize_judged};
use self::optimization::{Optimization, Strategy};
use self::successive_halving::successive_halving;
use crate::engine::Engine;
use crate::maximize::callback::Callback;
use crate::maximize::diagnostics::add_diagnostics;
use crate::maximize::error::MaximizeError;
use crate::maximize::outcome::Outcome;
use crate::maximize::request::Settings;
use crate::maximize::task::Task;
use crate::network::Model;

/// Finds a stimulus for every task, all in one batch. Outcomes are in the order of the tasks; `None` for cancelled
/// ones.
///
/// Each outcome is the same as if the task (with diversity: its group) had run alone: random numbers come from the
/// task's seed and stream, and images of a batch do not influence each other. Blocks until done.
///
/// # Errors
/// When the network cannot run; all results are lost then.
pub fn maximize(
    engine: &dyn Engine,
    model: &Model,
    tasks: &[Task],
    settings: &Settings,
    callback: &mut dyn Callback,
) -> Result<Vec<Option<Outcome>>, MaximizeError> {
    let channels = model.network.input_shape()[0];
    if model.preprocessing.channels.count() != channels {
        return Err(MaximizeError::Channels(channels));
    }
    let mut outcomes: Vec<Option<Outcome>> = (0..tasks.len()).map(|_| None).collect();
    if tasks.is_empty() {
        return Ok(outcomes);
    }
    let mut run = Run::new(engine, model, tasks, settings, callback)?;
    let found = match &settings.search {
        Some(halving) => successive_halving(&mut run, halving)?,
        None => single_strategy(&mut run)?,
    };
    for (task, mut outcome) in found {
        outcome.findings.passes += run.preparation_passes();
        outcomes[task] = Some(outcome);
    }
    if settings.diagnostics {
        let should_stop = &mut |task| run.callback.should_stop(task);
        add_diagnostics(&mut run.model_runner, tasks, &mut outcomes, should_stop)?;
    }
    Ok(outcomes)
}

/// Runs every task under the settings' gate from its first start. Outcomes by task.
fn single_strategy(run: &mut Run<'_>) -> Result<Vec<(usize, Outcome)>, MaximizeError> {
    let strategy = Strategy { gate: &run.settings.gate, restart: 0, steps: run.settings.steps };
    Optimization::new(run, strategy)?.complete(run)
}
