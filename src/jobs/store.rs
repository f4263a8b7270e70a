//! The store: opening and closing it, and reading jobs.

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous};
use sqlx::{ConnectOptions, QueryBuilder, Row, Sqlite, SqlitePool};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use uuid::Uuid;

use super::disk_reserve::{self, Reserve};
use super::error::StoreError;
use super::feed::{Feed, Subscription};
use super::job::Job;
use super::migrations;
use super::page::{Cursor, JobFilter, Page};
use super::row::{self, columns};
use super::run_state::RunState;
use super::stimuli::Stimuli;
use super::storage_health::{AsStorageFault, Health};
use super::submit::Submissions;
use super::table::{Table, query};
use super::writer::{Caller, WriteTransaction, Writer};

/// Where jobs, studies and trainings are stored, and limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// Folder of the database (`jobs.sqlite3`), the PNGs (`stimuli/`), the studies (`studies/`) and the trainings
    /// (`trainings/`); created if missing. Used by one process at a time.
    pub data_dir: PathBuf,
    /// Limit of queued jobs, of queued studies, and of queued trainings; more are refused.
    pub queue_limit: u64,
    /// How long a call waits for other writers of the database before it fails.
    pub busy_timeout: Duration,
}

impl StoreConfig {
    /// Default of [`StoreConfig::queue_limit`].
    pub const QUEUE_LIMIT: u64 = 1000;
    /// Default of [`StoreConfig::busy_timeout`].
    pub const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

    /// The defaults, with this data directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self { data_dir: data_dir.into(), queue_limit: Self::QUEUE_LIMIT, busy_timeout: Self::BUSY_TIMEOUT }
    }
}

/// All jobs, studies and trainings: a SQLite database, a folder of PNGs, and events in memory. Clones share one store.
#[derive(Debug, Clone)]
pub struct Store {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) config: StoreConfig,
    readers: SqlitePool,
    pub(super) writer: Writer,
    pub(super) health: Health,
    pub(super) submissions: Submissions,
    pub(super) stimuli: Stimuli,
    pub(super) feed: Feed,
    /// Changes when a job, study or training joins the queue.
    pub(super) arrivals: watch::Sender<()>,
    /// Cancellation tokens of running jobs, studies and trainings.
    pub(super) running: Mutex<HashMap<Uuid, CancellationToken>>,
    /// Whether a device claimed nothing because something has to run with nothing else.
    pub(super) blocked: AtomicBool,
    /// Last known number of jobs by state.
    counts: Mutex<Option<HashMap<RunState, u64>>>,
    lock: Mutex<Option<File>>,
}

/// Result of a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// It was deleted, with its files and its idempotency key.
    Gone,
    /// It is not finished; cancel it first.
    NotFinished(RunState),
    /// It does not exist.
    Unknown,
}

