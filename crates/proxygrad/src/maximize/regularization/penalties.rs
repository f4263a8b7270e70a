//! Penalties on pixels (L1, L2, total variation) and their gradients.

use candle_core::{D, Result, Tensor};

use super::document::Regularizer;
use crate::maximize::ops::host;
use crate::maximize::ops::host::Real;

/// Weights of the penalties, summed by kind; 0 if there are none of a kind.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Penalties {
    l1: f64,
    l2: f64,
    variation: f64,
}

impl Penalties {
    pub(super) fn new(regularizers: &[Regularizer]) -> Self {
        let mut sum = Self { l1: 0.0, l2: 0.0, variation: 0.0 };
        for regularizer in regularizers {
            match *regularizer {
                Regularizer::L1 { weight } => sum.l1 += f64::from(weight),
                Regularizer::L2 { weight } => sum.l2 += f64::from(weight),
                Regularizer::TotalVariation { weight } => sum.variation += f64::from(weight),
                Regularizer::Blur { .. } => {}
            }
        }
        sum
    }

    pub(super) fn is_empty(&self) -> bool {
        *self == Self::new(&[])
    }

    /// `g - |g| sqrt(n) grad R`, where `R` is the weighted sum of the penalties' means.
    pub(super) fn apply_on_host<T: Real>(&self, pixels: &Tensor, gradient: &Tensor) -> Result<Tensor> {
        let [_, channels, area] = host::planes(pixels)?;
        let width = pixels.dim(D::Minus1)?;
        let count = channels * area;
        host::read(gradient, |gradient: &[T]| {
            // The derivative of a mean has a factor 1 / n, which leaves 1 / sqrt(n).
            let length = |gradient: &[T]| gradient.iter().map(|&g| g.to_f64() * g.to_f64()).sum::<f64>().sqrt();
            let factors: Vec<f64> =
                gradient.chunks(count.max(1)).map(|gradient| length(gradient) / (count as f64).sqrt()).collect();
            host::fill_like::<T>(pixels, area, |plane, pixels, held| {
                let here = plane * area..(plane + 1) * area;
                self.penalty_gradient(&pixels[here.clone()], width, held);
                let factor = T::from_f64(factors[plane / channels]);
                held.iter_mut().zip(&gradient[here]).for_each(|(held, &g)| *held = g - factor * *held);
            })
        })?
    }

    /// `n` times the derivative of the penalties' means with respect to every pixel of a plane.
    fn penalty_gradient<T: Real>(&self, plane: &[T], width: usize, penalty: &mut [T]) {
        let half = T::from_f64(0.5);
        let [l1, twice_l2, twice] = [self.l1, 2.0 * self.l2, 2.0 * self.variation].map(T::from_f64);
        let sign = |x: T| {
            let positive = if x > T::zero() { T::one() } else { T::zero() };
            if x < T::zero() { T::zero() - T::one() } else { positive }
        };
        for (penalty, &x) in penalty.iter_mut().zip(plane) {
            *penalty = l1 * sign(x - half) + twice_l2 * (x - half);
        }
        if self.variation == 0.0 {
            return;
        }
        for (penalty, row) in penalty.chunks_exact_mut(width).zip(plane.chunks_exact(width)) {
            for i in 1..width {
                let slope = twice * (row[i] - row[i - 1]);
                penalty[i] += slope;
                penalty[i - 1] -= slope;
            }
        }
        for i in width..plane.len() {
            let slope = twice * (plane[i] - plane[i - width]);
            penalty[i] += slope;
            penalty[i - width] -= slope;
        }
    }

