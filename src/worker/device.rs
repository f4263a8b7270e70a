//! Device worker: claims jobs, studies and trainings for one device and runs them, one claim after another.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::device_thread::DeviceThread;
use super::long_run::LongRun;
use super::metrics;
use super::report::{PendingReport, report_with_retry};
use super::run::RunContext;
use super::sources::OpenEngine;
use super::status::{DeviceState, SharedStatus};
use crate::jobs::{Claim, ClaimedJobs, Lease, RunOutcome};

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
    /// Run these jobs; the study or training, if any, is paused meanwhile.
    Jobs(Vec<Claim>, Option<LongRun>),
    /// Run the next batch of this study, or some steps of this training.
    Long(LongRun),
    /// Wait; the study or training, if any, has to be requeued.
    Idle(Option<LongRun>),
}

/// Nothing could be claimed.
struct ClaimFailed {
    max_wait: Duration,
    /// The study or training that the device holds.
    held: Option<LongRun>,
}

impl Device {
    /// Runs jobs, studies and trainings until the pool drains.
    pub(super) async fn work(mut self) {
        let mut arrivals = self.context.store.arrivals();
        let mut wait = FIRST_WAIT;
        let mut held: Option<LongRun> = None;
        let mut worked = false;
        while !self.drain.is_cancelled() {
            // Marked before looking at the queue, so that anything that arrives after the look is a change.
            arrivals.mark_unchanged();
            let next = match self.next(held.take()).await {
                Ok(next) => next,
                Err(ClaimFailed { max_wait, held }) => {
                    // Requeued, so that another device may resume it and a cancellation need not wait for this one.
                    self.requeue(held).await;
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
                Next::Jobs(claims, Some(paused)) => held = self.run_jobs_before(claims, paused).await,
                Next::Long(run) => held = self.advance(run).await,
                Next::Idle(held) => {
                    // Something has to run with nothing else, not even with a study between two batches.
                    self.requeue(held).await;
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
        self.requeue(held).await;
        self.status.set(DeviceState::Stopped, 0);
    }

    async fn requeue(&self, held: Option<LongRun>) {
        if let Some(held) = held {
            held.requeue(&self.context).await;
        }
    }

    /// Chooses what to run next: queued jobs, else the study or training that the device holds, else the oldest queued
    /// one.
    async fn next(&mut self, held: Option<LongRun>) -> Result<Next, ClaimFailed> {
        // Results that wait to be written take precedence: results of jobs could not be stored either.
        let held = match held {
            Some(held) if held.has_unwritten_results() => return Ok(Next::Long(held)),
            held => held,
        };
        let ahead_of = held.as_ref().map(|held| (held.lease(), held.cancel_requested()));
        let claimed = match self.claim_jobs(ahead_of).await {
            Ok(claimed) => claimed,
            Err(max_wait) => return Err(ClaimFailed { max_wait, held }),
        };
        match held {
            held if claimed.blocked => Ok(Next::Idle(held)),
            held if !claimed.jobs.is_empty() => Ok(Next::Jobs(claimed.jobs, held)),
            Some(held) => Ok(Next::Long(held)),
            None => match LongRun::claim(&self.context.store).await {
                Ok(claimed) => Ok(claimed.map_or(Next::Idle(None), Next::Long)),
                Err(error) => {
                    tracing::error!(device = self.context.device, %error, "no work could be claimed; retrying");
                    Err(ClaimFailed { max_wait: MAX_STORE_WAIT, held: None })
                }
            },
        }
    }

    /// Claims jobs once the engine is open and the store is writable, since results have to be stored. After a failure,
    /// returns the longest wait before the next try.
    async fn claim_jobs(&mut self, ahead_of: Option<(Lease, CancellationToken)>) -> Result<ClaimedJobs, Duration> {
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
        let (lease, held_canceled) = ahead_of.unzip();
        let held_canceled = async {
            match held_canceled {
                Some(canceled) => canceled.cancelled().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.drain.cancelled() => return Ok(ClaimedJobs { blocked: true, ..ClaimedJobs::default() }),
            // The cancellation can be stored on a full disk, thanks to the disk reserve.
            () = held_canceled => return Ok(ClaimedJobs::default()),
            () = self.context.store.wait_until_writable() => {}
        }
        self.context.store.claim_ahead_of(self.context.max_batch, lease).await.map_err(|error| {
            tracing::error!(device = self.context.device, %error, "jobs could not be claimed; retrying");
            MAX_STORE_WAIT
        })
    }

    /// Runs jobs while a study or training is paused. Returns `None` if that was canceled meanwhile.
    async fn run_jobs_before(&self, claims: Vec<Claim>, mut held: LongRun) -> Option<LongRun> {
        held.pause();
        let canceled = held.cancel_requested();
        let mut run = pin!(self.run_jobs(claims));
        tokio::select! {
            () = &mut run => Some(held),
            () = canceled.cancelled() => {
                held.requeue(&self.context).await;
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

    /// Runs the next stage of a study or training. Returns `None` if it has ended.
    async fn advance(&self, run: LongRun) -> Option<LongRun> {
        let (lease, interrupted) = (run.lease(), run.interrupted());
        self.status.set(DeviceState::Busy, 0);
        metrics::busy(&self.context.device, true);
        let context = self.context.clone();
        // A separate task, for the same reason.
        let advanced = tokio::spawn(async move { run.advance(&context).await }).await;
        metrics::busy(&self.context.device, false);
        match advanced {
            Ok(run) => run,
            Err(error) => {
                let device = &self.context.device;
                tracing::error!(device, id = %lease.id, %error, "a batch of a study or training panicked");
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
