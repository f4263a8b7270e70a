//! Watches a batch on the device's thread.

use std::sync::Arc;

use ::metrics::Counter;

use super::metrics;
use super::running_job::RunningJob;
use crate::jobs::Store;
use proxygrad::maximize::{Observer, Point};

/// Drops stimuli whose job has a reason, counts steps and tells progress.
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
    /// How often it was asked for.
    asked: u32,
}

impl Watch {
    /// Watches these stimuli, each given by its job and its index there.
    pub(super) fn new(store: Store, stimuli: impl IntoIterator<Item = (Arc<RunningJob>, usize)>) -> Self {
        let stimuli = stimuli.into_iter().map(|(job, stimulus)| {
            job.starts(stimulus);
            Watched { job, stimulus, asked: 0 }
        });
        Self { store, stimuli: stimuli.collect(), steps: metrics::steps() }
    }
}

impl Observer for Watch {
    fn keep(&mut self, stimulus: usize) -> bool {
        let watched = &mut self.stimuli[stimulus];
        // Asked before every step: all but the first question follow a step.
        if watched.asked > 0 {
            self.steps.increment(1);
            watched.job.stepped(&self.store, watched.stimulus, watched.asked);
        }
        watched.asked += 1;
        watched.job.stop_signal.reason().is_none()
    }

    fn wants(&mut self, stimulus: usize) -> bool {
        self.stimuli[stimulus].job.stop_signal.reason().is_none()
    }

    fn scored(&mut self, stimulus: usize, point: Point) {
        let watched = &self.stimuli[stimulus];
        watched.job.scored(&self.store, watched.stimulus, point);
    }
}
