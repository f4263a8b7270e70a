//! Device worker: claims jobs and studies for one device and runs them, one claim after another.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::device_thread::DeviceThread;
use super::metrics;
use super::report::{PendingReport, report_with_retry};
use super::run::RunContext;
use super::sources::OpenEngine;
use super::status::{DeviceState, SharedStatus};
use super::study::RunningStudy;
use crate::jobs::{Claim, ClaimedJobs, RunOutcome};

/// How often the queue is polled without a notification.
const POLL: Duration = Duration::from_secs(5);
/// Wait after a failure of the database or the device; it doubles with each failure in a row.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// Longest wait after failures of the device.
const MAX_DEVICE_WAIT: Duration = Duration::from_secs(30);
/// Longest wait after failures of the database, which usually recovers soon, as when space is freed.
const MAX_STORE_WAIT: Duration = Duration::from_secs(2);

/// Worker of one device.
pub(super) struct Device {
    pub(super) context: RunContext,
    pub(super) open_engine: OpenEngine,
    /// When canceled, nothing more is claimed.
    pub(super) drain: CancellationToken,
    pub(super) status: Arc<SharedStatus>,
}

/// What a device does next.
enum Next {
    /// Run these jobs; the study, if any, is paused meanwhile.
    Jobs(Vec<Claim>, Option<Box<RunningStudy>>),
    /// Run the next batch of this study.
    Study(Box<RunningStudy>),
    /// Wait; the study, if any, has to be requeued.
    Idle(Option<Box<RunningStudy>>),
}

/// Neither jobs nor a study could be claimed.
struct ClaimFailed {
    max_wait: Duration,
    /// The study that the device holds.
    study: Option<Box<RunningStudy>>,
}

impl Device {
    /// Runs jobs and studies until the pool drains.
    pub(super) async fn work(mut self) {
        let mut arrivals = self.context.store.arrivals();
        let mut wait = FIRST_WAIT;
        let mut study: Option<Box<RunningStudy>> = None;
        let mut worked = false;
        while !self.drain.is_cancelled() {
            // Marked before looking at the queue, so that anything that arrives after the look is a change.
            arrivals.mark_unchanged();
            let next = match self.next(study.take()).await {
                Ok(next) => next,
                Err(ClaimFailed { max_wait, study: held }) => {
                    // Requeued, so that another device may resume it and a cancellation need not wait for this one.
                    if let Some(study) = held {
                        self.context.requeue_study(*study).await;
                    }
                    wait = wait.min(max_wait);
                    self.sleep(wait).await;
                    wait *= 2;
                    continue;
                }
            };
            wait = FIRST_WAIT;
            worked |= !matches!(next, Next::Idle(_));
            match next {
                Next::Jobs(claims, None) => self.run_jobs(claims).await,
                Next::Jobs(claims, Some(held)) => study = self.run_jobs_before(claims, held).await,
                Next::Study(held) => study = self.advance_study(held).await,
                Next::Idle(held) => {
                    // Something has to run with nothing else, not even with a study between two batches.
                    if let Some(study) = held {
                        self.context.requeue_study(*study).await;
                    }
                    self.status.set(DeviceState::Idle, 0);
                    tokio::select! {
                        () = self.drain.cancelled() => {}
                        _ = arrivals.changed() => {}
                        () = tokio::time::sleep(POLL) => {
                            self.context.thread.release_unused(std::mem::take(&mut worked)).await;
                        }
                    }
                }
            }
        }
        if let Some(study) = study {
            self.context.requeue_study(*study).await;
        }
        self.status.set(DeviceState::Stopped, 0);
    }

    /// Chooses what to run next: queued jobs, else the study that the device holds, else a queued study.
    async fn next(&mut self, study: Option<Box<RunningStudy>>) -> Result<Next, ClaimFailed> {
        // Results that wait to be written take precedence: results of jobs could not be stored either.
        let study = match study {
            Some(study) if study.has_unwritten_results() => return Ok(Next::Study(study)),
            study => study,
        };
        let claimed = match self.claim_jobs(study.as_deref()).await {
            Ok(claimed) => claimed,
            Err(max_wait) => return Err(ClaimFailed { max_wait, study }),
        };
        match study {
            study if claimed.blocked => Ok(Next::Idle(study)),
            study if !claimed.jobs.is_empty() => Ok(Next::Jobs(claimed.jobs, study)),
            Some(study) => Ok(Next::Study(study)),
            None => match self.context.store.claim_study().await {
                Ok(Some(claim)) => Ok(Next::Study(Box::new(RunningStudy::new(claim)))),
                Ok(None) => Ok(Next::Idle(None)),
                Err(error) => {
                    tracing::error!(device = self.context.device, %error, "study could not be claimed; retrying");
                    Err(ClaimFailed { max_wait: MAX_STORE_WAIT, study: None })
                }
            },
        }
    }

