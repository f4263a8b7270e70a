//! Long run: a study or training that a device holds, and continues whenever no job is queued.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::device_thread::BatchError;
use super::metrics;
use super::report::{PendingReport, report_with_retry};
use super::run::{RunContext, TICK, failure};
use super::stop_signal::{StopReason, StopSignal};
use super::study::StudyRun;
use super::training::TrainingRun;
use crate::jobs::{Lease, RunOutcome, Store, StoreError};
use proxygrad::engine::Engine;

/// Wait before retrying to write files.
const WRITE_RETRY_WAIT: Duration = Duration::from_secs(1);

/// A claimed study or training between two of its stages.
pub(super) struct LongRun {
    lease: Lease,
    cancel_requested: CancellationToken,
    work: Work,
    /// Since when its files cannot be written.
    unwritable_since: Option<Instant>,
    /// Whether the store has recorded it as paused for jobs.
    paused: bool,
}

/// What is run.
enum Work {
    Study(Box<StudyRun>),
    Training(Box<TrainingRun>),
}

/// Why a stage has no next one.
pub(super) enum StageEnd<W> {
    /// The run is over.
    Outcome(RunOutcome),
    /// Files cannot be written now; this stage is to be retried.
    Unwritable(W),
}

impl<W> StageEnd<W> {
    pub(super) fn map<T>(self, map: impl FnOnce(W) -> T) -> StageEnd<T> {
        match self {
            Self::Outcome(outcome) => StageEnd::Outcome(outcome),
            Self::Unwritable(work) => StageEnd::Unwritable(map(work)),
        }
    }
}

impl<W> From<RunOutcome> for StageEnd<W> {
    fn from(outcome: RunOutcome) -> Self {
        Self::Outcome(outcome)
    }
}

impl LongRun {
    /// Claims the oldest queued study or training.
    pub(super) async fn claim(store: &Store) -> Result<Option<Self>, StoreError> {
        Ok(match store.next_is_training().await? {
            Some(true) => store.claim_training().await?.map(|claim| {
                let (lease, cancel_requested) = (claim.lease, claim.cancel_requested.clone());
                Self::new(lease, cancel_requested, Work::Training(Box::new(TrainingRun::new(claim))))
            }),
            Some(false) => store.claim_study().await?.map(|claim| {
                let (lease, cancel_requested) = (claim.lease, claim.cancel_requested.clone());
                Self::new(lease, cancel_requested, Work::Study(Box::new(StudyRun::new(claim))))
            }),
            None => None,
        })
    }

    fn new(lease: Lease, cancel_requested: CancellationToken, work: Work) -> Self {
        Self { lease, cancel_requested, work, unwritable_since: None, paused: false }
    }

    /// Required to report its outcome.
    pub(super) fn lease(&self) -> Lease {
        self.lease
    }

    /// Canceled when a client cancels it.
    pub(super) fn cancel_requested(&self) -> CancellationToken {
        self.cancel_requested.clone()
    }

    /// The report in case that one of its stages panics.
    pub(super) fn interrupted(&self) -> PendingReport {
        PendingReport::with_outcome(self.lease, &self.cancel_requested, RunOutcome::Interrupted { alone: true })
    }

    /// Pauses it for jobs that run first.
    pub(super) fn pause(&mut self) {
        self.paused = true;
    }

    /// Whether it has results that could not be written yet.
    pub(super) fn has_unwritten_results(&self) -> bool {
        self.unwritable_since.is_some() && self.work.has_results()
    }

