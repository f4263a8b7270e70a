//! Activation functions: value, derivative, and the surrogate derivatives of ProxyGrad and the soft gate.
//!
//! The functions here, in f64, are the definitions; every engine is tested against them. No match has a wildcard arm,
//! so that a new activation compiles only once each of them has decided about it.

use super::array::Array;
use super::error::ShapeError;
use super::shape::Shape;

/// An elementwise nonlinearity.
///
/// Every activation has a *peak*, the largest derivative of its linear approximation (1 for the ReLU family), and *flat
/// sides* (saturated regions), where the derivative is small and gradients vanish: below 0 for the rectifiers, outside
/// the linear range for clipped functions, everywhere for sigmoid and tanh.
///
/// # Examples
/// ```
/// use proxygrad::network::Activation;
///
/// let relu6 = Activation::Clip { min: 0.0, max: 6.0 };
/// assert_eq!(relu6.name(), "relu6");
/// assert_eq!(relu6.derivative(-1.0, 0), 0.0);
/// // The proxy copy of ProxyGrad has a slope on the flat sides.
/// assert_eq!(relu6.proxy_derivative(-1.0, 0.3, 0), 0.3);
/// assert_eq!(relu6.proxy_value(8.0, 0.5, 0), 7.0);
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Activation {
    /// `max(z, 0)`
    Relu,
    /// `z` above 0, `slope * z` below.
    LeakyRelu {
        /// Slope below 0.
        slope: f32,
    },
    /// Leaky ReLU with one learned slope per channel, or one for all.
    PRelu {
        /// `[C]` or `[1]`.
        slopes: Array,
    },
    /// `min(max(z, min), max)`; ReLU6 is `Clip { min: 0, max: 6 }`.
    Clip {
        /// Lower bound; may be `-inf`.
        min: f32,
        /// Upper bound; may be `inf`.
        max: f32,
    },
    /// `clip(alpha * z + beta, 0, 1)`
    HardSigmoid {
        /// Slope of the linear part, positive.
        alpha: f32,
        /// Value at 0.
        beta: f32,
    },
    /// `z * clip(z / 6 + 1/2, 0, 1)`
    HardSwish,
    /// `1 / (1 + exp(-z))`
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
    /// `z * sigmoid(z)`, also called swish.
    Silu,
    /// `z * Φ(z)`
    Gelu {
        /// The tanh approximation instead of the exact Φ.
        tanh: bool,
    },
    /// `z * sigmoid(1.702 * z)`, the approximation of GELU of CLIP.
    QuickGelu,
    /// `z` above 0, `alpha * (exp(z) - 1)` below.
    Elu {
        /// Minus the limit at `-inf`.
        alpha: f32,
    },
    /// The self-normalizing ELU, with its two fixed constants.
    Selu,
    /// `z * tanh(softplus(z))`
    Mish,
    /// `ln(1 + exp(z))`
    Softplus,
}

/// Factor of [`Activation::QuickGelu`] (Hendrycks and Gimpel 2016, arXiv:1606.08415, section 2).
pub(crate) const QUICK_GELU_FACTOR: f64 = 1.702;

/// Constants of [`Activation::Selu`] (Klambauer et al. 2017, arXiv:1706.02515, equation 2).
pub(crate) const SELU_ALPHA: f64 = 1.673_263_242_354_377_2;
/// See [`SELU_ALPHA`].
pub(crate) const SELU_LAMBDA: f64 = 1.050_700_987_355_480_5;

