//! Enlargement of images by cubic interpolation, between the coarse stage and the remaining steps.

use candle_core::{Device, Result, Tensor};

use super::ops::Placement;

/// The separable map from images of one size to images of another, at least as large: cubic convolution (Keys, IEEE
/// Transactions on Acoustics, Speech and Signal Processing 29(6), 1981, with `a = -1/2`), pixel centres aligned, edges
/// repeated.
#[derive(Debug)]
pub(super) struct Enlargement {
    /// `[H',H]`: weights of the rows.
    rows: Tensor,
    /// `[W,W']`: weights of the columns.
    columns: Tensor,
}

impl Enlargement {
    /// From height and width `from` to `to`.
    pub(super) fn new(from: [usize; 2], to: [usize; 2], placement: &Placement) -> Result<Self> {
        let weights = |axis: usize| {
            let shape = (to[axis], from[axis]);
            let weights = Tensor::from_vec(cubic(from[axis], to[axis]), shape, &Device::Cpu)?;
            weights.to_dtype(placement.dtype)?.to_device(&placement.device)
        };
        Ok(Self { rows: weights(0)?, columns: weights(1)?.t()?.contiguous()? })
    }

    /// Planes `[N,…,H,W]` enlarged to `[N,…,H',W']`. Image by image, so that a result does not depend on its batch.
    pub(super) fn apply(&self, planes: &Tensor) -> Result<Tensor> {
        let dtype = planes.dtype();
        let enlarged = |image: usize| {
            let image = planes.get(image)?.to_dtype(self.rows.dtype())?.contiguous()?;
            self.rows.broadcast_matmul(&image)?.broadcast_matmul(&self.columns)?.to_dtype(dtype)
        };
        let images: Vec<Tensor> = (0..planes.dim(0)?).map(enlarged).collect::<Result<_>>()?;
        Tensor::stack(&images, 0)
    }

    /// As [`Enlargement::apply`], for pixels in [0, 1]: interpolation overshoots at edges, which is cut off.
    pub(super) fn pixels(&self, pixels: &Tensor) -> Result<Tensor> {
        self.apply(pixels)?.clamp(0.0, 1.0)
    }
}

/// Row-major `[to,from]`: the weight of every value in every interpolated one.
fn cubic(from: usize, to: usize) -> Vec<f64> {
    let mut weights = vec![0.0; to * from];
    for (i, row) in weights.chunks_exact_mut(from).enumerate() {
        let at = (i as f64 + 0.5) * from as f64 / to as f64 - 0.5;
        let first = at.floor() as isize - 1;
        for tap in first..first + 4 {
            let nearest = tap.clamp(0, from as isize - 1) as usize;
            row[nearest] += kernel((at - tap as f64).abs());
        }
    }
    weights
}

/// Keys' kernel for a distance of at most 2.
fn kernel(x: f64) -> f64 {
    match x {
        x if x <= 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
        x if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::DType;

    use super::*;

    fn enlarged(from: [usize; 2], to: [usize; 2], f: impl Fn(f64, f64) -> f64) -> Vec<Vec<f64>> {
        let values: Vec<f64> = (0..from[0] * from[1]).map(|i| f((i / from[1]) as f64, (i % from[1]) as f64)).collect();
        let image = Tensor::from_vec(values, (1, 1, from[0], from[1]), &Device::Cpu).unwrap();
        let enlarged = Enlargement::new(from, to, &Placement::host_f64()).unwrap().apply(&image).unwrap();
        enlarged.get(0).unwrap().get(0).unwrap().to_vec2().unwrap()
    }

    #[test]
    fn the_same_size_changes_nothing() {
        let values = enlarged([3, 4], [3, 4], |y, x| (3.0 * y - x).sin());
        for (y, row) in values.iter().enumerate() {
            for (x, value) in row.iter().enumerate() {
                assert!((value - (3.0 * y as f64 - x as f64).sin()).abs() < 1e-15);
            }
        }
    }

    #[test]
    fn quadratic_functions_are_reproduced_inside() {
        let f = |y: f64, x: f64| 0.3 * y * y - x * x + 0.5 * x * y + 2.0;
        let values = enlarged([9, 8], [20, 12], f);
        for (y, row) in values.iter().enumerate() {
            for (x, value) in row.iter().enumerate() {
                let (y, x) = ((y as f64 + 0.5) * 9.0 / 20.0 - 0.5, (x as f64 + 0.5) * 8.0 / 12.0 - 0.5);
                if (1.0..7.0).contains(&y) && (1.0..6.0).contains(&x) {
                    assert!((value - f(y, x)).abs() < 1e-12, "{y} {x}");
                }
            }
        }
    }

    #[test]
    fn a_constant_stays_constant_and_pixels_stay_in_range() {
        assert!(enlarged([2, 1], [7, 3], |_, _| 0.25).concat().iter().all(|value| (value - 0.25).abs() < 1e-15));
        let edge = Tensor::new(&[[[[0f32, 0.0, 1.0, 1.0]]]], &Device::Cpu).unwrap();
        let placement = Placement { dtype: DType::F32, ..Placement::host_f64() };
        let pixels = Enlargement::new([1, 4], [1, 16], &placement).unwrap().pixels(&edge).unwrap();
        let pixels = pixels.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(pixels.iter().all(|pixel| (0.0..=1.0).contains(pixel)) && pixels[7] < pixels[8]);
    }
}