    /// Runs the next stage. Returns `None` if the run has ended. A stage whose files cannot be written is retried with
    /// its results; after some time the run is requeued.
    pub(super) async fn advance(mut self, context: &RunContext) -> Option<Self> {
        let (kind, id) = (self.work.kind(), self.lease.id);
        if self.paused {
            if let Err(error) = context.store.resumed(self.lease).await {
                tracing::warn!(kind, %id, %error, "run could not resume; retrying");
                wait_before_retry(context, &self.cancel_requested).await;
                return Some(self);
            }
            self.paused = false;
        }
        let since = self.unwritable_since.take();
        let outcome = match self.work.advance(context).await {
            Ok(work) => return Some(Self { work, ..self }),
            Err(StageEnd::Outcome(outcome)) => outcome,
            Err(StageEnd::Unwritable(work)) => {
                self.work = work;
                let since = since.unwrap_or_else(Instant::now);
                if since.elapsed() < context.patience {
                    self.unwritable_since = Some(since);
                    wait_before_retry(context, &self.cancel_requested).await;
                    return Some(self);
                }
                let waited_s = since.elapsed().as_secs();
                tracing::error!(kind, %id, waited_s, "files of a run could not be written; it is requeued");
                RunOutcome::Requeued
            }
        };
        report(context, self.lease, &self.cancel_requested, outcome).await;
        None
    }

    /// Requeues it: this device does not continue it.
    pub(super) async fn requeue(self, context: &RunContext) {
        let Self { lease, cancel_requested, work, .. } = self;
        // Releases its folder before another device can claim it.
        work.put_aside(context).await;
        report(context, lease, &cancel_requested, RunOutcome::Requeued).await;
    }
}

async fn report(context: &RunContext, lease: Lease, cancel_requested: &CancellationToken, outcome: RunOutcome) {
    let report = PendingReport::with_outcome(lease, cancel_requested, outcome);
    report_with_retry(&context.store, vec![report], &context.interrupt, context.patience).await;
}

async fn wait_before_retry(context: &RunContext, cancel_requested: &CancellationToken) {
    tokio::select! {
        () = tokio::time::sleep(WRITE_RETRY_WAIT) => {}
        () = cancel_requested.cancelled() => {}
        () = context.interrupt.cancelled() => {}
    }
}

impl Work {
    /// What it is called in the log.
    fn kind(&self) -> &'static str {
        match self {
            Self::Study(_) => "study",
            Self::Training(_) => "training",
        }
    }

    fn has_results(&self) -> bool {
        match self {
            Self::Study(study) => study.has_begun(),
            Self::Training(training) => training.has_begun(),
        }
    }

    async fn advance(self, context: &RunContext) -> Result<Self, StageEnd<Self>> {
        match self {
            Self::Study(study) => match study.advance(context).await {
                Ok(study) => Ok(Self::Study(Box::new(study))),
                Err(end) => Err(end.map(|study| Self::Study(Box::new(study)))),
            },
            Self::Training(training) => match training.advance(context).await {
                Ok(training) => Ok(Self::Training(Box::new(training))),
                Err(end) => Err(end.map(|training| Self::Training(Box::new(training)))),
            },
        }
    }

    async fn put_aside(self, context: &RunContext) {
        match self {
            Self::Study(study) => drop(study),
            Self::Training(training) => training.put_aside(context).await,
        }
    }
}

impl RunContext {
    /// Runs work of a study or training on the device thread. When it is asked to stop, it may take some time; then its
    /// outcome, by `stopped`, is reported without it.
    pub(super) async fn on_device<T: Send + 'static>(
        &self,
        lease: Lease,
        stop_signal: &StopSignal,
        stopped: impl Fn(StopReason) -> RunOutcome,
        work: impl FnOnce(&dyn Engine) -> Result<T, BatchError> + Send + 'static,
    ) -> Result<T, RunOutcome> {
        let mut result = self.thread.run(work);
        let mut tick = tokio::time::interval(TICK);
        let result = loop {
            tokio::select! {
                result = &mut result => break result.unwrap_or(Err(BatchError::ThreadGone)),
                _ = tick.tick() => {}
            }
            if let (true, Some(reason)) = (stop_signal.is_overdue(), stop_signal.reason()) {
                return Err(stopped(reason));
            }
        };
        let error = match result {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        tracing::error!(device = self.device, id = %lease.id, %error, "a stage of a study or training failed");
        if error.is_of_the_engine() {
            metrics::engine_failed(&self.device);
        }
        // A failed device is not the fault of the run: another one, or this one later, may continue it.
        Err(if self.thread.is_usable().await {
            RunOutcome::Failed(failure(&error))
        } else {
            RunOutcome::Interrupted { alone: true }
        })
    }
}
