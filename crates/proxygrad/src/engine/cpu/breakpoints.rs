//! Breakpoints of piecewise linear activations, which are fused into the kernel before them: ReLU, leaky ReLU and
//! clips.

use crate::network::Activation;

/// A piecewise linear activation: slope 1 between two breakpoints, `leak` outside.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Breakpoints {
    pub(crate) low: f32,
    pub(crate) high: f32,
    pub(crate) leak: f32,
}

impl Breakpoints {
    /// None for an activation that needs a separate kernel.
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
            Activation::Elu { .. } | Activation::Selu | Activation::Mish | Activation::Softplus => None,
        }
    }
}
