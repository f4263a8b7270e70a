//! A job on a device: what is known of its run, shared by the task that reports and the thread that runs it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::stop_signal::StopSignal;
use crate::jobs::{Claim, Event, Store};
use proxygrad::maximize::Point;

/// Least time between two progress events of a job or study.
pub(super) const BETWEEN_EVENTS: Duration = Duration::from_millis(100);

/// A claimed job and its run.
#[derive(Debug)]
pub(super) struct RunningJob {
    pub(super) claim: Claim,
    /// What may end the run early.
    pub(super) stop_signal: StopSignal,
    progress: Mutex<Vec<Told>>,
}

/// How far one stimulus is, and when that was told.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    step: u32,
    score: Option<f32>,
    at: Option<Instant>,
}

impl RunningJob {
    pub(super) fn new(claim: Claim, time_limit: Duration, stop: CancellationToken) -> Self {
        let stimuli = claim.job.objectives.len();
        let stop_signal = StopSignal::new(claim.cancel_requested.clone(), stop, time_limit);
        Self { claim, stop_signal, progress: Mutex::new(vec![Told::default(); stimuli]) }
    }

    /// A stimulus starts from the beginning.
    pub(super) fn starts(&self, stimulus: usize) {
        self.progress()[stimulus] = Told::default();
    }

    /// A stimulus has done this many steps.
    pub(super) fn stepped(&self, store: &Store, stimulus: usize, step: u32) {
        let mut progress = self.progress();
        progress[stimulus].step = step;
        self.tell(store, &mut progress, stimulus, false);
    }

    /// A stimulus was scored.
    pub(super) fn scored(&self, store: &Store, stimulus: usize, point: Point) {
        let mut progress = self.progress();
        progress[stimulus].step = point.step;
        progress[stimulus].score = Some(point.score);
        self.tell(store, &mut progress, stimulus, point.step == self.claim.job.settings.steps);
    }

    /// Publishes the progress of a stimulus that has a score, often enough to watch and no more often: each stimulus has
    /// its share of the job's events.
    fn tell(&self, store: &Store, progress: &mut [Told], stimulus: usize, last: bool) {
        let between = BETWEEN_EVENTS.saturating_mul(u32::try_from(progress.len()).unwrap_or(u32::MAX));
        let told = progress[stimulus];
        let Some(score) = told.score else { return };
        if !last && told.at.is_some_and(|at| at.elapsed() < between) {
            return;
        }
        progress[stimulus].at = Some(Instant::now());
        let step = progress.iter().map(|told| told.step).sum();
        let steps = self.claim.job.progress.steps;
        store.feed().publish(self.claim.job.id, Event::Progress { step, steps, stimulus, score });
    }

    fn progress(&self) -> MutexGuard<'_, Vec<Told>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
