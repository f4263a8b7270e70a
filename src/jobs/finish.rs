//! How a run ends: succeeded, failed, canceled, or back into the queue.
//!
//! The ends of a batch are one commit, each under its run's lease. One that comes late, after the job was requeued or has
//! ended, changes nothing.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use sqlx::Row;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::claim::{Claim, Lease};
use super::error::StoreError;
use super::feed::Event;
use super::job::{JobProblem, JobState, ProblemCode, Stimulus, StoredAnimation};
use super::metrics;
use super::row;
use super::store::Store;
use super::table::{Table, note, query};
use super::writer::{Party, Write};
use proxygrad::maximize::Outcome;

/// So many times a job or study may bring down the process, or its device, while nothing else runs; the last of them
/// fails it.
pub const MOST_INTERRUPTIONS: u32 = 3;
/// PNGs that are written at a time.
const WRITERS: usize = 8;

/// How a run ended.
#[derive(Debug, Clone)]
pub enum RunEnd {
    /// With these stimuli, whose PNGs are stored; a study has its runs in its folder.
    Succeeded {
        /// What was found, in the order of the objectives.
        stimuli: Vec<Stimulus>,
        /// Steps done, over all stimuli.
        steps: u32,
    },
    /// Without a result.
    Failed(JobProblem),
    /// Because somebody asked for it.
    Canceled,
    /// Back into the queue as if the run had never started.
    Requeued,
    /// Back into the queue after the run broke down. With nothing `beside` it, a run is to blame for that: the job fails
    /// after [`MOST_INTERRUPTIONS`] of them.
    Interrupted {
        /// Whether something else ran in the same batch.
        beside: bool,
    },
}

/// What is stored of a job's end.
#[derive(Default)]
struct End {
    stimuli: Option<String>,
    problem: Option<JobProblem>,
    step: u32,
}

/// What came of one end.
enum Told {
    /// The lease is void.
    Void,
    Ended(JobState, End, Ended),
    Requeued,
}

impl Store {
    /// Ends a run with one outcome per objective: first the PNGs, then the commit that says so. Whether the result
    /// counted; `false` when the lease is void.
    ///
    /// After an error the job is still running: try again, or report another end.
    ///
    /// # Errors
    /// When there are more or fewer outcomes than objectives, a PNG cannot be written or the database fails.
    pub async fn succeed(&self, claim: &Claim, outcomes: &[Outcome]) -> Result<bool, StoreError> {
        let end = self.store_pngs(claim, outcomes).await?;
        self.end_run(claim.lease, end).await
    }

    /// Writes the PNGs of a run, and gives the end that says so. May be repeated.
    ///
    /// # Errors
    /// When there are more or fewer outcomes than objectives, or a PNG cannot be written.
    pub async fn store_pngs(&self, claim: &Claim, outcomes: &[Outcome]) -> Result<RunEnd, StoreError> {
        let job = &claim.job;
        if outcomes.len() != job.objectives.len() {
            let why = format!("{} outcomes for {} objectives", outcomes.len(), job.objectives.len());
            return Err(StoreError::Damaged { id: job.id, why });
        }
        let (images, id, size) = (&self.inner.stimuli, job.id, job.settings.size);
        let mut writes = Vec::with_capacity(outcomes.len());
        for (objective, outcome) in job.objectives.iter().zip(outcomes) {
            let write = async move {
                let sha256 = images.put(id, &outcome.png).await?;
                let mut stimulus = Stimulus::new(objective.clone(), outcome, sha256, size);
                if let Some(animation) = &outcome.animation {
                    let sha256 = images.put(id, animation).await?;
                    stimulus.animation = Some(StoredAnimation { sha256, bytes: animation.len() as u64 });
                }
                Ok::<_, StoreError>(stimulus)
            };
            writes.push(write.boxed());
        }
        let written: Result<Vec<Stimulus>, StoreError> = stream::iter(writes).buffered(WRITERS).try_collect().await;
        if let Some(fault) = written.as_ref().err().and_then(StoreError::fault) {
            self.failed(fault);
        }
        Ok(RunEnd::Succeeded { stimuli: written?, steps: job.progress.steps })
    }

    /// Ends a run without a result. Whether that counted; `false` when the lease is void.
    ///
    /// # Errors
    /// When the database fails; the job is still running then.
    pub async fn fail(&self, lease: Lease, problem: JobProblem) -> Result<bool, StoreError> {
        self.end_run(lease, RunEnd::Failed(problem)).await
    }

    /// Ends a run because somebody asked for it. Whether that counted; `false` when the lease is void.
    ///
    /// # Errors
    /// When the database fails; the job is still running then.
    pub async fn canceled(&self, lease: Lease) -> Result<bool, StoreError> {
        self.end_run(lease, RunEnd::Canceled).await
    }

