//! Long run: a study or training that a device holds, and continues whenever no job is queued.

use tokio_util::sync::CancellationToken;

use super::report::PendingReport;
use super::run::RunContext;
use super::study::RunningStudy;
use super::training::RunningTraining;
use crate::jobs::{Lease, Store, StoreError};

/// A claimed study or training between two of its stages.
pub(super) enum LongRun {
    Study(Box<RunningStudy>),
    Training(Box<RunningTraining>),
}

impl LongRun {
    /// Claims the oldest queued study or training.
    pub(super) async fn claim(store: &Store) -> Result<Option<Self>, StoreError> {
        match store.next_is_training().await? {
            Some(true) => {
                let claim = store.claim_training().await?;
                Ok(claim.map(|claim| Self::Training(Box::new(RunningTraining::new(claim)))))
            }
            Some(false) => {
                let claim = store.claim_study().await?;
                Ok(claim.map(|claim| Self::Study(Box::new(RunningStudy::new(claim)))))
            }
            None => Ok(None),
        }
    }

    /// Required to report its outcome.
    pub(super) fn lease(&self) -> Lease {
        match self {
            Self::Study(study) => study.lease(),
            Self::Training(training) => training.lease(),
        }
    }

    /// The report in case that one of its stages panics.
    pub(super) fn interrupted(&self) -> PendingReport {
        match self {
            Self::Study(study) => study.interrupted(),
            Self::Training(training) => training.interrupted(),
        }
    }

    /// Pauses it for jobs that run first.
    pub(super) fn pause(&mut self) {
        match self {
            Self::Study(study) => study.pause(),
            Self::Training(training) => training.pause(),
        }
    }

    /// Whether it has results that could not be written yet.
    pub(super) fn has_unwritten_results(&self) -> bool {
        match self {
            Self::Study(study) => study.has_unwritten_results(),
            Self::Training(training) => training.has_unwritten_results(),
        }
    }

    /// Canceled when a client cancels it.
    pub(super) fn cancel_requested(&self) -> CancellationToken {
        match self {
            Self::Study(study) => study.cancel_requested(),
            Self::Training(training) => training.cancel_requested(),
        }
    }

    /// Runs the next stage. Returns `None` if it has ended.
    pub(super) async fn advance(self, context: &RunContext) -> Option<Self> {
        match self {
            Self::Study(study) => context.advance_study(*study).await.map(|study| Self::Study(Box::new(study))),
            Self::Training(training) => {
                context.advance_training(*training).await.map(|training| Self::Training(Box::new(training)))
            }
        }
    }

    /// Requeues it: this device does not continue it.
    pub(super) async fn requeue(self, context: &RunContext) {
        match self {
            Self::Study(study) => context.requeue_study(*study).await,
            Self::Training(training) => context.requeue_training(*training).await,
        }
    }
}
