//! Networks that are known by name: their graph is built here, their weights come from a file.

mod efficientnet_lite;
mod squeezenet;
mod weights;

use std::fmt;
use std::str::FromStr;

pub use efficientnet_lite::EfficientNetLite;

use super::checkpoint::StateDict;
use super::graph::Network;
use crate::Invalid;

/// A network known by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// EfficientNet-Lite: `efficientnet-lite0`, `efficientnet-lite1`, `efficientnet-lite2`.
    EfficientNetLite(EfficientNetLite),
    /// `squeezenet1.1` as ported from Caffe to Keras.
    SqueezeNet11,
}

/// Why weights do not make the network they are said to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchitectureError {
    /// A tensor is not in the file.
    #[error("{architecture} needs a tensor {name}, which the weight file does not have (it has {found})")]
    Missing {
        /// The architecture.
        architecture: Architecture,
        /// Name of the tensor.
        name: String,
        /// Some of the names in the file.
        found: String,
    },
    /// A tensor has another shape.
    #[error("{architecture}: tensor {name} has shape {found:?}; expected {expected}")]
    Shape {
        /// The architecture.
        architecture: Architecture,
        /// Name of the tensor.
        name: String,
        /// Its shape in the file.
        found: Vec<usize>,
        /// What would fit.
        expected: String,
    },
    /// A tensor, or what became of it when a batch normalization was folded into it, is not finite.
    #[error("{architecture}: tensor {name} holds values that are not finite")]
    NotFinite {
        /// The architecture.
        architecture: Architecture,
        /// Name of the tensor.
        name: String,
    },
    /// The layers do not fit each other.
    #[error("{architecture}: {why}")]
    Graph {
        /// The architecture.
        architecture: Architecture,
        /// The layer and its reason.
        why: String,
    },
}

impl Architecture {
    /// All architectures.
    pub const ALL: [Self; 4] = [
        Self::EfficientNetLite(EfficientNetLite::Lite0),
        Self::EfficientNetLite(EfficientNetLite::Lite1),
        Self::EfficientNetLite(EfficientNetLite::Lite2),
        Self::SqueezeNet11,
    ];

    /// The name, as manifests write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::EfficientNetLite(EfficientNetLite::Lite0) => "efficientnet-lite0",
            Self::EfficientNetLite(EfficientNetLite::Lite1) => "efficientnet-lite1",
            Self::EfficientNetLite(EfficientNetLite::Lite2) => "efficientnet-lite2",
            Self::SqueezeNet11 => "squeezenet1.1",
        }
    }

    /// The input size `[C,H,W]` that the network was trained for, and that its asymmetric paddings are computed for.
    pub fn input(self) -> [usize; 3] {
        match self {
            Self::EfficientNetLite(lite) => [3, lite.side(), lite.side()],
            Self::SqueezeNet11 => [3, 227, 227],
        }
    }

    /// Builds the network from its weights. Convolutions may be stored `[O,I,h,w]` or, as TensorFlow and Keras do,
    /// `[h,w,I,O]`; the number of classes is taken from the last layer.
    ///
    /// # Errors
    /// When a tensor is missing, has another shape or is not finite.
    pub fn build(self, state: &StateDict) -> Result<Network, ArchitectureError> {
        match self {
            Self::EfficientNetLite(lite) => efficientnet_lite::build(lite, state),
            Self::SqueezeNet11 => squeezenet::build(state),
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Architecture {
    type Err = Invalid;

    fn from_str(name: &str) -> Result<Self, Invalid> {
        Self::ALL.into_iter().find(|architecture| architecture.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            Invalid::new("architecture", name, format!("one of {known}"))
        })
    }
}
