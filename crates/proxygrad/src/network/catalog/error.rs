//! Errors of finding, pulling, adding and loading models.

use std::path::PathBuf;

use super::manifest::ManifestError;
use super::pull_error::PullError;
use crate::Invalid;

/// Why a model cannot be found, loaded, pulled or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// No model has this id.
    #[error("unknown model {id:?}; the known models are {}", known.join(", "))]
    Unknown {
        /// The id asked for.
        id: String,
        /// The ids that exist.
        known: Vec<String>,
    },
    /// Pulling the model failed; trying again later may work.
    #[error("model {id} cannot be pulled: {why}")]
    Unavailable {
        /// The model.
        id: String,
        /// What failed.
        #[source]
        why: PullError,
    },
    /// The model's files exist but cannot be used.
    #[error("model {id} is broken: {why}")]
    Broken {
        /// The model.
        id: String,
        /// What is wrong with them.
        why: String,
    },
    /// A value given by the caller cannot be used.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A manifest given by the caller, or a file that it names, cannot be used.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A folder of models cannot be read or written.
    #[error("{}: {why}", path.display())]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        why: std::io::Error,
    },
}

impl ModelError {
    pub(super) fn folder(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |why| Self::Folder { path, why }
    }
}
