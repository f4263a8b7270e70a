//! Store operations on trainings: one row per training, and a folder with its checkpoints and results, which is created
//! and removed like that of a [study](super::study_store).

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sqlx::{QueryBuilder, Row, Sqlite};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::claim::is_suspect;
use super::error::{StoreError, SubmitError};
use super::feed::{Event, Subscription};
use super::job::Idempotency;
use super::lease::Lease;
use super::metrics;
use super::page::{Cursor, Page};
use super::row::{self, training_columns};
use super::run_state::{Failure, FailureCode, RunState};
use super::store::{Deleted, Store};
use super::submit::Submitted;
use super::table::{Table, query};
use super::training::{NewTraining, Training, TrainingOrder, TrainingProgress};
use super::writer::Caller;
use proxygrad::train::Epoch;

/// A running training, owned by its claimer.
#[derive(Debug)]
pub struct TrainingClaim {
    /// The training as it was claimed.
    pub training: Training,
    /// Required to report its outcome.
    pub lease: Lease,
    /// Canceled when a client cancels the training.
    pub cancel_requested: CancellationToken,
}

impl Store {
    /// Accepts a training. When this returns, the training is on the disk.
    ///
    /// # Errors
    /// If the queue is full, the idempotency key belongs to another request, another training that has not ended
    /// becomes a model of the same id, or the database fails.
    pub async fn submit_training(&self, new: NewTraining) -> Result<Submitted<Training>, SubmitError> {
        self.detached(|store| async move { store.submit_training_now(new).await }).await
    }

    async fn submit_training_now(&self, new: NewTraining) -> Result<Submitted<Training>, SubmitError> {
        let NewTraining { order, idempotency } = new;
        let mut write = self.write(Caller::Client).await?;
        if let Some(known) = write.replayed(Table::Trainings, idempotency.as_ref()).await? {
            write.rollback().await?;
            return Ok(Submitted::Replayed(self.training_with_live_progress(row::training(&known)?)));
        }
        let limit = self.inner.config.queue_limit;
        if write.queued(Table::Trainings).await? >= limit {
            write.rollback().await?;
            return Err(SubmitError::QueueFull { limit });
        }
        let TrainingOrder { dataset, data, recipe, add } = &order;
        if let Some(model) = add {
            let select = "SELECT 1 FROM trainings WHERE model = ? AND state IN ('queued', 'running')";
            if sqlx::query(select).bind(model).fetch_optional(write.db()).await?.is_some() {
                write.rollback().await?;
                return Err(SubmitError::ModelReserved { model: model.clone() });
            }
        }
        self.check_space().await?;
        let (key, fingerprint) = idempotency.map(|i| (i.key, i.fingerprint)).unzip();
        let id = Uuid::now_v7();
        let insert = "INSERT INTO trainings (id, state, dataset, model, recipe, data, total, created_at, \
                      idempotency_key, fingerprint) VALUES (?, 'queued', ?, ?, ?, ?, ?, ?, ?, ?)";
        sqlx::query(insert)
            .bind(row::key(id))
            .bind(dataset)
            .bind(add)
            .bind(row::json(recipe)?)
            .bind(row::json(data)?)
            .bind(i64::try_from(recipe.epochs).unwrap_or(i64::MAX))
            .bind(row::now())
            .bind(key)
            .bind(fingerprint)
            .execute(write.db())
            .await?;
        let select = sqlx::query(concat!("SELECT ", training_columns!(), " FROM trainings WHERE id = ?"));
        let training = row::training(&select.bind(row::key(id)).fetch_one(write.db()).await?)?;
        let _guard = write.commit().await?;
        self.inner.arrivals.send_replace(());
        metrics::accepted(Table::Trainings);
        tracing::info!(
            training.id = %id, training.state = "queued", training.epochs = recipe.epochs, dataset, "training accepted"
        );
        Ok(Submitted::Created(training))
    }

