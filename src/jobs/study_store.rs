//! Store operations on studies: one row per study, and a folder with its runs.
//!
//! The row is created before the folder and deleted before it. A deletion leaves an entry in `leftovers` until the
//! folder is removed; a folder with neither row nor entry is quarantined when the store is next opened.

use std::sync::atomic::Ordering;
use std::time::Duration;

use sqlx::{QueryBuilder, Row, Sqlite};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::claim::is_suspect;
use super::error::{StoreError, SubmitError};
use super::feed::{Event, Subscription};
use super::lease::Lease;
use super::metrics;
use super::page::{Cursor, Page};
use super::row::{self, study_columns};
use super::run_state::{Failure, FailureCode, RunState};
use super::store::{Deleted, Store};
use super::study::{NewStudy, Study, StudyProgress};
use super::submit::Submitted;
use super::table::Table;
use super::writer::Caller;
use proxygrad::study::{Folder, Plan};

/// A running study, owned by its claimer.
#[derive(Debug)]
pub struct StudyClaim {
    /// The study as it was claimed.
    pub study: Study,
    /// All runs of the study.
    pub plan: Plan,
    /// Required to report its outcome.
    pub lease: Lease,
    /// Canceled when a client cancels the study.
    pub cancel_requested: CancellationToken,
}

impl Store {
    /// Accepts a study. When this returns, the study is on the disk.
    ///
    /// # Errors
    /// If the queue is full, the idempotency key belongs to another request, or the database fails.
    pub async fn submit_study(&self, new: NewStudy) -> Result<Submitted<Study>, SubmitError> {
        self.detached(|store| async move { store.submit_study_now(new).await }).await
    }

    async fn submit_study_now(&self, new: NewStudy) -> Result<Submitted<Study>, SubmitError> {
        let NewStudy { plan, images, idempotency } = new;
        let mut write = self.write(Caller::Client).await?;
        if let Some(known) = write.replayed(Table::Studies, idempotency.as_ref()).await? {
            write.rollback().await?;
            return Ok(Submitted::Replayed(self.study_with_live_progress(row::study(&known)?)));
        }
        let limit = self.inner.config.queue_limit;
        if write.queued(Table::Studies).await? >= limit {
            write.rollback().await?;
            return Err(SubmitError::QueueFull { limit });
        }
        self.check_space().await?;
        let models: Vec<&str> = plan.models.iter().map(|model| model.id.as_str()).collect();
        let (key, fingerprint) = idempotency.map(|i| (i.key, i.fingerprint)).unzip();
        let id = Uuid::now_v7();
        let insert = "INSERT INTO studies (id, state, models, plan, images, total, created_at, idempotency_key, \
                      fingerprint) VALUES (?, 'queued', ?, ?, ?, ?, ?, ?, ?)";
        sqlx::query(insert)
            .bind(row::key(id))
            .bind(row::json(&models)?)
            .bind(row::json(&plan)?)
            .bind(i64::try_from(images).unwrap_or(i64::MAX))
            .bind(i64::try_from(plan.runs()).unwrap_or(i64::MAX))
            .bind(row::now())
            .bind(key)
            .bind(fingerprint)
            .execute(write.db())
            .await?;
        let select = sqlx::query(concat!("SELECT ", study_columns!(), " FROM studies WHERE id = ?"));
        let study = row::study(&select.bind(row::key(id)).fetch_one(write.db()).await?)?;
        let _guard = write.commit().await?;
        self.inner.arrivals.send_replace(());
        metrics::accepted(Table::Studies);
        tracing::info!(study.id = %id, study.state = "queued", study.runs = plan.runs(), ?models, "study accepted");
        Ok(Submitted::Created(study))
    }

