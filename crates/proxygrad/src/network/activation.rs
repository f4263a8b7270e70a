//! Activations: their values, their derivatives, and the proxy copies that ProxyGrad takes gradients from.
//!
//! The functions here, in f64, are the definitions; engines compute the same on tensors and are tested against them.

use super::array::Array;
use super::shape::Shape;

/// An elementwise nonlinearity.
///
/// Every activation has a *peak*, the largest derivative of its linear reading (1 for the ReLU family), and *flat sides*,
/// where the derivative is small and gradients get lost: below 0 for the rectifiers, outside the linear range for
/// clipped functions, everywhere for sigmoid and tanh.
#[derive(Debug, Clone, PartialEq)]
pub enum Activation {
    /// `max(z, 0)`
    Relu,
    /// `z` above 0, `slope * z` below.
    LeakyRelu {
        /// Slope below 0.
        slope: f32,
    },
    /// Leaky ReLU with one learned slope per channel (or one for all).
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

/// Constants of [`Activation::Selu`] (Klambauer et al. 2017, arXiv:1706.02515, equation 2).
pub(crate) const SELU_ALPHA: f64 = 1.673_263_242_354_377_2;
/// See [`SELU_ALPHA`].
pub(crate) const SELU_LAMBDA: f64 = 1.050_700_987_355_480_5;

impl Activation {
    /// The activation in the field's words.
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
            Self::Elu { .. } => "elu",
            Self::Selu => "selu",
            Self::Mish => "mish",
            Self::Softplus => "softplus",
        }
    }

    /// Whether a map of this shape can be activated.
    ///
    /// # Errors
    /// When a PReLU has a number of slopes that does not fit the channels.
    pub fn check(&self, input: &Shape) -> Result<(), String> {
        match self {
            Self::PRelu { slopes } if slopes.len() != 1 && slopes.len() != input.channels() => {
                Err(format!("has {} slopes for {} channels", slopes.len(), input.channels()))
            }
            Self::Clip { min, max } if min.is_nan() || max.is_nan() || min > max => {
                Err(format!("clips to {min}..{max}, which is no range"))
            }
            Self::HardSigmoid { alpha, beta } if *alpha <= 0.0 || !alpha.is_finite() || !beta.is_finite() => {
                Err(format!("has alpha {alpha} and beta {beta}; expected a positive and a finite number"))
            }
            Self::LeakyRelu { slope: number } | Self::Elu { alpha: number } if !number.is_finite() => {
                Err(format!("has slope {number}, which is not finite"))
            }
            _ => Ok(()),
        }
    }

    /// Largest derivative of the linear reading: what [`Gate::Identity`](crate::engine::Gate::Identity) passes on.
    pub fn peak(&self) -> f64 {
        match self {
            Self::HardSigmoid { alpha, .. } => f64::from(*alpha),
            Self::Sigmoid => 0.25,
            Self::Selu => SELU_LAMBDA,
            _ => 1.0,
        }
    }

    /// Where the flat sides begin: below the first number and above the second. `(inf, -inf)` is everywhere.
    pub fn knees(&self) -> (f64, f64) {
        match self {
            Self::Clip { min, max } => (f64::from(*min), f64::from(*max)),
            Self::HardSigmoid { alpha, beta } => {
                let (alpha, beta) = (f64::from(*alpha), f64::from(*beta));
                (-beta / alpha, (1.0 - beta) / alpha)
            }
            Self::Sigmoid | Self::Tanh => (f64::INFINITY, f64::NEG_INFINITY),
            _ => (0.0, f64::INFINITY),
        }
    }

    /// `f(z)`; `channel` selects a PReLU's slope.
    pub fn value(&self, z: f64, channel: usize) -> f64 {
        match self {
            Self::Relu => z.max(0.0),
            Self::LeakyRelu { .. } | Self::PRelu { .. } => {
                if z > 0.0 {
                    z
                } else {
                    self.leak(channel) * z
                }
            }
            Self::Clip { min, max } => z.max(f64::from(*min)).min(f64::from(*max)),
            Self::HardSigmoid { alpha, beta } => (f64::from(*alpha) * z + f64::from(*beta)).clamp(0.0, 1.0),
            Self::HardSwish => z * (z / 6.0 + 0.5).clamp(0.0, 1.0),
            Self::Sigmoid => sigmoid(z),
            Self::Tanh => z.tanh(),
            Self::Silu => z * sigmoid(z),
            Self::Gelu { tanh: true } => 0.5 * z * (1.0 + gelu_inner(z).0.tanh()),
            Self::Gelu { tanh: false } => z * normal_cdf(z),
            Self::Elu { alpha } => elu(z, f64::from(*alpha)),
            Self::Selu => SELU_LAMBDA * elu(z, SELU_ALPHA),
            Self::Mish => z * softplus(z).tanh(),
            Self::Softplus => softplus(z),
        }
    }

    /// `f'(z)`, with the derivative of the flat side at a kink (ReLU's derivative at 0 is 0).
    pub fn derivative(&self, z: f64, channel: usize) -> f64 {
        match self {
            Self::Relu => f64::from(u8::from(z > 0.0)),
            Self::LeakyRelu { .. } | Self::PRelu { .. } => {
                if z > 0.0 {
                    1.0
                } else {
                    self.leak(channel)
                }
            }
            Self::Clip { .. } | Self::HardSigmoid { .. } => {
                let (low, high) = self.knees();
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
            Self::Elu { alpha } => elu_slope(z, f64::from(*alpha)),
            Self::Selu => SELU_LAMBDA * elu_slope(z, SELU_ALPHA),
            Self::Mish => {
                let t = softplus(z).tanh();
                t + z * (1.0 - t * t) * sigmoid(z)
            }
            Self::Softplus => sigmoid(z),
        }
    }

    /// Value of the proxy copy: the activation plus a line of slope `slope * peak` on each flat side, continuous at the
    /// knees. For ReLU it is the Leaky ReLU of the paper (section III); a (P)LeakyReLU keeps the larger of both slopes.
    pub fn proxy_value(&self, z: f64, slope: f64, channel: usize) -> f64 {
        match self {
            Self::LeakyRelu { .. } | Self::PRelu { .. } if z <= 0.0 => self.leak(channel).max(slope) * z,
            _ => self.value(z, channel) + slope * self.peak() * self.overhang(z),
        }
    }

    /// Derivative of [`Activation::proxy_value`]: what the `decoupled` gate takes at the original pre-activations.
    pub fn proxy_derivative(&self, z: f64, slope: f64, channel: usize) -> f64 {
        match self {
            Self::LeakyRelu { .. } | Self::PRelu { .. } if z <= 0.0 => self.leak(channel).max(slope),
            _ if self.is_flat_side(z) => self.derivative(z, channel) + slope * self.peak(),
            _ => self.derivative(z, channel),
        }
    }

    /// Derivative under the `soft` gate: the kinks of piecewise linear functions are replaced by logistic steps of
    /// width `temperature` (in units of z); smooth functions get the logistic step on their flat side where it is larger.
    /// A temperature of 0 is the plain derivative.
    pub fn soft_derivative(&self, z: f64, temperature: f64, channel: usize) -> f64 {
        if temperature <= 0.0 {
            return self.derivative(z, channel);
        }
        let step = sigmoid(z / temperature);
        match self {
            Self::Relu => step,
            Self::LeakyRelu { .. } | Self::PRelu { .. } => {
                let leak = self.leak(channel);
                leak + (1.0 - leak) * step
            }
            Self::Clip { .. } | Self::HardSigmoid { .. } => {
                let (low, high) = self.knees();
                self.peak() * sigmoid((z - low) / temperature) * sigmoid((high - z) / temperature)
            }
            Self::Sigmoid | Self::Tanh | Self::Softplus => self.derivative(z, channel),
            _ if z <= 0.0 => self.derivative(z, channel).max(self.peak() * step),
            _ => self.derivative(z, channel),
        }
    }

    /// Whether `z` lies on a flat side.
    pub fn is_flat_side(&self, z: f64) -> bool {
        let (low, high) = self.knees();
        z <= low || z >= high
    }

    /// Signed distance of `z` from the linear range; `z` itself where everything is flat.
    fn overhang(&self, z: f64) -> f64 {
        let (low, high) = self.knees();
        if low > high {
            z
        } else if z <= low {
            z - low
        } else if z >= high {
            z - high
        } else {
            0.0
        }
    }

    /// Slope of a (P)LeakyReLU below 0.
    fn leak(&self, channel: usize) -> f64 {
        match self {
            Self::LeakyRelu { slope } => f64::from(*slope),
            Self::PRelu { slopes } if slopes.len() == 1 => f64::from(slopes.data()[0]),
            Self::PRelu { slopes } => f64::from(slopes.data()[channel]),
            _ => 0.0,
        }
    }
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

fn elu_slope(z: f64, alpha: f64) -> f64 {
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
