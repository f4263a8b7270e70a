//! Optimizer steps as host loops.

use candle_core::{Device, Result, Tensor};
use rayon::prelude::*;

use super::ascent::Ascent;
use super::document::OptimizerKind;
use super::moments::{BETA1, BETA2, EPSILON};
use super::spectral;
use crate::maximize::ops::host;
use crate::maximize::ops::host::Real;

/// Division of a batch's values into pieces, which are processed in parallel.
#[derive(Clone, Copy)]
struct Pieces {
    images: usize,
    /// Pieces of each image.
    count: usize,
    /// Values of each piece.
    size: usize,
}

impl Pieces {
    /// Planes for images `[N,C,H,W]`, in general the values at one index of the second axis; whole vectors for `[N,K]`.
    fn of(parameters: &Tensor) -> Result<Self> {
        let (images, dims) = (parameters.dim(0)?, parameters.dims());
        let count = if dims.len() > 2 { dims[1] } else { 1 };
        Ok(Self { images, count, size: dims[1..].iter().product::<usize>() / count.max(1) })
    }
}

impl Ascent {
    pub(super) fn loop_step<T: Real>(&mut self, parameters: &Tensor, gradients: &Tensor, lr: f64) -> Result<Tensor> {
        let pieces = Pieces::of(parameters)?;
        let norms = host::read(gradients, |values: &[T]| square_sums(values, pieces))?;
        let usable: Vec<bool> = norms.iter().map(|norm| norm.is_finite() && *norm > 0.0).collect();
        let count = |counts: &Tensor, more: &dyn Fn(usize) -> bool| {
            let mut counts = counts.to_vec1::<f32>()?;
            counts.iter_mut().enumerate().for_each(|(i, count)| *count += f32::from(u8::from(more(i))));
            Tensor::from_vec(counts, pieces.images, &Device::Cpu)
        };
        self.moves = count(&self.moves, &|i| usable[i])?;
        self.non_finite = count(&self.non_finite, &|i| !norms[i].is_finite())?;
        let factors = match self.optimizer.kind {
            OptimizerKind::Adam | OptimizerKind::Nadam => {
                return self.by_moments::<T>(parameters, gradients, &usable, lr);
            }
            OptimizerKind::Momentum => {
                let Pieces { count, size, .. } = pieces;
                return self.by_momentum::<T>(parameters, gradients, &usable, lr, [count, size]);
            }
            OptimizerKind::L2Ascent => norms.iter().map(|norm| lr / norm.sqrt()).collect(),
            OptimizerKind::SpectralAscent => {
                let columns = spectral::columns(gradients)?;
                let largest = |values: &[T]| spectral::largest_singular_values(values, pieces.images, columns);
                host::read(gradients, largest)?.into_iter().map(|sigma| lr / sigma).collect::<Vec<f64>>()
            }
        };
        self.along::<T>(parameters, gradients, &usable, &factors)
    }

    /// `x += factor * g` with one factor per image.
    fn along<T: Real>(&self, parameters: &Tensor, gradients: &Tensor, usable: &[bool], by: &[f64]) -> Result<Tensor> {
        let Pieces { count, size, .. } = Pieces::of(parameters)?;
        let range = self.range;
        host::read(gradients, |gradients: &[T]| {
            host::fill_like::<T>(parameters, size, |piece, parameters, next| {
                let (image, here) = (piece / count, piece * size..(piece + 1) * size);
                let (from, gradient) = (&parameters[here.clone()], &gradients[here]);
                if !usable[image] {
                    return next.copy_from_slice(from);
                }
                let factor = by[image];
                let values = next.iter_mut().zip(from).zip(gradient);
                // One over the norm of a faint gradient may overflow f32.
                if factor < 1e30 {
                    let factor = T::from_f64(factor);
                    values.for_each(|((next, &x), &g)| *next = range.bound(x + g * factor));
                } else {
                    values.for_each(|((next, &x), &g)| *next = range.bound(x + T::from_f64(g.to_f64() * factor)));
                }
            })
        })?
    }

    fn by_moments<T: Real>(
        &mut self,
        parameters: &Tensor,
        gradients: &Tensor,
        usable: &[bool],
        lr: f64,
    ) -> Result<Tensor> {
        let Some(moments) = &mut self.moments else { return Ok(parameters.clone()) };
        let Pieces { count, size, .. } = Pieces::of(parameters)?;
        let moves = self.moves.to_vec1::<f32>()?;
        let read = |tensor: &Tensor| host::read(tensor, <[T]>::to_vec);
        let (mut next, mut mean, mut square) = (read(parameters)?, read(&moments.mean)?, read(&moments.square)?);
        let range = self.range;
        let real = T::from_f64;
        let (lr, epsilon) = (real(lr), real(EPSILON));
        let (keep1, keep2, add1, add2) = (real(BETA1), real(BETA2), real(1.0 - BETA1), real(1.0 - BETA2));
        host::read(gradients, |gradients: &[T]| {
            let states = mean.par_chunks_mut(size.max(1)).zip(square.par_chunks_mut(size.max(1)));
            let all = next.par_chunks_mut(size.max(1)).zip(states).zip(gradients.par_chunks(size.max(1))).enumerate();
            all.filter(|(piece, _)| usable[piece / count]).for_each(|(piece, ((next, (mean, square)), g))| {
                let [a, b, c] = moments.factors.each_ref().map(|by| real(by[moves[piece / count] as usize]));
                for (((x, mean), square), &g) in next.iter_mut().zip(mean).zip(square).zip(g) {
                    *mean = *mean * keep1 + g * add1;
                    *square = *square * keep2 + g * g * add2;
                    *x = range.bound(*x + lr * ((*mean * a + g * b) / ((*square * c).sqrt() + epsilon)));
                }
            });
        })?;
        moments.mean = Tensor::from_vec(mean, parameters.shape(), &Device::Cpu)?;
        moments.square = Tensor::from_vec(square, parameters.shape(), &Device::Cpu)?;
        Tensor::from_vec(next, parameters.shape(), &Device::Cpu)
    }
}

/// Sum of squares of every image's gradient. In f64, squares of f32 neither underflow nor overflow: the sum is finite
/// and nonzero exactly when the gradient is.
fn square_sums<T: Real>(gradients: &[T], Pieces { images, count, size }: Pieces) -> Vec<f64> {
    let sums: Vec<f64> = gradients.par_chunks(size.max(1)).map(spectral::square_sum).collect();
    (0..images).map(|n| sums[n * count..][..count].iter().sum()).collect()
}
