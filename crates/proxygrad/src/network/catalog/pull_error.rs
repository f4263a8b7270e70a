//! Errors of pulling a model.

use std::io;
use std::time::Duration;

/// Why a model could not be pulled. A failed attempt leaves no files behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PullError {
    /// The index or its file server cannot be reached, or closed the connection.
    #[error("{url}: {why}")]
    Network {
        /// Requested address.
        url: String,
        /// The chain of reasons.
        why: String,
    },
    /// No data arrived for too long.
    #[error("{url}: no data for {} s", stall.as_secs_f32())]
    Stalled {
        /// Requested address.
        url: String,
        /// How long no data arrived.
        stall: Duration,
    },
    /// The whole download took too long.
    #[error("{url}: download not complete after {} s", limit.as_secs_f32())]
    TooSlow {
        /// Requested address.
        url: String,
        /// The time limit.
        limit: Duration,
    },
    /// The server answered with an error.
    #[error("{url}: the server responded with {status}")]
    Status {
        /// Requested address.
        url: String,
        /// Status code and reason.
        status: String,
    },
    /// The index does not list the archive.
    #[error("{url}: the index does not list {archive}: {why}")]
    NotListed {
        /// The page of the package.
        url: String,
        /// File name of the archive.
        archive: String,
        /// What the page contains instead.
        why: String,
    },
    /// The size of the download differs from that of the archive.
    #[error("{url}: received {found} bytes; expected {expected}")]
    Size {
        /// Requested address.
        url: String,
        /// Bytes received; reading stops after the expected size.
        found: u64,
        /// The size pinned in the catalog.
        expected: u64,
    },
    /// The checksum of a file differs from the one in the catalog.
    #[error("{file}: SHA-256 is {found}; expected {expected}")]
    Checksum {
        /// The archive or its member.
        file: String,
        /// SHA-256 of what was received.
        found: String,
        /// SHA-256 pinned in the catalog.
        expected: String,
    },
    /// The archive is damaged or does not contain the weight file.
    #[error("{archive}: {why}")]
    Archive {
        /// File name of the archive.
        archive: String,
        /// What is wrong with it.
        why: String,
    },
    /// A repository of the Hub cannot be used.
    #[error("{address}: {why}")]
    Repository {
        /// The repository or file.
        address: String,
        /// A phrase about it.
        why: String,
    },
    /// This build of the library cannot download.
    #[error("{url}: {archive} cannot be downloaded: built without the feature `pull`")]
    NotBuilt {
        /// The index.
        url: String,
        /// File name of the archive.
        archive: String,
    },
    /// The data directory cannot be written.
    #[error("the data directory cannot be written: {0}")]
    Disk(#[from] io::Error),
}
