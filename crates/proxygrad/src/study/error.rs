//! Why a study cannot go on.

use std::path::{Path, PathBuf};

use crate::Invalid;
use crate::maximize::MaximizeError;

/// Why a study cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum StudyError {
    /// The plan asks for something that does not exist or does not fit.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The folder holds the results of another plan.
    #[error("{folder} holds another study: its plan has {here} at {field}, this one {asked}; choose another folder")]
    Differs {
        /// The study's folder.
        folder: PathBuf,
        /// Where the plans differ.
        field: String,
        /// What stands there in the folder's plan.
        here: String,
        /// What stands there in the plan asked for.
        asked: String,
    },
    /// Another process works in the folder.
    #[error("{0}: another process is running this study")]
    Busy(PathBuf),
    /// A file of the study is not what this program wrote.
    #[error("{path}: {why}")]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Stimuli could not be made.
    #[error("{what}: {source}")]
    Run {
        /// What was being made.
        what: String,
        /// Why it failed.
        source: MaximizeError,
    },
}

impl StudyError {
    /// Whether a file could not be written, or read, for a reason that may pass: the same may succeed later.
    pub fn is_unwritable(&self) -> bool {
        use std::io::ErrorKind::{InvalidData, InvalidInput, NotFound, Unsupported};
        match self {
            Self::File { source, .. } => !matches!(source.kind(), NotFound | InvalidData | InvalidInput | Unsupported),
            Self::Invalid(_) | Self::Differs { .. } | Self::Busy(_) | Self::Broken { .. } | Self::Run { .. } => false,
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
