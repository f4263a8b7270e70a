//! One device: claims jobs and studies and runs them, one claim after another.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::lane::Lane;
use super::metrics;
use super::pool::{DeviceState, PoolConfig};
use super::run::Bench;
use super::settle::{Ended, settle};
use super::sources::Sources;
use super::study::Ongoing;
use crate::jobs::{Claim, Claimed, RunEnd, Store};

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
    pub(super) lane: Arc<Lane>,
    pub(super) config: PoolConfig,
    pub(super) store: Store,
    pub(super) sources: Sources,
    /// No more claims.
    pub(super) cancel: CancellationToken,
    /// Runs end within one step.
    pub(super) stop: CancellationToken,
    pub(super) status: Arc<Status>,
}

/// What a device does right now.
#[derive(Debug)]
pub(super) struct Status(Mutex<(DeviceState, usize)>);

impl Status {
    pub(super) fn new() -> Self {
        Self(Mutex::new((DeviceState::Idle, 0)))
    }

    fn set(&self, state: DeviceState, jobs: usize) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (state, jobs);
    }

    pub(super) fn get(&self) -> (DeviceState, usize) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a device does next.
enum Next {
    /// These jobs; the study that is going on waits.
    Jobs(Vec<Claim>, Option<Box<Ongoing>>),
    /// A piece of this study.
    Study(Box<Ongoing>),
    /// There is nothing to do, and this study must not go on.
    Nothing(Option<Box<Ongoing>>),
}

/// Neither jobs nor a study could be claimed.
struct Failed {
    longest_wait: Duration,
    /// The study that was going on.
    study: Option<Box<Ongoing>>,
}

impl Device {
    /// Runs jobs and studies until no more are to be claimed.
    pub(super) async fn work(mut self) {
        let mut arrivals = self.store.arrivals();
        let mut wait = FIRST_WAIT;
        let mut study: Option<Box<Ongoing>> = None;
        let mut worked = false;
        while !self.cancel.is_cancelled() {
            // Marked before the look at the queue: what comes after the look is a change.
            arrivals.mark_unchanged();
            let next = match self.next(study.take()).await {
                Ok(next) => next,
                Err(Failed { longest_wait, study: kept }) => {
                    // Another device may go on with it, and whoever cancels it need not wait for this one.
                    if let Some(ongoing) = kept {
                        self.bench().lay_down(*ongoing).await;
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
                Next::Study(ongoing) => study = self.further(ongoing).await,
                Next::Nothing(kept) => {
                    // Something has to run with nothing beside it, not even a study between two batches.
                    if let Some(ongoing) = kept {
                        self.bench().lay_down(*ongoing).await;
                    }
                    self.status.set(DeviceState::Idle, 0);
                    tokio::select! {
                        () = self.cancel.cancelled() => {}
                        _ = arrivals.changed() => {}
                        () = tokio::time::sleep(POLL) => self.lane.tidy(std::mem::take(&mut worked)).await,
                    }
                }
            }
        }
        if let Some(ongoing) = study {
            self.bench().lay_down(*ongoing).await;
        }
        self.status.set(DeviceState::Stopped, 0);
    }

    /// What to run next: jobs if any wait, else the study that is going on, else one that waits. After a failure the study
    /// is given back.
    async fn next(&mut self, study: Option<Box<Ongoing>>) -> Result<Next, Failed> {
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
            study if claimed.held_up => Ok(Next::Nothing(study)),
            study if !claimed.jobs.is_empty() => Ok(Next::Jobs(claimed.jobs, study)),
            Some(ongoing) => Ok(Next::Study(ongoing)),
            None => match self.store.claim_study().await {
                Ok(Some(claim)) => Ok(Next::Study(Box::new(Ongoing::new(claim)))),
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
    async fn claim(&mut self, study: Option<&Ongoing>) -> Result<Claimed, Duration> {
        match self.lane.open().await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                self.status.set(DeviceState::Unavailable, 0);
                tracing::error!(device = self.name, %error, "device is not available");
                return Err(LONGEST_WAIT);
            }
            Err(_) => {
                self.status.set(DeviceState::Unavailable, 0);
                tracing::error!(device = self.name, "the device's thread is gone; starting another");
                match Lane::start(&self.name, Arc::clone(&self.sources.engine)) {
                    Ok(lane) => self.lane = Arc::new(lane),
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
            () = self.cancel.cancelled() => return Ok(Claimed { held_up: true, ..Claimed::default() }),
            // Its end is stored with the help of the reserve.
            () = canceled => return Ok(Claimed::default()),
            () = self.store.until_writable() => {}
        }
        let lease = study.map(Ongoing::lease);
        self.store.claim_before(self.config.max_batch, lease).await.map_err(|error| {
            tracing::error!(device = self.name, %error, "jobs could not be claimed");
            LONGEST_STORE_WAIT
        })
    }

    /// Runs jobs while a study waits; nothing of the study when somebody stops it meanwhile.
    async fn run_before(&self, claims: Vec<Claim>, mut ongoing: Box<Ongoing>) -> Option<Box<Ongoing>> {
        ongoing.waits();
        let mut run = pin!(self.run(claims));
        tokio::select! {
            () = &mut run => Some(ongoing),
            () = ongoing.canceled() => {
                self.bench().lay_down(*ongoing).await;
                run.await;
                None
            }
        }
    }

    async fn run(&self, claims: Vec<Claim>) {
        let beside = claims.len() > 1;
        let end = |claim: &Claim| Ended::known(claim.lease, &claim.canceled, RunEnd::Interrupted { beside });
        let interrupted = claims.iter().map(end).collect();
        self.status.set(DeviceState::Busy, claims.len());
        metrics::busy(&self.name, true);
        let bench = self.bench();
        // A task of its own: should this code panic, the device lives on and no job stays running.
        if let Err(error) = tokio::spawn(async move { bench.run(claims).await }).await {
            tracing::error!(device = self.name, %error, "a run broke down");
            settle(&self.store, interrupted, &self.stop, self.config.result_patience).await;
        }
        metrics::busy(&self.name, false);
        self.status.set(DeviceState::Idle, 0);
    }

    /// Does the next piece of a study; nothing when it has ended.
    async fn further(&self, ongoing: Box<Ongoing>) -> Option<Box<Ongoing>> {
        let (lease, interrupted) = (ongoing.lease(), ongoing.interrupted());
        self.status.set(DeviceState::Busy, 0);
        metrics::busy(&self.name, true);
        let bench = self.bench();
        // A task of its own, for the same reason.
        let further = tokio::spawn(async move { bench.further(*ongoing).await.map(Box::new) }).await;
        metrics::busy(&self.name, false);
        match further {
            Ok(ongoing) => ongoing,
            Err(error) => {
                tracing::error!(device = self.name, study.id = %lease.id, %error, "a batch of a study broke down");
                settle(&self.store, vec![interrupted], &self.stop, self.config.result_patience).await;
                None
            }
        }
    }

    fn bench(&self) -> Bench {
        Bench {
            device: self.name.clone(),
            lane: Arc::clone(&self.lane),
            store: self.store.clone(),
            load: Arc::clone(&self.sources.model),
            max_batch: self.config.max_batch,
            time_limit: self.config.job_time_limit,
            run_memory: self.config.run_memory,
            patience: self.config.result_patience,
            stop: self.stop.clone(),
        }
    }

    async fn pause(&self, wait: Duration) {
        tokio::select! {
            () = self.cancel.cancelled() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}
