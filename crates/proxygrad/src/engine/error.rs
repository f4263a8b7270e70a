//! Errors of running a network.

use crate::network::{GraphError, Shape};

/// A failure of an engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The network cannot run at this input size.
    #[error("the network cannot run on {input}: {source}")]
    Size {
        /// Input `[C,H,W]` asked for.
        input: Shape,
        /// The layer and its reason.
        source: Box<GraphError>,
    },
    /// A tensor given to the engine does not fit the plan.
    #[error("{0}")]
    Mismatch(String),
    /// The device does not exist or is not supported by this build.
    #[error("device {device}: {why}")]
    Device {
        /// Name as given: `cuda:0`.
        device: String,
        /// The reason.
        why: String,
    },
    /// The tensor library or the device failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}
