//! Training: forward and backward passes that return gradients of the weights, with surrogate derivatives.
//!
//! Forward passes, and with them the loss, are always those of the original network; a surrogate only replaces the
//! derivative of activations in the backward pass, or, for [`Surrogate::TrueProxy`], runs it through a copy.

use super::{EngineError, Forward, Gate};
use crate::network::Activation;
use crate::network::trainable::{Parameters, TrainableNetwork};

/// Offset of B-SiLU: `(z + 1.67) * sigmoid(z) - 0.835`.
pub(super) const BSILU_OFFSET: f64 = 1.67;

/// The derivative of activations in the backward pass of training.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Surrogate {
    /// The activation's own derivative.
    Plain,
    /// ProxyGrad: the derivative of the proxy, with this slope on the flat sides, at the original's pre-activations.
    Decoupled {
        /// In [0, 1].
        slope: f32,
    },
    /// ProxyGrad, read literally: the proxy runs its own forward pass, and the original's error at the logits goes
    /// backward through it.
    TrueProxy {
        /// In [0, 1].
        slope: f32,
    },
    /// At rectifiers the derivative of B-SiLU, `(z + 1.67) sigmoid(z) - 0.835` (Horuz et al., "The Resurrection of the ReLU", arXiv:2505.22074).
    BSilu,
    /// At rectifiers the derivative of SiLU.
    Silu,
    /// At rectifiers the derivative of ELU with alpha 1.
    Elu,
    /// At rectifiers the derivative of SELU.
    Selu,
}

impl Surrogate {
    /// What the forward pass before the backward pass computes.
    pub fn forward(self) -> Forward {
        match self {
            Self::TrueProxy { slope } => Forward::Proxy { slope },
            Self::Plain | Self::Decoupled { .. } | Self::BSilu | Self::Silu | Self::Elu | Self::Selu => {
                Forward::Original
            }
        }
    }

    /// The gate with the same derivative; `None` if it is the derivative of another function.
    pub fn gate(self) -> Option<Gate> {
        match self {
            Self::Plain => Some(Gate::Plain),
            Self::Decoupled { slope } | Self::TrueProxy { slope } => Some(Gate::Proxy { slope }),
            Self::BSilu | Self::Silu | Self::Elu | Self::Selu => None,
        }
    }
}

/// The slope below 0 of a rectifier; `None` for other activations, which keep their own derivative under the smooth
/// surrogates.
pub(super) fn rectifier_leak(activation: &Activation) -> Option<f32> {
    match activation {
        Activation::Relu => Some(0.0),
        Activation::LeakyRelu { slope } => Some(*slope),
        _ => None,
    }
}

/// Whether a forward pass trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Batch normalizations use the statistics of the batch, and with `update` move the running ones towards them.
    Training {
        /// Whether running statistics change.
        update: bool,
    },
    /// Batch normalizations use the running statistics.
    Inference,
}

/// Gradients of the tensors of a [`TrainableNetwork`], in its order; empty for running statistics.
pub type Gradients = Vec<Vec<f32>>;

/// Runs trainable networks on one device.
pub trait TrainingEngine: Send + Sync {
    /// Prepares a network.
    ///
    /// # Errors
    /// When the device runs out of memory.
    fn training_plan(&self, network: &TrainableNetwork) -> Result<Box<dyn TrainingPlan>, EngineError>;
}

/// A trainable network prepared for passes over batches. The batch size may differ between calls.
pub trait TrainingPlan: Send {
    /// The logits `[N,K]` of images `[N,C,H,W]`, both row-major. Logits are in f64 so that an engine in f64 loses
    /// nothing.
    ///
    /// # Errors
    /// When `images` is not a whole number of images, or the device fails.
    fn forward(
        &mut self,
        images: &[f32],
        parameters: &mut Parameters,
        mode: Mode,
        forward: Forward,
    ) -> Result<Vec<f64>, EngineError>;

    /// Gradients of the sum of `seeds * logits` of the last forward pass, which was one of training, with respect to
    /// all trained tensors.
    ///
    /// # Errors
    /// When there was no such pass, `seeds` has another shape, or the device fails.
    fn backward(&mut self, seeds: &[f32], surrogate: Surrogate) -> Result<Gradients, EngineError>;

    /// Output of a node in the last forward pass, row-major `[N, ...]`.
    ///
    /// # Errors
    /// When there was no forward pass, or the device fails.
    fn value(&self, node: usize) -> Result<Vec<f32>, EngineError>;
}

/// Number of images in `images`.
pub(super) fn batch_size(network: &TrainableNetwork, images: &[f32]) -> Result<usize, EngineError> {
    let size = network.input_shape().elements();
    if images.is_empty() || size == 0 || !images.len().is_multiple_of(size) {
        let why = format!("{} values are not a number of images of {}", images.len(), network.input_shape());
        return Err(EngineError::Mismatch(why));
    }
    Ok(images.len() / size)
}
