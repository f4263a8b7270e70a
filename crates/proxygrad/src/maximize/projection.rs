//! Projection onto a root-mean-square (L2) ball around the start.

use candle_core::{Result, Tensor};

use crate::maximize::ops::Arithmetic;
use crate::maximize::ops::host;
use crate::maximize::ops::host::{Real, for_type_of};

/// Keeps the pixels `x` of every image within a root-mean-square distance `r` of its start `s`: with
/// `d = sqrt(mean((x - s)^2))` over all values of the image, `x` becomes `s + (x - s) min(1, r / d)`, the nearest point
/// of the ball around `s`. It is between `s` and `x`, and so in [0, 1].
#[derive(Debug)]
pub(super) struct RmsBall {
    /// Pixels `[N,C,H,W]` in [0, 1].
    start: Tensor,
    radius: f64,
    arithmetic: Arithmetic,
}

impl RmsBall {
    /// Keeps images near these pixels `[N,C,H,W]`, within a radius in pixel values of range [0, 1].
    pub(super) fn new(start: &Tensor, radius: f32, arithmetic: Arithmetic) -> Self {
        Self { start: start.clone(), radius: f64::from(radius), arithmetic }
    }

    /// Keeps only the images of these rows.
    pub(super) fn retain_rows(&mut self, rows: &Tensor) -> Result<()> {
        self.start = self.start.index_select(rows, 0)?;
        Ok(())
    }

    /// The pixels `[N,C,H,W]`, projected onto the ball where they are outside.
    pub(super) fn project(&self, pixels: &Tensor) -> Result<Tensor> {
        if self.arithmetic == Arithmetic::Host {
            return for_type_of!(pixels, T => self.host_pull::<T>(pixels));
        }
        let n = pixels.dim(0)?;
        let away = (pixels - &self.start)?;
        let values = (pixels.elem_count() / n.max(1)) as f64;
        let distance = away.sqr()?.flatten_from(1)?.sum(1)?.affine(1.0 / values, 0.0)?.sqrt()?;
        let far = distance.gt(self.radius)?;
        let share =
            far.where_cond(&(distance.ones_like()?.affine(self.radius, 0.0)? / &distance)?, &distance.ones_like()?)?;
        let projected = (&self.start + away.broadcast_mul(&share.reshape((n, 1, 1, 1))?)?)?;
        // Images inside the ball keep every bit.
        far.reshape((n, 1, 1, 1))?.broadcast_as(pixels.shape())?.contiguous()?.where_cond(&projected, pixels)
    }

    fn host_pull<T: Real>(&self, pixels: &Tensor) -> Result<Tensor> {
        let [_, channels, area] = host::planes(pixels)?;
        let size = channels * area;
        host::read(&self.start, |starts: &[T]| {
            host::fill_like::<T>(pixels, size, |n, pixels, projected| {
                let (pixels, starts) = (&pixels[n * size..][..size], &starts[n * size..][..size]);
                let square = |(&x, &s): (&T, &T)| (x.to_f64() - s.to_f64()).powi(2);
                let mean = pixels.iter().zip(starts).map(square).sum::<f64>() / size as f64;
                let share = self.radius / mean.sqrt();
                if share >= 1.0 || mean == 0.0 {
                    return projected.copy_from_slice(pixels);
                }
                let share = T::from_f64(share);
                for ((projected, &x), &s) in projected.iter_mut().zip(pixels).zip(starts) {
                    *projected = s + (x - s) * share;
                }
            })
        })?
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::Device;
    use proptest::prelude::*;

    use super::*;

    fn tensor(values: &[f64]) -> Tensor {
        Tensor::from_slice(values, (2, 2, 1, 3), &Device::Cpu).unwrap()
    }

    fn values(tensor: &Tensor) -> Vec<f64> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    fn distances(x: &[f64], s: &[f64]) -> Vec<f64> {
        let mean = |(x, s): (&[f64], &[f64])| x.iter().zip(s).map(|(x, s)| (x - s).powi(2)).sum::<f64>() / 6.0;
        x.chunks(6).zip(s.chunks(6)).map(|pair| mean(pair).sqrt()).collect()
    }

    proptest! {
        #[test]
        fn projected_pixels_stay_within_the_ball(
            x in prop::collection::vec(0.0..1.0f64, 12), s in prop::collection::vec(0.0..1.0f64, 12),
            radius in 0.0..0.6f32,
        ) {
            let ball = RmsBall::new(&tensor(&s), radius, Arithmetic::Host);
            let projected = values(&ball.project(&tensor(&x)).unwrap());
            let tensors = RmsBall::new(&tensor(&s), radius, Arithmetic::Device);
            let other = values(&tensors.project(&tensor(&x)).unwrap());
            prop_assert!(projected.iter().zip(&other).all(|(a, b)| (a - b).abs() < 1e-12));
            let (before, after) = (distances(&x, &s), distances(&projected, &s));
            for n in 0..2 {
                prop_assert!(after[n] <= f64::from(radius) + 1e-12);
                let here = n * 6..(n + 1) * 6;
                if before[n] <= f64::from(radius) {
                    prop_assert_eq!(&projected[here.clone()], &x[here]);
                } else {
                    prop_assert!((after[n] - f64::from(radius)).abs() < 1e-12, "it goes as far as it may");
                }
            }
            prop_assert!(projected.iter().all(|p| (0.0..=1.0).contains(p)));
        }
    }

    #[test]
    fn images_that_are_kept_keep_their_start() {
        let (x, s): (Vec<f64>, Vec<f64>) = ((0..12).map(|i| f64::from(i) / 12.0).collect(), vec![0.5; 12]);
        let mut ball = RmsBall::new(&tensor(&s), 0.1, Arithmetic::Host);
        let whole = values(&ball.project(&tensor(&x)).unwrap());
        let second = Tensor::new(&[1u32], &Device::Cpu).unwrap();
        ball.retain_rows(&second).unwrap();
        let kept = ball.project(&tensor(&x).index_select(&second, 0).unwrap()).unwrap();
        assert_eq!(values(&kept), whole[6..]);
    }
}
