//! Batch normalization of a batch (Ioffe & Szegedy, arXiv:1502.03167), forward and backward.
#![expect(unsafe_code, reason = "images of maps, each written by one thread, and vector code")]

use crate::engine::cpu::buffer::SharedPtr;
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::kernel::ThreadCtx;
use crate::engine::cpu::simd::vector::{Simd, SimdOp};
use crate::engine::cpu::training::channel_sums::{Summand, channel_sums};

/// Mean and variance of a batch, per channel.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Statistics {
    pub(crate) mean: Vec<f32>,
    /// Biased: the mean of squared deviations.
    pub(crate) variance: Vec<f32>,
}

/// Computes the statistics of `x`. `shift` is near the mean, which keeps the difference of squares accurate.
///
/// # Safety
/// As [`channel_sums`].
pub(crate) unsafe fn statistics(ctx: &ThreadCtx<'_>, x: FeatureMap, shift: &[f32], partial: SharedPtr) -> Statistics {
    // SAFETY: the caller's.
    let [sums, squares] = unsafe { channel_sums(ctx, Summand::Moments { x, shift }, partial) };
    let count = x.pixels() as f64;
    let moments = sums.iter().zip(&squares).zip(shift).map(|((&sum, &square), &shift)| {
        let mean = sum / count;
        ((f64::from(shift) + mean) as f32, (square / count - mean * mean).max(0.0) as f32)
    });
    let (mean, variance) = moments.unzip();
    Statistics { mean, variance }
}

/// `1 / sqrt(variance + epsilon)` of a channel.
pub(crate) fn inverse_deviation(variance: f32, epsilon: f32) -> f64 {
    1.0 / (f64::from(variance) + f64::from(epsilon)).sqrt()
}

/// Writes `factor * x + offset` per channel to `to`.
///
/// # Safety
/// Both maps are dense and have the same shape; `to` is not used by others.
pub(crate) unsafe fn scale_shift(ctx: &ThreadCtx<'_>, x: FeatureMap, to: FeatureMap, factor: &[f32], offset: &[f32]) {
    ctx.worker.for_each_piece(x.images, |image| {
        // SAFETY: the caller's; every image is written by one thread.
        unsafe {
            let (x, to) = (x.image(image), to.image_mut(image));
            ctx.instructions.run(ScaleShift { x, to, factor, offset });
        }
    });
}

struct ScaleShift<'a> {
    x: &'a [f32],
    to: &'a mut [f32],
    factor: &'a [f32],
    offset: &'a [f32],
}

impl SimdOp for ScaleShift<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let channels = self.factor.len();
        for (to, x) in self.to.chunks_exact_mut(channels).zip(self.x.chunks_exact(channels)) {
            for (((to, &x), &factor), &offset) in to.iter_mut().zip(x).zip(self.factor).zip(self.offset) {
                *to = x * factor + offset;
            }
        }
    }
}

/// Gradients of a batch normalization.
pub(crate) struct NormGradients {
    pub(crate) scale: Vec<f32>,
    pub(crate) shift: Vec<f32>,
}

/// The backward pass: writes the gradient of `x` to `to`, or adds it with `add`, and returns those of scale and shift.
///
/// # Safety
/// As [`channel_sums`]; `to` is a dense map of the same shape that is not used by others.
pub(crate) unsafe fn backward(
    ctx: &ThreadCtx<'_>,
    [x, g, to]: [FeatureMap; 3],
    statistics: &Statistics,
    [scale, inverse]: [&[f32]; 2],
    add: bool,
    partial: SharedPtr,
) -> NormGradients {
    let mean = &statistics.mean;
    // SAFETY: the caller's.
    let [sums, products] = unsafe { channel_sums(ctx, Summand::Products { g, x, shift: mean }, partial) };
    let count = x.pixels() as f64;
    let channels = mean.len();
    // dx = scale * inverse * (g - sum(g) / M - normal * sum(g * normal) / M), as a sum of g, x and a constant.
    let mut terms = [vec![0.0; channels], vec![0.0; channels], vec![0.0; channels]];
    let mut along = vec![0.0; channels];
    for c in 0..channels {
        let inverse = f64::from(inverse[c]);
        let factor = f64::from(scale[c]) * inverse;
        along[c] = (products[c] * inverse) as f32;
        let slope = -factor * inverse * inverse * products[c] / count;
        terms[0][c] = factor as f32;
        terms[1][c] = slope as f32;
        terms[2][c] = (-factor * sums[c] / count) as f32;
    }
    ctx.worker.for_each_piece(x.images, |image| {
        // SAFETY: the caller's; every image is written by one thread.
        unsafe {
            let (x, g, to) = (x.image(image), g.image(image), to.image_mut(image));
            ctx.instructions.run(InputGradient { x, g, to, terms: &terms, mean, add });
        }
    });
    NormGradients { scale: along, shift: sums.iter().map(|&sum| sum as f32).collect() }
}

/// `terms[0] * g + terms[1] * (x - mean) + terms[2]` per channel.
struct InputGradient<'a> {
    x: &'a [f32],
    g: &'a [f32],
    to: &'a mut [f32],
    terms: &'a [Vec<f32>; 3],
    mean: &'a [f32],
    add: bool,
}

impl SimdOp for InputGradient<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let channels = self.mean.len();
        let [factor, slope, constant] =
            [&self.terms[0][..channels], &self.terms[1][..channels], &self.terms[2][..channels]];
        let pixels = self.x.chunks_exact(channels).zip(self.g.chunks_exact(channels));
        for (to, (x, g)) in self.to.chunks_exact_mut(channels).zip(pixels) {
            for c in 0..channels {
                let value = factor[c] * g[c] + slope[c] * (x[c] - self.mean[c]) + constant[c];
                to[c] = if self.add { to[c] + value } else { value };
            }
        }
    }
}