    /// Claims jobs once the engine is open and the store is writable, since results have to be stored. After a failure,
    /// returns the longest wait before the next try.
    async fn claim_jobs(&mut self, study: Option<&RunningStudy>) -> Result<ClaimedJobs, Duration> {
        match self.context.thread.open().await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                self.status.set(DeviceState::Unavailable, 0);
                tracing::error!(device = self.context.device, %error, "engine could not be opened; retrying");
                return Err(MAX_DEVICE_WAIT);
            }
            Err(_) => {
                self.status.set(DeviceState::Unavailable, 0);
                tracing::error!(device = self.context.device, "device thread ended unexpectedly; starting a new one");
                match DeviceThread::start(&self.context.device, Arc::clone(&self.open_engine)) {
                    Ok(thread) => self.context.thread = Arc::new(thread),
                    Err(error) => {
                        tracing::error!(device = self.context.device, %error, "device thread could not be started");
                    }
                }
                return Err(MAX_DEVICE_WAIT);
            }
        }
        let study_canceled = async {
            match study {
                Some(study) => study.canceled().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.drain.cancelled() => return Ok(ClaimedJobs { blocked: true, ..ClaimedJobs::default() }),
            // The cancellation can be stored on a full disk, thanks to the disk reserve.
            () = study_canceled => return Ok(ClaimedJobs::default()),
            () = self.context.store.wait_until_writable() => {}
        }
        let lease = study.map(RunningStudy::lease);
        self.context.store.claim_ahead_of(self.context.max_batch, lease).await.map_err(|error| {
            tracing::error!(device = self.context.device, %error, "jobs could not be claimed; retrying");
            MAX_STORE_WAIT
        })
    }

    /// Runs jobs while a study is paused. Returns `None` if the study was canceled meanwhile.
    async fn run_jobs_before(&self, claims: Vec<Claim>, mut study: Box<RunningStudy>) -> Option<Box<RunningStudy>> {
        study.pause();
        let mut run = pin!(self.run_jobs(claims));
        tokio::select! {
            () = &mut run => Some(study),
            () = study.canceled() => {
                self.context.requeue_study(*study).await;
                run.await;
                None
            }
        }
    }

    async fn run_jobs(&self, claims: Vec<Claim>) {
        let alone = claims.len() == 1;
        let interrupted = |claim: &Claim| {
            let outcome = RunOutcome::Interrupted { alone };
            PendingReport::with_outcome(claim.lease, &claim.cancel_requested, outcome)
        };
        let interrupted = claims.iter().map(interrupted).collect();
        self.status.set(DeviceState::Busy, claims.len());
        metrics::busy(&self.context.device, true);
        let context = self.context.clone();
        // A separate task: if this code panics, the worker survives and no job stays `running`.
        if let Err(error) = tokio::spawn(async move { context.run(claims).await }).await {
            tracing::error!(device = self.context.device, %error, "a run panicked; its jobs count as interrupted");
            self.report(interrupted).await;
        }
        metrics::busy(&self.context.device, false);
        self.status.set(DeviceState::Idle, 0);
    }

    /// Runs the next stage of a study. Returns `None` if the study has ended.
    async fn advance_study(&self, study: Box<RunningStudy>) -> Option<Box<RunningStudy>> {
        let (lease, interrupted) = (study.lease(), study.interrupted());
        self.status.set(DeviceState::Busy, 0);
        metrics::busy(&self.context.device, true);
        let context = self.context.clone();
        // A separate task, for the same reason.
        let advanced = tokio::spawn(async move { context.advance(*study).await.map(Box::new) }).await;
        metrics::busy(&self.context.device, false);
        match advanced {
            Ok(study) => study,
            Err(error) => {
                let device = &self.context.device;
                tracing::error!(device, study.id = %lease.id, %error, "a batch of a study panicked");
                self.report(vec![interrupted]).await;
                None
            }
        }
    }

    async fn report(&self, reports: Vec<PendingReport>) {
        let RunContext { store, interrupt, patience, .. } = &self.context;
        report_with_retry(store, reports, interrupt, *patience).await;
    }

    async fn sleep(&self, wait: Duration) {
        tokio::select! {
            () = self.drain.cancelled() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}
