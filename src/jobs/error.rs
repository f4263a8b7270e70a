//! What can go wrong with stored jobs.

use std::path::PathBuf;

use uuid::Uuid;

use super::storage_fault::{self, StorageFault};

/// The store could not do what was asked. Nothing was half done: what was not committed did not happen.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process uses the data directory.
    #[error("{path}: another process uses this data directory; give each service its own")]
    InUse {
        /// The data directory.
        path: PathBuf,
    },
    /// The data directory cannot be used.
    #[error("{path}: {source}")]
    Directory {
        /// The file or directory that failed.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The database refused: locked, full, damaged.
    #[error("job database: {0}")]
    Database(#[from] sqlx::Error),
    /// The database has a layout that this version does not know.
    #[error("job database: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// PNGs could not be written, read or removed.
    #[error("stimuli: {0}")]
    Objects(#[from] object_store::Error),
    /// What is stored is not what was written.
    #[error("{id}: stored data is damaged: {why}")]
    Damaged {
        /// The job or study.
        id: Uuid,
        /// What does not fit.
        why: String,
    },
    /// The file of an image is gone, or is not what was written: somebody removed it, or the data directory was restored in
    /// part. The job itself is whole.
    #[error("{id}: {file} {why}")]
    Lost {
        /// The job.
        id: Uuid,
        /// Name of the file.
        file: String,
        /// `is gone` or `has other bytes`.
        why: &'static str,
    },
    /// Other writers held the database for too long.
    #[error("job database: still busy after {seconds} s")]
    Busy {
        /// How long it was waited for, in seconds.
        seconds: u64,
    },
    /// Nothing can be written at the moment.
    #[error("{0}")]
    Unwritable(StorageFault),
    /// The service went down in the middle, or a fault ended the work.
    #[error("the work on the job database was cut short: {0}")]
    CutShort(String),
}

impl StoreError {
    /// Why the data directory could not be written, when that is the cause of this error: the same call may succeed
    /// later. Nothing for damaged data and for faults of the program.
    pub fn fault(&self) -> Option<StorageFault> {
        match self {
            Self::Directory { source, .. } => Some(StorageFault::of_io(source)),
            Self::Database(error) => storage_fault::of_database(error),
            Self::Objects(error) => storage_fault::of_objects(error),
            Self::Busy { .. } => Some(StorageFault::Locked),
            Self::Unwritable(fault) => Some(*fault),
            Self::InUse { .. } | Self::Migration(_) | Self::Damaged { .. } | Self::Lost { .. } | Self::CutShort(_) => {
                None
            }
        }
    }
}

/// Why a job or study was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// As many jobs, or studies, wait as may.
    #[error("the queue is full: {limit} are waiting")]
    QueueFull {
        /// Most that may wait.
        limit: u64,
    },
    /// The idempotency key was used for another request.
    #[error("this idempotency key was used for another request")]
    KeyReused,
    /// The store failed; the job may be submitted again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for SubmitError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}
