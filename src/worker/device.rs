//! One device: claims jobs and studies and runs them, one claim after another.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::device_thread::DeviceThread;
use super::metrics;
use super::pool::PoolConfig;
use super::report::{PendingReport, report_with_retry};
use super::run::RunContext;
use super::sources::Sources;
use super::status::{DeviceState, SharedStatus};
use super::study::RunningStudy;
use crate::jobs::{Claim, ClaimedJobs, RunOutcome, Store};

/// How often the queue is looked at when nothing was heard of it.
const POLL: Duration = Duration::from_secs(5);
/// Wait after a failure of the database or the device; it doubles with each failure in a row.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// Longest such wait for the device.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Longest such wait for the database, which works again as soon as there is space, or whatever it lacked.
const LONGEST_STORE_WAIT: Duration = Duration::from_secs(2);

/// A device and what it needs.
pub(super) struct Device {
    pub(super) name: String,
    pub(super) thread: Arc<DeviceThread>,
    pub(super) config: PoolConfig,
    pub(super) store: Store,
    pub(super) sources: Sources,
    /// No more claims.
    pub(super) drain: CancellationToken,
    /// Runs end within one step.
    pub(super) interrupt_runs: CancellationToken,
    pub(super) status: Arc<SharedStatus>,
}

/// What a device does next.
enum Next {
    /// These jobs; the study that is going on waits.
    Jobs(Vec<Claim>, Option<Box<RunningStudy>>),
    /// A next_stage of this study.
    Study(Box<RunningStudy>),
    /// There is nothing to do, and this study must not go on.
    Nothing(Option<Box<RunningStudy>>),
}

/// Neither jobs nor a study could be claimed.
struct Failed {
    longest_wait: Duration,
    /// The study that was going on.
    study: Option<Box<RunningStudy>>,
}

impl Device {
    /// Runs jobs and studies until no more are to be claimed.
    pub(super) async fn work(mut self) {
        let mut arrivals = self.store.arrivals();
        let mut wait = FIRST_WAIT;
        let mut study: Option<Box<RunningStudy>> = None;
        let mut worked = false;
        while !self.drain.is_cancelled() {
            // Marked before the look at the queue: what comes after the look is a change.
            arrivals.mark_unchanged();
            let next = match self.next(study.take()).await {
                Ok(next) => next,
                Err(Failed { longest_wait, study: kept }) => {
                    // Another device may go on with it, and whoever cancels it need not wait for this one.
                    if let Some(ongoing) = kept {
                        self.run_context().requeue_study(*ongoing).await;
                    }
                    wait = wait.min(longest_wait);
                    self.pause(wait).await;
                    wait *= 2;
                    continue;
                }
            };
            wait = FIRST_WAIT;
            worked |= !matches!(next, Next::Nothing(_));
            match next {
                Next::Jobs(claims, None) => self.run(claims).await,
                Next::Jobs(claims, Some(ongoing)) => study = self.run_before(claims, ongoing).await,
                Next::Study(ongoing) => study = self.advance(ongoing).await,
                Next::Nothing(kept) => {
                    // Something has to run with nothing beside it, not even a study between two batches.
                    if let Some(ongoing) = kept {
                        self.run_context().requeue_study(*ongoing).await;
                    }
                    self.status.set(DeviceState::Idle, 0);
                    tokio::select! {
                        () = self.drain.cancelled() => {}
                        _ = arrivals.changed() => {}
                        () = tokio::time::sleep(POLL) => self.thread.tidy(std::mem::take(&mut worked)).await,
                    }
                }
            }
        }
        if let Some(ongoing) = study {
            self.run_context().requeue_study(*ongoing).await;
        }
        self.status.set(DeviceState::Stopped, 0);
    }

    /// What to run next: jobs if any wait, else the study that is going on, else one that waits. After a failure the study
    /// is given back.
    async fn next(&mut self, study: Option<Box<RunningStudy>>) -> Result<Next, Failed> {
        // Results that wait to be written are not given up for jobs, which could not be stored either.
        let study = match study {
            Some(ongoing) if ongoing.is_unwritten() => return Ok(Next::Study(ongoing)),
            study => study,
        };
        let claimed = match self.claim(study.as_deref()).await {
            Ok(claimed) => claimed,
            Err(longest_wait) => return Err(Failed { longest_wait, study }),
        };
        match study {
            study if claimed.blocked => Ok(Next::Nothing(study)),
            study if !claimed.jobs.is_empty() => Ok(Next::Jobs(claimed.jobs, study)),
            Some(ongoing) => Ok(Next::Study(ongoing)),
            None => match self.store.claim_study().await {
                Ok(Some(claim)) => Ok(Next::Study(Box::new(RunningStudy::new(claim)))),
                Ok(None) => Ok(Next::Nothing(None)),
                Err(error) => {
                    tracing::error!(device = self.name, %error, "no study could be claimed");
                    Err(Failed { longest_wait: LONGEST_STORE_WAIT, study: None })
                }
            },
        }
    }

