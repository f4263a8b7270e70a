//! Errors of training.

use std::path::PathBuf;

use crate::Invalid;
use crate::engine::EngineError;
use crate::network::GraphError;

use super::data::DataError;

/// A failure of a training run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A setting has an invalid value.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The data cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The architecture does not fit the images.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The loss is no longer a number.
    #[error(
        "the loss of epoch {epoch}, step {step} is not finite: the run diverged; try a lower learning rate, a smaller \
         slope or a smaller --clip"
    )]
    Diverged {
        /// Counted from 1.
        epoch: usize,
        /// Counted from 1 in the epoch.
        step: usize,
    },
    /// A checkpoint cannot be read or written.
    #[error("{}: {why}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
}
