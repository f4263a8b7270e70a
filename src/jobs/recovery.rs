//! What the last process left running, and who is to blame when it died.
//!
//! Killed, cut off or out of memory: the database cannot tell why a process ended. So work counts as the cause only when
//! nothing else was on a device; and what was running at two such ends runs with nothing beside it the next time, so
//! that the blame falls on the right one in the end.

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
    /// Notes that a process uses the data directory; whether the last one that did so died without being asked to end.
    pub(super) fn mark_alive(&self) -> Result<bool, StoreError> {
        let path = self.alive();
        let crashed = path.exists();
        File::create(&path).map_err(|source| StoreError::Directory { path, source })?;
        Ok(crashed)
    }

    /// There as long as a process uses the data directory and was not asked to end.
    fn alive(&self) -> PathBuf {
        self.inner.config.data_dir.join("alive")
    }

    /// Says that the process was asked to end: whatever happens from now on, what runs is not to blame for it.
    pub fn mark_orderly_shutdown(&self) {
        // Removing a file needs no space: this works on a full disk, too.
        if let Err(error) = std::fs::remove_file(self.alive())
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "an orderly end could not be noted; what runs now counts as interrupted");
        }
    }

    /// Ends or requeues what was running when the last process ended, by a crash or in order.
    pub(super) async fn recover(&self, crashed: bool) -> Result<(), StoreError> {
        let mut write = self.write(Caller::Worker).await?;
        let on_device = "SELECT (SELECT COUNT(*) FROM jobs WHERE state = 'running') \
                         + (SELECT COUNT(*) FROM studies WHERE state = 'running' AND waits = 0)";
        let alone = sqlx::query_scalar::<_, i64>(on_device).fetch_one(write.db()).await? == 1;
        let now = row::now();
        let mut found = Vec::new();
        for table in [Table::Jobs, Table::Studies] {
            if crashed {
                let count = match table {
                    Table::Jobs => {
                        "UPDATE jobs SET crashes = crashes + 1, interruptions = interruptions + ? \
                         WHERE state = 'running'"
                    }
                    Table::Studies => {
                        "UPDATE studies SET crashes = crashes + 1, interruptions = interruptions + ? \
                         WHERE state = 'running' AND waits = 0"
                    }
                };
                sqlx::query(count).bind(alone).execute(write.db()).await?;
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
        sqlx::query("UPDATE studies SET waits = 0 WHERE waits = 1").execute(write.db()).await?;
        drop(write.commit().await?);
        for (table, requeued, failed, canceled) in found {
            metrics::recovered(table, canceled, failed, requeued);
            if canceled + failed + requeued > 0 {
                tracing::warn!(kind = %table, requeued, failed, canceled, crashed, "work of the last process found");
            }
        }
        Ok(())
    }
}