    /// Whether this request for a training was accepted before.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn known_training(&self, idempotency: &Idempotency) -> Result<bool, StoreError> {
        let select = sqlx::query("SELECT 1 FROM trainings WHERE idempotency_key = ? AND fingerprint = ?");
        let select = select.bind(idempotency.key.clone()).bind(idempotency.fingerprint.clone());
        Ok(select.fetch_optional(self.readers()).await?.is_some())
    }

    /// Whether the oldest queued study or training is a training; `None` if neither is queued.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn next_is_training(&self) -> Result<Option<bool>, StoreError> {
        let mut oldest = Vec::new();
        for table in Table::LONG {
            let select = query!(table, "SELECT MIN(id) AS oldest FROM ", " WHERE state = 'queued'");
            let id: Option<Vec<u8>> = select.fetch_one(self.readers()).await?.try_get("oldest")?;
            oldest.extend(id.map(|id| (id, table == Table::Trainings)));
        }
        Ok(oldest.into_iter().min().map(|(_, is_training)| is_training))
    }

    /// Claims the oldest queued training; `None` if there is none, or if it has to wait until nothing else runs.
    ///
    /// # Errors
    /// If the database fails; nothing is claimed then.
    pub async fn claim_training(&self) -> Result<Option<TrainingClaim>, StoreError> {
        self.detached(|store| async move {
            loop {
                let mut write = store.write(Caller::Worker).await?;
                let others = write.others(None).await?;
                let select = sqlx::query(concat!(
                    "SELECT ",
                    training_columns!(),
                    ", lease, crashes FROM trainings WHERE state = 'queued' ORDER BY id LIMIT 1"
                ));
                let found = select.fetch_optional(write.db()).await?;
                let blocked = others.suspects || others.running && is_suspect(found.as_ref())?;
                if blocked {
                    store.inner.blocked.store(true, Ordering::Release);
                }
                let Some(found) = found.filter(|_| !blocked) else {
                    write.rollback().await?;
                    return Ok(None);
                };
                let (id, now) = (row::id(&found)?, row::now());
                match row::training(&found) {
                    Ok(training) => {
                        let update = sqlx::query(
                            "UPDATE trainings SET state = 'running', started_at = ?, attempts = attempts + 1, \
                             lease = lease + 1 WHERE id = ?",
                        );
                        update.bind(now).bind(row::key(id)).execute(write.db()).await?;
                        let _guard = write.commit().await?;
                        let number = found.try_get::<i64, _>("lease")? + 1;
                        let lease = Lease { id, table: Table::Trainings, number };
                        return Ok(Some(store.start_training(training, lease, now)));
                    }
                    Err(error) => {
                        let problem = Failure::new(FailureCode::Internal, "the stored training is damaged");
                        let update = sqlx::query(
                            "UPDATE trainings SET state = 'failed', finished_at = ?, problem = ? WHERE id = ?",
                        );
                        let update = update.bind(now).bind(row::json(&problem)?).bind(row::key(id));
                        update.execute(write.db()).await?;
                        let _guard = write.commit().await?;
                        tracing::error!(
                            training.id = %id, training.state = "failed", %error, "training row is damaged"
                        );
                        store.publish_state(id, RunState::Failed);
                        metrics::finished(Table::Trainings, RunState::Failed, None);
                    }
                }
            }
        })
        .await
    }

    fn start_training(&self, mut training: Training, lease: Lease, now: i64) -> TrainingClaim {
        training.state = RunState::Running;
        training.started_at = row::time(now).ok();
        let cancel_requested = CancellationToken::new();
        self.running().insert(training.id, cancel_requested.clone());
        self.inner.feed.publish(training.id, Event::State { state: RunState::Running });
        let queued_ms = row::milliseconds(training.created_at, training.started_at);
        metrics::started(Table::Trainings, queued_ms);
        let (id, done) = (training.id, training.progress.epochs_done);
        tracing::info!(
            training.id = %id, training.state = "running", training.epochs_done = done, queued_ms, "training started"
        );
        TrainingClaim { training, lease, cancel_requested }
    }

    /// Records that a study or training resumes after the jobs that its device ran first. Ignored if the lease is
    /// stale.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn resumed(&self, lease: Lease) -> Result<(), StoreError> {
        if lease.table == Table::Jobs {
            return Ok(());
        }
        self.detached(move |store| async move {
            let mut write = store.write(Caller::Worker).await?;
            let update = query!(lease.table, "UPDATE ", " SET waits = 0 WHERE id = ? AND lease = ?");
            update.bind(row::key(lease.id)).bind(lease.number).execute(write.db()).await?;
            write.commit().await.map(drop)
        })
        .await
    }

    /// Records the epochs done, and resets the count of interruptions, since the training makes progress. Ignored if the
    /// lease is stale.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn record_epoch(&self, lease: Lease, last: Epoch, best: Epoch) -> Result<(), StoreError> {
        self.detached(move |store| async move {
            let mut write = store.write(Caller::Worker).await?;
            let update = sqlx::query(
                "UPDATE trainings SET done = ?, last = ?, best = ?, attempts = 0, crashes = 0, interruptions = 0 \
                 WHERE id = ? AND lease = ? AND state = 'running'",
            );
            let update = update.bind(i64::try_from(last.epoch).unwrap_or(i64::MAX));
            let update = update.bind(row::json(&last)?).bind(row::json(&best)?);
            update.bind(row::key(lease.id)).bind(lease.number).execute(write.db()).await?;
            let _guard = write.commit().await?;
            if store.inner.blocked.swap(false, Ordering::AcqRel) {
                store.inner.arrivals.send_replace(());
            }
            Ok(())
        })
        .await
    }

    /// The training with this id; while it runs, with its latest progress.
    ///
    /// # Errors
    /// If the database fails or the training's row is damaged.
    pub async fn training(&self, id: Uuid) -> Result<Option<Training>, StoreError> {
        let select = sqlx::query(concat!("SELECT ", training_columns!(), " FROM trainings WHERE id = ?"));
        let row = select.bind(row::key(id)).fetch_optional(self.readers()).await?;
        row.map(|row| Ok(self.training_with_live_progress(row::training(&row)?))).transpose()
    }

    /// The folder of a training: checkpoints, the table of epochs and the trained network; created with its first run.
    pub fn training_folder(&self, id: Uuid) -> PathBuf {
        self.folders(Table::Trainings).join(id.to_string())
    }

    /// A page of trainings, newest first; see [`Store::list`].
    ///
    /// # Errors
    /// If the database fails.
    pub async fn trainings(
        &self,
        state: Option<RunState>,
        dataset: Option<String>,
        cursor: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<Training>, StoreError> {
        let mut select =
            QueryBuilder::<Sqlite>::new(concat!("SELECT ", training_columns!(), " FROM trainings WHERE TRUE"));
        if let Some(state) = state {
            select.push(" AND state = ").push_bind(state.as_str());
        }
        if let Some(dataset) = dataset {
            select.push(" AND dataset = ").push_bind(dataset);
        }
        self.page(select, cursor, limit, |row| Ok(self.training_with_live_progress(row::training(row)?))).await
    }

    /// Cancels a training and returns it; see [`Store::cancel`].
    ///
    /// # Errors
    /// If the database fails.
    pub async fn cancel_training(&self, id: Uuid) -> Result<Option<Training>, StoreError> {
        self.request_cancel(Table::Trainings, id).await?;
        self.training(id).await
    }

    /// Deletes a finished training and its folder; see [`Store::delete`]. The model that it became stays.
    ///
    /// # Errors
    /// If the database fails. A folder that cannot be removed is removed when the store is next opened.
    pub async fn delete_training(&self, id: Uuid) -> Result<Deleted, StoreError> {
        self.delete_from(Table::Trainings, id).await
    }

    /// The events of a training after event `after`; see [`Store::subscribe`].
    ///
    /// # Errors
    /// If the database fails.
    pub async fn subscribe_training(&self, id: Uuid, after: Option<u64>) -> Result<Option<Subscription>, StoreError> {
        self.subscribe_to(Table::Trainings, id, after).await
    }

    /// The training once it is finished, or after `limit`, whichever is first.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn wait_for_training(&self, id: Uuid, limit: Duration) -> Result<Option<Training>, StoreError> {
        self.wait_until_finished(Table::Trainings, id, limit).await?;
        self.training(id).await
    }

    /// The training with its latest progress.
    fn training_with_live_progress(&self, mut training: Training) -> Training {
        if training.state == RunState::Running
            && let Some(progress) = self.inner.feed.training_progress(training.id)
        {
            training.progress = progress;
        }
        training
    }

    /// Publishes the progress of a training.
    pub fn publish_training_progress(&self, id: Uuid, progress: TrainingProgress) {
        self.inner.feed.publish(id, Event::Training(progress));
    }

    /// Publishes the measurements of an epoch of a training.
    pub fn publish_epoch(&self, id: Uuid, epoch: Epoch) {
        self.inner.feed.publish(id, Event::Epoch(epoch));
    }
}
