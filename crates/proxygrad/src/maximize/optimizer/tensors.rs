//! Optimizer steps as tensor operations; nothing is read back.

use candle_core::{DType, Result, Tensor};

use super::ascent::{Ascent, Range};
use super::broadcast::per_image;
use super::document::OptimizerKind;
use super::spectral;

impl Ascent {
    pub(super) fn tensor_step(&mut self, parameters: &Tensor, gradients: &Tensor, lr: f64) -> Result<Tensor> {
        // Scaled first: squares of a faint gradient would underflow in f32.
        let largest = gradients.abs()?.flatten_from(1)?.max(1)?;
        let scale = largest.gt(0.0)?.where_cond(&largest, &largest.ones_like()?)?;
        let scaled = gradients.broadcast_div(&per_image(&scale, gradients)?)?;
        // NaN if any value of the gradient is not finite; the maximum alone could miss some.
        let norm = scaled.sqr()?.flatten_from(1)?.sum(1)?.sqrt()?;
        let (usable, whole) = (norm.gt(0.0)?, norm.ge(0.0)?);
        self.moves = (&self.moves + usable.to_dtype(DType::F32)?)?;
        self.non_finite = (&self.non_finite + whole.to_dtype(DType::F32)?.affine(-1.0, 1.0)?)?;
        let usable = per_image(&usable, gradients)?.broadcast_as(parameters.shape())?.contiguous()?;
        let update = match (&mut self.moments, &mut self.momentum, self.optimizer.kind) {
            (Some(moments), ..) => moments.update(gradients, &usable, &self.moves)?,
            (_, Some(momentum), _) => momentum.update(parameters, &scaled, &usable, self.range)?,
            (.., OptimizerKind::SpectralAscent) => {
                scaled.broadcast_div(&per_image(&spectral::by_tensors(&scaled)?, gradients)?)?
            }
            _ => scaled.broadcast_div(&per_image(&norm, gradients)?)?,
        };
        let next = (parameters + update.affine(lr, 0.0)?)?;
        let next = match self.range {
            Range::Free => next,
            Range::Pixels => next.clamp(0.0, 1.0)?,
        };
        usable.where_cond(&next, parameters)
    }
}
