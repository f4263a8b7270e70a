//! Storage health: probes whether the data directory can be written, and caches the answer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::disk_reserve::{self, Reserve};
use super::error::{StoreError, SubmitError};
use super::row;
use super::storage_fault::StorageFault;
use super::store::{Inner, Store};
use super::table::Table;
use super::writer::Caller;

/// How long an answer is cached; more frequent requests cause no more writes.
const CACHE_TIME: Duration = Duration::from_millis(500);
/// Time between two probes while nothing can be written.
const RETRY: Duration = Duration::from_secs(1);
/// A probe that takes longer than this counts as a fault until it returns.
const STUCK_AFTER: Duration = Duration::from_secs(5);

/// Whether writing works, as last known.
#[derive(Debug)]
pub(super) struct Health {
    /// The latest fault; `None` if writing works.
    fault: watch::Sender<Option<StorageFault>>,
    probes: Mutex<Probes>,
    pub(super) reserve: Reserve,
}

#[derive(Debug, Default)]
struct Probes {
    /// Start of the probe in progress.
    began: Option<Instant>,
    /// End of the last probe.
    ended: Option<Instant>,
    /// Whether a task probes repeatedly until writing works.
    recovering: bool,
}

impl Health {
    pub(super) fn new(reserve: Reserve) -> Self {
        Self { fault: watch::Sender::new(None), probes: Mutex::default(), reserve }
    }

    fn probes(&self) -> MutexGuard<'_, Probes> {
        self.probes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error that a storage fault may have caused.
pub(super) trait AsStorageFault {
    /// The fault, if that was the cause.
    fn as_storage_fault(&self) -> Option<StorageFault>;
}

impl AsStorageFault for StoreError {
    fn as_storage_fault(&self) -> Option<StorageFault> {
        self.fault()
    }
}

impl AsStorageFault for SubmitError {
    fn as_storage_fault(&self) -> Option<StorageFault> {
        match self {
            Self::Store(error) => error.fault(),
            Self::QueueFull { .. } | Self::ModelReserved { .. } | Self::KeyReused => None,
        }
    }
}

impl Store {
    /// Probes whether the data directory can be written, and returns the fault if it cannot. Returns within `patience`:
    /// if the probe takes longer, it continues, and the answer is the last known one.
    pub async fn check_writable(&self, patience: Duration) -> Option<StorageFault> {
        let health = &self.inner.health;
        let mut changed = health.fault.subscribe();
        changed.mark_unchanged();
        let running_since = {
            let probes = health.probes();
            let fresh = probes.ended.is_some_and(|ended| ended.elapsed() < CACHE_TIME);
            if probes.began.is_none() && fresh {
                return *health.fault.borrow();
            }
            probes.began
        };
        if running_since.is_none() {
            let store = self.clone();
            // A separate task: it finishes even if the caller stops waiting.
            tokio::spawn(async move { store.probe().await });
        }
        let _ = tokio::time::timeout(patience, changed.changed()).await;
        let stuck = health.probes().began.is_some_and(|began| began.elapsed() > STUCK_AFTER);
        if stuck { Some(StorageFault::Stuck) } else { *health.fault.borrow() }
    }

    /// Waits until no fault is known.
    pub async fn wait_until_writable(&self) {
        let mut fault = self.inner.health.fault.subscribe();
        // The sender lives as long as the store.
        let _ = fault.wait_for(Option::is_none).await;
    }

    /// Allocates the disk reserve for [`Store::with_reserve`].
    pub(super) async fn hold_reserve(&self) -> Result<(), StoreError> {
        self.blocking(|inner| inner.health.reserve.hold()).await
    }

    /// Fails if there is no space for new work and its results.
    pub(super) async fn check_space(&self) -> Result<(), StoreError> {
        self.blocking(|inner| {
            // The reserve serves operations that free space, not new work.
            if !inner.health.reserve.is_held() {
                inner.health.reserve.hold()?;
            }
            disk_reserve::probe_space(&inner.config.data_dir, false)
        })
        .await
    }

