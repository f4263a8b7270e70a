//! A running job: its claim, stop signal and progress, shared by the reporting task and the device thread.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::stop_signal::StopSignal;
use crate::jobs::{Claim, Event, Store};
use proxygrad::maximize::Point;

/// Minimum time between two progress events of a job or study.
pub(super) const BETWEEN_EVENTS: Duration = Duration::from_millis(100);

/// A claimed job that is running.
#[derive(Debug)]
pub(super) struct RunningJob {
    pub(super) claim: Claim,
    /// May stop the run early.
    pub(super) stop_signal: StopSignal,
    progress: Mutex<Vec<StimulusProgress>>,
}

/// Progress of one stimulus, and when it was last published.
#[derive(Debug, Clone, Copy, Default)]
struct StimulusProgress {
    step: u32,
    score: Option<f32>,
    published: Option<Instant>,
}

impl RunningJob {
    pub(super) fn new(claim: Claim, time_limit: Duration, stop: CancellationToken) -> Self {
        let stimuli = claim.job.planned().count();
        let stop_signal = StopSignal::new(claim.cancel_requested.clone(), stop, time_limit);
        Self { claim, stop_signal, progress: Mutex::new(vec![StimulusProgress::default(); stimuli]) }
    }

    /// Resets the progress of a stimulus that starts.
    pub(super) fn reset(&self, stimulus: usize) {
        self.progress()[stimulus] = StimulusProgress::default();
    }

    /// Records that a stimulus has done this many steps.
    pub(super) fn record_step(&self, store: &Store, stimulus: usize, step: u32) {
        let mut progress = self.progress();
        progress[stimulus].step = step;
        self.publish(store, &mut progress, stimulus, false);
    }

    /// Records the score of a stimulus.
    pub(super) fn record_score(&self, store: &Store, stimulus: usize, point: Point) {
        let mut progress = self.progress();
        progress[stimulus].step = point.step;
        progress[stimulus].score = Some(point.score);
        self.publish(store, &mut progress, stimulus, false);
    }

    /// Records that a stimulus makes no more steps, however many of its planned ones it made.
    pub(super) fn record_end(&self, store: &Store, stimulus: usize) {
        let mut progress = self.progress();
        if let Some((_, settings)) = self.claim.job.planned().nth(stimulus) {
            progress[stimulus].step = settings.steps;
        }
        self.publish(store, &mut progress, stimulus, true);
    }

    /// Publishes the progress of a stimulus that has a score, at a limited rate that the stimuli of a job share.
    fn publish(&self, store: &Store, progress: &mut [StimulusProgress], stimulus: usize, last: bool) {
        let between = BETWEEN_EVENTS.saturating_mul(u32::try_from(progress.len()).unwrap_or(u32::MAX));
        let latest = progress[stimulus];
        let Some(score) = latest.score else { return };
        if !last && latest.published.is_some_and(|at| at.elapsed() < between) {
            return;
        }
        progress[stimulus].published = Some(Instant::now());
        let step = progress.iter().map(|stimulus| stimulus.step).sum();
        let steps = self.claim.job.progress.steps;
        store.feed().publish(self.claim.job.id, Event::Progress { step, steps, stimulus, score });
    }

    fn progress(&self) -> MutexGuard<'_, Vec<StimulusProgress>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
