//! Whether the data directory can be written: found out by writing, and kept until the next look.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::disk_reserve::{self, Reserve};
use super::error::{StoreError, SubmitError};
use super::row;
use super::storage_fault::StorageFault;
use super::store::{Inner, Store};
use super::writer::Caller;

/// How long an answer holds: whoever asks more often causes no more writes.
const HOLDS: Duration = Duration::from_millis(500);
/// Time between two looks while nothing can be written.
const RETRY: Duration = Duration::from_secs(1);
/// A look that takes longer than this counts as a failure, until it has ended.
const TOO_LONG: Duration = Duration::from_secs(5);

/// What is known about writing.
#[derive(Debug)]
pub(super) struct Health {
    /// What was found last.
    fault: watch::Sender<Option<StorageFault>>,
    looks: Mutex<Looks>,
    pub(super) reserve: Reserve,
}

#[derive(Debug, Default)]
struct Looks {
    /// When the one that goes on now began.
    began: Option<Instant>,
    /// When the last one ended.
    ended: Option<Instant>,
    /// Whether somebody looks again and again until writing works.
    watched: bool,
}

impl Health {
    pub(super) fn new(reserve: Reserve) -> Self {
        Self { fault: watch::Sender::new(None), looks: Mutex::default(), reserve }
    }

    fn looks(&self) -> MutexGuard<'_, Looks> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error that may tell of a failed write.
pub(super) trait AsStorageFault {
    /// Why nothing could be written, when that is what happened.
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
            Self::QueueFull { .. } | Self::KeyReused => None,
        }
    }
}

impl Store {
    /// Why nothing can be written at the moment, found out by writing; nothing when all is well. Answers within `patience`:
    /// a write that takes longer goes on, and what was known before is the answer.
    pub async fn check_writable(&self, patience: Duration) -> Option<StorageFault> {
        let health = &self.inner.health;
        let mut changed = health.fault.subscribe();
        changed.mark_unchanged();
        let looks = {
            let looks = health.looks();
            let fresh = looks.ended.is_some_and(|ended| ended.elapsed() < HOLDS);
            if looks.began.is_none() && fresh {
                return *health.fault.borrow();
            }
            looks.began
        };
        if looks.is_none() {
            let store = self.clone();
            // A task of its own: it comes to its end even when nobody waits any more.
            tokio::spawn(async move { store.look().await });
        }
        let _ = tokio::time::timeout(patience, changed.changed()).await;
        let stuck = health.looks().began.is_some_and(|began| began.elapsed() > TOO_LONG);
        if stuck { Some(StorageFault::Stuck) } else { *health.fault.borrow() }
    }

    /// Waits until nothing is known any more that keeps from writing.
    pub async fn wait_until_writable(&self) {
        let mut fault = self.inner.health.fault.subscribe();
        // The sender lives as long as the store.
        let _ = fault.wait_for(Option::is_none).await;
    }

    /// Keeps space back for [`Store::with_reserve`].
    pub(super) async fn hold_reserve(&self) -> Result<(), StoreError> {
        self.blocking(|inner| inner.health.reserve.hold()).await
    }

    /// Refuses what is new when there is no room for what will come of it.
    pub(super) async fn check_space(&self) -> Result<(), StoreError> {
        self.blocking(|inner| {
            // The reserve is for those who make room, not for new work.
            if !inner.health.reserve.held() {
                inner.health.reserve.hold()?;
            }
            disk_reserve::probe_space(&inner.config.data_dir, false)
        })
        .await
    }

    /// Does something that leads to more space or less work, on a full disk at the cost of the reserve.
    pub(super) async fn with_reserve<T, F>(&self, work: impl Fn(Self) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        match work(self.clone()).await {
            Err(error) if self.is_out_of_space(&error).await => {
                self.write_failed(StorageFault::NoSpace);
                self.inner.health.reserve.release();
                // The log keeps the space that it has; what it holds gets into the database with the help of the reserve.
                self.inner.writer.restart_log().await;
                work(self.clone()).await
            }
            done => done,
        }
    }

