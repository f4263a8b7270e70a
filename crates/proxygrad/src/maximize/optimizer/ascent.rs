//! Optimizer state and steps for a batch of parameters.
//!
//! A parameter tensor is `[N, ...]`, one entry per image: its pixels, or the parameters that it is decoded from.

#[cfg(test)]
mod tests;

use candle_core::{DType, Result, Tensor};

use super::document::{Decay, Optimizer, OptimizerKind};
use super::moments::Moments;
use super::momentum::Momentum;
use crate::maximize::ops::Arithmetic;
use crate::maximize::ops::host::{Real, for_type_of};

/// Values that parameters may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::maximize) enum Range {
    /// Unbounded.
    Free,
    /// Pixel values: clamped to [0, 1] after every step.
    Pixels,
}

impl Range {
    /// Clamps `x` to the range.
    pub(super) fn bound<T: Real>(self, x: T) -> T {
        match self {
            Self::Free => x,
            Self::Pixels => {
                let x = if x > T::zero() { x } else { T::zero() };
                if x < T::one() { x } else { T::one() }
            }
        }
    }
}

/// An optimizer and its state for every image.
///
/// Each image has its own norm and step count: an image whose gradient is zero or not finite keeps its parameters and
/// its state.
#[derive(Debug)]
pub(in crate::maximize) struct Ascent {
    pub(super) optimizer: Optimizer,
    pub(super) range: Range,
    pub(super) arithmetic: Arithmetic,
    /// Length of the learning rate schedule.
    pub(super) steps: u32,
    /// Number of finite, nonzero gradients of each image: `[N]`, f32.
    pub(super) moves: Tensor,
    /// Number of non-finite gradients of each image: `[N]`, f32.
    pub(super) non_finite: Tensor,
    /// State of Adam and Nadam.
    pub(super) moments: Option<Moments>,
    pub(super) momentum: Option<Momentum>,
}

impl Ascent {
    /// For the batch `parameters` `[N, ...]` and at most `steps` steps.
    pub(in crate::maximize) fn new(
        optimizer: &Optimizer,
        parameters: &Tensor,
        steps: u32,
        range: Range,
        arithmetic: Arithmetic,
    ) -> Result<Self> {
        let counts = Tensor::zeros(parameters.dim(0)?, DType::F32, parameters.device())?;
        Ok(Self {
            optimizer: optimizer.clone(),
            range,
            arithmetic,
            steps,
            moves: counts.clone(),
            non_finite: counts,
            moments: Moments::new(optimizer.kind, parameters, steps)?,
            momentum: match optimizer.kind {
                OptimizerKind::Momentum => Some(Momentum::new(parameters)?),
                _ => None,
            },
        })
    }

    /// Keeps only the images of these rows.
    pub(in crate::maximize) fn retain_rows(&mut self, rows: &Tensor) -> Result<()> {
        self.moves = self.moves.index_select(rows, 0)?;
        self.non_finite = self.non_finite.index_select(rows, 0)?;
        self.moments.as_mut().map_or(Ok(()), |moments| moments.retain_rows(rows))?;
        self.momentum.as_mut().map_or(Ok(()), |momentum| momentum.retain_rows(rows))
    }

    /// For every image, whether a gradient was not finite.
    pub(in crate::maximize) fn non_finite_gradients(&self) -> Result<Vec<bool>> {
        Ok(self.non_finite.to_vec1::<f32>()?.into_iter().map(|count| count > 0.0).collect())
    }

    /// The parameters `[N, ...]` after step number `step`, from 0, along gradients of the same shape.
    pub(in crate::maximize) fn step(&mut self, parameters: &Tensor, gradients: &Tensor, step: u32) -> Result<Tensor> {
        let lr = self.learning_rate(step);
        match self.arithmetic {
            Arithmetic::Host => for_type_of!(parameters, T => self.loop_step::<T>(parameters, gradients, lr)),
            Arithmetic::Device => self.tensor_step(parameters, gradients, lr),
        }
    }

    fn learning_rate(&self, step: u32) -> f64 {
        let lr = f64::from(self.optimizer.lr);
        match self.optimizer.decay {
            Decay::None => lr,
            Decay::Cosine => {
                let share = f64::from(step.min(self.steps)) / f64::from(self.steps.max(1));
                lr * 0.5 * (1.0 + (std::f64::consts::PI * share).cos())
            }
        }
    }
}
