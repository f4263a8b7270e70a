//! Clients' changes: submit, cancel, delete.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};
use sqlx::Row;
use uuid::Uuid;

use super::error::{StoreError, SubmitError};
use super::images;
use super::job::{Job, JobState, NewJob};
use super::metrics;
use super::row::{self, columns};
use super::store::{Deleted, Store};

/// An accepted job.
#[derive(Debug, Clone, PartialEq)]
pub enum Submitted {
    /// It is new.
    Created(Job),
    /// The same request was submitted before under the same idempotency key; this is its job, as it stands now.
    Replayed(Job),
}

impl Submitted {
    /// The job, new or not.
    pub fn job(&self) -> &Job {
        match self {
            Self::Created(job) | Self::Replayed(job) => job,
        }
    }
}

impl Store {
    /// Accepts a job: when this returns, the job is on the disk.
    ///
    /// # Errors
    /// When the queue is full, the idempotency key belongs to another request, or the database fails.
    pub async fn submit(&self, new: NewJob) -> Result<Submitted, SubmitError> {
        self.detached(|store| async move { store.submit_now(new).await }).await
    }

    async fn submit_now(&self, new: NewJob) -> Result<Submitted, SubmitError> {
        let limit = self.inner.config.queue_limit;
        let mut write = self.write().await?;
        if let Some(idempotency) = &new.idempotency {
            let select =
                sqlx::query(concat!("SELECT fingerprint, ", columns!(), " FROM jobs WHERE idempotency_key = ?"));
            if let Some(row) = select.bind(&idempotency.key).fetch_optional(&mut *write.tx).await? {
                let same = row.try_get::<&str, _>("fingerprint")? == idempotency.fingerprint;
                return if same {
                    Ok(Submitted::Replayed(self.live(row::job(&row)?)))
                } else {
                    Err(SubmitError::KeyReused)
                };
            }
        }
        let select = sqlx::query_scalar("SELECT COUNT(*) FROM jobs WHERE state = 'queued'");
        let queued: i64 = select.fetch_one(&mut *write.tx).await?;
        if u64::try_from(queued).unwrap_or(0) >= limit {
            return Err(SubmitError::QueueFull { limit });
        }
        let batch_key = batch_key(&new)?;
        let request = row::json(&new.resolved)?;
        let NewJob { model, model_digest, resolved, idempotency } = new;
        let (key, fingerprint) = idempotency.map(|i| (i.key, i.fingerprint)).unzip();
        // Drawn while no other job can be: ids and commits have one order.
        let id = Uuid::now_v7();
        let created_at = row::now();
        let insert = "INSERT INTO jobs (id, state, model, model_digest, batch_key, size, request, created_at, \
                      idempotency_key, fingerprint) VALUES (?, 'queued', ?, ?, ?, ?, ?, ?, ?, ?)";
        sqlx::query(insert)
            .bind(row::key(id))
            .bind(&model)
            .bind(&model_digest)
            .bind(batch_key)
            .bind(i64::try_from(resolved.objectives.len()).unwrap_or(i64::MAX))
            .bind(request)
            .bind(created_at)
            .bind(key)
            .bind(fingerprint)
            .execute(&mut *write.tx)
            .await?;
        images::insert(&mut write.tx, id, &resolved.pictures).await?;
        let select = sqlx::query(concat!("SELECT ", columns!(), " FROM jobs WHERE id = ?"));
        let job = row::job(&select.bind(row::key(id)).fetch_one(&mut *write.tx).await?)?;
        let _turn = write.commit().await?;
        self.inner.arrivals.send_replace(());
        metrics::accepted();
        tracing::info!(job.id = %id, job.state = "queued", job.stimuli = resolved.objectives.len(), model, "job accepted");
        Ok(Submitted::Created(job))
    }

