//! Elementwise functions on tensors; [`Unary`] holds their definitions. Functions that candle lacks are composed of
//! those that it has.

use std::f64::consts::{FRAC_2_SQRT_PI, FRAC_PI_2};

use candle_core::{Result, Tensor};

use super::{Backward, Operation};
use crate::engine::Forward;
use crate::network::Unary;

/// A function of every value.
pub(super) struct Function(pub(super) Unary);

impl Function {
    fn value(&self, x: &Tensor) -> Result<Tensor> {
        match self.0 {
            Unary::Exp => x.exp(),
            Unary::Log => x.log(),
            Unary::Sqrt => x.sqrt(),
            Unary::Abs => x.abs(),
            Unary::Sign => x.sign(),
            Unary::Floor => x.floor(),
            Unary::Ceil => x.ceil(),
            Unary::Round => round_ties_even(x),
            Unary::RoundTo(step) => {
                let step = Tensor::new(step, x.device())?.to_dtype(x.dtype())?;
                round_ties_even(&x.broadcast_div(&step)?)?.broadcast_mul(&step)
            }
            Unary::Erf => x.erf(),
            Unary::Sin => x.sin(),
            Unary::Cos => x.cos(),
            Unary::Tan => x.sin()? / x.cos()?,
            Unary::Asin => asin(x),
            Unary::Acos => asin(x)?.affine(-1.0, FRAC_PI_2),
            Unary::Atan => atan(x),
            Unary::Sinh => (x.exp()? - x.neg()?.exp()?)? * 0.5,
            Unary::Cosh => (x.exp()? + x.neg()?.exp()?)? * 0.5,
            // Of the absolute value, since for negative numbers the sum would cancel.
            Unary::Asinh => x.sign()? * (x.abs()? + x.sqr()?.affine(1.0, 1.0)?.sqrt()?)?.log()?,
            Unary::Acosh => (x + x.sqr()?.affine(1.0, -1.0)?.sqrt()?)?.log(),
            Unary::Atanh => (x.affine(1.0, 1.0)? / x.affine(-1.0, 1.0)?)?.log()? * 0.5,
            Unary::Power(exponent) => x.powf(exponent),
        }
    }

    /// The derivative where it is finite, else 0; `None` if it is 0 everywhere.
    fn derivative(&self, x: &Tensor) -> Result<Option<Tensor>> {
        let slope = match self.0 {
            Unary::Sign | Unary::Floor | Unary::Ceil | Unary::Round | Unary::Power(0.0) => return Ok(None),
            Unary::RoundTo(_) => x.ones_like(),
            Unary::Exp => x.exp(),
            Unary::Log => x.recip(),
            Unary::Sqrt => x.sqrt()?.recip()? * 0.5,
            Unary::Abs => x.sign(),
            Unary::Erf => x.sqr()?.neg()?.exp()? * FRAC_2_SQRT_PI,
            Unary::Sin => x.cos(),
            Unary::Cos => x.sin()?.neg(),
            Unary::Tan => x.cos()?.sqr()?.recip(),
            Unary::Asin => x.sqr()?.affine(-1.0, 1.0)?.sqrt()?.recip(),
            Unary::Acos => x.sqr()?.affine(-1.0, 1.0)?.sqrt()?.recip()?.neg(),
            Unary::Atan => x.sqr()?.affine(1.0, 1.0)?.recip(),
            Unary::Sinh => Self(Unary::Cosh).value(x),
            Unary::Cosh => Self(Unary::Sinh).value(x),
            Unary::Asinh => x.sqr()?.affine(1.0, 1.0)?.sqrt()?.recip(),
            Unary::Acosh => x.sqr()?.affine(1.0, -1.0)?.sqrt()?.recip(),
            Unary::Atanh => x.sqr()?.affine(-1.0, 1.0)?.recip(),
            Unary::Power(exponent) => x.powf(exponent - 1.0)? * exponent,
        };
        finite(&slope?).map(Some)
    }
}

impl Operation for Function {
    fn forward(&self, inputs: &[&Tensor], _: Forward) -> Result<Tensor> {
        self.value(inputs[0])
    }

    fn backward(&self, pass: Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let slope = self.derivative(pass.inputs[0])?;
        Ok(vec![slope.map(|slope| pass.gradient * slope).transpose()?])
    }
}

/// The finite values, and 0 in place of all others.
pub(super) fn finite(x: &Tensor) -> Result<Tensor> {
    let zeros = x.zeros_like()?;
    // The product of 0 and an infinite or undefined number is undefined.
    (x * &zeros)?.eq(&zeros)?.where_cond(x, &zeros)
}

/// The nearest integers, halves to the even ones.
pub(super) fn round_ties_even(x: &Tensor) -> Result<Tensor> {
    let shifted = x.affine(1.0, 0.5)?;
    let rounded = shifted.floor()?;
    let is_odd = (&rounded - (rounded.affine(0.5, 0.0)?.floor()? * 2.0)?)?;
    let was_half = rounded.eq(&shifted)?.to_dtype(x.dtype())?;
    rounded - (is_odd * was_half)?
}

/// By three halvings of the angle, `atan(x) = 2 atan(x / (1 + sqrt(1 + x^2)))`, and the Taylor series.
fn atan(x: &Tensor) -> Result<Tensor> {
    // Halvings are only accurate, and finite, up to 1: beyond it, atan(x) = pi/2 - atan(1/x).
    let ones = x.ones_like()?;
    let size = x.abs()?;
    let is_large = size.gt(&ones)?;
    let mut t = is_large.where_cond(&size.recip()?, &size)?;
    for _ in 0..3 {
        t = (&t / t.sqr()?.affine(1.0, 1.0)?.sqrt()?.affine(1.0, 1.0)?)?;
    }
    let square = t.sqr()?;
    // Now at most tan(pi/32), so that the first term left out is below the rounding errors of f64.
    let mut sum = t.zeros_like()?;
    for k in (0..9).rev() {
        let sign = if k % 2 == 0 { 1.0 } else { -1.0 };
        sum = (sum * &square)?.affine(1.0, sign / f64::from(2 * k + 1))?;
    }
    let angle = ((sum * t)? * 8.0)?;
    let angle = is_large.where_cond(&angle.affine(-1.0, FRAC_PI_2)?, &angle)?;
    x.sign()? * angle
}

fn asin(x: &Tensor) -> Result<Tensor> {
    let cosine = x.sqr()?.affine(-1.0, 1.0)?.sqrt()?;
    atan(&(x / cosine.affine(1.0, 1.0)?)?)? * 2.0
}

/// `a^b` for tensors of the same shape; candle's own is undefined for every negative base.
pub(super) fn power(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let zeros = a.zeros_like()?;
    let size = (b * a.abs()?.log()?)?.exp()?;
    // 1 for even and -1 for odd exponents, undefined for all others.
    let is_integer = b.floor()?.eq(b)?;
    let parity = ((b - (b.affine(0.5, 0.0)?.floor()? * 2.0)?)? * -2.0)?.affine(1.0, 1.0)?;
    let sign = is_integer.where_cond(&parity, &zeros.affine(1.0, f64::NAN)?)?;
    let sign = a.lt(&zeros)?.where_cond(&sign, &a.ones_like()?)?;
    b.eq(&zeros)?.where_cond(&a.ones_like()?, &(size * sign)?)
}
