//! What can go wrong while a model is pulled.

use std::io;
use std::time::Duration;

/// Why a model could not be pulled. Nothing of a failed attempt is kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PullError {
    /// The index or the server of its files cannot be reached, or broke off.
    #[error("{url}: {why}")]
    Network {
        /// What was asked for.
        url: String,
        /// The chain of reasons.
        why: String,
    },
    /// Nothing came for too long.
    #[error("{url}: nothing came for {} s", stall.as_secs_f32())]
    Stalled {
        /// What was asked for.
        url: String,
        /// For how long nothing came.
        stall: Duration,
    },
    /// The whole download took too long.
    #[error("{url}: not done after {} s", limit.as_secs_f32())]
    TooSlow {
        /// What was asked for.
        url: String,
        /// Longest duration of a download.
        limit: Duration,
    },
    /// The server answered with an error.
    #[error("{url}: the server answered {status}")]
    Status {
        /// What was asked for.
        url: String,
        /// Code and reason.
        status: String,
    },
    /// The index does not list the archive.
    #[error("{url}: the index does not list {archive}: {why}")]
    NotListed {
        /// The page of the package.
        url: String,
        /// File name of the archive.
        archive: String,
        /// What the page is instead.
        why: String,
    },
    /// The download has another size than the archive.
    #[error("{url}: got {found} bytes; expected {expected}")]
    Size {
        /// What was asked for.
        url: String,
        /// Bytes received; reading stops behind the expected size.
        found: u64,
        /// The size pinned in the catalog.
        expected: u64,
    },
    /// A file is not the one in the catalog.
    #[error("{file}: SHA-256 is {found}; expected {expected}")]
    Checksum {
        /// The archive or its member.
        file: String,
        /// Of what was received.
        found: String,
        /// The checksum pinned in the catalog.
        expected: String,
    },
    /// The archive is damaged or lacks the weight file.
    #[error("{archive}: {why}")]
    Archive {
        /// File name of the archive.
        archive: String,
        /// What is wrong with it.
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
