//! Executes one batch of runs: units of one model under one arm, each with its own seed.

use super::error::StudyError;
use super::plan::requests::request_for;
use super::plan::types::Bounds;
use super::variant::Fields;
use crate::Invalid;
use crate::engine::Engine;
use crate::maximize::{Callback, Objective, Outcome, Point, Task, maximize, plan_batches};
use crate::network::Model;

/// Progress of a study.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress<'a> {
    /// Runs done, including the fraction of those running now.
    pub done: f64,
    /// Runs of the plan.
    pub total: usize,
    /// Description of what is running now.
    pub now: &'a str,
}

/// Receives the progress of a study; returning `false` stops it, and the batch in progress is lost.
pub type ProgressCallback<'a> = dyn FnMut(Progress<'_>) -> bool + 'a;

/// Maximizes these units with these seeds as the request says; `None` if stopped.
///
/// Each outcome equals that of the same request for that unit alone. They run in as few batches as fit into `memory`
/// bytes.
pub(super) fn run_batch(
    model: &Model,
    request: &Fields,
    units: &[(&str, u64)],
    engine: &dyn Engine,
    memory: u64,
    progress: &mut BatchProgress<'_, '_>,
) -> Result<Option<Vec<Outcome>>, StudyError> {
    let objectives = units.iter().map(|(unit, _)| unit.parse()).collect::<Result<Vec<Objective>, Invalid>>()?;
    let resolved = request_for(&model.id, request, objectives, 0)?.resolve(model, &Bounds::default().request)?;
    // Each as if it were the only one of its request.
    let alone = |(request, (task, &(_, seed))): (usize, (Task, &(&str, u64)))| task.alone(seed, request);
    let tasks: Vec<Task> = resolved.tasks().into_iter().zip(units).enumerate().map(alone).collect();
    let (settings, what) = (&resolved.settings, progress.what);
    let failed = |source| StudyError::Run { what: what.to_owned(), source };
    progress.steps = settings.steps;
    let mut outcomes = Vec::with_capacity(tasks.len());
    for batch in plan_batches(&engine.memory_model(), model, &tasks, settings, memory).map_err(failed)? {
        (progress.running, progress.share) = (batch.len(), 0.0);
        let found = maximize(engine, model, &tasks[batch], settings, progress).map_err(failed)?;
        progress.done += found.len();
        for outcome in found {
            let Some(outcome) = outcome else { return Ok(None) };
            outcomes.push(outcome);
        }
        (progress.running, progress.share) = (0, 0.0);
    }
    Ok(Some(outcomes))
}

/// Reports the progress of a batch to the study's callback, and stops the batch when that says so.
pub(super) struct BatchProgress<'a, 'b> {
    callback: &'a mut ProgressCallback<'b>,
    /// Runs of the plan that are done, before this batch.
    done: usize,
    /// Runs of the plan.
    total: usize,
    /// Stimuli of this batch.
    running: usize,
    /// The stimulus that was last asked about.
    asked: usize,
    /// Share of the batch's steps that is done.
    share: f64,
    steps: u32,
    what: &'a str,
    proceed: bool,
}

impl<'a, 'b> BatchProgress<'a, 'b> {
    /// Progress of a batch after `done` of the `total` runs of the plan.
    pub(super) fn new(callback: &'a mut ProgressCallback<'b>, what: &'a str, done: usize, total: usize) -> Self {
        Self { callback, done, total, running: 0, asked: usize::MAX, share: 0.0, steps: 1, what, proceed: true }
    }
}

impl Callback for BatchProgress<'_, '_> {
    fn should_stop(&mut self, stimulus: usize) -> bool {
        // Once for each step of the batch, whose stimuli come in order; any of them may have ended.
        if stimulus <= self.asked && self.proceed {
            let done = self.done as f64 + self.share * self.running as f64;
            self.proceed = (self.callback)(Progress { done, total: self.total, now: self.what });
        }
        self.asked = stimulus;
        !self.proceed
    }

    fn on_score(&mut self, _: usize, point: Point) {
        let share = f64::from(point.step) / f64::from(self.steps.max(1));
        self.share = self.share.max(share.min(1.0));
    }
}
