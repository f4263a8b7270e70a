//! Checkpoints: weight files are read into named arrays. Nothing in a file is ever executed.
//!
//! | format | contents |
//! |---|---|
//! | [`Format::Safetensors`] | JSON header and raw tensors |
//! | [`Format::Torch`] | state dict of `torch.save`: a zip archive of a pickle and raw storages, or before torch 1.6 a stream of five pickles and raw storages |
//! | [`Format::NumpyPickle`] | pickled dict of numpy arrays, or of `[weight, bias]` lists of arrays |
//!
//! Pickles are read by a [restricted reader](pickle) that returns plain values and the names of a few known
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
#[non_exhaustive]
pub enum CheckpointError {
    /// The file name has no known extension.
    #[error("unknown weight file format; expected a file name that ends in .safetensors, .pth, .pt, .bin or .pkl")]
    UnknownFormat {
        /// File name.
        file: String,
    },
    /// A pickle in the file is damaged or contains something that is not allowed.
    #[error(transparent)]
    Pickle(#[from] pickle::PickleError),
    /// The file does not match its format.
    #[error("{0}")]
    Malformed(String),
}

/// Format of a weight file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// <https://github.com/huggingface/safetensors>
    Safetensors,
    /// `torch.save` of a state dict.
    Torch,
    /// `pickle.dump` of a dict of numpy arrays.
    NumpyPickle,
}

impl Format {
    /// The format that a file name's extension implies.
    ///
    /// # Examples
    /// ```
    /// use proxygrad::network::checkpoint::Format;
    ///
    /// assert_eq!(Format::from_file_name("model.safetensors")?, Format::Safetensors);
    /// assert!(Format::from_file_name("model.h5").is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// When the extension is not `.safetensors`, `.pth`, `.pt`, `.bin` or `.pkl`.
    pub fn from_file_name(file: &str) -> Result<Self, CheckpointError> {
        match Path::new(file).extension().and_then(|extension| extension.to_str()) {
            Some("safetensors") => Ok(Self::Safetensors),
            Some("pth" | "pt" | "bin") => Ok(Self::Torch),
            Some("pkl") => Ok(Self::NumpyPickle),
            _ => Err(CheckpointError::UnknownFormat { file: file.into() }),
        }
    }

    /// Reads all floating-point tensors of a weight file; integer tensors, such as batch counters, are left out.
    ///
    /// # Errors
    /// When the file is damaged, truncated, of another format, or holds anything other than tensors.
    pub fn read(self, bytes: &[u8]) -> Result<StateDict, CheckpointError> {
        match self {
            Self::Safetensors => safetensors::read(bytes),
            Self::Torch => torch::read(bytes),
            Self::NumpyPickle => numpy::read(bytes),
        }
    }
}

fn malformed(why: impl Into<String>) -> CheckpointError {
    CheckpointError::Malformed(why.into())
}
