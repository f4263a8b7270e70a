//! How a run ends: succeeded, failed, canceled, or back into the queue.
//!
//! Each end is one commit under the run's lease. One that comes late, after the job was requeued or has ended, changes
//! nothing.

use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};

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
use super::store::{Store, Write};
use super::table::{Table, note, query};
use crate::maximize::Outcome;

/// Runs of a job that may be interrupted; the last of them fails it.
pub const MOST_ATTEMPTS: u32 = 3;

/// What is stored of a job's end.
#[derive(Default)]
pub(super) struct End {
    stimuli: Option<String>,
    problem: Option<JobProblem>,
    step: u32,
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
        let job = &claim.job;
        if outcomes.len() != job.objectives.len() {
            let why = format!("{} outcomes for {} objectives", outcomes.len(), job.objectives.len());
            return Err(StoreError::Damaged { id: job.id, why });
        }
        let mut stimuli = Vec::with_capacity(outcomes.len());
        for (objective, outcome) in job.objectives.iter().zip(outcomes) {
            let sha256 = self.inner.stimuli.put(job.id, &outcome.png).await?;
            let mut stimulus = Stimulus::new(objective.clone(), outcome, sha256, job.settings.size);
            if let Some(animation) = &outcome.animation {
                let sha256 = self.inner.stimuli.put(job.id, animation).await?;
                stimulus.animation = Some(StoredAnimation { sha256, bytes: animation.len() as u64 });
            }
            stimuli.push(stimulus);
        }
        let end = End { stimuli: Some(row::json(&stimuli)?), step: job.progress.steps, problem: None };
        self.end(claim.lease, JobState::Succeeded, end).await
    }

    /// Ends a run without a result. Whether that counted; `false` when the lease is void.
    ///
    /// # Errors
    /// When the database fails; the job is still running then.
    pub async fn fail(&self, lease: Lease, problem: JobProblem) -> Result<bool, StoreError> {
        let end = End { problem: Some(problem), step: self.step(lease.id), stimuli: None };
        self.end(lease, JobState::Failed, end).await
    }

    /// Ends a run because somebody asked for it. Whether that counted; `false` when the lease is void.
    ///
    /// # Errors
    /// When the database fails; the job is still running then.
    pub async fn canceled(&self, lease: Lease) -> Result<bool, StoreError> {
        let end = End { step: self.step(lease.id), ..End::default() };
        self.end(lease, JobState::Canceled, end).await
    }

    /// Puts running jobs back into the queue, in one commit, as if their runs had never started: for an orderly stop.
    /// One that was asked to stop is canceled instead. Void leases are passed over.
    ///
    /// # Errors
    /// When the database fails; all of them are still running then.
    pub async fn requeue(&self, leases: &[Lease]) -> Result<(), StoreError> {
        self.give_back(leases, false).await
    }

    /// Puts running jobs whose run broke down back into the queue, in one commit. The attempt counts: a job that was
    /// interrupted [`MOST_ATTEMPTS`] times fails. One that was asked to stop is canceled. Void leases are passed over.
    ///
    /// # Errors
    /// When the database fails; all of them are still running then.
    pub async fn interrupted(&self, leases: &[Lease]) -> Result<(), StoreError> {
        self.give_back(leases, true).await
    }

    pub(super) async fn end(&self, lease: Lease, state: JobState, end: End) -> Result<bool, StoreError> {
        self.detached(move |store| async move {
            let mut write = store.write().await?;
            let ended = write.end(lease, state, &end).await?;
            let _turn = write.commit().await?;
            match &ended {
                Some(ended) => store.tell_end(lease, state, &end, ended),
                None => note!(debug, lease.table, lease.id, state, "end of a void run ignored"),
            }
            Ok(ended.is_some())
        })
        .await
    }

    async fn give_back(&self, leases: &[Lease], counts: bool) -> Result<(), StoreError> {
        let leases = leases.to_vec();
        self.detached(move |store| async move {
            let mut write = store.write().await?;
            let mut told = Vec::new();
            for lease in leases {
                let end = End { step: store.step(lease.id), ..End::default() };
                let select = query!(
                    lease.table,
                    "SELECT cancel_requested, attempts FROM ",
                    " WHERE id = ? AND lease = ? AND state = 'running'"
                );
                let select = select.bind(row::key(lease.id)).bind(lease.number);
                let Some(found) = select.fetch_optional(&mut *write.tx).await? else { continue };
                if found.try_get("cancel_requested")? {
                    let ended = write.end(lease, JobState::Canceled, &end).await?;
                    told.push((lease, JobState::Canceled, end, ended));
                } else if counts && found.try_get::<u32, _>("attempts")? >= MOST_ATTEMPTS {
                    let end = End { problem: Some(interrupted(lease.table)), ..end };
                    let ended = write.end(lease, JobState::Failed, &end).await?;
                    told.push((lease, JobState::Failed, end, ended));
                } else {
                    let update = query!(
                        lease.table,
                        "UPDATE ",
                        " SET state = 'queued', started_at = NULL, attempts = MAX(attempts - ?, 0) WHERE id = ?"
                    );
                    let update = update.bind(if counts { 0 } else { 1 }).bind(row::key(lease.id));
                    update.execute(&mut *write.tx).await?;
                    told.push((lease, JobState::Queued, end, None));
                }
            }
            let _turn = write.commit().await?;
            for (lease, state, end, ended) in told {
                match ended {
                    Some(ended) => store.tell_end(lease, state, &end, &ended),
                    None => store.tell_requeued(lease),
                }
            }
            Ok(())
        })
        .await
    }

    /// Ends or requeues what was running when the last process ended.
    pub(super) async fn recover(&self) -> Result<(), StoreError> {
        for table in [Table::Jobs, Table::Studies] {
            let mut write = self.write().await?;
            let now = row::now();
            let cancel = query!(
                table,
                "UPDATE ",
                " SET state = 'canceled', finished_at = ? WHERE state = 'running' AND cancel_requested = 1"
            );
            let canceled = cancel.bind(now).execute(&mut *write.tx).await?.rows_affected();
            let fail = query!(
                table,
                "UPDATE ",
                " SET state = 'failed', finished_at = ?, problem = ? WHERE state = 'running' AND attempts >= ?"
            );
            let fail = fail.bind(now).bind(row::json(&interrupted(table))?).bind(MOST_ATTEMPTS);
            let failed = fail.execute(&mut *write.tx).await?.rows_affected();
            let requeue = query!(table, "UPDATE ", " SET state = 'queued', started_at = NULL WHERE state = 'running'");
            let requeued = requeue.execute(&mut *write.tx).await?.rows_affected();
            drop(write.commit().await?);
            metrics::recovered(table, canceled, failed, requeued);
            if canceled + failed + requeued > 0 {
                tracing::warn!(kind = %table, requeued, failed, canceled, "work of an interrupted process found");
            }
        }
        Ok(())
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
    }
}

/// What log and metrics want to know of a job or study that ended.
struct Ended {
    model: String,
    started_at: Option<OffsetDateTime>,
    finished_at: Option<OffsetDateTime>,
}

impl Write<'_> {
    /// Ends the run under this lease; nothing when the lease is void.
    async fn end(&mut self, lease: Lease, state: JobState, end: &End) -> Result<Option<Ended>, StoreError> {
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
            Table::Jobs => update.bind(end.step).bind(&end.stimuli),
            Table::Studies => update,
        };
        let update = update.bind(row::key(lease.id)).bind(lease.number);
        let Some(ended) = update.fetch_optional(&mut *self.tx).await? else { return Ok(None) };
        let started_at = ended.try_get::<Option<i64>, _>("started_at")?.and_then(|ms| row::time(ms).ok());
        Ok(Some(Ended { model: ended.try_get("model")?, started_at, finished_at: row::time(now).ok() }))
    }
}

fn interrupted(table: Table) -> JobProblem {
    let detail = format!("the service or its device went down {MOST_ATTEMPTS} times while this {table} ran");
    JobProblem::new(ProblemCode::Interrupted, detail)
}
