//! Activations and their derivatives on vectors.
//!
//! They follow the definitions in [`Activation`](crate::network::Activation). Each function uses one exponential, and
//! forms in which nothing cancels, so that small values and derivatives are as accurate as large ones.
#![expect(unsafe_code, reason = "vector instructions")]

use crate::engine::cpu::simd::math::{abs, exp, exp_m1, ln_1p, logistic, logistic_pair, normal, tanh};
use crate::engine::cpu::simd::vector::Simd;

/// An activation function on vectors.
pub(crate) trait VectorFunction: Copy {
    /// `f(z)`, for a vector that starts at this channel and has `count` of them left.
    ///
    /// # Safety
    /// As [`Simd`]; the channel is one of the activation's.
    unsafe fn value<S: Simd>(&self, z: S::V, channel: usize, count: usize) -> S::V;

    /// `f'(z)`
    ///
    /// # Safety
    /// As [`VectorFunction::value`].
    unsafe fn derivative<S: Simd>(&self, z: S::V, channel: usize, count: usize) -> S::V;

    /// The derivative of the soft gate at this inverse temperature; `peak` is the activation's.
    ///
    /// # Safety
    /// As [`VectorFunction::value`].
    unsafe fn soft_derivative<S: Simd>(&self, z: S::V, inverse: S::V, peak: f32, channel: usize, count: usize) -> S::V;
}