    /// Puts running jobs back into the queue, in one commit, as if their runs had never started: for an orderly stop.
    /// One that was asked to stop is canceled instead. Void leases are passed over.
    ///
    /// # Errors
    /// When the database fails; all of them are still running then.
    pub async fn requeue(&self, leases: &[Lease]) -> Result<(), StoreError> {
        self.end_runs(leases.iter().map(|&lease| (lease, RunEnd::Requeued)).collect()).await.map(drop)
    }

    /// Puts running jobs whose run broke down back into the queue, in one commit. One that was asked to stop is canceled;
    /// one that ran alone fails when that happened [`MOST_INTERRUPTIONS`] times. Void leases are passed over.
    ///
    /// # Errors
    /// When the database fails; all of them are still running then.
    pub async fn interrupted(&self, leases: &[Lease]) -> Result<(), StoreError> {
        let end = RunEnd::Interrupted { beside: leases.len() > 1 };
        self.end_runs(leases.iter().map(|&lease| (lease, end.clone())).collect()).await.map(drop)
    }

    async fn end_run(&self, lease: Lease, end: RunEnd) -> Result<bool, StoreError> {
        Ok(self.end_runs(vec![(lease, end)]).await? == [true])
    }

    /// Ends runs in one commit; says for each whether it counted, or its lease is void. Ends without results are stored on
    /// a full disk, too, as long as the space lasts that is kept back for that.
    ///
    /// # Errors
    /// When the database fails; all of them are still running then.
    pub async fn end_runs(&self, ends: Vec<(Lease, RunEnd)>) -> Result<Vec<bool>, StoreError> {
        let makes_room = !ends.iter().any(|(_, end)| matches!(end, RunEnd::Succeeded { .. }));
        self.detached(move |store| async move {
            let end = |store: Self| {
                let ends = ends.clone();
                async move { store.end_now(ends).await }
            };
            if makes_room { store.making_room(end).await } else { end(store).await }
        })
        .await
    }

    async fn end_now(&self, ends: Vec<(Lease, RunEnd)>) -> Result<Vec<bool>, StoreError> {
        let mut write = self.write(Party::Worker).await?;
        let mut told = Vec::with_capacity(ends.len());
        for (lease, end) in ends {
            let step = self.step(lease.id);
            let outcome = match end {
                RunEnd::Succeeded { stimuli, steps } => {
                    let end = End { stimuli: Some(row::json(&stimuli)?), problem: None, step: steps };
                    write.end_run(lease, JobState::Succeeded, end).await?
                }
                RunEnd::Failed(problem) => {
                    write.end_run(lease, JobState::Failed, End { problem: Some(problem), stimuli: None, step }).await?
                }
                RunEnd::Canceled => write.end_run(lease, JobState::Canceled, End { step, ..End::default() }).await?,
                RunEnd::Requeued => write.give_back(lease, None, step).await?,
                RunEnd::Interrupted { beside } => write.give_back(lease, Some(beside), step).await?,
            };
            told.push((lease, outcome));
        }
        let _turn = write.commit().await?;
        let counted = told.iter().map(|(_, outcome)| !matches!(outcome, Told::Void)).collect();
        for (lease, outcome) in told {
            match outcome {
                Told::Ended(state, end, ended) => self.tell_end(lease, state, &end, &ended),
                Told::Requeued => self.tell_requeued(lease),
                Told::Void => tracing::debug!(id = %lease.id, "the end of a void run is ignored"),
            }
        }
        Ok(counted)
    }

    /// Ends the run of a job or study, if this process has one.
    pub(super) fn stop_run(&self, id: Uuid) {
        if let Some(canceled) = self.running().get(&id) {
            canceled.cancel();
        }
    }

    pub(super) fn running(&self) -> MutexGuard<'_, HashMap<Uuid, CancellationToken>> {
        self.inner.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Steps that a running job has told of.
    fn step(&self, job: Uuid) -> u32 {
        self.inner.feed.progress(job).map_or(0, |progress| progress.step)
    }

    /// Tells watchers, log and metrics that a job or study has ended.
    fn tell_end(&self, Lease { id, table, .. }: Lease, state: JobState, end: &End, ended: &Ended) {
        self.tell_state(id, state);
        let run_ms = ended.started_at.map(|from| row::milliseconds(from, ended.finished_at));
        metrics::ended(table, state, run_ms);
        let model = &ended.model;
        match &end.problem {
            Some(JobProblem { code, detail }) => {
                let code = code.as_str();
                note!(warn, table, id, state, "failed", model, duration_ms = run_ms, code, detail);
            }
            None => note!(info, table, id, state, "ended", model, duration_ms = run_ms),
        }
    }