impl Store {
    /// Opens the store of a data directory, creating it if missing, and requeues jobs that were running when the last
    /// process ended. Those that a client had canceled are canceled; those that crashed the process
    /// [`MAX_INTERRUPTIONS`](super::MAX_INTERRUPTIONS) times while nothing else ran fail.
    ///
    /// Nothing that holds results is removed: folders of studies and trainings without a row, as after restoring an older
    /// database, are moved to `set-aside/`, and back once the database has the row again.
    ///
    /// # Errors
    /// If the directory cannot be used, another process has it, or the database is damaged or of a later version.
    pub async fn open(config: &StoreConfig) -> Result<Self, StoreError> {
        let stimuli = config.data_dir.join("stimuli");
        let folders = Table::LONG.map(|table| config.data_dir.join(table.name()));
        for folder in folders.iter().chain([&stimuli]) {
            std::fs::create_dir_all(folder).map_err(|source| StoreError::Directory { path: folder.clone(), source })?;
        }
        let lock = lock(&config.data_dir)?;
        let options = SqliteConnectOptions::new()
            .filename(config.data_dir.join("jobs.sqlite3"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // A commit returns once it is on the disk: an accepted job survives a power loss.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .pragma("wal_autocheckpoint", disk_reserve::LOG_PAGES.to_string())
            .busy_timeout(config.busy_timeout)
            .disable_statement_logging();
        let readers = SqlitePoolOptions::new()
            .max_connections(4)
            .acquire_timeout(config.busy_timeout.max(Duration::from_secs(1)))
            .idle_timeout(None)
            .max_lifetime(None);
        let mut connection = options.connect().await?;
        migrations::migrator().run(&mut connection).await?;
        let patience = config.busy_timeout.saturating_mul(2).max(Duration::from_secs(1));
        let writer = Writer::new(options.clone(), connection, patience);
        let readers = readers.connect_lazy_with(options);
        let stimuli = Stimuli::in_folder(&stimuli)?;
        let inner = Inner {
            config: config.clone(),
            readers,
            writer,
            health: Health::new(Reserve::new(&config.data_dir)),
            submissions: Submissions::default(),
            stimuli,
            feed: Feed::default(),
            arrivals: watch::Sender::new(()),
            running: Mutex::default(),
            blocked: AtomicBool::new(false),
            counts: Mutex::default(),
            lock: Mutex::new(Some(lock)),
        };
        let store = Self { inner: Arc::new(inner) };
        let crashed = store.mark_alive()?;
        store.with_reserve(|store| async move { store.recover(crashed).await }).await?;
        store.remove_leftovers().await?;
        store.quarantine_orphans().await?;
        if let Err(error) = store.hold_reserve().await {
            tracing::warn!(%error, "disk reserve could not be allocated: on a full disk, cancel and delete may fail");
        }
        Ok(store)
    }

    /// Ends all event streams, closes the database and releases the data directory. Every later call fails.
    pub async fn close(&self) {
        self.mark_graceful_shutdown();
        self.inner.feed.close();
        self.inner.readers.close().await;
        self.inner.writer.close().await;
        self.inner.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Events of jobs, studies and trainings.
    pub fn feed(&self) -> &Feed {
        &self.inner.feed
    }

    /// The job with this id; while it runs, with its latest progress.
    ///
    /// # Errors
    /// If the database fails or the job's row is damaged.
    pub async fn get(&self, id: Uuid) -> Result<Option<Job>, StoreError> {
        let select = sqlx::query(concat!("SELECT ", columns!(), " FROM jobs WHERE id = ?"));
        let row = select.bind(row::key(id)).fetch_optional(&self.inner.readers).await?;
        row.map(|row| Ok(self.with_live_progress(row::job(&row)?))).transpose()
    }

    /// A page of jobs, newest first. Following the cursors shows each job that existed at the first page, and was not
    /// deleted since, exactly once, no matter what is submitted in between. A page has at most `limit` jobs, and at
    /// least one.
    ///
    /// Damaged rows are omitted and logged.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn list(&self, filter: &JobFilter, cursor: Option<Cursor>, limit: u32) -> Result<Page, StoreError> {
        let mut select = QueryBuilder::<Sqlite>::new(concat!("SELECT ", columns!(), " FROM jobs WHERE TRUE"));
        if let Some(state) = filter.state {
            select.push(" AND state = ").push_bind(state.as_str());
        }
        if let Some(model) = &filter.model {
            select.push(" AND model = ").push_bind(model.clone());
        }
        self.page(select, cursor, limit, |row| Ok(self.with_live_progress(row::job(row)?))).await
    }

    /// A page of the rows of `select`, newest first, after the cursor.
    pub(super) async fn page<T>(
        &self,
        mut select: QueryBuilder<Sqlite>,
        cursor: Option<Cursor>,
        limit: u32,
        read: impl Fn(&SqliteRow) -> Result<T, StoreError>,
    ) -> Result<Page<T>, StoreError> {
        let limit = limit.max(1);
        if let Some(Cursor(before)) = cursor {
            select.push(" AND id < ").push_bind(row::key(before));
        }
        select.push(" ORDER BY id DESC LIMIT ").push_bind(i64::from(limit) + 1);
        let rows = select.build().fetch_all(&self.inner.readers).await?;
        let more = rows.len() > limit as usize;
        let shown = &rows[..rows.len().min(limit as usize)];
        let next = match shown.last() {
            Some(last) if more => Some(Cursor(row::id(last)?)),
            _ => None,
        };
        let read = |row| match read(row) {
            Ok(item) => Some(item),
            Err(error) => {
                tracing::error!(%error, "damaged row omitted from a list");
                None
            }
        };
        Ok(Page { items: shown.iter().filter_map(read).collect(), next })
    }

    /// The PNG of stimulus `n` of a succeeded job.
    ///
    /// # Errors
    /// If the database or the object store fails, or the PNG is missing or changed.
    pub async fn png(&self, id: Uuid, n: usize) -> Result<Option<Bytes>, StoreError> {
        match self.get(id).await?.as_ref().and_then(|job| job.stimuli.get(n)) {
            Some(stimulus) => Ok(Some(self.inner.stimuli.get(id, &stimulus.sha256).await?)),
            None => Ok(None),
        }
    }

    /// The animation of stimulus `n` of a succeeded job, if it has one.
    ///
    /// # Errors
    /// As [`Store::png`].
    pub async fn animation(&self, id: Uuid, n: usize) -> Result<Option<Bytes>, StoreError> {
        let job = self.get(id).await?;
        match job.as_ref().and_then(|job| job.stimuli.get(n)).and_then(|stimulus| stimulus.animation.as_ref()) {
            Some(animation) => Ok(Some(self.inner.stimuli.get(id, &animation.sha256).await?)),
            None => Ok(None),
        }
    }

    /// Number of jobs by state, with an entry for every state.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn counts(&self) -> Result<HashMap<RunState, u64>, StoreError> {
        self.count(Table::Jobs).await
    }

    /// Like [`Store::counts`], but returns the last known numbers if the database takes longer than `patience`.
    ///
    /// # Errors
    /// If the database fails, or has never answered.
    pub async fn counts_within(&self, patience: Duration) -> Result<HashMap<RunState, u64>, StoreError> {
        let known = || self.inner.counts.lock().unwrap_or_else(PoisonError::into_inner);
        match tokio::time::timeout(patience, self.counts()).await {
            Ok(counts) => {
                let counts = counts?;
                *known() = Some(counts.clone());
                Ok(counts)
            }
            Err(_) => known().clone().ok_or(StoreError::Busy { seconds: 0 }),
        }
    }

    pub(super) async fn count(&self, table: Table) -> Result<HashMap<RunState, u64>, StoreError> {
        let mut counts: HashMap<_, _> = RunState::ALL.into_iter().map(|state| (state, 0)).collect();
        let select = query!(table, "SELECT state, COUNT(*) AS stored FROM ", " GROUP BY state");
        for row in select.fetch_all(&self.inner.readers).await? {
            if let Ok(state) = row.try_get::<&str, _>("state")?.parse() {
                counts.insert(state, row.try_get("stored")?);
            }
        }
        Ok(counts)
    }

    /// The events of a job after event `after` (default: all that are still in memory), up to its terminal state;
    /// `None` if the job does not exist. For a job that finished long ago, only the terminal state.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn subscribe(&self, id: Uuid, after: Option<u64>) -> Result<Option<Subscription>, StoreError> {
        self.subscribe_to(Table::Jobs, id, after).await
    }