/// Implements [`VectorFunction`] for a function that is the same in all channels. A function that is `lifted` by the
/// soft gate gets a logistic step on its flat side below 0; one that is `plain` has no flat side of its own.
macro_rules! functions {
    ($($(#[$doc:meta])* $name:ident { $($field:ident),* } $soft:ident,
        value($z:ident) = $value:expr, derivative($dz:ident) = $derivative:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(crate) struct $name {
            $(pub(crate) $field: f32,)*
        }

        impl VectorFunction for $name {
            #[inline(always)]
            unsafe fn value<S: Simd>(&self, $z: S::V, _: usize, _: usize) -> S::V {
                let Self { $($field),* } = *self;
                // SAFETY: the caller's.
                unsafe { $value }
            }
            #[inline(always)]
            unsafe fn derivative<S: Simd>(&self, $dz: S::V, _: usize, _: usize) -> S::V {
                let Self { $($field),* } = *self;
                // SAFETY: the caller's.
                unsafe { $derivative }
            }
            #[inline(always)]
            unsafe fn soft_derivative<S: Simd>(
                &self,
                z: S::V,
                inverse: S::V,
                peak: f32,
                channel: usize,
                count: usize,
            ) -> S::V {
                // SAFETY: the caller's.
                unsafe {
                    let derivative = self.derivative::<S>(z, channel, count);
                    soft::$soft::<S>(z, derivative, inverse, peak)
                }
            }
        }
    )*};
}

/// Soft derivatives of smooth functions, from their plain ones.
mod soft {
    use super::{Simd, logistic};

    #[inline(always)]
    pub(super) unsafe fn lifted<S: Simd>(z: S::V, derivative: S::V, inverse: S::V, peak: f32) -> S::V {
        // SAFETY: the caller's.
        unsafe {
            let step = S::mul(S::splat(peak), logistic::<S>(S::mul(z, inverse)));
            S::where_greater(z, S::splat(0.0), derivative, S::max(derivative, step))
        }
    }

    #[inline(always)]
    pub(super) unsafe fn plain<S: Simd>(_: S::V, derivative: S::V, _: S::V, _: f32) -> S::V {
        derivative
    }
}

functions! {
    /// Logistic function.
    Sigmoid {} plain,
    value(z) = logistic::<S>(z),
    derivative(z) = {
        let (up, down) = logistic_pair::<S>(z);
        S::mul(up, down)
    };

    /// Hyperbolic tangent.
    Tanh {} plain,
    value(z) = tanh::<S>(z),
    derivative(z) = {
        // 1 - tanh² is the derivative of the logistic function at 2z, times 4.
        let (up, down) = logistic_pair::<S>(S::add(z, z));
        S::mul(S::mul(S::splat(4.0), up), down)
    };

    /// `z` times the logistic function.
    Silu {} lifted,
    value(z) = S::mul(z, logistic::<S>(z)),
    derivative(z) = {
        let (up, down) = logistic_pair::<S>(z);
        S::mul(up, S::mul_add(z, down, S::splat(1.0)))
    };

    /// `z` times the logistic function of a multiple of `z`.
    ScaledSilu { factor } lifted,
    value(z) = S::mul(z, logistic::<S>(S::mul(S::splat(factor), z))),
    derivative(z) = {
        // Finite, as infinity times 0 is undefined.
        let inner = S::mul(S::splat(factor), z);
        let inner = S::max(S::splat(f32::MIN), S::min(S::splat(f32::MAX), inner));
        let (up, down) = logistic_pair::<S>(inner);
        S::mul(up, S::mul_add(inner, down, S::splat(1.0)))
    };

    /// `z` times the normal distribution function.
    Gelu {} lifted,
    value(z) = S::mul(z, normal::<S>(z).0),
    derivative(z) = {
        let (below, density) = normal::<S>(z);
        S::mul_add(z, density, below)
    };

    /// GELU with the tanh approximation, which is `z` times the logistic function of a cubic polynomial.
    GeluTanh {} lifted,
    value(z) = S::mul(z, logistic::<S>(gelu_cubic::<S>(z).0)),
    derivative(z) = {
        let (cubic, slope) = gelu_cubic::<S>(z);
        let (up, down) = logistic_pair::<S>(cubic);
        S::mul(up, S::mul_add(S::mul(gelu_clamped::<S>(z), down), slope, S::splat(1.0)))
    };

    /// `scale * z` above 0, `scale * alpha * (exp(z) - 1)` below.
    Elu { scale, alpha } lifted,
    value(z) = {
        let zero = S::splat(0.0);
        let below = S::mul(S::splat(scale * alpha), exp_m1::<S>(S::min(zero, z)));
        S::where_greater(z, zero, S::mul(S::splat(scale), z), below)
    },
    derivative(z) = {
        let below = S::mul(S::splat(scale * alpha), exp::<S>(z));
        S::where_greater(z, S::splat(0.0), S::splat(scale), below)
    };

    /// `z * tanh(softplus(z))`
    Mish {} lifted,
    value(z) = {
        let (top, bottom, _) = mish_parts::<S>(z);
        S::mul(z, S::div(top, bottom))
    },
    derivative(z) = {
        let (top, bottom, slope) = mish_parts::<S>(z);
        let inverse = S::div(S::splat(1.0), bottom);
        S::mul(inverse, S::mul_add(S::mul(z, slope), inverse, top))
    };

    /// `ln(1 + exp(z))`
    Softplus {} plain,
    value(z) = {
        let zero = S::splat(0.0);
        S::add(S::max(zero, z), ln_1p::<S>(exp::<S>(S::sub(zero, abs::<S>(z)))))
    },
    derivative(z) = logistic::<S>(z);

    /// `z * clip(z / 6 + 1/2, 0, 1)`
    HardSwish {} lifted,
    value(z) = {
        let ramp = S::min(S::splat(6.0), S::max(S::splat(0.0), S::add(z, S::splat(3.0))));
        S::mul(z, S::mul(ramp, S::splat(1.0 / 6.0)))
    },
    derivative(z) = {
        let ramp = S::mul(S::add(z, S::splat(1.5)), S::splat(1.0 / 3.0));
        let ramp = S::where_greater(z, S::splat(3f32.next_down()), S::splat(1.0), ramp);
        S::where_greater(S::splat((-3f32).next_up()), z, S::splat(0.0), ramp)
    };
}

/// The argument of the logistic function of the approximate GELU, and its derivative.
#[inline(always)]
unsafe fn gelu_cubic<S: Simd>(z: S::V) -> (S::V, S::V) {
    /// `2 * sqrt(2 / pi)`
    const LINEAR: f32 = 1.595_769;
    const CUBIC: f32 = 0.044_715 * LINEAR;
    // SAFETY: the caller's.
    unsafe {
        let z = gelu_clamped::<S>(z);
        let square = S::mul(z, z);
        let value = S::mul(z, S::mul_add(square, S::splat(CUBIC), S::splat(LINEAR)));
        (value, S::mul_add(square, S::splat(3.0 * CUBIC), S::splat(LINEAR)))
    }
}

/// `z` where the logistic function of [`gelu_cubic`] is not yet 0 or 1 in f32.
#[inline(always)]
unsafe fn gelu_clamped<S: Simd>(z: S::V) -> S::V {
    // SAFETY: the caller's.
    unsafe { S::max(S::splat(-20.0), S::min(S::splat(20.0), z)) }
}

/// `n`, `d` and `s` with tanh(softplus(z)) = n / d, whose derivative is s / d².
#[inline(always)]
unsafe fn mish_parts<S: Simd>(z: S::V) -> (S::V, S::V, S::V) {
    // SAFETY: the caller's.
    unsafe {
        let (zero, one, two) = (S::splat(0.0), S::splat(1.0), S::splat(2.0));
        // tanh(ln(1 + w)) = (w² + 2w) / (w² + 2w + 2) with w = exp(z); above 0 divided by w².
        let e = exp::<S>(S::sub(zero, abs::<S>(z)));
        let half = S::mul_add(e, e, S::add(e, e));
        let above = S::mul_add(two, e, one);
        let top = S::where_greater(z, zero, above, half);
        let bottom = S::where_greater(z, zero, S::mul_add(S::mul(two, e), e, above), S::add(half, two));
        let slope = S::mul(S::mul(S::splat(4.0), e), S::add(one, e));
        (top, bottom, S::where_greater(z, zero, S::mul(slope, e), slope))
    }
}

/// `clip(slope * z + shift, min, max)`: ReLU, clips and hard sigmoid. The derivative is `slope` above `low` and below
/// `high`.
#[derive(Clone, Copy)]
pub(crate) struct Ramp {
    pub(crate) slope: f32,
    pub(crate) shift: f32,
    pub(crate) min: f32,
    pub(crate) max: f32,
    pub(crate) low: f32,
    pub(crate) high: f32,
}

impl VectorFunction for Ramp {
    #[inline(always)]
    unsafe fn value<S: Simd>(&self, z: S::V, _: usize, _: usize) -> S::V {
        // SAFETY: the caller's.
        unsafe {
            let line = S::mul_add(S::splat(self.slope), z, S::splat(self.shift));
            // The value is the second operand, so NaN stays NaN.
            S::min(S::splat(self.max), S::max(S::splat(self.min), line))
        }
    }
    #[inline(always)]
    unsafe fn derivative<S: Simd>(&self, z: S::V, _: usize, _: usize) -> S::V {
        // SAFETY: the caller's.
        unsafe {
            let zero = S::splat(0.0);
            let below = S::where_greater(S::splat(self.high), z, S::splat(self.slope), zero);
            S::where_greater(z, S::splat(self.low), below, zero)
        }
    }
    #[inline(always)]
    unsafe fn soft_derivative<S: Simd>(&self, z: S::V, inverse: S::V, peak: f32, _: usize, _: usize) -> S::V {
        // SAFETY: the caller's.
        unsafe {
            let mut gate = S::splat(peak);
            if self.low > f32::NEG_INFINITY {
                gate = S::mul(gate, logistic::<S>(S::mul(S::sub(z, S::splat(self.low)), inverse)));
            }
            if self.high < f32::INFINITY {
                gate = S::mul(gate, logistic::<S>(S::mul(S::sub(S::splat(self.high), z), inverse)));
            }
            gate
        }
    }
}

/// `z` above 0, a slope times z below, at least `least`.
#[derive(Clone, Copy)]
pub(crate) struct Leaky<'a> {
    /// One slope for all channels, or one per channel.
    pub(crate) slopes: &'a [f32],
    pub(crate) least: f32,
}

