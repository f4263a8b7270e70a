//! Storage faults: classifies errors of the database, the object store and files as disk full, read-only, locked or
//! I/O.

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};

/// Why the data directory cannot be written now. It clears with its cause; no restart is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorageFault {
    /// The disk, or the quota, is full.
    NoSpace,
    /// The file system is read-only, or permission is denied.
    ReadOnly,
    /// Another program holds the lock of the database.
    Locked,
    /// Input/output error.
    Io,
    /// A write does not return.
    Stuck,
}

impl fmt::Display for StorageFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSpace => "there is no space left in the data directory",
            Self::ReadOnly => "the data directory is read-only",
            Self::Locked => "another program keeps the job database locked",
            Self::Io => "the data directory cannot be written: input/output error",
            Self::Stuck => "a write to the data directory does not return",
        })
    }
}

impl StorageFault {
    /// The fault that a failed file operation shows.
    pub(super) fn of_io(error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::NoSpace,
            ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => Self::ReadOnly,
            _ => Self::Io,
        }
    }
}

pub(super) fn of_database(error: &sqlx::Error) -> Option<StorageFault> {
    match error {
        sqlx::Error::Database(error) => error.code()?.parse().ok().and_then(of_code),
        sqlx::Error::Io(error) => Some(StorageFault::of_io(error)),
        sqlx::Error::PoolTimedOut => Some(StorageFault::Locked),
        _ => None,
    }
}

/// The fault of a SQLite result code (<https://sqlite.org/rescode.html>). The lowest byte of an extended code is the
/// primary code.
fn of_code(extended: u32) -> Option<StorageFault> {
    match extended & 0xff {
        5 | 6 => Some(StorageFault::Locked),
        8 => Some(StorageFault::ReadOnly),
        10 | 14 => Some(StorageFault::Io),
        13 => Some(StorageFault::NoSpace),
        _ => None,
    }
}

pub(super) fn of_objects(error: &object_store::Error) -> Option<StorageFault> {
    if matches!(error, object_store::Error::NotFound { .. }) {
        return None;
    }
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(StorageFault::of_io(error));
        }
        cause = error.source();
    }
    Some(StorageFault::Io)
}

#[cfg(test)]
mod tests {
    use super::super::error::StoreError;
    use super::*;

    #[test]
    fn sqlite_result_codes_are_classified_by_their_primary_code() {
        // SQLITE_FULL, READONLY_DBMOVED, BUSY_SNAPSHOT, IOERR_WRITE, IOERR_SHMSIZE, CANTOPEN, CONSTRAINT_CHECK.
        let codes = [13, 1032, 517, 778, 4874, 14, 275];
        let expected = [
            Some(StorageFault::NoSpace),
            Some(StorageFault::ReadOnly),
            Some(StorageFault::Locked),
            Some(StorageFault::Io),
            Some(StorageFault::Io),
            Some(StorageFault::Io),
            None,
        ];
        assert_eq!(codes.map(of_code), expected);
    }

    #[test]
    fn the_cause_of_an_object_store_error_is_found_below_it() {
        let plain = |kind: ErrorKind| {
            let source = Box::new(io::Error::from(kind));
            StoreError::from(object_store::Error::Generic { store: "LocalFileSystem", source })
        };
        assert_eq!(plain(ErrorKind::StorageFull).fault(), Some(StorageFault::NoSpace));
        assert_eq!(plain(ErrorKind::QuotaExceeded).fault(), Some(StorageFault::NoSpace));
        assert_eq!(plain(ErrorKind::ReadOnlyFilesystem).fault(), Some(StorageFault::ReadOnly));
        assert_eq!(plain(ErrorKind::Other).fault(), Some(StorageFault::Io));
    }
}
