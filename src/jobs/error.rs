//! Errors of the store.

use std::path::PathBuf;

use uuid::Uuid;

use super::storage_fault::{self, StorageFault};

/// Failure of a store operation. Changes that were not committed have no effect.
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
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The database is locked, full or damaged.
    #[error("job database: {0}")]
    Database(#[from] sqlx::Error),
    /// The database has a schema that this version does not know.
    #[error("job database: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// PNGs could not be written, read or removed.
    #[error("stimuli: {0}")]
    Objects(#[from] object_store::Error),
    /// Stored data differs from what was written.
    #[error("{id}: stored data is damaged: {why}")]
    Damaged {
        /// The job, study or training.
        id: Uuid,
        /// What is wrong.
        why: String,
    },
    /// The file of an image is missing or has changed: it was removed, or only part of the data directory was restored.
    /// The job itself is intact.
    #[error("{id}: {file} {why}")]
    Lost {
        /// The job.
        id: Uuid,
        /// Name of the file.
        file: String,
        /// What happened to it.
        why: &'static str,
    },
    /// Other writers held the database for too long.
    #[error("job database: still busy after {seconds} s")]
    Busy {
        /// Time waited, in seconds.
        seconds: u64,
    },
    /// Nothing can be written now.
    #[error("{0}")]
    Unwritable(StorageFault),
    /// The service shut down during the operation, or a bug ended it.
    #[error("job database: operation interrupted: {0}")]
    Interrupted(String),
}

impl StoreError {
    /// Why the data directory could not be written, if that caused this error; the same call may succeed later. `None`
    /// for damaged data and for bugs.
    pub fn fault(&self) -> Option<StorageFault> {
        match self {
            Self::Directory { source, .. } => Some(StorageFault::of_io(source)),
            Self::Database(error) => storage_fault::of_database(error),
            Self::Objects(error) => storage_fault::of_objects(error),
            Self::Busy { .. } => Some(StorageFault::Locked),
            Self::Unwritable(fault) => Some(*fault),
            Self::InUse { .. }
            | Self::Migration(_)
            | Self::Damaged { .. }
            | Self::Lost { .. }
            | Self::Interrupted(_) => None,
        }
    }
}

/// Reason why a job, study or training was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The queue of jobs, studies or trainings is full.
    #[error("the queue is full: {limit} are waiting")]
    QueueFull {
        /// Limit of the queue.
        limit: u64,
    },
    /// A training that has not ended will become a model of this id.
    #[error("a training that has not ended becomes the model {model}")]
    ModelReserved {
        /// The id.
        model: String,
    },
    /// The idempotency key was used for another request.
    #[error("this idempotency key was used for another request")]
    KeyReused,
    /// The store failed; the submission may be repeated.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for SubmitError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}
