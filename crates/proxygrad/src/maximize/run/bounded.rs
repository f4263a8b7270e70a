//! Runs within a memory limit, in several batches where one does not fit.

use super::maximize;
use crate::engine::Engine;
use crate::maximize::callback::Callback;
use crate::maximize::error::MaximizeError;
use crate::maximize::memory::plan_batches;
use crate::maximize::outcome::{Outcome, Point};
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
        let mut callback = BatchCallback { callback, first: batch.start };
        outcomes.extend(maximize(engine, model, &tasks[batch], settings, &mut callback)?);
    }
    Ok(outcomes)
}

/// Translates the task numbers of a batch into those of the whole run.
struct BatchCallback<'a> {
    callback: &'a mut dyn Callback,
    /// Number of the batch's first task in the whole run.
    first: usize,
}

impl Callback for BatchCallback<'_> {
    fn should_stop(&mut self, stimulus: usize) -> bool {
        self.callback.should_stop(self.first + stimulus)
    }

    fn on_step(&mut self, stimulus: usize, steps: u32) {
        self.callback.on_step(self.first + stimulus, steps);
    }

    fn on_score(&mut self, stimulus: usize, point: Point) {
        self.callback.on_score(self.first + stimulus, point);
    }
}