    /// Does work that frees space or shortens the queue; on a full disk it may use the disk reserve.
    pub(super) async fn with_reserve<T, F>(&self, work: impl Fn(Self) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        match work(self.clone()).await {
            Err(error) if self.is_out_of_space(&error).await => {
                self.write_failed(StorageFault::NoSpace);
                self.inner.health.reserve.release();
                // The write-ahead log keeps its space; its content fits into the database thanks to the reserve.
                self.inner.writer.restart_log().await;
                work(self.clone()).await
            }
            done => done,
        }
    }

    /// Whether an error comes from a full disk. SQLite reports some of these as I/O errors.
    pub(super) async fn is_out_of_space(&self, error: &StoreError) -> bool {
        match error.fault() {
            Some(StorageFault::NoSpace) => true,
            Some(StorageFault::Io) => {
                let probe = self.blocking(|inner| disk_reserve::probe_space(&inner.config.data_dir, false)).await;
                probe.is_err_and(|error| error.fault() == Some(StorageFault::NoSpace))
            }
            _ => false,
        }
    }

    /// Records that a write failed, and probes from now on until writing works.
    pub(super) fn write_failed(&self, fault: StorageFault) {
        let health = &self.inner.health;
        let known = health.fault.send_replace(Some(fault));
        if known != Some(fault) {
            tracing::error!(%fault, "the data directory cannot be written");
        }
        if std::mem::replace(&mut health.probes().recovering, true) {
            return;
        }
        // A weak reference: dropping the last store must release the data directory.
        let inner = Arc::downgrade(&self.inner);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(RETRY).await;
                let Some(inner) = inner.upgrade() else { return };
                let store = Self { inner };
                let closed = store.inner.writer.is_closed();
                if closed || store.probe().await.is_none() {
                    let health = &store.inner.health;
                    let mut probes = health.probes();
                    // A write may have failed since this probe, and relies on this task to continue.
                    if closed || health.fault.borrow().is_none() {
                        probes.recovering = false;
                        return;
                    }
                }
            }
        });
    }

    /// Probes by writing, and records the result.
    async fn probe(&self) -> Option<StorageFault> {
        let health = &self.inner.health;
        {
            let mut probes = health.probes();
            if probes.began.is_some() {
                return *health.fault.borrow();
            }
            probes.began = Some(Instant::now());
        }
        let found = match self.write_everywhere().await {
            Ok(()) => None,
            Err(error) if self.is_out_of_space(&error).await => Some(StorageFault::NoSpace),
            Err(error) => Some(error.fault().unwrap_or(StorageFault::Io)),
        };
        {
            let mut probes = health.probes();
            *probes = Probes { began: None, ended: Some(Instant::now()), ..*probes };
        }
        match found {
            Some(fault) => self.write_failed(fault),
            None => {
                if health.fault.send_replace(None).is_some() {
                    tracing::info!("the data directory is writable again");
                    // Devices that wait for work may claim it now.
                    self.inner.arrivals.send_replace(());
                }
            }
        }
        found
    }

    /// Writes a row of the database and a file in each folder of results, and restores the reserve.
    async fn write_everywhere(&self) -> Result<(), StoreError> {
        let mut write = self.write(Caller::Worker).await?;
        sqlx::query("UPDATE write_check SET at = ?").bind(row::now()).execute(write.db()).await?;
        drop(write.commit().await?);
        self.blocking(|inner| {
            inner.health.reserve.hold()?;
            let data_dir = &inner.config.data_dir;
            let folders = Table::LONG.map(|table| data_dir.join(table.name()));
            folders
                .iter()
                .chain([data_dir, &data_dir.join("stimuli")])
                .try_for_each(|dir| disk_reserve::probe_space(dir, true))
        })
        .await
    }

    /// Does file operations on a blocking thread.
    pub(super) async fn blocking(
        &self,
        work: impl FnOnce(&Inner) -> std::io::Result<()> + Send + 'static,
    ) -> Result<(), StoreError> {
        let inner = Arc::clone(&self.inner);
        let done = tokio::task::spawn_blocking(move || work(&inner)).await;
        let done = done.map_err(|error| StoreError::Interrupted(error.to_string()))?;
        done.map_err(|source| StoreError::Directory { path: self.inner.config.data_dir.clone(), source })
    }
}