impl Leaky<'_> {
    /// # Safety
    /// As [`VectorFunction::value`].
    #[inline(always)]
    unsafe fn slope<S: Simd>(&self, channel: usize, count: usize) -> S::V {
        // SAFETY: the caller's.
        unsafe {
            match self.slopes {
                &[slope] => S::splat(slope),
                slopes => S::load_up_to(slopes.as_ptr().add(channel), count),
            }
        }
    }
}

impl VectorFunction for Leaky<'_> {
    #[inline(always)]
    unsafe fn value<S: Simd>(&self, z: S::V, channel: usize, count: usize) -> S::V {
        // SAFETY: the caller's.
        unsafe {
            let slope = S::max(self.slope::<S>(channel, count), S::splat(self.least));
            S::where_greater(z, S::splat(0.0), z, S::mul(slope, z))
        }
    }
    #[inline(always)]
    unsafe fn derivative<S: Simd>(&self, z: S::V, channel: usize, count: usize) -> S::V {
        // SAFETY: the caller's.
        unsafe {
            let slope = S::max(self.slope::<S>(channel, count), S::splat(self.least));
            S::where_greater(z, S::splat(0.0), S::splat(1.0), slope)
        }
    }
    #[inline(always)]
    unsafe fn soft_derivative<S: Simd>(&self, z: S::V, inverse: S::V, _: f32, channel: usize, count: usize) -> S::V {
        // SAFETY: the caller's.
        unsafe {
            let slope = self.slope::<S>(channel, count);
            let step = logistic::<S>(S::mul(z, inverse));
            S::mul_add(S::sub(S::splat(1.0), slope), step, slope)
        }
    }
}
