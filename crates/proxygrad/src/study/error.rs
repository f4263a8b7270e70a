//! Errors of a study.

use std::path::{Path, PathBuf};

use crate::Invalid;
use crate::maximize::MaximizeError;
use crate::train::TrainError;

/// Failure of a study.
#[derive(Debug, thiserror::Error)]
pub enum StudyError {
    /// A field of the plan is invalid.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The folder holds the results of another plan.
    #[error("{folder} holds another study: {field} is {here} there and {asked} here; choose another folder")]
    Differs {
        /// The study's folder.
        folder: PathBuf,
        /// Field in which the plans differ.
        field: String,
        /// Its value in the plan of the folder.
        here: String,
        /// Its value in the new plan.
        asked: String,
    },
    /// Another process has locked the folder.
    #[error("{0}: another process is running this study")]
    Busy(PathBuf),
    /// A file of the study is damaged.
    #[error("{path}: {why}")]
    Broken {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// Maximization failed, or a stimulus could not be judged.
    #[error("{what}: {source}")]
    Run {
        /// The run that failed.
        what: String,
        /// Its error.
        source: MaximizeError,
    },
    /// Training failed.
    #[error("{what}: {source}")]
    Train {
        /// The run that failed.
        what: String,
        /// Its error.
        source: Box<TrainError>,
    },
}

impl StudyError {
    /// Whether a file could not be written or read for a reason that may be temporary.
    pub fn is_unwritable(&self) -> bool {
        use std::io::ErrorKind::{InvalidData, InvalidInput, NotFound, Unsupported};
        match self {
            Self::File { source, .. } => !matches!(source.kind(), NotFound | InvalidData | InvalidInput | Unsupported),
            Self::Invalid(_)
            | Self::Differs { .. }
            | Self::Busy(_)
            | Self::Broken { .. }
            | Self::Run { .. }
            | Self::Train { .. } => false,
        }
    }

    pub(super) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        |source| Self::File { path, source }
    }

    pub(super) fn broken(path: &Path, why: impl ToString) -> Self {
        Self::Broken { path: path.to_owned(), why: why.to_string() }
    }
}