    pub(super) async fn subscribe_to(
        &self,
        table: Table,
        id: Uuid,
        after: Option<u64>,
    ) -> Result<Option<Subscription>, StoreError> {
        let attached = self.inner.feed.attach(id);
        Ok(self.state(table, id).await?.map(|state| attached.subscribe(state, after)))
    }

    /// Folder that contains a folder per study or training.
    pub(super) fn folders(&self, table: Table) -> PathBuf {
        self.inner.config.data_dir.join(table.name())
    }

    /// State of a row; `None` if it does not exist.
    pub(super) async fn state(&self, table: Table, id: Uuid) -> Result<Option<RunState>, StoreError> {
        let select = query!(table, "SELECT id, state FROM ", " WHERE id = ?");
        let row = select.bind(row::key(id)).fetch_optional(&self.inner.readers).await?;
        row.map(|row| row::state(&row)).transpose()
    }

    /// The job once it is finished, or after `limit`, whichever is first.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn wait(&self, id: Uuid, limit: Duration) -> Result<Option<Job>, StoreError> {
        self.wait_until_finished(Table::Jobs, id, limit).await?;
        self.get(id).await
    }

    /// Returns once a job, study or training is finished, or after `limit`.
    pub(super) async fn wait_until_finished(&self, table: Table, id: Uuid, limit: Duration) -> Result<(), StoreError> {
        if let Some(mut events) = self.subscribe_to(table, id, None).await? {
            let ended = async { while events.next().await.is_some() {} };
            let _ = tokio::time::timeout(limit, ended).await;
        }
        Ok(())
    }

    /// Read-only connections.
    pub(super) fn readers(&self) -> &SqlitePool {
        &self.inner.readers
    }

    /// Begins a write transaction, once earlier ones are done.
    pub(super) async fn write(&self, caller: Caller) -> Result<WriteTransaction<'_>, StoreError> {
        self.inner.writer.begin(caller).await
    }

    /// Runs `work` to completion even if the caller is dropped, so that the events of every commit are published.
    pub(super) async fn detached<T, E, F>(&self, work: impl FnOnce(Self) -> F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + AsStorageFault + Send + 'static,
    {
        let task = tokio::spawn(work(self.clone()).in_current_span());
        let done = task.await.unwrap_or_else(|error| Err(StoreError::Interrupted(error.to_string()).into()));
        if let Some(fault) = done.as_ref().err().and_then(AsStorageFault::as_storage_fault) {
            self.write_failed(fault);
        }
        done
    }

    /// The job with its latest progress.
    pub(super) fn with_live_progress(&self, mut job: Job) -> Job {
        if job.state == RunState::Running
            && let Some(progress) = self.inner.feed.progress(job.id)
        {
            job.progress = progress;
        }
        job
    }
}

/// Locks the data directory for this process. The operating system releases the lock when the process ends in any way.
fn lock(data_dir: &Path) -> Result<File, StoreError> {
    let path = data_dir.join("lock");
    let failed = |source| StoreError::Directory { path: path.clone(), source };
    let file = File::options().create(true).write(true).truncate(false).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: data_dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}
