//! Backward rules of activations (gates): the derivative or surrogate derivative that a backward pass uses.

/// The function that activations compute in a forward pass.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Forward {
    /// The network's own activation.
    Original,
    /// The proxy copy: a line with this slope on the flat sides
    /// ([`Activation::proxy_value`](crate::network::Activation::proxy_value)).
    Proxy {
        /// Slope of the flat sides, in [0, 1].
        slope: f32,
    },
}

/// The derivative that activations use in a backward pass, taken at the pre-activations of the last forward pass.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Gate {
    /// The activation's own derivative.
    Plain,
    /// The derivative of the proxy copy
    /// ([`Activation::proxy_derivative`](crate::network::Activation::proxy_derivative)): `slope` where plain ReLU has
    /// 0.
    Proxy {
        /// Slope of the flat sides, in [0, 1].
        slope: f32,
    },
    /// The plain derivative; if the whole gradient of a sample vanishes at an activation, the incoming gradient passes
    /// instead, except where it would move a value further into a flat side (Lucid's redirected ReLU).
    Redirect,
    /// Logistic steps instead of breakpoints
    /// ([`Activation::soft_derivative`](crate::network::Activation::soft_derivative)).
    Soft {
        /// Width of the step in units of the pre-activation, times the activation's factor
        /// ([`Plan::set_scales`](super::Plan::set_scales)); 0 is plain.
        temperature: f32,
    },
    /// Slope 1: every activation passes the gradient times its peak derivative.
    Identity,
}

impl Gate {
    /// The rule at an activation with this factor.
    pub(super) fn at_scale(self, scale: f32) -> Self {
        match self {
            Self::Soft { temperature } => Self::Soft { temperature: temperature * scale },
            gate => gate,
        }
    }
}
