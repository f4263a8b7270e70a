//! Progress callback of a batch of jobs, called on the device thread.

use std::sync::Arc;

use ::metrics::Counter;

use super::metrics;
use super::running_job::RunningJob;
use crate::jobs::Store;
use proxygrad::maximize::{Callback, Point};

/// Stops stimuli whose job is to stop, counts steps and publishes progress.
pub(super) struct JobProgress {
    store: Store,
    /// One per stimulus of the batch: its job and its index there.
    stimuli: Vec<(Arc<RunningJob>, usize)>,
    steps: Counter,
}

impl JobProgress {
    /// Callback for these stimuli, each given by its job and its index there. Resets their progress.
    pub(super) fn new(store: Store, stimuli: impl IntoIterator<Item = (Arc<RunningJob>, usize)>) -> Self {
        let stimuli: Vec<(Arc<RunningJob>, usize)> = stimuli.into_iter().collect();
        for (job, stimulus) in &stimuli {
            job.reset(*stimulus);
        }
        Self { store, stimuli, steps: metrics::steps() }
    }
}

impl Callback for JobProgress {
    fn should_stop(&mut self, stimulus: usize) -> bool {
        self.stimuli[stimulus].0.stop_signal.reason().is_some()
    }

    fn on_step(&mut self, stimulus: usize, steps: u32) {
        self.steps.increment(1);
        let (job, stimulus) = &self.stimuli[stimulus];
        job.record_step(&self.store, *stimulus, steps);
    }

    fn on_score(&mut self, stimulus: usize, point: Point) {
        let (job, stimulus) = &self.stimuli[stimulus];
        job.record_score(&self.store, *stimulus, point);
    }

    fn on_end(&mut self, stimulus: usize) {
        let (job, stimulus) = &self.stimuli[stimulus];
        job.record_end(&self.store, *stimulus);
    }
}
