//! Whether the data directory can be written: found out by writing, and kept until the next look.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::error::{StoreError, SubmitError};
use super::fault::Fault;
use super::reserve::{self, Reserve};
use super::row;
use super::store::{Inner, Store};
use super::writer::Party;

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
    fault: watch::Sender<Option<Fault>>,
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
pub(super) trait MayBeFault {
    /// Why nothing could be written, when that is what happened.
    fn as_fault(&self) -> Option<Fault>;
}

impl MayBeFault for StoreError {
    fn as_fault(&self) -> Option<Fault> {
        self.fault()
    }
}

impl MayBeFault for SubmitError {
    fn as_fault(&self) -> Option<Fault> {
        match self {
            Self::Store(error) => error.fault(),
            Self::QueueFull { .. } | Self::KeyReused => None,
        }
    }
}

impl Store {
    /// Why nothing can be written at the moment, found out by writing; nothing when all is well. Answers within `patience`:
    /// a write that takes longer goes on, and what was known before is the answer.
    pub async fn unwritable(&self, patience: Duration) -> Option<Fault> {
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
        if stuck { Some(Fault::Stuck) } else { *health.fault.borrow() }
    }

    /// Waits until nothing is known any more that keeps from writing.
    pub async fn until_writable(&self) {
        let mut fault = self.inner.health.fault.subscribe();
        // The sender lives as long as the store.
        let _ = fault.wait_for(Option::is_none).await;
    }

    /// Keeps space back for [`Store::making_room`].
    pub(super) async fn hold_reserve(&self) -> Result<(), StoreError> {
        self.aside(|inner| inner.health.reserve.hold()).await
    }

    /// Refuses what is new when there is no room for what will come of it.
    pub(super) async fn room_on_disk(&self) -> Result<(), StoreError> {
        self.aside(|inner| {
            // The reserve is for those who make room, not for new work.
            if !inner.health.reserve.held() {
                inner.health.reserve.hold()?;
            }
            reserve::room(&inner.config.data_dir, false)
        })
        .await
    }

    /// Does something that leads to more space or less work, on a full disk at the cost of the reserve.
    pub(super) async fn making_room<T, F>(&self, work: impl Fn(Self) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        match work(self.clone()).await {
            Err(error) if self.lacks_space(&error).await => {
                self.failed(Fault::NoSpace);
                self.inner.health.reserve.release();
                // The log keeps the space that it has; what it holds gets into the database with the help of the reserve.
                self.inner.writer.restart_log().await;
                work(self.clone()).await
            }
            done => done,
        }
    }

    /// Whether an error comes from a full disk. SQLite tells some of these as failures of input and output.
    pub(super) async fn lacks_space(&self, error: &StoreError) -> bool {
        match error.fault() {
            Some(Fault::NoSpace) => true,
            Some(Fault::Io) => {
                let room = self.aside(|inner| reserve::room(&inner.config.data_dir, false)).await;
                room.is_err_and(|error| error.fault() == Some(Fault::NoSpace))
            }
            _ => false,
        }
    }

    /// Notes that a write failed, and looks from now on until writing works.
    pub(super) fn failed(&self, fault: Fault) {
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
    async fn look(&self) -> Option<Fault> {
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
            Err(error) if self.lacks_space(&error).await => Some(Fault::NoSpace),
            Err(error) => Some(error.fault().unwrap_or(Fault::Io)),
        };
        {
            let mut looks = health.looks();
            *looks = Looks { began: None, ended: Some(Instant::now()), ..*looks };
        }
        match found {
            Some(fault) => self.failed(fault),
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
        let mut write = self.write(Party::Worker).await?;
        sqlx::query("UPDATE write_check SET at = ?").bind(row::now()).execute(write.db()).await?;
        drop(write.commit().await?);
        self.aside(|inner| {
            inner.health.reserve.hold()?;
            let data_dir = &inner.config.data_dir;
            [data_dir, &data_dir.join("stimuli"), &inner.studies]
                .into_iter()
                .try_for_each(|dir| reserve::room(dir, true))
        })
        .await
    }

    /// Works on files, away from the tasks that answer clients.
    pub(super) async fn aside(
        &self,
        work: impl FnOnce(&Inner) -> std::io::Result<()> + Send + 'static,
    ) -> Result<(), StoreError> {
        let inner = Arc::clone(&self.inner);
        let done = tokio::task::spawn_blocking(move || work(&inner)).await;
        let done = done.map_err(|error| StoreError::CutShort(error.to_string()))?;
        done.map_err(|source| StoreError::Directory { path: self.inner.config.data_dir.clone(), source })
    }
}
