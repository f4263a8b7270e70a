//! Cancellation and deletion of jobs, studies and trainings. Both also work on a full disk.

use std::path::PathBuf;

use sqlx::Row;
use uuid::Uuid;

use super::error::StoreError;
use super::job::Job;
use super::metrics;
use super::row;
use super::run_state::RunState;
use super::store::{Deleted, Store};
use super::table::{Table, log_state, query};
use super::writer::Caller;

impl Store {
    /// Cancels a job. A queued job is canceled at once, a running one within one step unless it ends before; a finished
    /// one is unchanged. Returns the job after that; `None` if it does not exist.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn cancel(&self, id: Uuid) -> Result<Option<Job>, StoreError> {
        self.request_cancel(Table::Jobs, id).await?;
        self.get(id).await
    }

    /// Cancels a queued row, and asks a running one to stop.
    pub(super) async fn request_cancel(&self, table: Table, id: Uuid) -> Result<(), StoreError> {
        self.detached(move |store| async move {
            store.with_reserve(|store| async move { store.request_cancel_now(table, id).await }).await
        })
        .await
    }

    async fn request_cancel_now(&self, table: Table, id: Uuid) -> Result<(), StoreError> {
        let key = row::key(id);
        let mut write = self.write(Caller::Client).await?;
        let cancel_queued = query!(
            table,
            "UPDATE ",
            " SET state = 'canceled', cancel_requested = 1, finished_at = ? WHERE id = ? AND state = 'queued'"
        );
        let canceled = cancel_queued.bind(row::now()).bind(key.clone()).execute(write.db()).await?.rows_affected() > 0;
        let cancel_running = query!(table, "UPDATE ", " SET cancel_requested = 1 WHERE id = ? AND state = 'running'");
        let requested = cancel_running.bind(key).execute(write.db()).await?.rows_affected() > 0;
        let guard = write.commit().await?;
        if canceled {
            self.publish_state(id, RunState::Canceled);
            metrics::finished(table, RunState::Canceled, None);
            log_state!(info, table, id, RunState::Canceled, "canceled");
        }
        if requested {
            self.interrupt_run(id);
            log_state!(info, table, id, RunState::Running, "cancellation requested");
        }
        drop(guard);
        Ok(())
    }

    /// Deletes a finished job and its PNGs. On a full disk this uses the disk reserve and, when that is used up,
    /// removes the PNGs before the row.
    ///
    /// # Errors
    /// If the database fails. PNGs that cannot be removed are removed when the store is next opened.
    pub async fn delete(&self, id: Uuid) -> Result<Deleted, StoreError> {
        self.delete_from(Table::Jobs, id).await
    }

    pub(super) async fn delete_from(&self, table: Table, id: Uuid) -> Result<Deleted, StoreError> {
        self.detached(move |store| async move {
            let deleted = match store.with_reserve(|store| async move { store.delete_row(table, id).await }).await {
                Err(error) if store.is_out_of_space(&error).await => {
                    if !store.state(table, id).await?.is_some_and(RunState::is_terminal) {
                        return Err(error);
                    }
                    store.remove_files(id).await?;
                    store.delete_row(table, id).await?
                }
                deleted => deleted?,
            };
            if deleted == Deleted::Gone {
                store.remove_leftover(id).await;
            }
            Ok(deleted)
        })
        .await
    }

    /// Deletes a finished row, and keeps its files.
    async fn delete_row(&self, table: Table, id: Uuid) -> Result<Deleted, StoreError> {
        let key = row::key(id);
        let mut write = self.write(Caller::Client).await?;
        let select = query!(table, "SELECT state FROM ", " WHERE id = ?");
        let Some(found) = select.bind(key.clone()).fetch_optional(write.db()).await? else {
            write.rollback().await?;
            return Ok(Deleted::Unknown);
        };
        if let Ok(state) = found.try_get::<&str, _>("state")?.parse::<RunState>()
            && !state.is_terminal()
        {
            write.rollback().await?;
            return Ok(Deleted::NotFinished(state));
        }
        // The row is deleted first, so that a visible job has its PNGs. The leftover entry stays until the files are
        // removed.
        sqlx::query("INSERT INTO leftovers (id) VALUES (?)").bind(key.clone()).execute(write.db()).await?;
        query!(table, "DELETE FROM ", " WHERE id = ?").bind(key).execute(write.db()).await?;
        drop(write.commit().await?);
        self.inner.feed.remove(id);
        log_state!(info, table, id, "deleted", "deleted");
        Ok(Deleted::Gone)
    }

    /// Removes the files of a deleted row, then its leftover entry.
    async fn remove_leftover(&self, id: Uuid) {
        let removed = async {
            self.remove_files(id).await?;
            let mut write = self.write(Caller::Client).await?;
            let delete = sqlx::query("DELETE FROM leftovers WHERE id = ?");
            delete.bind(row::key(id)).execute(write.db()).await?;
            write.commit().await.map(drop)
        };
        if let Err(error) = removed.await {
            tracing::warn!(%id, %error, "files that were deleted remain until the next start");
        }
    }

    /// Removes the PNGs of a job and the folder of a study or training, if there are any.
    async fn remove_files(&self, id: Uuid) -> Result<(), StoreError> {
        self.inner.stimuli.remove(id).await?;
        let folders = Table::LONG.map(|table| self.folders(table).join(id.to_string()));
        let remove = |folder: PathBuf| match std::fs::remove_dir_all(folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        self.blocking(move |_| folders.into_iter().try_for_each(remove)).await
    }

    /// Removes the files of deleted rows that an earlier process left behind.
    pub(super) async fn remove_leftovers(&self) -> Result<(), StoreError> {
        for row in sqlx::query("SELECT id FROM leftovers").fetch_all(self.readers()).await? {
            self.remove_leftover(row::id(&row)?).await;
        }
        Ok(())
    }
}
