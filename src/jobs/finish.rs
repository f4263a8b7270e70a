//! Outcome of a run: succeeded, failed, canceled, or back in the queue.
//!
//! The outcomes of a batch are one commit, each under the lease of its run. A report under a stale lease changes
//! nothing.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use sqlx::Row;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::claim::Claim;
use super::error::StoreError;
use super::feed::Event;
use super::job::{Stimulus, StoredAnimation};
use super::lease::Lease;
use super::metrics;
use super::row;
use super::run_state::{Failure, FailureCode, RunState};
use super::store::Store;
use super::table::{Table, log_state, query};
use super::writer::{Caller, WriteTransaction};
use proxygrad::maximize::Outcome;

/// Number of times that a job, study or training may bring down the process or its device while nothing else runs; the last of
/// them fails it.
pub const MAX_INTERRUPTIONS: u32 = 3;
/// PNGs written concurrently.
const CONCURRENT_WRITES: usize = 8;

/// Outcome of one run of a job, study or training.
#[derive(Debug, Clone)]
pub enum RunOutcome {
    /// Stimuli were found, and their PNGs are stored. Studies and trainings have their results in folders
    /// instead.
    Succeeded {
        /// One stimulus per objective and preset, in the order of [`Job::planned`](super::job::Job::planned).
        stimuli: Vec<Stimulus>,
        /// Steps done, over all stimuli.
        steps: u32,
    },
    /// No result.
    Failed(Failure),
    /// A client canceled it.
    Canceled,
    /// Back in the queue as if the run had never started, as at a graceful shutdown. Canceled instead if a client asked
    /// for that.
    Requeued,
    /// Back in the queue after the run broke down. Canceled instead if a client asked for that; failed after
    /// [`MAX_INTERRUPTIONS`] such runs with `alone`.
    Interrupted {
        /// Whether nothing else ran in the same batch, so that this run is to blame.
        alone: bool,
    },
}

impl RunOutcome {
    /// Outcome of a study whose runs are all done, or of a training whose network is stored.
    pub fn completed() -> Self {
        Self::Succeeded { stimuli: Vec::new(), steps: 0 }
    }
}

/// Columns that are written when a run ends for good.
#[derive(Default)]
struct FinalColumns {
    stimuli: Option<String>,
    problem: Option<Failure>,
    step: u32,
}

/// Effect of one reported outcome.
enum Effect {
    /// None: the lease is stale.
    StaleLease,
    Finished(RunState, FinalColumns, FinishedRow),
    Requeued,
}

/// What log and metrics show of finished work.
struct FinishedRow {
    /// Its model or models; the dataset of a training.
    model: String,
    started_at: Option<OffsetDateTime>,
    finished_at: Option<OffsetDateTime>,
}

impl Store {
    /// Finishes a job with one maximization outcome per objective and preset: the PNGs are written first, then the commit. Returns
    /// `false` if the lease is stale.
    ///
    /// After an error the job is still running: try again, or report another outcome.
    ///
    /// # Errors
    /// If the number of outcomes differs from that of stimuli, a PNG cannot be written, or the database fails.
    pub async fn succeed(&self, claim: &Claim, outcomes: &[Outcome]) -> Result<bool, StoreError> {
        let outcome = self.store_pngs(claim, outcomes).await?;
        self.finish(claim.lease, outcome).await
    }

    /// Writes the PNGs of a run and returns the outcome to report. May be repeated.
    ///
    /// # Errors
    /// If the number of outcomes differs from that of stimuli, or a PNG cannot be written.
    pub async fn store_pngs(&self, claim: &Claim, outcomes: &[Outcome]) -> Result<RunOutcome, StoreError> {
        let job = &claim.job;
        let planned: Vec<_> = job.planned().collect();
        if outcomes.len() != planned.len() {
            let why = format!("{} outcomes for {} stimuli", outcomes.len(), planned.len());
            return Err(StoreError::Damaged { id: job.id, why });
        }
        let (images, id) = (&self.inner.stimuli, job.id);
        let mut writes = Vec::with_capacity(outcomes.len());
        for ((objective, settings), outcome) in planned.into_iter().zip(outcomes) {
            let write = async move {
                let sha256 = images.put(id, &outcome.png).await?;
                let mut stimulus = Stimulus::new(objective.clone(), outcome, sha256, settings.size);
                if let Some(animation) = &outcome.animation {
                    let sha256 = images.put(id, animation).await?;
                    stimulus.animation = Some(StoredAnimation { sha256, bytes: animation.len() as u64 });
                }
                Ok::<_, StoreError>(stimulus)
            };
            writes.push(write.boxed());
        }
        let written: Result<Vec<Stimulus>, StoreError> =
            stream::iter(writes).buffered(CONCURRENT_WRITES).try_collect().await;
        if let Some(fault) = written.as_ref().err().and_then(StoreError::fault) {
            self.write_failed(fault);
        }
        Ok(RunOutcome::Succeeded { stimuli: written?, steps: job.progress.steps })
    }