    /// Claims jobs, once the engine is open and the store can be written: what runs must be stored in the end. A study waits
    /// while its device runs jobs. After a failure, the longest time to wait before the next try.
    async fn claim(&mut self, study: Option<&RunningStudy>) -> Result<ClaimedJobs, Duration> {
        match self.thread.open().await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                self.status.set(DeviceState::Unavailable, 0);
                tracing::error!(device = self.name, %error, "device is not available");
                return Err(LONGEST_WAIT);
            }
            Err(_) => {
                self.status.set(DeviceState::Unavailable, 0);
                tracing::error!(device = self.name, "the device's thread is gone; starting another");
                match DeviceThread::start(&self.name, Arc::clone(&self.sources.engine)) {
                    Ok(thread) => self.thread = Arc::new(thread),
                    Err(error) => tracing::error!(device = self.name, %error, "the thread could not be started"),
                }
                return Err(LONGEST_WAIT);
            }
        }
        let canceled = async {
            match study {
                Some(ongoing) => ongoing.canceled().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.drain.cancelled() => return Ok(ClaimedJobs { blocked: true, ..ClaimedJobs::default() }),
            // Its end is stored with the help of the reserve.
            () = canceled => return Ok(ClaimedJobs::default()),
            () = self.store.wait_until_writable() => {}
        }
        let lease = study.map(RunningStudy::lease);
        self.store.claim_ahead_of(self.config.max_batch, lease).await.map_err(|error| {
            tracing::error!(device = self.name, %error, "jobs could not be claimed");
            LONGEST_STORE_WAIT
        })
    }

    /// Runs jobs while a study waits; nothing of the study when somebody stops it meanwhile.
    async fn run_before(&self, claims: Vec<Claim>, mut ongoing: Box<RunningStudy>) -> Option<Box<RunningStudy>> {
        ongoing.waits();
        let mut run = pin!(self.run(claims));
        tokio::select! {
            () = &mut run => Some(ongoing),
            () = ongoing.canceled() => {
                self.run_context().requeue_study(*ongoing).await;
                run.await;
                None
            }
        }
    }

    async fn run(&self, claims: Vec<Claim>) {
        let alone = claims.len() == 1;
        let end = |claim: &Claim| {
            PendingReport::with_outcome(claim.lease, &claim.cancel_requested, RunOutcome::Interrupted { alone })
        };
        let interrupted = claims.iter().map(end).collect();
        self.status.set(DeviceState::Busy, claims.len());
        metrics::busy(&self.name, true);
        let context = self.run_context();
        // A task of its own: should this code panic, the device lives on and no job stays running.
        if let Err(error) = tokio::spawn(async move { context.run(claims).await }).await {
            tracing::error!(device = self.name, %error, "a run broke down");
            report_with_retry(&self.store, interrupted, &self.interrupt_runs, self.config.result_patience).await;
        }
        metrics::busy(&self.name, false);
        self.status.set(DeviceState::Idle, 0);
    }

    /// Does the next next_stage of a study; nothing when it has ended.
    async fn advance(&self, ongoing: Box<RunningStudy>) -> Option<Box<RunningStudy>> {
        let (lease, interrupted) = (ongoing.lease(), ongoing.interrupted());
        self.status.set(DeviceState::Busy, 0);
        metrics::busy(&self.name, true);
        let context = self.run_context();
        // A task of its own, for the same reason.
        let advance = tokio::spawn(async move { context.advance(*ongoing).await.map(Box::new) }).await;
        metrics::busy(&self.name, false);
        match advance {
            Ok(ongoing) => ongoing,
            Err(error) => {
                tracing::error!(device = self.name, study.id = %lease.id, %error, "a batch of a study broke down");
                report_with_retry(&self.store, vec![interrupted], &self.interrupt_runs, self.config.result_patience)
                    .await;
                None
            }
        }
    }

    fn run_context(&self) -> RunContext {
        RunContext {
            device: self.name.clone(),
            thread: Arc::clone(&self.thread),
            store: self.store.clone(),
            load: Arc::clone(&self.sources.model),
            max_batch: self.config.max_batch,
            time_limit: self.config.job_time_limit,
            run_memory: self.config.run_memory,
            patience: self.config.result_patience,
            interrupt: self.interrupt_runs.clone(),
        }
    }

    async fn pause(&self, wait: Duration) {
        tokio::select! {
            () = self.drain.cancelled() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}
