//! Backward rules of activations.

/// How activations compute their value.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Forward {
    /// The network as it is.
    Original,
    /// The proxy copy: flat sides get a line of this slope
    /// ([`Activation::proxy_value`](crate::network::Activation::proxy_value)).
    Proxy {
        /// Slope of the flat sides, in [0, 1].
        slope: f32,
    },
}

/// Which derivative activations use in one backward pass, taken at the pre-activations of the last forward pass.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Gate {
    /// The derivative of the network itself.
    Plain,
    /// The derivative of the proxy copy
    /// ([`Activation::proxy_derivative`](crate::network::Activation::proxy_derivative)): `slope` where plain ReLU has 0.
    Proxy {
        /// Slope of the flat sides, in [0, 1].
        slope: f32,
    },
    /// The plain derivative, but where a sample's whole gradient behind an activation vanishes, the incoming gradient
    /// passes instead, except where it would push a flat side further out (Lucid's redirected ReLU).
    Redirect,
    /// Logistic steps instead of kinks
    /// ([`Activation::soft_derivative`](crate::network::Activation::soft_derivative)).
    Soft {
        /// Width of the step in units of the pre-activation, or of each activation's scale
        /// ([`Plan::set_scales`](super::Plan::set_scales)); 0 is plain.
        temperature: f32,
    },
    /// Slope 1: every activation passes the gradient times its peak derivative.
    Identity,
}

impl Gate {
    /// The rule at an activation of this scale.
    pub(super) fn at_scale(self, scale: f32) -> Self {
        match self {
            Self::Soft { temperature } => Self::Soft { temperature: temperature * scale },
            gate => gate,
        }
    }
}