    /// Reports the outcome of one run. Returns `false` if the lease is stale.
    ///
    /// # Errors
    /// If the database fails; it is still running then.
    pub async fn finish(&self, lease: Lease, outcome: RunOutcome) -> Result<bool, StoreError> {
        Ok(self.finish_all(vec![(lease, outcome)]).await? == [true])
    }

    /// Reports the outcomes of runs in one commit. Returns `false` for each whose lease is stale. Outcomes without
    /// results can be stored on a full disk, as long as the disk reserve lasts.
    ///
    /// # Errors
    /// If the database fails; all of them are still running then.
    pub async fn finish_all(&self, outcomes: Vec<(Lease, RunOutcome)>) -> Result<Vec<bool>, StoreError> {
        let may_use_reserve = !outcomes.iter().any(|(_, outcome)| matches!(outcome, RunOutcome::Succeeded { .. }));
        self.detached(move |store| async move {
            let finish = |store: Self| {
                let outcomes = outcomes.clone();
                async move { store.finish_now(outcomes).await }
            };
            if may_use_reserve { store.with_reserve(finish).await } else { finish(store).await }
        })
        .await
    }

    async fn finish_now(&self, outcomes: Vec<(Lease, RunOutcome)>) -> Result<Vec<bool>, StoreError> {
        let mut write = self.write(Caller::Worker).await?;
        let mut effects = Vec::with_capacity(outcomes.len());
        for (lease, outcome) in outcomes {
            let step = self.step(lease.id);
            let effect = match outcome {
                RunOutcome::Succeeded { stimuli, steps } => {
                    let columns = FinalColumns { stimuli: Some(row::json(&stimuli)?), problem: None, step: steps };
                    write.finish(lease, RunState::Succeeded, columns).await?
                }
                RunOutcome::Failed(problem) => {
                    let columns = FinalColumns { problem: Some(problem), stimuli: None, step };
                    write.finish(lease, RunState::Failed, columns).await?
                }
                RunOutcome::Canceled => {
                    write.finish(lease, RunState::Canceled, FinalColumns { step, ..FinalColumns::default() }).await?
                }
                RunOutcome::Requeued => write.requeue(lease, None, step).await?,
                RunOutcome::Interrupted { alone } => write.requeue(lease, Some(alone), step).await?,
            };
            effects.push((lease, effect));
        }
        let _guard = write.commit().await?;
        let counted = effects.iter().map(|(_, effect)| !matches!(effect, Effect::StaleLease)).collect();
        for (lease, effect) in effects {
            match effect {
                Effect::Finished(state, columns, row) => self.publish_finished(lease, state, &columns, &row),
                Effect::Requeued => self.publish_requeued(lease),
                Effect::StaleLease => tracing::debug!(id = %lease.id, "outcome under a stale lease ignored"),
            }
        }
        Ok(counted)
    }

    /// Asks the run of a job, study or training to stop, if this process has one.
    pub(super) fn interrupt_run(&self, id: Uuid) {
        if let Some(cancel_requested) = self.running().get(&id) {
            cancel_requested.cancel();
        }
    }

    pub(super) fn running(&self) -> MutexGuard<'_, HashMap<Uuid, CancellationToken>> {
        self.inner.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Steps last published by a running job.
    fn step(&self, job: Uuid) -> u32 {
        self.inner.feed.progress(job).map_or(0, |progress| progress.step)
    }

    fn publish_finished(&self, lease: Lease, state: RunState, columns: &FinalColumns, row: &FinishedRow) {
        let Lease { id, table, .. } = lease;
        self.publish_state(id, state);
        let run_ms = row.started_at.map(|from| row::milliseconds(from, row.finished_at));
        metrics::finished(table, state, run_ms);
        let model = &row.model;
        match &columns.problem {
            Some(Failure { code, detail }) => {
                let code = code.as_str();
                log_state!(warn, table, id, state, "failed", model, duration_ms = run_ms, code, detail);
            }
            None => log_state!(info, table, id, state, "finished", model, duration_ms = run_ms),
        }
    }