    /// Claims the oldest queued study; `None` if there is none, or if it has to wait until nothing else runs.
    ///
    /// # Errors
    /// If the database fails; nothing is claimed then.
    pub async fn claim_study(&self) -> Result<Option<StudyClaim>, StoreError> {
        self.detached(|store| async move {
            loop {
                let mut write = store.write(Caller::Worker).await?;
                let others = write.others(None).await?;
                let select = sqlx::query(concat!(
                    "SELECT ",
                    study_columns!(),
                    ", plan, lease, crashes FROM studies WHERE state = 'queued' ORDER BY id LIMIT 1"
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
                let read = row::study(&found).and_then(|study| Ok((study, row::document::<Plan>(&found, "plan")?)));
                match read {
                    Ok((study, plan)) => {
                        let update = sqlx::query(
                            "UPDATE studies SET state = 'running', started_at = ?, attempts = attempts + 1, \
                             lease = lease + 1 WHERE id = ?",
                        );
                        update.bind(now).bind(row::key(id)).execute(write.db()).await?;
                        let _guard = write.commit().await?;
                        let lease = Lease { id, table: Table::Studies, number: found.try_get::<i64, _>("lease")? + 1 };
                        return Ok(Some(store.start_study(study, plan, lease, now)));
                    }
                    Err(error) => {
                        let problem = Failure::new(FailureCode::Internal, "the stored study is damaged");
                        let update = sqlx::query(
                            "UPDATE studies SET state = 'failed', finished_at = ?, problem = ? WHERE id = ?",
                        );
                        let update = update.bind(now).bind(row::json(&problem)?).bind(row::key(id));
                        update.execute(write.db()).await?;
                        let _guard = write.commit().await?;
                        tracing::error!(study.id = %id, study.state = "failed", %error, "study row is damaged");
                        store.publish_state(id, RunState::Failed);
                        metrics::finished(Table::Studies, RunState::Failed, None);
                    }
                }
            }
        })
        .await
    }

    fn start_study(&self, mut study: Study, plan: Plan, lease: Lease, now: i64) -> StudyClaim {
        study.state = RunState::Running;
        study.started_at = row::time(now).ok();
        let cancel_requested = CancellationToken::new();
        self.running().insert(study.id, cancel_requested.clone());
        self.inner.feed.publish(study.id, Event::State { state: RunState::Running });
        let queued_ms = row::milliseconds(study.created_at, study.started_at);
        metrics::started(Table::Studies, queued_ms);
        tracing::info!(
            study.id = %study.id, study.state = "running", study.done = study.progress.done, queued_ms, "study started"
        );
        StudyClaim { study, plan, lease, cancel_requested }
    }

    /// Records the number of runs done, and resets the count of interruptions, since the study makes progress. Ignored
    /// if the lease is stale.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn record_study_progress(&self, lease: Lease, done: usize) -> Result<(), StoreError> {
        self.detached(move |store| async move {
            let mut write = store.write(Caller::Worker).await?;
            let update = sqlx::query(
                "UPDATE studies SET done = ?, attempts = 0, crashes = 0, interruptions = 0 \
                 WHERE id = ? AND lease = ? AND state = 'running'",
            );
            let update = update.bind(i64::try_from(done).unwrap_or(i64::MAX));
            update.bind(row::key(lease.id)).bind(lease.number).execute(write.db()).await?;
            let _guard = write.commit().await?;
            if store.inner.blocked.swap(false, Ordering::AcqRel) {
                store.inner.arrivals.send_replace(());
            }
            Ok(())
        })
        .await
    }

    /// The study with this id; while it runs, with its latest progress.
    ///
    /// # Errors
    /// If the database fails or the study's row is damaged.
    pub async fn study(&self, id: Uuid) -> Result<Option<Study>, StoreError> {
        let select = sqlx::query(concat!("SELECT ", study_columns!(), " FROM studies WHERE id = ?"));
        let row = select.bind(row::key(id)).fetch_optional(self.readers()).await?;
        row.map(|row| Ok(self.study_with_live_progress(row::study(&row)?))).transpose()
    }

    /// The plan of a study.
    ///
    /// # Errors
    /// If the database fails or the plan is damaged.
    pub async fn plan(&self, id: Uuid) -> Result<Option<Plan>, StoreError> {
        let select = sqlx::query("SELECT id, plan FROM studies WHERE id = ?");
        let row = select.bind(row::key(id)).fetch_optional(self.readers()).await?;
        row.map(|row| row::document(&row, "plan")).transpose()
    }

    /// The folder with the runs of a study; created with the first run.
    pub fn study_folder(&self, id: Uuid) -> Folder {
        Folder::new(self.folders(Table::Studies).join(id.to_string()))
    }

    /// A page of studies, newest first; see [`Store::list`].
    ///
    /// # Errors
    /// If the database fails.
    pub async fn studies(
        &self,
        state: Option<RunState>,
        cursor: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<Study>, StoreError> {
        let mut select = QueryBuilder::<Sqlite>::new(concat!("SELECT ", study_columns!(), " FROM studies WHERE TRUE"));
        if let Some(state) = state {
            select.push(" AND state = ").push_bind(state.as_str());
        }
        self.page(select, cursor, limit, |row| Ok(self.study_with_live_progress(row::study(row)?))).await
    }

    /// Cancels a study and returns it; see [`Store::cancel`].
    ///
    /// # Errors
    /// If the database fails.
    pub async fn cancel_study(&self, id: Uuid) -> Result<Option<Study>, StoreError> {
        self.request_cancel(Table::Studies, id).await?;
        self.study(id).await
    }

    /// Deletes a finished study and its folder; see [`Store::delete`].
    ///
    /// # Errors
    /// If the database fails. A folder that cannot be removed is removed when the store is next opened.
    pub async fn delete_study(&self, id: Uuid) -> Result<Deleted, StoreError> {
        self.delete_from(Table::Studies, id).await
    }

    /// The events of a study after event `after`; see [`Store::subscribe`].
    ///
    /// # Errors
    /// If the database fails.
    pub async fn subscribe_study(&self, id: Uuid, after: Option<u64>) -> Result<Option<Subscription>, StoreError> {
        self.subscribe_to(Table::Studies, id, after).await
    }

    /// The study once it is finished, or after `limit`, whichever is first.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn wait_for_study(&self, id: Uuid, limit: Duration) -> Result<Option<Study>, StoreError> {
        self.wait_until_finished(Table::Studies, id, limit).await?;
        self.study(id).await
    }

    /// The study with its latest progress.
    fn study_with_live_progress(&self, mut study: Study) -> Study {
        if study.state == RunState::Running
            && let Some(progress) = self.inner.feed.study_progress(study.id)
        {
            study.progress = progress;
        }
        study
    }

    /// Publishes the progress of a study.
    pub fn publish_study_progress(&self, id: Uuid, progress: StudyProgress) {
        self.inner.feed.publish(id, Event::Study(progress));
    }
}