    /// Asks a job to stop. A queued job is canceled at once; a running one within one step, unless it ends by itself
    /// before; one that has ended stays as it is. Returns the job as it stands then, nothing when there is no such job.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn cancel(&self, id: Uuid) -> Result<Option<Job>, StoreError> {
        self.detached(|store| async move { store.cancel_now(id).await }).await
    }

    async fn cancel_now(&self, id: Uuid) -> Result<Option<Job>, StoreError> {
        let key = row::key(id);
        let mut write = self.write().await?;
        let at_once = sqlx::query(
            "UPDATE jobs SET state = 'canceled', cancel_requested = 1, finished_at = ? \
             WHERE id = ? AND state = 'queued'",
        );
        let ended = at_once.bind(row::now()).bind(key.clone()).execute(&mut *write.tx).await?.rows_affected() > 0;
        let soon = sqlx::query("UPDATE jobs SET cancel_requested = 1 WHERE id = ? AND state = 'running'");
        let asked = soon.bind(key).execute(&mut *write.tx).await?.rows_affected() > 0;
        let turn = write.commit().await?;
        if ended {
            self.tell_state(id, JobState::Canceled);
            metrics::ended(JobState::Canceled, None);
            tracing::info!(job.id = %id, job.state = "canceled", "job ended");
        }
        if asked {
            self.stop_run(id);
            tracing::info!(job.id = %id, job.state = "running", "job asked to stop");
        }
        drop(turn);
        self.get(id).await
    }

    /// Forgets a job that has ended, with its PNGs.
    ///
    /// # Errors
    /// When the database fails. PNGs that cannot be removed are tried again when the store is next opened.
    pub async fn delete(&self, id: Uuid) -> Result<Deleted, StoreError> {
        self.detached(|store| async move { store.delete_now(id).await }).await
    }

    async fn delete_now(&self, id: Uuid) -> Result<Deleted, StoreError> {
        let key = row::key(id);
        let mut write = self.write().await?;
        let select = sqlx::query_scalar("SELECT state FROM jobs WHERE id = ?");
        let state: Option<String> = select.bind(key.clone()).fetch_optional(&mut *write.tx).await?;
        match state.map(|state| state.parse::<JobState>()) {
            None => return Ok(Deleted::Unknown),
            Some(Ok(state)) if !state.is_terminal() => return Ok(Deleted::NotFinished(state)),
            Some(_) => {}
        }
        // The row goes first: a job that can be seen has its PNGs. A note stays until they are gone.
        sqlx::query("INSERT INTO leftovers (id) VALUES (?)").bind(key.clone()).execute(&mut *write.tx).await?;
        sqlx::query("DELETE FROM jobs WHERE id = ?").bind(key).execute(&mut *write.tx).await?;
        drop(write.commit().await?);
        self.inner.feed.forget(id);
        tracing::info!(job.id = %id, "job deleted");
        if let Err(error) = self.remove_leftover(id).await {
            tracing::warn!(job.id = %id, %error, "PNGs of a deleted job stay until the next start");
        }
        Ok(Deleted::Gone)
    }

    async fn remove_leftover(&self, id: Uuid) -> Result<(), StoreError> {
        self.inner.stimuli.remove(id).await?;
        let mut write = self.write().await?;
        let delete = sqlx::query("DELETE FROM leftovers WHERE id = ?");
        delete.bind(row::key(id)).execute(&mut *write.tx).await?;
        write.commit().await.map(drop)
    }

    /// Removes the PNGs of deleted jobs that an earlier process left.
    pub(super) async fn remove_leftovers(&self) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        let rows = sqlx::query("SELECT id FROM leftovers").fetch_all(&mut *write.tx).await?;
        drop(write);
        for row in rows {
            let id = row::id(&row)?;
            if let Err(error) = self.remove_leftover(id).await {
                tracing::warn!(job.id = %id, %error, "PNGs of a deleted job stay until the next start");
            }
        }
        Ok(())
    }
}

/// Queued jobs with equal keys may share a batch: same model, same target layers, same settings.
fn batch_key(new: &NewJob) -> Result<Vec<u8>, StoreError> {
    let terms = new.resolved.objectives.iter().flat_map(|objective| &objective.terms);
    let layers: BTreeSet<&str> = terms.map(|term| term.unit.layer.as_str()).collect();
    // Two ids may share weights and differ in preprocessing.
    let text = row::json(&(&new.model, &new.model_digest, layers, &new.resolved.settings))?;
    Ok(Sha256::digest(text).to_vec())
}
