//! Clients' changes: submit, cancel, delete. What does not depend on the kind of work serves studies as well.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::error::{StoreError, SubmitError};
use super::images;
use super::job::{Idempotency, Job, JobState, NewJob};
use super::metrics;
use super::row::{self, columns};
use super::store::{Deleted, Store, Write};
use super::table::{Table, note, query};

/// An accepted job, or study.
#[derive(Debug, Clone, PartialEq)]
pub enum Submitted<T = Job> {
    /// It is new.
    Created(T),
    /// The same request was submitted before under the same idempotency key; this is what came of it, as it stands now.
    Replayed(T),
}

impl Submitted {
    /// The job, new or not.
    pub fn job(&self) -> &Job {
        match self {
            Self::Created(job) | Self::Replayed(job) => job,
        }
    }
}

impl Write<'_> {
    /// The row that this key and this request made before.
    pub(super) async fn replayed(
        &mut self,
        table: Table,
        idempotency: Option<&Idempotency>,
    ) -> Result<Option<SqliteRow>, SubmitError> {
        let Some(Idempotency { key, fingerprint }) = idempotency else { return Ok(None) };
        let select = query!(table, "SELECT * FROM ", " WHERE idempotency_key = ?");
        match select.bind(key).fetch_optional(&mut *self.tx).await? {
            Some(row) if row.try_get::<&str, _>("fingerprint")? == fingerprint => Ok(Some(row)),
            Some(_) => Err(SubmitError::KeyReused),
            None => Ok(None),
        }
    }

    /// Whether fewer wait than may.
    pub(super) async fn room(&mut self, table: Table, limit: u64) -> Result<(), SubmitError> {
        let select = query!(table, "SELECT COUNT(*) AS queued FROM ", " WHERE state = 'queued'");
        let queued: i64 = select.fetch_one(&mut *self.tx).await?.try_get("queued")?;
        if u64::try_from(queued).unwrap_or(0) < limit { Ok(()) } else { Err(SubmitError::QueueFull { limit }) }
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
        let mut write = self.write().await?;
        if let Some(known) = write.replayed(Table::Jobs, new.idempotency.as_ref()).await? {
            return Ok(Submitted::Replayed(self.live(row::job(&known)?)));
        }
        write.room(Table::Jobs, self.inner.config.queue_limit).await?;
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
        metrics::accepted(Table::Jobs);
        tracing::info!(job.id = %id, job.state = "queued", job.stimuli = resolved.objectives.len(), model, "job accepted");
        Ok(Submitted::Created(job))
    }

    /// Asks a job to stop. A queued job is canceled at once; a running one within one step, unless it ends by itself
    /// before; one that has ended stays as it is. Returns the job as it stands then, nothing when there is no such job.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn cancel(&self, id: Uuid) -> Result<Option<Job>, StoreError> {
        self.detached(move |store| async move { store.ask_to_stop(Table::Jobs, id).await }).await?;
        self.get(id).await
    }

    /// Cancels what is queued, and asks what is running to stop.
    pub(super) async fn ask_to_stop(&self, table: Table, id: Uuid) -> Result<(), StoreError> {
        let key = row::key(id);
        let mut write = self.write().await?;
        let at_once = query!(
            table,
            "UPDATE ",
            " SET state = 'canceled', cancel_requested = 1, finished_at = ? WHERE id = ? AND state = 'queued'"
        );
        let ended = at_once.bind(row::now()).bind(key.clone()).execute(&mut *write.tx).await?.rows_affected() > 0;
        let soon = query!(table, "UPDATE ", " SET cancel_requested = 1 WHERE id = ? AND state = 'running'");
        let asked = soon.bind(key).execute(&mut *write.tx).await?.rows_affected() > 0;
        let turn = write.commit().await?;
        if ended {
            self.tell_state(id, JobState::Canceled);
            metrics::ended(table, JobState::Canceled, None);
            note!(info, table, id, JobState::Canceled, "ended");
        }
        if asked {
            self.stop_run(id);
            note!(info, table, id, JobState::Running, "asked to stop");
        }
        drop(turn);
        Ok(())
    }

    /// Forgets a job that has ended, with its PNGs.
    ///
    /// # Errors
    /// When the database fails. PNGs that cannot be removed are tried again when the store is next opened.
    pub async fn delete(&self, id: Uuid) -> Result<Deleted, StoreError> {
        self.detached(move |store| async move {
            let deleted = store.forget(Table::Jobs, id).await?;
            if deleted == Deleted::Gone
                && let Err(error) = store.remove_leftover(id).await
            {
                tracing::warn!(job.id = %id, %error, "PNGs of a deleted job stay until the next start");
            }
            Ok(deleted)
        })
        .await
    }

    /// Deletes the row of a job or study that has ended; its files are still there.
    pub(super) async fn forget(&self, table: Table, id: Uuid) -> Result<Deleted, StoreError> {
        let key = row::key(id);
        let mut write = self.write().await?;
        let select = query!(table, "SELECT state FROM ", " WHERE id = ?");
        let Some(found) = select.bind(key.clone()).fetch_optional(&mut *write.tx).await? else {
            return Ok(Deleted::Unknown);
        };
        let state = found.try_get::<&str, _>("state")?.parse::<JobState>();
        if let Ok(state) = state
            && !state.is_terminal()
        {
            return Ok(Deleted::NotFinished(state));
        }
        // The row goes first: a job that can be seen has its PNGs. A note stays until they are gone.
        if table == Table::Jobs {
            sqlx::query("INSERT INTO leftovers (id) VALUES (?)").bind(key.clone()).execute(&mut *write.tx).await?;
        }
        query!(table, "DELETE FROM ", " WHERE id = ?").bind(key).execute(&mut *write.tx).await?;
        drop(write.commit().await?);
        self.inner.feed.forget(id);
        note!(info, table, id, "deleted", "deleted");
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