impl Activation {
    /// Name as in layer listings: `relu`, `leaky-relu`, `relu6`, …
    pub fn name(&self) -> &'static str {
        match self {
            Self::Relu => "relu",
            Self::LeakyRelu { .. } => "leaky-relu",
            Self::PRelu { .. } => "prelu",
            Self::Clip { min, max } if *min == 0.0 && *max == 6.0 => "relu6",
            Self::Clip { .. } => "clip",
            Self::HardSigmoid { .. } => "hard-sigmoid",
            Self::HardSwish => "hard-swish",
            Self::Sigmoid => "sigmoid",
            Self::Tanh => "tanh",
            Self::Silu => "silu",
            Self::Gelu { .. } => "gelu",
            Self::QuickGelu => "quick-gelu",
            Self::Elu { .. } => "elu",
            Self::Selu => "selu",
            Self::Mish => "mish",
            Self::Softplus => "softplus",
        }
    }

    /// Checks the parameters, and that they fit an input of this shape.
    ///
    /// # Errors
    /// When a parameter is out of range, or a PReLU's number of slopes differs from the number of channels.
    pub fn check(&self, input: &Shape) -> Result<(), ShapeError> {
        let problem = match self {
            Self::PRelu { slopes } => (slopes.len() != 1 && slopes.len() != input.channels())
                .then(|| format!("has {} slopes for {} channels", slopes.len(), input.channels())),
            Self::Clip { min, max } => (min.is_nan() || max.is_nan() || min > max)
                .then(|| format!("clips to {min}..{max}, which is not a range")),
            Self::HardSigmoid { alpha, beta } => (*alpha <= 0.0 || !alpha.is_finite() || !beta.is_finite())
                .then(|| format!("has alpha {alpha} and beta {beta}; expected finite numbers, alpha above 0")),
            Self::LeakyRelu { slope: number } | Self::Elu { alpha: number } => {
                (!number.is_finite()).then(|| format!("has slope {number}, which is not finite"))
            }
            Self::Relu
            | Self::HardSwish
            | Self::Sigmoid
            | Self::Tanh
            | Self::Silu
            | Self::Gelu { .. }
            | Self::QuickGelu
            | Self::Selu
            | Self::Mish
            | Self::Softplus => None,
        };
        problem.map_or(Ok(()), |why| Err(ShapeError::Parameter(why)))
    }

    /// The parameters that differ between channels, `[C]`; None if all channels have the same function.
    pub fn channel_parameters(&self) -> Option<&Array> {
        match self {
            Self::PRelu { slopes } => (slopes.len() > 1).then_some(slopes),
            Self::Relu
            | Self::LeakyRelu { .. }
            | Self::Clip { .. }
            | Self::HardSigmoid { .. }
            | Self::HardSwish
            | Self::Sigmoid
            | Self::Tanh
            | Self::Silu
            | Self::Gelu { .. }
            | Self::QuickGelu
            | Self::Elu { .. }
            | Self::Selu
            | Self::Mish
            | Self::Softplus => None,
        }
    }

    /// The same activation with other [`Activation::channel_parameters`], if it has any.
    pub(crate) fn with_channel_parameters(&self, parameters: Array) -> Self {
        match self {
            Self::PRelu { .. } if self.channel_parameters().is_some() => Self::PRelu { slopes: parameters },
            activation => activation.clone(),
        }
    }

    /// The activation of the channels `kept` alone, in that order.
    pub(crate) fn select_channels(&self, kept: &[usize]) -> Self {
        self.channel_parameters()
            .map_or_else(|| self.clone(), |parameters| self.with_channel_parameters(parameters.rows(kept)))
    }

    /// Largest derivative of the linear approximation: the factor that
    /// [`Gate::Identity`](crate::engine::Gate::Identity) passes on.
    pub fn peak(&self) -> f64 {
        match self {
            Self::HardSigmoid { alpha, .. } => f64::from(*alpha),
            Self::Sigmoid => 0.25,
            Self::Selu => SELU_LAMBDA,
            Self::Relu
            | Self::LeakyRelu { .. }
            | Self::PRelu { .. }
            | Self::Clip { .. }
            | Self::HardSwish
            | Self::Tanh
            | Self::Silu
            | Self::Gelu { .. }
            | Self::QuickGelu
            | Self::Elu { .. }
            | Self::Mish
            | Self::Softplus => 1.0,
        }
    }

    /// Breakpoints between the linear range and the flat sides: flat at or below the first number, and at or above the
    /// second. `(inf, -inf)` means flat everywhere.
    pub fn breakpoints(&self) -> (f64, f64) {
        match self {
            Self::Clip { min, max } => (f64::from(*min), f64::from(*max)),
            Self::HardSigmoid { alpha, beta } => {
                let (alpha, beta) = (f64::from(*alpha), f64::from(*beta));
                (-beta / alpha, (1.0 - beta) / alpha)
            }
            Self::Sigmoid | Self::Tanh => (f64::INFINITY, f64::NEG_INFINITY),
            Self::Relu
            | Self::LeakyRelu { .. }
            | Self::PRelu { .. }
            | Self::HardSwish
            | Self::Silu
            | Self::Gelu { .. }
            | Self::QuickGelu
            | Self::Elu { .. }
            | Self::Selu
            | Self::Mish
            | Self::Softplus => (0.0, f64::INFINITY),
        }
    }

    /// `f(z)`; `channel` selects a PReLU's slope.
    pub fn value(&self, z: f64, channel: usize) -> f64 {
        match self {
            Self::Relu => z.max(0.0),
            Self::LeakyRelu { slope } => leaky(z, f64::from(*slope)),
            Self::PRelu { slopes } => leaky(z, prelu_slope(slopes, channel)),
            Self::Clip { min, max } => z.max(f64::from(*min)).min(f64::from(*max)),
            Self::HardSigmoid { alpha, beta } => (f64::from(*alpha) * z + f64::from(*beta)).clamp(0.0, 1.0),
            Self::HardSwish => z * (z / 6.0 + 0.5).clamp(0.0, 1.0),
            Self::Sigmoid => sigmoid(z),
            Self::Tanh => z.tanh(),
            Self::Silu => z * sigmoid(z),
            Self::Gelu { tanh: true } => 0.5 * z * (1.0 + gelu_inner(z).0.tanh()),
            Self::Gelu { tanh: false } => z * normal_cdf(z),
            Self::QuickGelu => z * sigmoid(QUICK_GELU_FACTOR * z),
            Self::Elu { alpha } => elu(z, f64::from(*alpha)),
            Self::Selu => SELU_LAMBDA * elu(z, SELU_ALPHA),
            Self::Mish => z * softplus(z).tanh(),
            Self::Softplus => softplus(z),
        }
    }

    /// `f'(z)`, with the derivative of the flat side at a breakpoint (ReLU's derivative at 0 is 0).
    pub fn derivative(&self, z: f64, channel: usize) -> f64 {
        match self {
            Self::Relu => f64::from(u8::from(z > 0.0)),
            Self::LeakyRelu { slope } => leaky_derivative(z, f64::from(*slope)),
            Self::PRelu { slopes } => leaky_derivative(z, prelu_slope(slopes, channel)),
            Self::Clip { .. } | Self::HardSigmoid { .. } => {
                let (low, high) = self.breakpoints();
                if z > low && z < high { self.peak() } else { 0.0 }
            }
            Self::HardSwish if z <= -3.0 => 0.0,
            Self::HardSwish if z >= 3.0 => 1.0,
            Self::HardSwish => z / 3.0 + 0.5,
            Self::Sigmoid => sigmoid(z) * (1.0 - sigmoid(z)),
            Self::Tanh => 1.0 - z.tanh().powi(2),
            Self::Silu => sigmoid(z) * (1.0 + z * (1.0 - sigmoid(z))),
            Self::Gelu { tanh: true } => {
                let (inner, slope) = gelu_inner(z);
                let t = inner.tanh();
                0.5 * (1.0 + t) + 0.5 * z * (1.0 - t * t) * slope
            }
            Self::Gelu { tanh: false } => {
                normal_cdf(z) + z * (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()
            }
            Self::QuickGelu => {
                let inner = QUICK_GELU_FACTOR * z;
                sigmoid(inner) * (1.0 + inner * (1.0 - sigmoid(inner)))
            }
            Self::Elu { alpha } => elu_derivative(z, f64::from(*alpha)),
            Self::Selu => SELU_LAMBDA * elu_derivative(z, SELU_ALPHA),
            Self::Mish => {
                let t = softplus(z).tanh();
                t + z * (1.0 - t * t) * sigmoid(z)
            }
            Self::Softplus => sigmoid(z),
        }
    }

    /// Value of the proxy copy: the activation plus a line of slope `slope * peak` on each flat side, continuous at the
    /// breakpoints. For ReLU it is the Leaky ReLU of the paper (section III); a (P)LeakyReLU keeps the larger of both
    /// slopes.
    pub fn proxy_value(&self, z: f64, slope: f64, channel: usize) -> f64 {
        match self.negative_slope(channel) {
            Some(own) if z <= 0.0 => own.max(slope) * z,
            _ => self.value(z, channel) + slope * self.peak() * self.excess(z),
        }
    }

    /// Derivative of [`Activation::proxy_value`]: what the `decoupled` gate takes at the original pre-activations.
    pub fn proxy_derivative(&self, z: f64, slope: f64, channel: usize) -> f64 {
        match self.negative_slope(channel) {
            Some(own) if z <= 0.0 => own.max(slope),
            _ if self.is_flat_side(z) => self.derivative(z, channel) + slope * self.peak(),
            _ => self.derivative(z, channel),
        }
    }

    /// Derivative under the `soft` gate: piecewise linear functions get logistic steps of width `temperature` (in units
    /// of z) at their breakpoints; smooth functions get the larger of their derivative and the logistic step on their
    /// flat side. At a temperature of 0 it is the plain derivative.
    pub fn soft_derivative(&self, z: f64, temperature: f64, channel: usize) -> f64 {
        if temperature <= 0.0 {
            return self.derivative(z, channel);
        }
        let step = sigmoid(z / temperature);
        let leaky = |slope: f64| slope + (1.0 - slope) * step;
        match self {
            Self::Relu => step,
            Self::LeakyRelu { slope } => leaky(f64::from(*slope)),
            Self::PRelu { slopes } => leaky(prelu_slope(slopes, channel)),
            Self::Clip { .. } | Self::HardSigmoid { .. } => {
                let (low, high) = self.breakpoints();
                self.peak() * sigmoid((z - low) / temperature) * sigmoid((high - z) / temperature)
            }
            Self::Sigmoid | Self::Tanh | Self::Softplus => self.derivative(z, channel),
            Self::HardSwish
            | Self::Silu
            | Self::Gelu { .. }
            | Self::QuickGelu
            | Self::Elu { .. }
            | Self::Selu
            | Self::Mish => {
                let derivative = self.derivative(z, channel);
                if z <= 0.0 { derivative.max(self.peak() * step) } else { derivative }
            }
        }
    }

    /// Whether `z` is on a flat side.
    pub fn is_flat_side(&self, z: f64) -> bool {
        let (low, high) = self.breakpoints();
        z <= low || z >= high
    }

    /// Signed distance of `z` from the linear range; `z` itself if the activation is flat everywhere.
    fn excess(&self, z: f64) -> f64 {
        let (low, high) = self.breakpoints();
        if low > high {
            z
        } else if z < low {
            z - low
        } else if z > high {
            z - high
        } else {
            0.0
        }
    }

    /// Slope of a (P)LeakyReLU below 0; `None` for all other activations.
    fn negative_slope(&self, channel: usize) -> Option<f64> {
        match self {
            Self::LeakyRelu { slope } => Some(f64::from(*slope)),
            Self::PRelu { slopes } => Some(prelu_slope(slopes, channel)),
            Self::Relu
            | Self::Clip { .. }
            | Self::HardSigmoid { .. }
            | Self::HardSwish
            | Self::Sigmoid
            | Self::Tanh
            | Self::Silu
            | Self::Gelu { .. }
            | Self::QuickGelu
            | Self::Elu { .. }
            | Self::Selu
            | Self::Mish
            | Self::Softplus => None,
        }
    }
}

