//! Activations and gates on tensors; [`Activation`] holds their definitions.

use candle_core::{Result, Tensor};

use super::{Backward, Operation, Reference, per_channel};
use crate::engine::{Forward, Gate};
use crate::network::{Activation, QUICK_GELU_FACTOR, SELU_ALPHA, SELU_LAMBDA, Shape};

pub(super) struct Activated {
    activation: Activation,
    /// Slopes of a (P)LeakyReLU below 0, `[1,C,1,1]` or `[1,1,1,1]`.
    negative_slopes: Option<Tensor>,
    /// Bounds for [`Activated::clamp`], `[1,1,1,1]`. A number given to [`Tensor::minimum`] would be copied to the
    /// device in every pass.
    bounds: Option<[Tensor; 2]>,
}

impl Activated {
    pub(super) fn new(engine: &Reference, activation: &Activation, input: &Shape) -> Result<Self> {
        let rank = input.len() + 1;
        let bound = |value| engine.tensor(&[value], &per_channel(1, rank));
        let (mut negative_slopes, mut bounds) = (None, None);
        match activation {
            Activation::LeakyRelu { slope } => negative_slopes = Some(bound(*slope)?),
            Activation::PRelu { slopes } => {
                negative_slopes = Some(engine.tensor(slopes.data(), &per_channel(slopes.len(), rank))?);
            }
            Activation::Clip { min, max } => bounds = Some([bound(*min)?, bound(*max)?]),
            Activation::HardSigmoid { .. } | Activation::HardSwish => bounds = Some([bound(0.0)?, bound(1.0)?]),
            Activation::Relu
            | Activation::Sigmoid
            | Activation::Tanh
            | Activation::Silu
            | Activation::Gelu { .. }
            | Activation::QuickGelu
            | Activation::Elu { .. }
            | Activation::Selu
            | Activation::Mish
            | Activation::Softplus => {}
        }
        Ok(Self { activation: activation.clone(), negative_slopes, bounds })
    }

    fn clamp(&self, z: &Tensor) -> Result<Tensor> {
        match &self.bounds {
            Some([min, max]) => z.broadcast_maximum(min)?.broadcast_minimum(max),
            None => Ok(z.clone()),
        }
    }

    /// `f(z)`.
    fn value(&self, z: &Tensor) -> Result<Tensor> {
        if let Some(slopes) = &self.negative_slopes {
            return leaky(z, slopes);
        }
        match &self.activation {
            Activation::Relu | Activation::LeakyRelu { .. } | Activation::PRelu { .. } => z.relu(),
            Activation::Clip { .. } => self.clamp(z),
            Activation::HardSigmoid { alpha, beta } => self.clamp(&z.affine(f64::from(*alpha), f64::from(*beta))?),
            Activation::HardSwish => z * self.clamp(&z.affine(1.0 / 6.0, 0.5)?)?,
            Activation::Sigmoid => sigmoid(z),
            Activation::Tanh => z.tanh(),
            Activation::Silu => z * sigmoid(z)?,
            Activation::Gelu { tanh: true } => z.gelu(),
            Activation::QuickGelu => z * sigmoid(&(z * QUICK_GELU_FACTOR)?)?,
            Activation::Gelu { tanh: false } => z * normal_cdf(z)?,
            Activation::Elu { alpha } => elu(z, f64::from(*alpha)),
            Activation::Selu => elu(z, SELU_ALPHA)? * SELU_LAMBDA,
            Activation::Mish => z * softplus(z)?.tanh()?,
            Activation::Softplus => softplus(z),
        }
    }

