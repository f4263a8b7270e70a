//! What can go wrong while a network runs.

/// A failure of an engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The network cannot run at this input size.
    #[error("the network cannot run on {input}: {why}")]
    Size {
        /// The input size that was asked for.
        input: String,
        /// The layer and its reason.
        why: String,
    },
    /// A tensor handed to the engine does not fit the plan.
    #[error("{0}")]
    Mismatch(String),
    /// The device named does not exist or is not supported by this build.
    #[error("device {device}: {why}")]
    Device {
        /// As written by the user: `cuda:0`.
        device: String,
        /// What is missing.
        why: String,
    },
    /// The tensor library or the device failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}
