//! The single write connection, handed out to one transaction at a time.
//!
//! When a write fails (SQLITE_FULL, SQLITE_IOERR, SQLITE_BUSY), SQLite may roll the transaction back or leave it open.
//! So a connection on which anything failed is closed, together with its transaction; it is reused only after a
//! successful commit or rollback.

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
    /// How long a transaction may wait to begin.
    patience: Duration,
    /// Client transactions queue here first, so that at most one of them is ahead of a worker's.
    clients: Mutex<()>,
    /// Locked from before a transaction begins until its events are published, so that events follow the order of
    /// commits.
    connection: Mutex<IdleConnection>,
    closed: AtomicBool,
}

/// The connection; `None` after a failed transaction.
type IdleConnection = Option<SqliteConnection>;

/// Origin of a transaction, which decides its place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    /// A device that claims work or reports an outcome; it does not queue behind clients.
    Worker,
    /// A client's request.
    Client,
}

/// A write transaction. If dropped before [`WriteTransaction::commit`], it has no effect and its connection is closed.
#[derive(Debug)]
pub(super) struct WriteTransaction<'a> {
    connection: SqliteConnection,
    guard: CommitGuard<'a>,
}

/// Keeps other transactions waiting after a commit while its events are published.
#[derive(Debug)]
pub(super) struct CommitGuard<'a> {
    idle: MutexGuard<'a, IdleConnection>,
    _client: Option<MutexGuard<'a, ()>>,
}

impl Writer {
    /// Uses `connection` first; after failures, connections made from `options`.
    pub(super) fn new(options: SqliteConnectOptions, connection: SqliteConnection, patience: Duration) -> Self {
        let (clients, connection) = (Mutex::default(), Mutex::new(Some(connection)));
        Self { options, patience, clients, connection, closed: AtomicBool::new(false) }
    }

    /// Begins a transaction once the earlier ones are done.
    pub(super) async fn begin(&self, caller: Caller) -> Result<WriteTransaction<'_>, StoreError> {
        let busy = |_| StoreError::Busy { seconds: self.patience.as_secs() };
        let client = match caller {
            Caller::Client => Some(timeout(self.patience, self.clients.lock()).await.map_err(busy)?),
            Caller::Worker => None,
        };
        let mut idle = timeout(self.patience, self.connection.lock()).await.map_err(busy)?;
        if self.is_closed() {
            return Err(sqlx::Error::PoolClosed.into());
        }
        let mut connection = match idle.take() {
            Some(connection) => connection,
            None => self.options.connect().await?,
        };
        sqlx::query("BEGIN IMMEDIATE").execute(&mut connection).await?;
        Ok(WriteTransaction { connection, guard: CommitGuard { idle, _client: client } })
    }

    /// Checkpoints the write-ahead log into the database and restarts it. The log file keeps its size, so later commits
    /// have space there. Not an error if that is impossible now.
    pub(super) async fn restart_log(&self) {
        let mut idle = self.connection.lock().await;
        let connection = match idle.take() {
            Some(connection) => Ok(connection),
            None => self.options.connect().await,
        };
        let restarted = match connection {
            Ok(mut connection) => {
                let restarted = sqlx::query("PRAGMA wal_checkpoint(RESTART)").execute(&mut connection).await;
                restarted.map(|_| *idle = Some(connection))
            }
            Err(error) => Err(error),
        };
        if let Err(error) = restarted {
            tracing::debug!(%error, "checkpoint of the write-ahead log failed");
        }
    }

    /// Whether [`Writer::close`] was called.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Closes the connection; later transactions fail.
    pub(super) async fn close(&self) {
        let mut idle = self.connection.lock().await;
        self.closed.store(true, Ordering::Release);
        if let Some(connection) = idle.take()
            && let Err(error) = connection.close().await
        {
            tracing::warn!(%error, "the job database could not be closed cleanly");
        }
    }
}

impl<'a> WriteTransaction<'a> {
    /// The connection for the statements of the transaction.
    pub(super) fn db(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }

    /// Commits, and keeps the next transaction waiting until the guard is dropped, so that events are published in
    /// order.
    pub(super) async fn commit(self) -> Result<CommitGuard<'a>, StoreError> {
        self.end("COMMIT").await
    }

    /// Rolls back a transaction that wrote nothing.
    pub(super) async fn rollback(self) -> Result<(), StoreError> {
        self.end("ROLLBACK").await.map(drop)
    }

    async fn end(self, statement: &'static str) -> Result<CommitGuard<'a>, StoreError> {
        let Self { mut connection, mut guard } = self;
        sqlx::query(statement).execute(&mut connection).await?;
        *guard.idle = Some(connection);
        Ok(guard)
    }
}
