//! Progress and cancellation of a batch, called on the device's thread.

use std::sync::Arc;

use ::metrics::Counter;

use super::metrics;
use super::running_job::RunningJob;
use crate::jobs::Store;
use proxygrad::maximize::{Callback, Point};

/// Cancels stimuli whose job is to stop, counts steps and publishes progress.
pub(super) struct Watch {
    store: Store,
    /// One per stimulus of the batch.
    stimuli: Vec<Watched>,
    steps: Counter,
}

struct Watched {
    job: Arc<RunningJob>,
    /// Index of the stimulus in its job.
    stimulus: usize,
}

impl Watch {
    /// Watches these stimuli, each given by its job and its index there.
    pub(super) fn new(store: Store, stimuli: impl IntoIterator<Item = (Arc<RunningJob>, usize)>) -> Self {
        let stimuli = stimuli.into_iter().map(|(job, stimulus)| {
            job.starts(stimulus);
            Watched { job, stimulus }
        });
        Self { store, stimuli: stimuli.collect(), steps: metrics::steps() }
    }
}

impl Callback for Watch {
    fn should_stop(&mut self, stimulus: usize) -> bool {
        self.stimuli[stimulus].job.stop_signal.reason().is_some()
    }

    fn on_step(&mut self, stimulus: usize, steps: u32) {
        self.steps.increment(1);
        let watched = &self.stimuli[stimulus];
        watched.job.stepped(&self.store, watched.stimulus, steps);
    }

    fn on_score(&mut self, stimulus: usize, point: Point) {
        let watched = &self.stimuli[stimulus];
        watched.job.scored(&self.store, watched.stimulus, point);
    }
}
