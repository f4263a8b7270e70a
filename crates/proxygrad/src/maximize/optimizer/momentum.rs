//! Steepest ascent in the L3 norm with heavy-ball momentum.
//!
//! `d = sign(g) * sqrt|g|` is the direction of steepest ascent for steps of a given L3 norm (Hölder's inequality):
//! compared with the gradient, it weights a few strong pixels less and many weak ones more. The velocity is
//! `v = 0.8 v + d / rms(d)` (Polyak 1964), the step `lr * v / rms(v)`. Where a pixel would leave its range, `g` and `v`
//! count as 0 before their norms are computed, so that the step is spent on pixels that can move. Root mean squares are
//! over values with a nonzero gradient: a unit that sees a tenth of the image moves those pixels as far as one that
//! sees all of it.

use candle_core::{Device, Result, Tensor};
use rayon::prelude::*;

use super::ascent::{Ascent, Range};
use super::broadcast::per_image;
use crate::maximize::ops::host;
use crate::maximize::ops::host::{Real, SUMS};

/// Momentum coefficient.
const KEPT: f64 = 0.8;

/// Velocity of every image: `[N, ...]`.
#[derive(Debug)]
pub(super) struct Momentum(Tensor);

impl Momentum {
    pub(super) fn new(parameters: &Tensor) -> Result<Self> {
        parameters.zeros_like().map(Self)
    }

    /// Keeps only the images of these rows.
    pub(super) fn retain_rows(&mut self, rows: &Tensor) -> Result<()> {
        self.0 = self.0.index_select(rows, 0)?;
        Ok(())
    }

    /// A step of root mean square 1 over the values with a gradient, as tensor operations, along gradients scaled to a
    /// largest value of 1. Images that are not `usable` `[N, ...]` keep their velocity and get a step of 0.
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

/// Scales every image to root mean square 1. Also returns whether each image `[N]` is nonzero.
fn unit(x: &Tensor) -> Result<(Tensor, Tensor)> {
    let rms = x.sqr()?.flatten_from(1)?.mean(1)?.sqrt()?;
    let some = rms.gt(0.0)?;
    let rms = some.where_cond(&rms, &rms.ones_like()?)?;
    Ok((x.broadcast_div(&per_image(&rms, x)?)?, some))
}

/// Bounds at which a parameter cannot fall and cannot rise.
#[derive(Clone, Copy)]
struct Ends<T>([T; 2]);

impl<T: Real> Ends<T> {
    fn of(range: Range) -> Self {
        Self(match range {
            Range::Free => [f64::NEG_INFINITY, f64::INFINITY].map(T::from_f64),
            Range::Pixels => [T::zero(), T::one()],
        })
    }