    /// `f'(z)`.
    fn derivative(&self, z: &Tensor) -> Result<Tensor> {
        if let Some(slopes) = &self.negative_slopes {
            return leaky_derivative(z, slopes);
        }
        match &self.activation {
            Activation::Relu | Activation::LeakyRelu { .. } | Activation::PRelu { .. } => above(z, 0.0),
            Activation::Clip { .. } | Activation::HardSigmoid { .. } => {
                self.flat_sides(z)?.affine(-self.activation.peak(), self.activation.peak())
            }
            Activation::HardSwish => {
                let ramp = z.affine(1.0 / 3.0, 0.5)?;
                let below = below(z, 3.0)?;
                let middle = ((above(z, -3.0)? * &below)? * ramp)?;
                middle + not(&below)?
            }
            Activation::Sigmoid => {
                let s = sigmoid(z)?;
                &s * s.affine(-1.0, 1.0)?
            }
            Activation::Tanh => z.tanh()?.sqr()?.affine(-1.0, 1.0),
            Activation::Silu => {
                let s = sigmoid(z)?;
                let inner = (z * s.affine(-1.0, 1.0)?)?.affine(1.0, 1.0)?;
                s * inner
            }
            Activation::QuickGelu => {
                let inner = (z * QUICK_GELU_FACTOR)?;
                let s = sigmoid(&inner)?;
                let curve = (inner * s.affine(-1.0, 1.0)?)?.affine(1.0, 1.0)?;
                s * curve
            }
            Activation::Gelu { tanh: true } => {
                let c = (2.0 / std::f64::consts::PI).sqrt();
                let square = z.sqr()?;
                let t = (z * square.affine(0.044_715 * c, c)?)?.tanh()?;
                let slope = square.affine(3.0 * 0.044_715 * c, c)?;
                let curve = ((z * t.sqr()?.affine(-1.0, 1.0)?)? * slope)?;
                (t.affine(0.5, 0.5)? + (curve * 0.5)?)?.contiguous()
            }
            Activation::Gelu { tanh: false } => {
                let density = ((z.sqr()? * -0.5)?.exp()? * (1.0 / (2.0 * std::f64::consts::PI).sqrt()))?;
                normal_cdf(z)? + (z * density)?
            }
            Activation::Elu { alpha } => elu_derivative(z, f64::from(*alpha)),
            Activation::Selu => elu_derivative(z, SELU_ALPHA)? * SELU_LAMBDA,
            Activation::Mish => {
                let t = softplus(z)?.tanh()?;
                let curve = ((z * t.sqr()?.affine(-1.0, 1.0)?)? * sigmoid(z)?)?;
                t + curve
            }
            Activation::Softplus => sigmoid(z),
        }
    }

    /// 1 on the flat sides, 0 in the linear range.
    fn flat_sides(&self, z: &Tensor) -> Result<Tensor> {
        let (low, high) = self.activation.breakpoints();
        if low > high {
            return z.ones_like();
        }
        let above = above(z, low)?;
        if high == f64::INFINITY {
            return not(&above);
        }
        not(&(above * below(z, high)?)?)
    }

    /// Signed distance from the linear range; `z` itself if the activation is flat everywhere.
    fn excess(&self, z: &Tensor) -> Result<Tensor> {
        let (low, high) = self.activation.breakpoints();
        if low > high {
            return Ok(z.clone());
        }
        let mut sum = z.zeros_like()?;
        if low.is_finite() {
            sum = z.affine(-1.0, low)?.relu()?.neg()?;
        }
        if high.is_finite() {
            sum = (sum + z.affine(1.0, -high)?.relu()?)?;
        }
        Ok(sum)
    }

    fn proxy_value(&self, z: &Tensor, slope: f64) -> Result<Tensor> {
        match &self.negative_slopes {
            Some(slopes) => leaky(z, &at_least(slopes, slope)?),
            None => self.value(z)? + (self.excess(z)? * (slope * self.activation.peak()))?,
        }
    }

    fn proxy_derivative(&self, z: &Tensor, slope: f64) -> Result<Tensor> {
        match &self.negative_slopes {
            Some(slopes) => leaky_derivative(z, &at_least(slopes, slope)?),
            None => {
                let peak = self.activation.peak();
                match self.activation {
                    // Piecewise linear: the proxy only lifts the flat sides.
                    Activation::Relu | Activation::Clip { .. } | Activation::HardSigmoid { .. } => {
                        self.flat_sides(z)?.affine(peak * (slope - 1.0), peak)
                    }
                    Activation::LeakyRelu { .. }
                    | Activation::PRelu { .. }
                    | Activation::HardSwish
                    | Activation::Sigmoid
                    | Activation::Tanh
                    | Activation::Silu
                    | Activation::Gelu { .. }
                    | Activation::QuickGelu
                    | Activation::Elu { .. }
                    | Activation::Selu
                    | Activation::Mish
                    | Activation::Softplus => self.derivative(z)? + (self.flat_sides(z)? * (slope * peak))?,
                }
            }
        }
    }

    fn soft_derivative(&self, z: &Tensor, temperature: f64) -> Result<Tensor> {
        if temperature <= 0.0 {
            return self.derivative(z);
        }
        let step = |z: &Tensor| sigmoid(&(z / temperature)?);
        if let Some(slopes) = &self.negative_slopes {
            return step(z)?.broadcast_mul(&slopes.affine(-1.0, 1.0)?)?.broadcast_add(slopes);
        }
        let peak = self.activation.peak();
        match &self.activation {
            Activation::Relu | Activation::LeakyRelu { .. } | Activation::PRelu { .. } => step(z),
            Activation::Clip { .. } | Activation::HardSigmoid { .. } => {
                let (low, high) = self.activation.breakpoints();
                let mut gate = z.ones_like()?.affine(peak, 0.0)?;
                if low.is_finite() {
                    gate = (gate * step(&z.affine(1.0, -low)?)?)?;
                }
                if high.is_finite() {
                    gate = (gate * step(&z.affine(-1.0, high)?)?)?;
                }
                Ok(gate)
            }
            Activation::Sigmoid | Activation::Tanh | Activation::Softplus => self.derivative(z),
            Activation::HardSwish
            | Activation::Silu
            | Activation::Gelu { .. }
            | Activation::QuickGelu
            | Activation::Elu { .. }
            | Activation::Selu
            | Activation::Mish => {
                let derivative = self.derivative(z)?;
                let lifted = derivative.maximum(&(step(z)? * peak)?)?;
                let above = above(z, 0.0)?;
                (derivative * &above)? + (lifted * not(&above)?)?
            }
        }
    }

