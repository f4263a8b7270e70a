//! Runs within a memory limit, in several batches where one does not fit.

use super::maximize;
use crate::engine::Engine;
use crate::maximize::callback::{Callback, OffsetCallback};
use crate::maximize::error::MaximizeError;
use crate::maximize::memory::plan_batches;
use crate::maximize::outcome::Outcome;
use crate::maximize::request::Settings;
use crate::maximize::task::Task;
use crate::network::Model;

/// As [`maximize`], in as few batches as each fit into `allowed` bytes of memory, one after the other. The outcomes do
/// not depend on the batches.
///
/// # Errors
/// As [`maximize`], and [`MaximizeError::Memory`] when a single stimulus, or a single group of stimuli with diversity,
/// does not fit.
pub fn maximize_within(
    engine: &dyn Engine,
    model: &Model,
    tasks: &[Task],
    settings: &Settings,
    allowed: u64,
    callback: &mut dyn Callback,
) -> Result<Vec<Option<Outcome>>, MaximizeError> {
    let batches = plan_batches(&engine.memory_model(), model, tasks, settings, allowed)?;
    let mut outcomes = Vec::with_capacity(tasks.len());
    for batch in batches {
        if batch.clone().all(|task| callback.should_stop(task)) {
            outcomes.extend(batch.map(|_| None));
            continue;
        }
        let mut callback = OffsetCallback { callback: &mut *callback, first: batch.start };
        outcomes.extend(maximize(engine, model, &tasks[batch], settings, &mut callback)?);
    }
    Ok(outcomes)
}