    fn tell_requeued(&self, Lease { id, table, .. }: Lease) {
        self.tell_state(id, JobState::Queued);
        metrics::requeued(table);
        self.inner.arrivals.send_replace(());
        note!(info, table, id, JobState::Queued, "requeued");
    }

    /// Tells watchers the state of a job or study that runs no more.
    pub(super) fn tell_state(&self, id: Uuid, state: JobState) {
        self.running().remove(&id);
        self.inner.feed.publish(id, Event::State { state });
        if self.inner.held_up.swap(false, Ordering::AcqRel) {
            self.inner.arrivals.send_replace(());
        }
    }
}

/// What log and metrics want to know of a job or study that ended.
struct Ended {
    model: String,
    started_at: Option<OffsetDateTime>,
    finished_at: Option<OffsetDateTime>,
}

impl Write<'_> {
    /// Ends the run under this lease.
    async fn end_run(&mut self, lease: Lease, state: JobState, end: End) -> Result<Told, StoreError> {
        let now = row::now();
        let problem = end.problem.as_ref().map(row::json).transpose()?;
        let update = match lease.table {
            Table::Jobs => sqlx::query(
                "UPDATE jobs SET state = ?, finished_at = ?, problem = ?, step = ?, stimuli = ? \
                 WHERE id = ? AND lease = ? AND state = 'running' RETURNING model, started_at",
            ),
            Table::Studies => sqlx::query(
                "UPDATE studies SET state = ?, finished_at = ?, problem = ? \
                 WHERE id = ? AND lease = ? AND state = 'running' RETURNING models AS model, started_at",
            ),
        };
        let update = update.bind(state.as_str()).bind(now).bind(problem);
        let update = match lease.table {
            Table::Jobs => update.bind(end.step).bind(end.stimuli.clone()),
            Table::Studies => update,
        };
        let update = update.bind(row::key(lease.id)).bind(lease.number);
        let Some(ended) = update.fetch_optional(self.db()).await? else { return Ok(Told::Void) };
        let started_at = ended.try_get::<Option<i64>, _>("started_at")?.and_then(|ms| row::time(ms).ok());
        let ended = Ended { model: ended.try_get("model")?, started_at, finished_at: row::time(now).ok() };
        Ok(Told::Ended(state, end, ended))
    }

    /// Puts the job or study under this lease back into the queue, or ends it when it was asked to stop or was interrupted
    /// too often. `interrupted` says whether something ran beside it when it was.
    async fn give_back(&mut self, lease: Lease, interrupted: Option<bool>, step: u32) -> Result<Told, StoreError> {
        let select = query!(
            lease.table,
            "SELECT cancel_requested, interruptions FROM ",
            " WHERE id = ? AND lease = ? AND state = 'running'"
        );
        let select = select.bind(row::key(lease.id)).bind(lease.number);
        let Some(found) = select.fetch_optional(self.db()).await? else { return Ok(Told::Void) };
        if found.try_get("cancel_requested")? {
            return self.end_run(lease, JobState::Canceled, End { step, ..End::default() }).await;
        }
        let counts = interrupted == Some(false);
        let interruptions = found.try_get::<u32, _>("interruptions")? + u32::from(counts);
        if counts && interruptions >= MOST_INTERRUPTIONS {
            let problem = Some(self::interrupted(lease.table));
            return self.end_run(lease, JobState::Failed, End { problem, stimuli: None, step }).await;
        }
        let update = match lease.table {
            Table::Jobs => {
                "UPDATE jobs SET state = 'queued', started_at = NULL, attempts = MAX(attempts - ?, 0), \
                 crashes = crashes + ?, interruptions = ? WHERE id = ?"
            }
            Table::Studies => {
                "UPDATE studies SET state = 'queued', started_at = NULL, attempts = MAX(attempts - ?, 0), \
                 crashes = crashes + ?, interruptions = ?, waits = 0 WHERE id = ?"
            }
        };
        let update = sqlx::query(update).bind(interrupted.is_none()).bind(interrupted.is_some()).bind(interruptions);
        update.bind(row::key(lease.id)).execute(self.db()).await?;
        Ok(Told::Requeued)
    }
}

/// Why a job or study failed that was interrupted too often.
pub(super) fn interrupted(table: Table) -> JobProblem {
    let detail =
        format!("the service or its device went down {MOST_INTERRUPTIONS} times while nothing but this {table} ran");
    JobProblem::new(ProblemCode::Interrupted, detail)
}