    /// Lucid's redirected gradient: see [`Gate::Redirect`].
    fn redirected(&self, z: &Tensor, gradient: &Tensor) -> Result<Tensor> {
        let plain = (gradient * self.derivative(z)?)?;
        let (low, high) = self.activation.breakpoints();
        let mut outward = (not(&above(z, low)?)? * below(gradient, 0.0)?)?;
        if high.is_finite() {
            outward = (outward + (not(&below(z, high)?)? * above(gradient, 0.0)?)?)?;
        }
        let redirected = (gradient * outward.affine(-self.activation.peak(), self.activation.peak())?)?;
        let mut shape = vec![1; z.rank()];
        shape[0] = z.dim(0)?;
        let alive = above(&plain.abs()?.flatten_from(1)?.sum_keepdim(1)?, 0.0)?.reshape(shape)?;
        plain.broadcast_mul(&alive)? + redirected.broadcast_mul(&not(&alive)?)?
    }
}

impl Operation for Activated {
    fn forward(&self, inputs: &[&Tensor], forward: Forward) -> Result<Tensor> {
        match forward {
            Forward::Original => self.value(inputs[0]),
            Forward::Proxy { slope } => self.proxy_value(inputs[0], f64::from(slope)),
        }
    }

    fn backward(&self, pass: Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let (z, g) = (pass.inputs[0], pass.gradient);
        let gradient = match pass.gate {
            Gate::Plain => (g * self.derivative(z)?)?,
            Gate::Proxy { slope } => (g * self.proxy_derivative(z, f64::from(slope))?)?,
            Gate::Soft { temperature } => (g * self.soft_derivative(z, f64::from(temperature))?)?,
            Gate::Identity => (g * self.activation.peak())?,
            Gate::Redirect => self.redirected(z, g)?,
        };
        Ok(vec![Some(gradient)])
    }
}

/// 1 above `threshold`, else 0.
fn above(z: &Tensor, threshold: f64) -> Result<Tensor> {
    if threshold == 0.0 { z.sign()?.relu() } else { z.affine(1.0, -threshold)?.sign()?.relu() }
}

/// 1 below `threshold`, else 0.
fn below(z: &Tensor, threshold: f64) -> Result<Tensor> {
    z.affine(-1.0, threshold)?.sign()?.relu()
}

/// Logical not of 0 and 1.
fn not(mask: &Tensor) -> Result<Tensor> {
    mask.affine(-1.0, 1.0)
}

/// The maximum of a tensor and a number, with rounding errors.
fn at_least(x: &Tensor, least: f64) -> Result<Tensor> {
    x.affine(1.0, -least)?.relu()?.affine(1.0, least)
}

fn below_zero(z: &Tensor) -> Result<Tensor> {
    z.neg()?.relu()?.neg()
}

fn leaky(z: &Tensor, slopes: &Tensor) -> Result<Tensor> {
    z.relu()? + below_zero(z)?.broadcast_mul(slopes)?
}

fn leaky_derivative(z: &Tensor, slopes: &Tensor) -> Result<Tensor> {
    let positive = above(z, 0.0)?;
    &positive + positive.affine(-1.0, 1.0)?.broadcast_mul(slopes)?
}

fn sigmoid(z: &Tensor) -> Result<Tensor> {
    z.neg()?.exp()?.affine(1.0, 1.0)?.recip()
}

fn softplus(z: &Tensor) -> Result<Tensor> {
    z.relu()? + z.abs()?.neg()?.exp()?.affine(1.0, 1.0)?.log()?
}

fn elu(z: &Tensor, alpha: f64) -> Result<Tensor> {
    z.relu()? + below_zero(z)?.exp()?.affine(alpha, -alpha)?
}

fn elu_derivative(z: &Tensor, alpha: f64) -> Result<Tensor> {
    let above = above(z, 0.0)?;
    &above + (not(&above)? * below_zero(z)?.exp()?.affine(alpha, 0.0)?)?
}

fn normal_cdf(z: &Tensor) -> Result<Tensor> {
    (z / std::f64::consts::SQRT_2)?.erf()?.affine(0.5, 0.5)
}
