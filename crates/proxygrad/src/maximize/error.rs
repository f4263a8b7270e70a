//! Why a run could not find a stimulus.

use crate::engine::EngineError;
use crate::judge::JudgeError;

/// Why no stimulus could be found.
#[derive(Debug, thiserror::Error)]
pub enum MaximizeError {
    /// A layer of an objective does not exist in the model; [`Request::resolve`](super::request::Request::resolve)
    /// finds this first.
    #[error("the model has no layer {0}")]
    Layer(String),
    /// A reference image of an objective or the start is missing;
    /// [`Request::resolve`](super::request::Request::resolve) reads them.
    #[error("there is no image {0}")]
    ReferenceImage(String),
    /// The model's input has neither one (grey) nor three (RGB) channels, so that there is no image to show.
    #[error("images have 1 or 3 channels, but the model's input has {0}")]
    Channels(usize),
    /// One stimulus, or one diversity group, needs more memory than is allowed.
    #[error("a run takes up to {needed} bytes of memory, but no more than {allowed} are allowed")]
    Memory {
        /// Bytes needed, at most.
        needed: u64,
        /// Bytes allowed.
        allowed: u64,
    },
    /// The network could not be run.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The stimulus could not be written as a PNG.
    #[error("the stimulus could not be written as a PNG: {0}")]
    Png(#[from] image::ImageError),
    /// A stimulus could not be judged.
    #[error(transparent)]
    Judge(Box<JudgeError>),
    /// The animation could not be written.
    #[error("the animation could not be written: {0}")]
    Animation(#[from] png::EncodingError),
}

impl From<JudgeError> for MaximizeError {
    fn from(error: JudgeError) -> Self {
        match error {
            JudgeError::Engine(error) => Self::Engine(error),
            error => Self::Judge(Box::new(error)),
        }
    }
}

impl From<candle_core::Error> for MaximizeError {
    fn from(error: candle_core::Error) -> Self {
        Self::Engine(error.into())
    }
}