fn prelu_slope(slopes: &Array, channel: usize) -> f64 {
    f64::from(slopes.data()[if slopes.len() == 1 { 0 } else { channel }])
}

fn leaky(z: f64, slope: f64) -> f64 {
    if z > 0.0 { z } else { slope * z }
}

fn leaky_derivative(z: f64, slope: f64) -> f64 {
    if z > 0.0 { 1.0 } else { slope }
}

fn sigmoid(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

/// `ln(1 + exp(z))` without overflow.
fn softplus(z: f64) -> f64 {
    z.max(0.0) + (-z.abs()).exp().ln_1p()
}

fn elu(z: f64, alpha: f64) -> f64 {
    if z > 0.0 { z } else { alpha * z.exp_m1() }
}

fn elu_derivative(z: f64, alpha: f64) -> f64 {
    if z > 0.0 { 1.0 } else { alpha * z.exp() }
}

/// Argument of the tanh in the approximate GELU, and its derivative (Hendrycks & Gimpel, arXiv:1606.08415, section 2).
fn gelu_inner(z: f64) -> (f64, f64) {
    let c = (2.0 / std::f64::consts::PI).sqrt();
    (c * (z + 0.044_715 * z.powi(3)), c * (1.0 + 3.0 * 0.044_715 * z * z))
}

/// Φ, the standard normal distribution function.
fn normal_cdf(z: f64) -> f64 {
    0.5 * (1.0 + candle_core::cpu::erf::erf_f64(z / std::f64::consts::SQRT_2))
}
