//! Steepest ascent in the L3 norm with heavy-ball momentum.
//!
//! `d = sign(g) * sqrt|g|` is the direction in which a linear function grows most per step of a given L3 norm (Hölder's
//! inequality): it counts a few strong pixels less, and many weak ones more, than the gradient. The velocity is
//! `v = 0.8 v + d / rms(d)` (Polyak 1964), the step `lr * v / rms(v)`. Where pixels lie at an end of their range and would
//! leave it, both `g` and `v` count as 0 before their sizes are taken, so that the step is spent on pixels that can move.
//! Root mean squares are taken over the values whose gradient is not 0: a unit that sees a tenth of the image moves what it
//! sees as far as one that sees all of it.

use candle_core::{Device, Result, Tensor};
use rayon::prelude::*;

use super::tensors::per_image;
use super::{Ascent, Range};
use crate::maximize::host::{self, Real};

/// Share of the velocity that stays.
const KEPT: f64 = 0.8;

/// What every image's velocity is: `[N, ...]`.
#[derive(Debug)]
pub(super) struct Momentum(Tensor);

impl Momentum {
    pub(super) fn new(parameters: &Tensor) -> Result<Self> {
        parameters.zeros_like().map(Self)
    }

    /// Goes on with these images of the batch alone.
    pub(super) fn keep(&mut self, rows: &Tensor) -> Result<()> {
        self.0 = self.0.index_select(rows, 0)?;
        Ok(())
    }

    /// A step of root mean square 1 over the values with a gradient, as tensor operations, along gradients that are scaled
    /// to a largest value of 1. Images that are not `usable` `[N, ...]` keep their velocity; what is given for them is of
    /// no use.
    pub(super) fn update(
        &mut self,
        parameters: &Tensor,
        gradients: &Tensor,
        usable: &Tensor,
        range: Range,
    ) -> Result<Tensor> {
        let seen = gradients.ne(0.0)?.to_dtype(gradients.dtype())?.flatten_from(1)?.mean(1)?.sqrt()?;
        let gradients = inside(parameters, gradients, range)?;
        let direction = (gradients.sign()? * gradients.abs()?.sqrt()?)?;
        let (direction, some) = unit(&direction)?;
        let moves = (usable * per_image(&some, parameters)?.broadcast_as(parameters.shape())?)?;
        let velocity = (self.0.affine(KEPT, 0.0)? + direction)?;
        self.0 = moves.where_cond(&velocity, &self.0)?;
        let (step, _) = unit(&inside(parameters, &self.0, range)?)?;
        let step = step.broadcast_mul(&per_image(&seen, parameters)?)?;
        moves.where_cond(&step, &step.zeros_like()?)
    }
}

/// `x`, but 0 where it would push a pixel out of its range.
fn inside(parameters: &Tensor, x: &Tensor, range: Range) -> Result<Tensor> {
    if range == Range::Free {
        return Ok(x.clone());
    }
    let below = (parameters.le(0.0)? * x.lt(0.0)?)?;
    let above = (parameters.ge(1.0)? * x.gt(0.0)?)?;
    (below + above)?.where_cond(&x.zeros_like()?, x)
}

/// Every image scaled to root mean square 1, and whether `[N]` there was anything to scale.
fn unit(x: &Tensor) -> Result<(Tensor, Tensor)> {
    let rms = x.sqr()?.flatten_from(1)?.mean(1)?.sqrt()?;
    let some = rms.gt(0.0)?;
    let rms = some.where_cond(&rms, &rms.ones_like()?)?;
    Ok((x.broadcast_div(&per_image(&rms, x)?)?, some))
}

/// One value as it counts: 0 where it would push a pixel out of its range.
fn pushes<T: Real>(x: T, by: T, range: Range) -> bool {
    range == Range::Free || !((x <= T::zero() && by < T::zero()) || (x >= T::one() && by > T::zero()))
}

impl Ascent {
    /// A step as plain loops; `size` values make a piece, `count` pieces an image.
    pub(super) fn by_momentum<T: Real>(
        &mut self,
        parameters: &Tensor,
        gradients: &Tensor,
        usable: &[bool],
        lr: f64,
        [count, size]: [usize; 2],
    ) -> Result<Tensor> {
        let range = self.range;
        let Some(Momentum(velocity)) = &mut self.momentum else { return Ok(parameters.clone()) };
        let read = |tensor: &Tensor| host::read(tensor, <[T]>::to_vec);
        let (mut next, mut moved) = (read(parameters)?, read(velocity)?);
        let (values, size) = ((count * size) as f64, size.max(1));
        // One value per image, from one per piece, added up in a fixed order.
        let sums =
            |pieces: Vec<f64>| pieces.chunks(count.max(1)).map(|pieces| pieces.iter().sum()).collect::<Vec<f64>>();
        let (seen, moves, squares) = host::read(gradients, |gradients: &[T]| {
            let seen = |g: &[T]| g.iter().filter(|g| **g != T::zero()).count() as f64;
            let seen = sums(gradients.par_chunks(size).map(seen).collect());
            // The squares of `d` are the absolute values of `g`.
            let along = |(x, g): (&[T], &[T])| {
                x.iter().zip(g).filter(|(x, g)| pushes(**x, **g, range)).map(|(_, g)| g.to_f64().abs()).sum()
            };
            let squares = sums(next.par_chunks(size).zip(gradients.par_chunks(size)).map(along).collect());
            let moves: Vec<bool> =
                squares.iter().zip(usable).map(|(&square, &usable)| usable && square > 0.0).collect();
            let pieces =
                moved.par_chunks_mut(size).zip(next.par_chunks(size)).zip(gradients.par_chunks(size)).enumerate();
            let squares = pieces.map(|(piece, ((velocity, x), g))| {
                let image = piece / count;
                if !moves[image] {
                    return 0.0;
                }
                let factor = (values / squares[image]).sqrt();
                let kept = T::from_f64(KEPT);
                let mut square = 0.0;
                for ((v, &x), &g) in velocity.iter_mut().zip(x).zip(g) {
                    let d =
                        if pushes(x, g, range) { g.to_f64().abs().sqrt().copysign(g.to_f64()) * factor } else { 0.0 };
                    *v = *v * kept + T::from_f64(d);
                    if pushes(x, *v, range) {
                        square += v.to_f64() * v.to_f64();
                    }
                }
                square
            });
            let squares = sums(squares.collect());
            (seen, moves, squares)
        })?;
        next.par_chunks_mut(size).zip(moved.par_chunks(size)).enumerate().for_each(|(piece, (x, velocity))| {
            let image = piece / count;
            if moves[image] && squares[image] > 0.0 {
                let factor = T::from_f64(lr * (seen[image] / squares[image]).sqrt());
                for (x, &v) in x.iter_mut().zip(velocity) {
                    if pushes(*x, v, range) {
                        *x = range.bound(*x + v * factor);
                    }
                }
            }
        });
        *velocity = Tensor::from_vec(moved, parameters.shape(), &Device::Cpu)?;
        Tensor::from_vec(next, parameters.shape(), &Device::Cpu)
    }
}