    /// `by`, but 0 where it would push a parameter at `x` out of its range. Uses min and max, since a branch would be
    /// mispredicted half of the time.
    #[inline]
    fn inside(self, x: T, by: T) -> T {
        let Self([least, most]) = self;
        let low = if x <= least { T::zero() } else { T::from_f64(f64::NEG_INFINITY) };
        let high = if x >= most { T::zero() } else { T::from_f64(f64::INFINITY) };
        let by = if by > low { by } else { low };
        if by < high { by } else { high }
    }
}

/// Sums over the values of a piece.
#[derive(Clone, Copy, Default)]
struct Sums {
    /// Number of values with a gradient.
    seen: f64,
    /// Sum of squares of a direction.
    square: f64,
}

/// Sums over a piece. The squares of the gradient's direction are the gradient's absolute values.
fn weigh<T: Real>(x: &[T], g: &[T], ends: Ends<T>) -> Sums {
    // Exact: no piece has too many values to be counted in `T`.
    let (mut seen, mut squares) = ([T::zero(); SUMS], [0f64; SUMS]);
    let ((xs, last_x), (gs, last_g)) = (x.as_chunks::<SUMS>(), g.as_chunks::<SUMS>());
    let mut add = |i: usize, x: T, g: T| {
        seen[i] += if g == T::zero() { T::zero() } else { T::one() };
        squares[i] += ends.inside(x, g).abs().to_f64();
    };
    for (x, g) in xs.iter().zip(gs) {
        (0..SUMS).for_each(|i| add(i, x[i], g[i]));
    }
    last_x.iter().zip(last_g).enumerate().for_each(|(i, (&x, &g))| add(i, x, g));
    Sums { seen: seen.iter().map(|seen| seen.to_f64()).sum(), square: squares.iter().sum() }
}

/// Decays the velocity of a piece and adds the direction of its gradient, times `factor`. Returns the sum of squares of
/// the components that can move.
fn accelerate<T: Real>(velocity: &mut [T], x: &[T], g: &[T], factor: T, ends: Ends<T>) -> f64 {
    let kept = T::from_f64(KEPT);
    let mut squares = [0f64; SUMS];
    let ((xs, last_x), (gs, last_g)) = (x.as_chunks::<SUMS>(), g.as_chunks::<SUMS>());
    let (vs, last_v) = velocity.as_chunks_mut::<SUMS>();
    let mut add = |i: usize, v: &mut T, x: T, g: T| {
        let g = ends.inside(x, g);
        *v = *v * kept + g.abs().sqrt().copysign(g) * factor;
        let moved = ends.inside(x, *v).to_f64();
        squares[i] += moved * moved;
    };
    for ((v, x), g) in vs.iter_mut().zip(xs).zip(gs) {
        (0..SUMS).for_each(|i| add(i, &mut v[i], x[i], g[i]));
    }
    let last = last_v.iter_mut().zip(last_x).zip(last_g).enumerate();
    last.for_each(|(i, ((v, &x), &g))| add(i, v, x, g));
    squares.iter().sum()
}

impl Ascent {
    /// A step as host loops over `count` pieces of `size` values per image.
    pub(super) fn by_momentum<T: Real>(
        &mut self,
        parameters: &Tensor,
        gradients: &Tensor,
        usable: &[bool],
        lr: f64,
        [count, size]: [usize; 2],
    ) -> Result<Tensor> {
        let (range, ends) = (self.range, Ends::of(self.range));
        let Some(Momentum(velocity)) = &mut self.momentum else { return Ok(parameters.clone()) };
        let read = |tensor: &Tensor| host::read(tensor, <[T]>::to_vec);
        let (mut next, mut moved) = (read(parameters)?, read(velocity)?);
        let (values, size) = ((count * size) as f64, size.max(1));
        let (sums, squares) = host::read(gradients, |gradients: &[T]| {
            let pieces = next.par_chunks(size).zip(gradients.par_chunks(size));
            let pieces: Vec<Sums> = pieces.map(|(x, g)| weigh(x, g, ends)).collect();
            // Summed in a fixed order.
            let add = |a: Sums, b: &Sums| Sums { seen: a.seen + b.seen, square: a.square + b.square };
            let sums: Vec<Sums> =
                pieces.chunks(count.max(1)).map(|pieces| pieces.iter().fold(Sums::default(), add)).collect();
            let pieces =
                moved.par_chunks_mut(size).zip(next.par_chunks(size)).zip(gradients.par_chunks(size)).enumerate();
            let squares = pieces.map(|(piece, ((velocity, x), g))| {
                let image = piece / count;
                if !(usable[image] && sums[image].square > 0.0) {
                    return 0.0;
                }
                accelerate(velocity, x, g, T::from_f64((values / sums[image].square).sqrt()), ends)
            });
            let squares: Vec<f64> = squares.collect();
            (sums, squares.chunks(count.max(1)).map(|pieces| pieces.iter().sum()).collect::<Vec<f64>>())
        })?;
        next.par_chunks_mut(size).zip(moved.par_chunks(size)).enumerate().for_each(|(piece, (x, velocity))| {
            let image = piece / count;
            if squares[image] > 0.0 {
                let factor = T::from_f64(lr * (sums[image].seen / squares[image]).sqrt());
                for (x, &v) in x.iter_mut().zip(velocity) {
                    *x = range.bound(*x + ends.inside(*x, v) * factor);
                }
            }
        });
        *velocity = Tensor::from_vec(moved, parameters.shape(), &Device::Cpu)?;
        Tensor::from_vec(next, parameters.shape(), &Device::Cpu)
    }
}