    /// [`Penalties::apply_on_host`] as tensor operations.
    pub(super) fn apply_on_device(&self, pixels: &Tensor, gradient: &Tensor) -> Result<Tensor> {
        let (n, channels, height, width) = pixels.dims4()?;
        let mut penalty = pixels.zeros_like()?;
        let off = pixels.affine(1.0, -0.5)?;
        if self.l1 > 0.0 {
            penalty = (penalty + off.sign()?.affine(self.l1, 0.0)?)?;
        }
        if self.l2 > 0.0 {
            penalty = (penalty + off.affine(2.0 * self.l2, 0.0)?)?;
        }
        for (axis, length) in [(2, height), (3, width)] {
            if self.variation > 0.0 && length > 1 {
                let slope = (pixels.narrow(axis, 1, length - 1)? - pixels.narrow(axis, 0, length - 1)?)?;
                let slope = slope.affine(2.0 * self.variation, 0.0)?;
                penalty = ((penalty + slope.pad_with_zeros(axis, 1, 0)?)? - slope.pad_with_zeros(axis, 0, 1)?)?;
            }
        }
        // Scaled first: squares of a faint gradient would underflow in f32.
        let largest = gradient.abs()?.flatten_from(1)?.max(1)?;
        let scale = largest.gt(0.0)?.where_cond(&largest, &largest.ones_like()?)?.reshape((n, 1, 1, 1))?;
        let length = gradient.broadcast_div(&scale)?.sqr()?.flatten_from(1)?.sum(1)?.sqrt()?.reshape((n, 1, 1, 1))?;
        let count = (channels * height * width) as f64;
        gradient - penalty.broadcast_mul(&(length * scale)?.affine(1.0 / count.sqrt(), 0.0)?)?
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::Device;

    use super::*;

    const SHAPE: (usize, usize, usize, usize) = (3, 2, 4, 5);

    fn penalties(texts: &[&str]) -> Penalties {
        Penalties::new(&texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>())
    }

    /// Images and gradients: an ordinary one, a zero one, a faint one.
    fn batch() -> (Tensor, Tensor) {
        let pixels: Vec<f64> = (0..120).map(|i| 0.5 + 0.49 * (f64::from(i) * 2.3).sin()).collect();
        let mut gradients: Vec<f64> = (0..120).map(|i| (f64::from(i) * 1.7).cos()).collect();
        gradients[40..80].fill(0.0);
        gradients[80..].iter_mut().for_each(|g| *g *= 1e-30);
        let tensor = |values: Vec<f64>| Tensor::from_vec(values, SHAPE, &Device::Cpu).unwrap();
        (tensor(pixels), tensor(gradients))
    }

    fn values(tensor: &Tensor) -> Vec<f64> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    /// The sum of weighted means over a plane of pixels, by their definitions.
    fn penalty(by: &Penalties, plane: &[f64]) -> f64 {
        let mut sum = 0.0;
        for (i, x) in plane.iter().enumerate() {
            let difference = |other: usize| (plane[other] - x).powi(2);
            sum += by.l1 * (x - 0.5).abs() + by.l2 * (x - 0.5).powi(2);
            sum += by.variation * if i % 5 < 4 { difference(i + 1) } else { 0.0 };
            sum += by.variation * if i < 15 { difference(i + 5) } else { 0.0 };
        }
        sum
    }

    const CASES: [&[&str]; 4] = [&["l1:0.3"], &["l2:0.3"], &["tv:0.2"], &["tv:0.1", "l1:0.2", "l2:2", "tv:0.05"]];

    #[test]
    fn the_gradient_is_held_back_by_the_numeric_derivative_of_the_penalties() {
        let (pixels, gradients) = batch();
        for case in CASES {
            let by = penalties(case);
            let held = values(&by.apply_on_host::<f64>(&pixels, &gradients).unwrap());
            let (x, g) = (values(&pixels), values(&gradients));
            let length = g[..40].iter().map(|g| g * g).sum::<f64>().sqrt();
            for (i, (held, g)) in held.iter().zip(&g).enumerate().take(40) {
                let plane = &x[i / 20 * 20..][..20];
                let at = |step: f64| {
                    let mut moved = plane.to_vec();
                    moved[i % 20] += step;
                    penalty(&by, &moved) / 40.0
                };
                let derivative = (at(1e-5) - at(-1e-5)) / 2e-5;
                let expected = g / length - 40f64.sqrt() * derivative;
                assert!((held / length - expected).abs() < 1e-8, "{case:?}, value {i}: {} {expected}", held / length);
            }
        }
    }

    #[test]
    fn loops_and_tensor_operations_agree() {
        let (pixels, gradients) = batch();
        for case in CASES {
            let by = penalties(case);
            let loops = values(&by.apply_on_host::<f64>(&pixels, &gradients).unwrap());
            let tensors = values(&by.apply_on_device(&pixels, &gradients).unwrap());
            for (i, (a, b)) in loops.iter().zip(&tensors).enumerate() {
                let size = if i < 40 { 1.0 } else { 1e-30 };
                assert!((a - b).abs() < 1e-12 * size, "{case:?}, value {i}: {a} and {b}");
            }
            assert_eq!(loops[40..80], [0.0; 40], "no gradient, no step");
            for i in 0..3 {
                let one = |batch: &Tensor| batch.narrow(0, i, 1).unwrap();
                let alone = values(&by.apply_on_host::<f64>(&one(&pixels), &one(&gradients)).unwrap());
                assert_eq!(alone, loops[i * 40..][..40], "{case:?}, image {i}");
                let alone = values(&by.apply_on_device(&one(&pixels), &one(&gradients)).unwrap());
                assert_eq!(alone, tensors[i * 40..][..40], "{case:?}, image {i}");
            }
        }
    }
}
