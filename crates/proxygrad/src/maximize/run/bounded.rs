//! A run within a bound on memory: as many stimuli at a time as fit.

use super::maximize;
use crate::engine::Engine;
use crate::maximize::callback::Observer;
use crate::maximize::error::MaximizeError;
use crate::maximize::memory::parts;
use crate::maximize::outcome::{Outcome, Point};
use crate::maximize::request::Settings;
use crate::maximize::task::Task;
use crate::network::Model;

/// As [`maximize`], in as few batches as can each run within `allowed` bytes of memory, one after the other. No result
/// depends on that.
///
/// # Errors
/// As [`maximize`], and [`MaximizeError::Memory`] when not even one stimulus, or one group of stimuli that are kept unlike
/// each other, can run within the bound.
pub fn maximize_within(
    engine: &dyn Engine,
    model: &Model,
    tasks: &[Task],
    settings: &Settings,
    allowed: u64,
    observer: &mut dyn Observer,
) -> Result<Vec<Option<Outcome>>, MaximizeError> {
    let parts = parts(&engine.memory_model(), model, tasks, settings, allowed)?;
    let mut outcomes = Vec::with_capacity(tasks.len());
    for part in parts {
        if !part.clone().any(|task| observer.wants(task)) {
            outcomes.extend(part.map(|_| None));
            continue;
        }
        let mut observer = Shifted { observer, first: part.start };
        outcomes.extend(maximize(engine, model, &tasks[part], settings, &mut observer)?);
    }
    Ok(outcomes)
}

/// Tells of a part as of the whole.
struct Shifted<'a> {
    observer: &'a mut dyn Observer,
    /// The whole's number of the part's first task.
    first: usize,
}

impl Observer for Shifted<'_> {
    fn keep(&mut self, stimulus: usize) -> bool {
        self.observer.keep(self.first + stimulus)
    }

    fn wants(&mut self, stimulus: usize) -> bool {
        self.observer.wants(self.first + stimulus)
    }

    fn scored(&mut self, stimulus: usize, point: Point) {
        self.observer.scored(self.first + stimulus, point);
    }
}