    fn publish_requeued(&self, Lease { id, table, .. }: Lease) {
        self.publish_state(id, RunState::Queued);
        metrics::requeued(table);
        self.inner.arrivals.send_replace(());
        log_state!(info, table, id, RunState::Queued, "requeued");
    }

    /// Publishes the state of what no longer runs.
    pub(super) fn publish_state(&self, id: Uuid, state: RunState) {
        self.running().remove(&id);
        self.inner.feed.publish(id, Event::State { state });
        if self.inner.blocked.swap(false, Ordering::AcqRel) {
            self.inner.arrivals.send_replace(());
        }
    }
}

impl WriteTransaction<'_> {
    /// Moves the work of this lease into a terminal state.
    async fn finish(&mut self, lease: Lease, state: RunState, columns: FinalColumns) -> Result<Effect, StoreError> {
        let now = row::now();
        let problem = columns.problem.as_ref().map(row::json).transpose()?;
        let update = match lease.table {
            Table::Jobs => sqlx::query(
                "UPDATE jobs SET state = ?, finished_at = ?, problem = ?, step = ?, stimuli = ? \
                 WHERE id = ? AND lease = ? AND state = 'running' RETURNING model, started_at",
            ),
            Table::Studies => sqlx::query(
                "UPDATE studies SET state = ?, finished_at = ?, problem = ? \
                 WHERE id = ? AND lease = ? AND state = 'running' RETURNING models AS model, started_at",
            ),
            Table::Trainings => sqlx::query(
                "UPDATE trainings SET state = ?, finished_at = ?, problem = ? \
                 WHERE id = ? AND lease = ? AND state = 'running' RETURNING dataset AS model, started_at",
            ),
        };
        let update = update.bind(state.as_str()).bind(now).bind(problem);
        let update = match lease.table {
            Table::Jobs => update.bind(columns.step).bind(columns.stimuli.clone()),
            Table::Studies | Table::Trainings => update,
        };
        let update = update.bind(row::key(lease.id)).bind(lease.number);
        let Some(found) = update.fetch_optional(self.db()).await? else { return Ok(Effect::StaleLease) };
        let started_at = found.try_get::<Option<i64>, _>("started_at")?.and_then(|ms| row::time(ms).ok());
        let row = FinishedRow { model: found.try_get("model")?, started_at, finished_at: row::time(now).ok() };
        Ok(Effect::Finished(state, columns, row))
    }

    /// Puts the work of this lease back into the queue, or finishes it if it was to be canceled or has been
    /// interrupted too often. `interrupted` is `Some(alone)` after a run that broke down.
    async fn requeue(&mut self, lease: Lease, interrupted: Option<bool>, step: u32) -> Result<Effect, StoreError> {
        let select = query!(
            lease.table,
            "SELECT cancel_requested, interruptions FROM ",
            " WHERE id = ? AND lease = ? AND state = 'running'"
        );
        let select = select.bind(row::key(lease.id)).bind(lease.number);
        let Some(found) = select.fetch_optional(self.db()).await? else { return Ok(Effect::StaleLease) };
        if found.try_get("cancel_requested")? {
            let columns = FinalColumns { step, ..FinalColumns::default() };
            return self.finish(lease, RunState::Canceled, columns).await;
        }
        let counts = interrupted == Some(true);
        let interruptions = found.try_get::<u32, _>("interruptions")? + u32::from(counts);
        if counts && interruptions >= MAX_INTERRUPTIONS {
            let problem = Some(too_many_interruptions(lease.table));
            return self.finish(lease, RunState::Failed, FinalColumns { problem, stimuli: None, step }).await;
        }
        let update = match lease.table {
            Table::Jobs => sqlx::query(
                "UPDATE jobs SET state = 'queued', started_at = NULL, attempts = MAX(attempts - ?, 0), \
                 crashes = crashes + ?, interruptions = ? WHERE id = ?",
            ),
            table @ (Table::Studies | Table::Trainings) => query!(
                table,
                "UPDATE ",
                " SET state = 'queued', started_at = NULL, attempts = MAX(attempts - ?, 0), crashes = crashes + ?, \
                 interruptions = ?, waits = 0 WHERE id = ?"
            ),
        };
        let update = update.bind(interrupted.is_none()).bind(interrupted.is_some()).bind(interruptions);
        update.bind(row::key(lease.id)).execute(self.db()).await?;
        Ok(Effect::Requeued)
    }
}

/// Failure of work that was interrupted too often.
pub(super) fn too_many_interruptions(table: Table) -> Failure {
    let detail =
        format!("the service or its device crashed {MAX_INTERRUPTIONS} times while only this {table} was running");
    Failure::new(FailureCode::Interrupted, detail)
}
