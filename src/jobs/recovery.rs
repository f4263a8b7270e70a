//! Crash recovery: requeues what the last process left running, and finds work that keeps crashing the process.
//!
//! The database cannot show why a process died: killed, power lost, out of memory. Work is blamed only if nothing else
//! was running. Work that was running at two crashes next runs with nothing else, so that the actual cause is found in
//! the end.

use std::fs::File;
use std::path::PathBuf;

use super::error::StoreError;
use super::finish::{MAX_INTERRUPTIONS, too_many_interruptions};
use super::metrics;
use super::row;
use super::store::Store;
use super::table::{Table, query};
use super::writer::Caller;

impl Store {
    /// Marks the data directory as in use. Returns whether the last process crashed, that is, ended without a shutdown.
    pub(super) fn mark_alive(&self) -> Result<bool, StoreError> {
        let path = self.alive_marker();
        let crashed = path.exists();
        File::create(&path).map_err(|source| StoreError::Directory { path, source })?;
        Ok(crashed)
    }

    /// Path of a file that exists while a process uses the data directory and is not shutting down.
    fn alive_marker(&self) -> PathBuf {
        self.inner.config.data_dir.join("alive")
    }

    /// Records that a shutdown was requested: if the process dies from now on, running work is not blamed.
    pub fn mark_graceful_shutdown(&self) {
        // Removing a file needs no space, so this works on a full disk.
        if let Err(error) = std::fs::remove_file(self.alive_marker())
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "shutdown could not be recorded; running work counts as interrupted");
        }
    }

    /// Finishes or requeues what was running when the last process ended, by a crash or a shutdown.
    pub(super) async fn recover(&self, crashed: bool) -> Result<(), StoreError> {
        let mut write = self.write(Caller::Worker).await?;
        let on_device = "SELECT (SELECT COUNT(*) FROM jobs WHERE state = 'running') \
                         + (SELECT COUNT(*) FROM studies WHERE state = 'running' AND waits = 0) \
                         + (SELECT COUNT(*) FROM trainings WHERE state = 'running' AND waits = 0)";
        let alone = sqlx::query_scalar::<_, i64>(on_device).fetch_one(write.db()).await? == 1;
        let now = row::now();
        let mut found = Vec::new();
        for table in Table::ALL {
            if crashed {
                let count = match table {
                    Table::Jobs => sqlx::query(
                        "UPDATE jobs SET crashes = crashes + 1, interruptions = interruptions + ? \
                         WHERE state = 'running'",
                    ),
                    Table::Studies | Table::Trainings => query!(
                        table,
                        "UPDATE ",
                        " SET crashes = crashes + 1, interruptions = interruptions + ? \
                         WHERE state = 'running' AND waits = 0"
                    ),
                };
                count.bind(alone).execute(write.db()).await?;
            }
            let cancel = query!(
                table,
                "UPDATE ",
                " SET state = 'canceled', finished_at = ? WHERE state = 'running' AND cancel_requested = 1"
            );
            let canceled = cancel.bind(now).execute(write.db()).await?.rows_affected();
            let fail = query!(
                table,
                "UPDATE ",
                " SET state = 'failed', finished_at = ?, problem = ? WHERE state = 'running' AND interruptions >= ?"
            );
            let fail = fail.bind(now).bind(row::json(&too_many_interruptions(table))?).bind(MAX_INTERRUPTIONS);
            let failed = fail.execute(write.db()).await?.rows_affected();
            let requeue = query!(
                table,
                "UPDATE ",
                " SET state = 'queued', started_at = NULL, attempts = MAX(attempts - ?, 0) WHERE state = 'running'"
            );
            let requeued = requeue.bind(!crashed).execute(write.db()).await?.rows_affected();
            found.push((table, requeued, failed, canceled));
        }
        for table in Table::LONG {
            query!(table, "UPDATE ", " SET waits = 0 WHERE waits = 1").execute(write.db()).await?;
        }
        drop(write.commit().await?);
        for (table, requeued, failed, canceled) in found {
            metrics::recovered(table, canceled, failed, requeued);
            if canceled + failed + requeued > 0 {
                tracing::warn!(kind = %table, requeued, failed, canceled, crashed, "recovered interrupted work");
            }
        }
        Ok(())
    }
}
