//! Exponential, logarithm, hyperbolic tangent and normal distribution on vectors, the same polynomials on every
//! instruction set.
//!
//! Relative errors are below 5e-7 (a few units in the last place), also of results close to 0; subnormal results are
//! exact to their last place. NaN gives NaN, and infinite arguments give the limit. The polynomials are minimax fits of the relative error.
#![expect(unsafe_code, reason = "vector instructions")]

use std::f32::consts::LOG2_E;

use crate::engine::cpu::simd::vector::Simd;

/// Argument above which `exp` is infinite in f32, rounded up.
const EXP_MAX: f32 = 89.0;
/// Argument below which `exp` is 0 in f32, rounded down.
const EXP_MIN: f32 = -104.0;

/// `exp(x)`
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(crate) unsafe fn exp<S: Simd>(x: S::V) -> S::V {
    // SAFETY: the caller's.
    unsafe { exp_of_sum::<S>(x, S::splat(0.0)) }
}

/// `exp(x + correction)` for a correction of at most 0.02, which is not rounded into `x`.
#[inline(always)]
unsafe fn exp_of_sum<S: Simd>(x: S::V, correction: S::V) -> S::V {
    // SAFETY: the caller's.
    unsafe {
        let (n, rest) = reduce::<S>(x, correction);
        S::scale(S::add(S::splat(1.0), exp_m1_near_zero::<S>(rest)), n)
    }
}

/// `exp(x) - 1` for x of at most 0.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(crate) unsafe fn exp_m1<S: Simd>(x: S::V) -> S::V {
    // SAFETY: the caller's.
    unsafe {
        let (n, rest) = reduce::<S>(x, S::splat(0.0));
        let one = S::splat(1.0);
        let power = S::scale(one, n);
        S::mul_add(power, exp_m1_near_zero::<S>(rest), S::sub(power, one))
    }
}

/// The integer `n` and the small `r` with `x + correction = n ln 2 + r`.
#[inline(always)]
unsafe fn reduce<S: Simd>(x: S::V, correction: S::V) -> (S::V, S::V) {
    // SAFETY: the caller's.
    unsafe {
        // The argument is the second operand, so NaN stays NaN.
        let x = S::max(S::splat(EXP_MIN), S::min(S::splat(EXP_MAX), x));
        // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer.
        let round = S::splat(12_582_912.0);
        let n = S::sub(S::mul_add(x, S::splat(LOG2_E), round), round);
        // ln 2 in two parts, the first of so few bits that its product with n is exact.
        let rest = S::mul_add(n, S::splat(-0.693_359_4), x);
        (n, S::add(S::mul_add(n, S::splat(2.121_944_4e-4), rest), correction))
    }
}

/// `exp(r) - 1` for |r| up to 0.37.
#[inline(always)]
unsafe fn exp_m1_near_zero<S: Simd>(r: S::V) -> S::V {
    // SAFETY: the caller's.
    unsafe {
        let p = polynomial::<S, 5>(r, [1.395_099_4e-3, 8.369_208e-3, 4.166_621_7e-2, 1.666_652_2e-1, 0.5]);
        S::mul_add(S::mul(r, r), p, r)
    }
}

/// `ln(1 + x)` for x from 0 to 1.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(crate) unsafe fn ln_1p<S: Simd>(x: S::V) -> S::V {
    // SAFETY: the caller's.
    unsafe {
        // 2 artanh(s) with s = x / (2 + x).
        let s = S::div(x, S::add(S::splat(2.0), x));
        let p = polynomial::<S, 5>(S::mul(s, s), [1.408_908_2e-1, 1.398_032_3e-1, 2.001_245_3e-1, 3.333_316e-1, 1.0]);
        S::mul(S::add(s, s), p)
    }
}

/// `tanh(x)`
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(crate) unsafe fn tanh<S: Simd>(x: S::V) -> S::V {
    // SAFETY: the caller's.
    unsafe {
        // With u = exp(-2|x|) - 1 it is -u / (2 + u), up to the sign.
        let u = exp_m1::<S>(S::mul(S::splat(-2.0), abs::<S>(x)));
        let magnitude = S::div(u, S::add(S::splat(2.0), u));
        let zero = S::splat(0.0);
        S::where_greater(x, zero, S::sub(zero, magnitude), magnitude)
    }
}

/// `1 / (1 + exp(-x))` and `1 / (1 + exp(x))`, which is 1 minus the first.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(crate) unsafe fn logistic_pair<S: Simd>(x: S::V) -> (S::V, S::V) {
    // SAFETY: the caller's.
    unsafe {
        let (one, zero) = (S::splat(1.0), S::splat(0.0));
        let small = exp::<S>(S::sub(zero, abs::<S>(x)));
        let large = S::div(one, S::add(one, small));
        let small = S::mul(small, large);
        (S::where_greater(x, zero, large, small), S::where_greater(x, zero, small, large))
    }
}

/// `1 / (1 + exp(-x))`
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(crate) unsafe fn logistic<S: Simd>(x: S::V) -> S::V {
    // SAFETY: the caller's.
    unsafe { logistic_pair::<S>(x).0 }
}

/// Standard normal distribution function and density.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(crate) unsafe fn normal<S: Simd>(x: S::V) -> (S::V, S::V) {
    /// `1 / sqrt(2 * pi)`
    const DENSITY_AT_0: f32 = 0.398_942_3;
    // SAFETY: the caller's.
    unsafe {
        let one = S::splat(1.0);
        // From 15 on the tail is 0 in f32.
        let x_abs = S::min(S::splat(15.0), abs::<S>(x));
        // exp(-x² / 2) with the rounding error of x²: x = head + tail, where the square of the head is exact.
        let split = S::mul(x_abs, S::splat(4097.0));
        let head = S::sub(split, S::sub(split, x_abs));
        let error = S::mul(S::mul(S::sub(x_abs, head), S::add(x_abs, head)), S::splat(-0.5));
        let gauss = exp_of_sum::<S>(S::mul(S::mul(head, head), S::splat(-0.5)), error);
        // The tail is that times a smooth function, t = 1 / (1 + 0.345 |x|) times a polynomial around t = 3/4.
        let t = S::div(one, S::mul_add(x_abs, S::splat(0.345), one));
        let p = polynomial::<S, 9>(
            S::sub(t, S::splat(0.75)),
            [
                -2.810_723_3e-2,
                -2.461_293_5e-2,
                4.470_877_3e-2,
                1.253_620_6e-2,
                -1.070_877_6e-1,
                -4.333_824_4e-3,
                3.271_643_4e-1,
                4.998_257e-1,
                3.550_606e-1,
            ],
        );
        let tail = S::mul(gauss, S::mul(t, p));
        let below = S::where_greater(x, S::splat(0.0), S::sub(one, tail), tail);
        (below, S::mul(gauss, S::splat(DENSITY_AT_0)))
    }
}

/// `|x|`
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(crate) unsafe fn abs<S: Simd>(x: S::V) -> S::V {
    // SAFETY: the caller's.
    unsafe { S::max(x, S::sub(S::splat(0.0), x)) }
}

/// A polynomial by Horner's rule, with the coefficient of the highest power first.
#[inline(always)]
unsafe fn polynomial<S: Simd, const N: usize>(x: S::V, coefficients: [f32; N]) -> S::V {
    // SAFETY: the caller's.
    unsafe {
        let mut sum = S::splat(coefficients[0]);
        for coefficient in &coefficients[1..] {
            sum = S::mul_add(sum, x, S::splat(*coefficient));
        }
        sum
    }
}
