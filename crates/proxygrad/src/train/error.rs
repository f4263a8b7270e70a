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
    /// The run exceeds a limit of its caller.
    #[error("the run needs {needed} {unit}, more than the limit of {limit}; {remedy}")]
    TooLarge {
        /// What it needs.
        needed: u64,
        /// Of what.
        unit: &'static str,
        /// What it may need.
        limit: u64,
        /// The settings that decide it.
        remedy: &'static str,
    },
    /// The folder holds the checkpoint of another run.
    #[error("{} belongs to a run {what}; choose another folder", path.display())]
    OtherRun {
        /// The checkpoint.
        path: PathBuf,
        /// What is other about it.
        what: &'static str,
    },
    /// A checkpoint cannot be used.
    #[error("{}: {why}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// A file of the run cannot be written now. The run itself is intact: its next call tries again.
    #[error("{}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
}
