//! Rectifiers of training: `max(z, 0)` with the derivative of a surrogate.
#![expect(unsafe_code, reason = "images of maps, each written by one thread, and vector code")]

use crate::engine::Gate;
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::kernel::ThreadCtx;
use crate::engine::cpu::simd::vector::{Simd, SimdOp};
use crate::engine::training::{BSILU_OFFSET, Surrogate};
use crate::network::{SELU_ALPHA, SELU_LAMBDA};

/// The factor on a gradient, by the pre-activation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Slope {
    /// 1 above 0, this below.
    Step(f32),
    /// The derivative of `(z + offset) * sigmoid(z)`.
    Swish { offset: f32 },
    /// `factor` above 0, `factor * alpha * exp(z)` below.
    Elu { alpha: f32, factor: f32 },
}

impl Slope {
    /// The rule of a surrogate at a rectifier with this slope below 0.
    pub(crate) fn of(surrogate: Surrogate, leak: f32) -> Self {
        match surrogate {
            Surrogate::Plain => Self::Step(leak),
            Surrogate::Decoupled { slope } | Surrogate::TrueProxy { slope } => Self::Step(slope.max(leak)),
            Surrogate::BSilu => Self::Swish { offset: BSILU_OFFSET as f32 },
            Surrogate::Silu => Self::Swish { offset: 0.0 },
            Surrogate::Elu => Self::Elu { alpha: 1.0, factor: 1.0 },
            Surrogate::Selu => Self::Elu { alpha: SELU_ALPHA as f32, factor: SELU_LAMBDA as f32 },
        }
    }
}

/// The gate of an activation that is not a rectifier: smooth surrogates leave its own derivative.
pub(crate) fn gate(surrogate: Surrogate) -> Gate {
    surrogate.gate().unwrap_or(Gate::Plain)
}

/// Writes `z` to `to`, rectified with slope `leak` below 0.
///
/// # Safety
/// Both maps are dense and have the same shape; `to` is not used by others.
pub(crate) unsafe fn rectify(ctx: &ThreadCtx<'_>, z: FeatureMap, to: FeatureMap, leak: f32) {
    ctx.worker.for_each_piece(z.images, |image| {
        // SAFETY: the caller's; every image is written by one thread.
        unsafe {
            let (z, to) = (z.image(image), to.image_mut(image));
            ctx.instructions.run(Rectify { z, to, leak });
        }
    });
}

struct Rectify<'a> {
    z: &'a [f32],
    to: &'a mut [f32],
    leak: f32,
}

impl SimdOp for Rectify<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for (to, &z) in self.to.iter_mut().zip(self.z) {
            *to = if z > 0.0 { z } else { z * self.leak };
        }
    }
}

/// Evaluates an expression with `$factor`, a function of a vector of pre-activations: the factors on their gradient.
/// Needs an instruction set that is supported.
macro_rules! with_factor {
    ($S:ident, $slope:expr, |$factor:ident| $body:expr) => {{
        let (zero, one) = ($S::splat(0.0), $S::splat(1.0));
        match $slope {
            Slope::Step(leak) => {
                let leak = $S::splat(leak);
                let $factor = |z| $S::where_greater(z, zero, one, leak);
                $body
            }
            Slope::Swish { offset } => {
                let $factor = |z| {
                    let s = $crate::engine::cpu::simd::math::logistic::<$S>(z);
                    let slope = $S::mul(s, $S::sub(one, s));
                    $S::mul_add($S::add(z, $S::splat(offset)), slope, s)
                };
                $body
            }
            Slope::Elu { alpha, factor } => {
                let $factor = |z| {
                    let below = $S::mul($S::splat(alpha * factor), $crate::engine::cpu::simd::math::exp::<$S>(z));
                    $S::where_greater(z, zero, $S::splat(factor), below)
                };
                $body
            }
        }
    }};
}
pub(crate) use with_factor;

/// Writes the gradient of `z` to `to`, or adds it with `add`.
///
/// # Safety
/// All maps are dense and have the same shape; `to` is not used by others.
pub(crate) unsafe fn backward(ctx: &ThreadCtx<'_>, [z, g, to]: [FeatureMap; 3], slope: Slope, add: bool) {
    ctx.worker.for_each_piece(z.images, |image| {
        // SAFETY: the caller's; every image is written by one thread.
        unsafe {
            let (z, g, to) = (z.image(image), g.image(image), to.image_mut(image));
            ctx.instructions.run(Gated { z, g, to, slope, add });
        }
    });
}

struct Gated<'a> {
    z: &'a [f32],
    g: &'a [f32],
    to: &'a mut [f32],
    slope: Slope,
    add: bool,
}

impl Gated<'_> {
    /// Whole vectors, and the rest in one masked vector, so that a value does not depend on its position.
    #[inline(always)]
    unsafe fn each<S: Simd>(self, factor: impl Fn(S::V) -> S::V) {
        let count = self.to.len();
        for at in (0..count).step_by(S::LANES) {
            let rest = (count - at).min(S::LANES);
            // SAFETY: `rest` values follow in each slice, which have the same length.
            unsafe {
                let z = S::load_up_to(self.z.as_ptr().add(at), rest);
                let g = S::load_up_to(self.g.as_ptr().add(at), rest);
                let to = self.to.as_mut_ptr().add(at);
                let before = if self.add { S::load_up_to(to, rest) } else { S::splat(0.0) };
                S::store_some(to, S::add(before, S::mul(g, factor(z))), rest);
            }
        }
    }
}

impl SimdOp for Gated<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the instruction set is supported.
        unsafe { with_factor!(S, self.slope, |factor| self.each::<S>(factor)) }
    }
}