    /// Whether an error comes from a full disk. SQLite tells some of these as failures of input and output.
    pub(super) async fn is_out_of_space(&self, error: &StoreError) -> bool {
        match error.fault() {
            Some(StorageFault::NoSpace) => true,
            Some(StorageFault::Io) => {
                let room = self.blocking(|inner| disk_reserve::probe_space(&inner.config.data_dir, false)).await;
                room.is_err_and(|error| error.fault() == Some(StorageFault::NoSpace))
            }
            _ => false,
        }
    }

    /// Notes that a write failed, and looks from now on until writing works.
    pub(super) fn write_failed(&self, fault: StorageFault) {
        let health = &self.inner.health;
        let known = health.fault.send_replace(Some(fault));
        if known != Some(fault) {
            tracing::error!(%fault, "the data directory cannot be written");
        }
        if std::mem::replace(&mut health.looks().watched, true) {
            return;
        }
        // Not a store of its own: a store that is dropped gives its data directory free.
        let inner = Arc::downgrade(&self.inner);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(RETRY).await;
                let Some(inner) = inner.upgrade() else { return };
                let store = Self { inner };
                let closed = store.inner.writer.is_closed();
                if closed || store.look().await.is_none() {
                    let health = &store.inner.health;
                    let mut looks = health.looks();
                    // A write may have failed since the look, and counts on this one to go on.
                    if closed || health.fault.borrow().is_none() {
                        looks.watched = false;
                        return;
                    }
                }
            }
        });
    }

    /// Writes to find out whether that works, and notes what was found.
    async fn look(&self) -> Option<StorageFault> {
        let health = &self.inner.health;
        {
            let mut looks = health.looks();
            if looks.began.is_some() {
                return *health.fault.borrow();
            }
            looks.began = Some(Instant::now());
        }
        let found = match self.write_everywhere().await {
            Ok(()) => None,
            Err(error) if self.is_out_of_space(&error).await => Some(StorageFault::NoSpace),
            Err(error) => Some(error.fault().unwrap_or(StorageFault::Io)),
        };
        {
            let mut looks = health.looks();
            *looks = Looks { began: None, ended: Some(Instant::now()), ..*looks };
        }
        match found {
            Some(fault) => self.write_failed(fault),
            None => {
                if health.fault.send_replace(None).is_some() {
                    tracing::info!("the data directory can be written again");
                    // Whoever waits for work may find it now.
                    self.inner.arrivals.send_replace(());
                }
            }
        }
        found
    }

    /// A row of the database, and a file where PNGs and studies lie; the reserve, too.
    async fn write_everywhere(&self) -> Result<(), StoreError> {
        let mut write = self.write(Caller::Worker).await?;
        sqlx::query("UPDATE write_check SET at = ?").bind(row::now()).execute(write.db()).await?;
        drop(write.commit().await?);
        self.blocking(|inner| {
            inner.health.reserve.hold()?;
            let data_dir = &inner.config.data_dir;
            [data_dir, &data_dir.join("stimuli"), &inner.studies]
                .into_iter()
                .try_for_each(|dir| disk_reserve::probe_space(dir, true))
        })
        .await
    }

    /// Works on files, away from the tasks that answer clients.
    pub(super) async fn blocking(
        &self,
        work: impl FnOnce(&Inner) -> std::io::Result<()> + Send + 'static,
    ) -> Result<(), StoreError> {
        let inner = Arc::clone(&self.inner);
        let done = tokio::task::spawn_blocking(move || work(&inner)).await;
        let done = done.map_err(|error| StoreError::CutShort(error.to_string()))?;
        done.map_err(|source| StoreError::Directory { path: self.inner.config.data_dir.clone(), source })
    }
}
