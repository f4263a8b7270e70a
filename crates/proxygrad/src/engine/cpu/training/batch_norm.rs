//! Batch normalization of a batch (Ioffe & Szegedy, arXiv:1502.03167), forward and backward, together with a residual
//! and a rectifier after it.
#![expect(unsafe_code, reason = "images of maps, each written by one thread, and vector code")]

use crate::engine::cpu::buffer::SharedPtr;
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::kernel::ThreadCtx;
use crate::engine::cpu::simd::vector::{Simd, SimdOp, load_vector};
use crate::engine::cpu::training::channel_sums::{Gated, Summand, channel_sums};
use crate::engine::cpu::training::normalized::{Normalized, for_each_vector};
use crate::engine::cpu::training::surrogate::Slope;
use crate::engine::training::Mode;
use crate::network::trainable::{BatchNorm, Parameters};

/// Mean and variance of a batch, per channel.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Statistics {
    pub(crate) mean: Vec<f32>,
    /// Biased: the mean of squared deviations.
    pub(crate) variance: Vec<f32>,
}

/// What a batch normalization computes in one pass, per channel.
pub(crate) struct NormPass {
    pub(crate) statistics: Statistics,
    /// `1 / sqrt(variance + epsilon)`.
    inverse: Vec<f64>,
    scale: Vec<f32>,
    factor: Vec<f32>,
    offset: Vec<f32>,
}

impl NormPass {
    /// The pass over `x`: with its own statistics in training, with the running ones at inference.
    ///
    /// # Safety
    /// As [`channel_sums`].
    pub(crate) unsafe fn new(
        ctx: &ThreadCtx<'_>,
        norm: &BatchNorm,
        x: FeatureMap,
        parameters: &Parameters,
        mode: Mode,
        partial: SharedPtr,
    ) -> Self {
        let [scale, shift, mean, variance] =
            [norm.scale, norm.shift, norm.mean, norm.variance].map(|id| parameters.get(id));
        // SAFETY: the caller's.
        let statistics = match mode {
            Mode::Training { .. } => unsafe { statistics(ctx, x, mean, partial) },
            Mode::Inference => Statistics { mean: mean.to_vec(), variance: variance.to_vec() },
        };
        let epsilon = f64::from(norm.epsilon);
        let inverse = |&variance: &f32| 1.0 / (f64::from(variance) + epsilon).sqrt();
        let inverse: Vec<f64> = statistics.variance.iter().map(inverse).collect();
        let factor: Vec<f32> = scale.iter().zip(&inverse).map(|(scale, &inverse)| scale * inverse as f32).collect();
        let offset: Vec<f32> = (0..shift.len()).map(|c| shift[c] - statistics.mean[c] * factor[c]).collect();
        Self { statistics, inverse, scale: scale.to_vec(), factor, offset }
    }

    /// The normalized `x`, with a residual added.
    pub(crate) fn apply(&self, x: FeatureMap, residual: Option<FeatureMap>) -> Normalized<'_> {
        Normalized { x, factor: &self.factor, offset: &self.offset, residual }
    }

    /// The backward pass: writes the gradient of `x` to `to.0`, or adds it if `to.1`, and returns those of scale and
    /// shift. With a rectifier's slope, `g` is the gradient of the output of the rectifier, and is overwritten. The
    /// gradient of the residual goes to `residual`, a map and whether it is added there.
    ///
    /// # Safety
    /// As [`channel_sums`]; the targets are dense maps of the same shape that are not used by others.
    pub(crate) unsafe fn backward(
        &self,
        ctx: &ThreadCtx<'_>,
        normalized: Normalized<'_>,
        g: FeatureMap,
        slope: Option<Slope>,
        [to, residual]: [Option<(FeatureMap, bool)>; 2],
        partial: SharedPtr,
    ) -> NormGradients {
        let (x, mean) = (normalized.x, &self.statistics.mean);
        let summand = match slope {
            Some(slope) => Summand::Gated(Gated { g, pre_activations: normalized, slope, shift: mean, residual }),
            None => Summand::Products { g, x, shift: mean },
        };
        // SAFETY: the caller's.
        let [sums, products] = unsafe { channel_sums(ctx, summand, partial) };
        if let Some((to, add)) = to {
            let terms = self.input_terms(&sums, &products, x.pixels() as f64);
            ctx.worker.for_each_piece(x.images, |image| {
                let gradient = InputGradient { x, g, to, add, image, terms: &terms, mean };
                // SAFETY: the caller's; every image is written by one thread; the instruction set is supported.
                unsafe { ctx.instructions.run(gradient) };
            });
        }
        let scale = products.iter().zip(&self.inverse).map(|(product, inverse)| (product * inverse) as f32).collect();
        NormGradients { scale, shift: sums.iter().map(|&sum| sum as f32).collect() }
    }

    /// `dx = scale * inverse * (g - sum(g) / M - normal * sum(g * normal) / M)` as factors of g, of `x - mean` and 1.
    fn input_terms(&self, sums: &[f64], products: &[f64], count: f64) -> [Vec<f32>; 3] {
        let channels = || (0..sums.len()).map(|c| (f64::from(self.scale[c]) * self.inverse[c], c));
        let of_deviation = |(factor, c): (f64, usize)| -factor * self.inverse[c].powi(2) * products[c] / count;
        [
            channels().map(|(factor, _)| factor as f32).collect(),
            channels().map(|term| of_deviation(term) as f32).collect(),
            channels().map(|(factor, c)| (-factor * sums[c] / count) as f32).collect(),
        ]
    }
}

/// Computes the statistics of `x`. `shift` is near the mean, which keeps the difference of squares accurate.
///
/// # Safety
/// As [`channel_sums`].
unsafe fn statistics(ctx: &ThreadCtx<'_>, x: FeatureMap, shift: &[f32], partial: SharedPtr) -> Statistics {
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

/// Gradients of a batch normalization.
pub(crate) struct NormGradients {
    pub(crate) scale: Vec<f32>,
    pub(crate) shift: Vec<f32>,
}

/// `terms[0] * g + terms[1] * (x - mean) + terms[2]` per channel.
struct InputGradient<'a> {
    x: FeatureMap,
    g: FeatureMap,
    to: FeatureMap,
    add: bool,
    image: usize,
    terms: &'a [Vec<f32>; 3],
    mean: &'a [f32],
}

impl InputGradient<'_> {
    #[inline(always)]
    unsafe fn channels<S: Simd, const WHOLE: bool>(&self, [first, count]: [usize; 2]) {
        let start = |map: FeatureMap| map.at(self.image * map.size()).wrapping_add(first);
        let [x, g, to] = [self.x, self.g, self.to].map(start);
        // SAFETY: the caller of `NormPass::backward` guarantees maps of the same shape.
        unsafe {
            let load = |from: *const f32| load_vector::<S, WHOLE>(from, count);
            let [factor, slope, constant] =
                [&self.terms[0], &self.terms[1], &self.terms[2]].map(|term| load(term.as_ptr().add(first)));
            let mean = load(self.mean.as_ptr().add(first));
            for at in (0..self.to.size()).map(|pixel| pixel * self.to.channels) {
                let deviation = S::mul_add(slope, S::sub(load(x.add(at)), mean), constant);
                let value = S::mul_add(factor, load(g.add(at)), deviation);
                let to = to.add(at);
                let value = if self.add { S::add(load(to), value) } else { value };
                if WHOLE { S::store(to, value) } else { S::store_some(to, value, count) }
            }
        }
    }
}

impl SimdOp for InputGradient<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the caller's.
        unsafe { for_each_vector!(S, self.to.channels, self.channels) }
    }
}
