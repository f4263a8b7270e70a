//! The one connection that writes, and whose turn it is.
//!
//! SQLite may roll a transaction back on its own when a write fails (SQLITE_FULL, SQLITE_IOERR, SQLITE_BUSY), or leave it
//! open. Rather than find out, a connection on which anything failed is thrown away with its transaction: only one that
//! has committed or rolled back in order is used again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;

use super::error::StoreError;

/// Hands out write transactions, one at a time.
#[derive(Debug)]
pub(super) struct Writer {
    options: SqliteConnectOptions,
    /// How long a transaction may wait for its turn.
    patience: Duration,
    /// Clients' transactions wait here first, so that no more than one of them is in front of a worker's.
    clients: Mutex<()>,
    /// Held from before a transaction begins until its news is told: news comes in the order of commits.
    turn: Mutex<Slot>,
    closed: AtomicBool,
}

/// The connection, unless the last transaction failed.
type Slot = Option<SqliteConnection>;

/// Who writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    /// A device that claims work or reports its end; does not queue behind clients.
    Worker,
    /// A client's request.
    Client,
}

/// A write transaction. Dropped before [`WriteTransaction::commit`], nothing of it happens, and its connection is closed.
#[derive(Debug)]
pub(super) struct WriteTransaction<'a> {
    connection: SqliteConnection,
    turn: CommitGuard<'a>,
}

/// The right to write next, kept after a commit while its news is told.
#[derive(Debug)]
pub(super) struct CommitGuard<'a> {
    slot: MutexGuard<'a, Slot>,
    _client: Option<MutexGuard<'a, ()>>,
}

impl Writer {
    /// Writes through `connection` first, later through others made by `options`.
    pub(super) fn new(options: SqliteConnectOptions, connection: SqliteConnection, patience: Duration) -> Self {
        let (clients, turn) = (Mutex::default(), Mutex::new(Some(connection)));
        Self { options, patience, clients, turn, closed: AtomicBool::new(false) }
    }

    /// Begins a transaction once it is this caller's turn.
    pub(super) async fn begin(&self, caller: Caller) -> Result<WriteTransaction<'_>, StoreError> {
        let busy = |_| StoreError::Busy { seconds: self.patience.as_secs() };
        let client = match caller {
            Caller::Client => Some(timeout(self.patience, self.clients.lock()).await.map_err(busy)?),
            Caller::Worker => None,
        };
        let mut slot = timeout(self.patience, self.turn.lock()).await.map_err(busy)?;
        if self.is_closed() {
            return Err(sqlx::Error::PoolClosed.into());
        }
        let mut connection = match slot.take() {
            Some(connection) => connection,
            None => self.options.connect().await?,
        };
        sqlx::query("BEGIN IMMEDIATE").execute(&mut connection).await?;
        Ok(WriteTransaction { connection, turn: CommitGuard { slot, _client: client } })
    }

    /// Moves what the write-ahead log holds into the database, so that the log is written from its beginning again: its file
    /// keeps its size, and later commits find their space there. No error when that is not possible now.
    pub(super) async fn restart_log(&self) {
        let mut slot = self.turn.lock().await;
        let connection = match slot.take() {
            Some(connection) => Ok(connection),
            None => self.options.connect().await,
        };
        let restarted = match connection {
            Ok(mut connection) => {
                let restarted = sqlx::query("PRAGMA wal_checkpoint(RESTART)").execute(&mut connection).await;
                restarted.map(|_| *slot = Some(connection))
            }
            Err(error) => Err(error),
        };
        if let Err(error) = restarted {
            tracing::debug!(%error, "the write-ahead log could not be restarted");
        }
    }

    /// Whether [`Writer::close`] was called.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Closes the connection; later transactions fail.
    pub(super) async fn close(&self) {
        let mut slot = self.turn.lock().await;
        self.closed.store(true, Ordering::Release);
        if let Some(connection) = slot.take()
            && let Err(error) = connection.close().await
        {
            tracing::warn!(%error, "the job database was not closed in order");
        }
    }
}

impl<'a> WriteTransaction<'a> {
    /// Where the statements of the transaction go.
    pub(super) fn db(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }

    /// Commits and keeps the turn, so that the news can be told before the next writer's.
    pub(super) async fn commit(self) -> Result<CommitGuard<'a>, StoreError> {
        self.end("COMMIT").await
    }

    /// Ends a transaction in which there was nothing to write.
    pub(super) async fn rollback(self) -> Result<(), StoreError> {
        self.end("ROLLBACK").await.map(drop)
    }

    async fn end(self, statement: &'static str) -> Result<CommitGuard<'a>, StoreError> {
        let Self { mut connection, mut turn } = self;
        sqlx::query(statement).execute(&mut connection).await?;
        *turn.slot = Some(connection);
        Ok(turn)
    }
}
