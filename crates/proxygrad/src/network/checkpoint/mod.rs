//! Reads weight files into named arrays. Nothing in a file is ever executed.
//!
//! | format | what it is |
//! |---|---|
//! | [`Format::Safetensors`] | a JSON header and raw tensors |
//! | [`Format::Torch`] | the stream `torch.save` wrote before its zip format: five pickles, then raw storages |
//! | [`Format::NumpyPickle`] | a pickled dict of numpy arrays, or of `[weight, bias]` lists of them |
//!
//! Pickles are read by a [restricted machine](pickle) that yields plain values and the names of a few known
//! constructors; any other name in a file is an error.

pub mod pickle;

mod numpy;
mod safetensors;
mod state_dict;
mod torch;

use std::path::Path;

pub use state_dict::StateDict;

/// Why a weight file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file's name has no known ending.
    #[error("{file}: is no known weight file; expected .safetensors, .pth, .pt or .pkl")]
    UnknownFormat {
        /// Name of the file.
        file: String,
    },
    /// A pickle in the file is damaged or asks for something that is not allowed.
    #[error(transparent)]
    Pickle(#[from] pickle::PickleError),
    /// The file does not hold what its format says it does.
    #[error("{0}")]
    Content(String),
}

/// How weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// <https://github.com/huggingface/safetensors>
    Safetensors,
    /// `torch.save(..., _use_new_zipfile_serialization=False)`, the only format before torch 1.6.
    Torch,
    /// `pickle.dump` of a dict of numpy arrays.
    NumpyPickle,
}

impl Format {
    /// The format that a file's ending promises.
    ///
    /// # Errors
    /// When the ending is none of `.safetensors`, `.pth`, `.pt`, `.pkl`.
    pub fn of(file: &str) -> Result<Self, CheckpointError> {
        match Path::new(file).extension().and_then(|ending| ending.to_str()) {
            Some("safetensors") => Ok(Self::Safetensors),
            Some("pth" | "pt") => Ok(Self::Torch),
            Some("pkl") => Ok(Self::NumpyPickle),
            _ => Err(CheckpointError::UnknownFormat { file: file.into() }),
        }
    }

    /// Reads all floating-point tensors of a weight file; integer tensors, such as counters of batches, are left out.
    ///
    /// # Errors
    /// When the file is damaged, truncated, of another format, or holds anything but tensors.
    pub fn read(self, bytes: &[u8]) -> Result<StateDict, CheckpointError> {
        match self {
            Self::Safetensors => safetensors::read(bytes),
            Self::Torch => torch::read(bytes),
            Self::NumpyPickle => numpy::read(bytes),
        }
    }
}

fn content(why: impl Into<String>) -> CheckpointError {
    CheckpointError::Content(why.into())
}
