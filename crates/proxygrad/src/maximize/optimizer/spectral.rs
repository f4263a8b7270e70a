//! The largest singular value of a gradient.
//!
//! An image's gradient is a matrix whose columns are its last axis: `[C*H, W]` for pixels, `[1, K]` for a vector, whose
//! singular value is its Euclidean norm. Power iteration starts from the longest row: the estimate is at least that
//! row's norm, and approaches the largest singular value from below.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::broadcast::per_image;
use crate::maximize::ops::host::{Real, SUMS};

/// Power iterations: a fixed number, so that the result depends only on the gradient.
const ROUNDS: usize = 8;

/// Number of columns of an image's gradient as a matrix.
pub(super) fn columns(gradients: &Tensor) -> Result<usize> {
    gradients.dim(candle_core::D::Minus1)
}

/// Per image; unspecified for gradients that are zero or not finite.
pub(super) fn largest_singular_values<T: Real>(gradients: &[T], images: usize, columns: usize) -> Vec<f64> {
    let size = gradients.len() / images.max(1);
    gradients.par_chunks(size.max(1)).map(|gradient| largest_singular_value(gradient, columns)).collect()
}

/// In f64, where squares of f32 neither underflow nor overflow.
fn largest_singular_value<T: Real>(gradient: &[T], columns: usize) -> f64 {
    let rows = || gradient.chunks_exact(columns);
    let longest = rows().map(|row| (square_sum(row), row)).reduce(|a, b| if b.0 > a.0 { b } else { a });
    let Some((square, longest)) = longest else { return 0.0 };
    let mut direction: Vec<f64> = longest.iter().map(|&x| x.to_f64() / square.sqrt()).collect();
    let mut sigma = 0.0;
    for round in 0..=ROUNDS {
        let mut next = vec![0.0; if round < ROUNDS { columns } else { 0 }];
        let mut square = 0.0;
        for row in rows() {
            let along = dot(row, &direction);
            square += along * along;
            next.iter_mut().zip(row).for_each(|(sum, &x)| *sum += along * x.to_f64());
        }
        sigma = square.sqrt();
        let length = square_sum(&next).sqrt();
        next.iter_mut().for_each(|x| *x /= length);
        direction = next;
    }
    sigma
}

/// Dot product in [`SUMS`] partial sums, one per vector lane, added in a fixed order.
fn dot<T: Real>(a: &[T], b: &[f64]) -> f64 {
    let mut sums = [0.0; SUMS];
    let ((a, last_a), (b, last_b)) = (a.as_chunks::<SUMS>(), b.as_chunks::<SUMS>());
    let rest: f64 = last_a.iter().zip(last_b).map(|(&x, y)| x.to_f64() * y).sum();
    for (a, b) in a.iter().zip(b) {
        for ((sum, &x), &y) in sums.iter_mut().zip(a).zip(b) {
            *sum += x.to_f64() * y;
        }
    }
    sums.iter().sum::<f64>() + rest
}

/// Squared norm, summed as in [`dot`].
pub(super) fn square_sum<T: Real>(values: &[T]) -> f64 {
    let square = |x: T| x.to_f64() * x.to_f64();
    let mut sums = [0.0; SUMS];
    let (chunks, rest) = values.as_chunks::<SUMS>();
    let rest: f64 = rest.iter().map(|&x| square(x)).sum();
    for chunk in chunks {
        for (sum, &x) in sums.iter_mut().zip(chunk) {
            *sum += square(x);
        }
    }
    sums.iter().sum::<f64>() + rest
}

/// The largest singular values `[N]` as tensor operations, of gradients whose largest value is about 1. Sums run over
/// one axis at a time, because the order of sums in a matrix product may depend on the batch.
pub(super) fn by_tensors(gradients: &Tensor) -> Result<Tensor> {
    let (n, columns) = (gradients.dim(0)?, columns(gradients)?);
    let matrices = gradients.contiguous()?.reshape((n, (), columns))?;
    let squares = matrices.sqr()?.sum(2)?;
    let longest = squares.argmax_keepdim(1)?.reshape((n, 1, 1))?.broadcast_as((n, 1, columns))?.contiguous()?;
    let mut direction = matrices.gather(&longest, 1)?;
    for _ in 0..ROUNDS {
        direction = unit(&direction)?;
        let along = matrices.broadcast_mul(&direction)?.sum_keepdim(2)?;
        direction = matrices.broadcast_mul(&along)?.sum_keepdim(1)?;
    }
    let along = matrices.broadcast_mul(&unit(&direction)?)?.sum(2)?;
    along.sqr()?.sum(1)?.sqrt()
}

/// Normalizes directions `[N,1,K]` to length 1.
fn unit(directions: &Tensor) -> Result<Tensor> {
    let lengths = directions.sqr()?.sum_keepdim(2)?.sqrt()?;
    directions.broadcast_div(&per_image(&lengths.flatten_all()?, directions)?)
}
