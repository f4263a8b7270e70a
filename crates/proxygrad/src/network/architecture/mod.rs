//! Architectures known by name: the graph is built here, the weights come from a checkpoint.

mod builder;
mod efficientnet_lite;
mod squeezenet;

use std::fmt;
use std::str::FromStr;

pub use efficientnet_lite::EfficientNetLite;

use super::checkpoint::StateDict;
use super::error::{ArrayError, GraphError};
use super::graph::Network;
use crate::Invalid;

/// An architecture known by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Architecture {
    /// EfficientNet-Lite: `efficientnet-lite0`, `efficientnet-lite1`, `efficientnet-lite2`.
    EfficientNetLite(EfficientNetLite),
    /// `squeezenet1.1` as ported from Caffe to Keras.
    SqueezeNet11,
}

/// Why weights do not fit their architecture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArchitectureError {
    /// A tensor is missing.
    #[error("{architecture}: the weight file has no tensor {name} (it has {found})")]
    Missing {
        /// The architecture.
        architecture: Architecture,
        /// Name of the tensor.
        name: String,
        /// Some of the names in the file.
        found: String,
    },
    /// A tensor has an unexpected shape.
    #[error("{architecture}: tensor {name} has shape {found:?}; expected {expected}")]
    Shape {
        /// The architecture.
        architecture: Architecture,
        /// Name of the tensor.
        name: String,
        /// Its shape in the file.
        found: Vec<usize>,
        /// The shapes that fit.
        expected: String,
    },
    /// A tensor has infinite or NaN values, perhaps only after batch norm folding.
    #[error("{architecture}: tensor {name} has values that are not finite")]
    NotFinite {
        /// The architecture.
        architecture: Architecture,
        /// Name of the tensor.
        name: String,
    },
    /// A layer does not accept its inputs.
    #[error("{architecture}: {source}")]
    Graph {
        /// The architecture.
        architecture: Architecture,
        /// The layer, and the reason.
        source: GraphError,
    },
    /// A weight tensor cannot be built.
    #[error("{architecture}: {source}")]
    Array {
        /// The architecture.
        architecture: Architecture,
        /// The reason.
        source: ArrayError,
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

    /// The name used in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::EfficientNetLite(EfficientNetLite::Lite0) => "efficientnet-lite0",
            Self::EfficientNetLite(EfficientNetLite::Lite1) => "efficientnet-lite1",
            Self::EfficientNetLite(EfficientNetLite::Lite2) => "efficientnet-lite2",
            Self::SqueezeNet11 => "squeezenet1.1",
        }
    }

    /// Input size `[C,H,W]` of training, which determines the asymmetric padding.
    pub fn input(self) -> [usize; 3] {
        match self {
            Self::EfficientNetLite(lite) => [3, lite.side(), lite.side()],
            Self::SqueezeNet11 => [3, 227, 227],
        }
    }

    /// Builds the network from its weights. Convolutions may be stored `[O,I,h,w]` or, as TensorFlow and Keras do,
    /// `[h,w,I,O]`; the number of classes is that of the last layer.
    ///
    /// # Errors
    /// When a tensor is missing, has an unexpected shape or is not finite.
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
