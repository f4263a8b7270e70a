//! Activations that are fused into the kernel before them, and breakpoints of the piecewise linear ones.

use crate::network::Activation;

/// An activation that is fused into the kernel before it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum FusedActivation {
    /// The backward pass reads the branches, which are kept as bits.
    Linear(Breakpoints),
    /// The backward pass reads the pre-activations, which are kept.
    Smooth(Activation),
}

impl FusedActivation {
    pub(crate) fn of(activation: &Activation) -> Self {
        Breakpoints::of(activation).map_or_else(|| Self::Smooth(activation.clone()), Self::Linear)
    }

    /// Whether all channels have the same function.
    pub(crate) fn is_uniform(&self) -> bool {
        match self {
            Self::Linear(_) => true,
            Self::Smooth(activation) => activation.channel_parameters().is_none(),
        }
    }
}

/// A piecewise linear activation: slope 1 between two breakpoints, `leak` outside.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Breakpoints {
    pub(crate) low: f32,
    pub(crate) high: f32,
    pub(crate) leak: f32,
}

impl Breakpoints {
    /// None for an activation whose derivative is not a function of the branch.
    pub(crate) fn of(activation: &Activation) -> Option<Self> {
        match *activation {
            Activation::Relu => Some(Self { low: 0.0, high: f32::INFINITY, leak: 0.0 }),
            Activation::LeakyRelu { slope } => {
                let leak = (0.0..=1.0).contains(&slope).then_some(slope)?;
                Some(Self { low: 0.0, high: f32::INFINITY, leak })
            }
            Activation::Clip { min, max } => (min < max).then_some(Self { low: min, high: max, leak: 0.0 }),
            // One slope per channel, or slopes other than 1 between the breakpoints.
            Activation::PRelu { .. } | Activation::HardSigmoid { .. } | Activation::HardSwish => None,
            // Smooth.
            Activation::Sigmoid | Activation::Tanh | Activation::Silu | Activation::Gelu { .. } => None,
            Activation::QuickGelu
            | Activation::Elu { .. }
            | Activation::Selu
            | Activation::Mish
            | Activation::Softplus => None,
        }
    }
}
