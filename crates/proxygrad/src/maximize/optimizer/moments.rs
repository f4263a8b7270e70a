//! First and second moments of Adam and Nadam.

use candle_core::{Device, Result, Tensor};

use super::document::OptimizerKind;

pub(super) const BETA1: f64 = 0.9;
pub(super) const BETA2: f64 = 0.999;
pub(super) const EPSILON: f64 = 1e-8;

/// Running means of every image, and how they make a step: with the means `m` of the gradient `g` and `v` of its
/// square, the step is `lr * (a * m + b * g) / (sqrt(c * v) + epsilon)`, where `a`, `b` and `c` depend on the number of
/// gradients seen.
#[derive(Debug)]
pub(super) struct Moments {
    /// Mean of the gradient: `[N, ...]`.
    pub(super) mean: Tensor,
    /// Mean of its square.
    pub(super) square: Tensor,
    /// `[a, b, c]` by number of gradients.
    pub(super) factors: [Vec<f64>; 3],
    /// `factors` on the parameters' device.
    tables: [Tensor; 3],
}

impl Moments {
    /// For at most `steps` steps; `None` for optimizers without moments.
    pub(super) fn new(kind: OptimizerKind, parameters: &Tensor, steps: u32) -> Result<Option<Self>> {
        // Bias correction of a running mean after `t` gradients.
        let correction = |beta: f64, t: u32| 1.0 / (1.0 - beta.powf(f64::from(t)));
        let of_mean: fn(f64, f64) -> f64 = match kind {
            OptimizerKind::Adam => |now, _| now,
            OptimizerKind::Nadam => |_, next| BETA1 * next,
            OptimizerKind::L2Ascent | OptimizerKind::SpectralAscent | OptimizerKind::Momentum => return Ok(None),
        };
        let of_gradient = if kind == OptimizerKind::Nadam { 1.0 - BETA1 } else { 0.0 };
        let counts = || (0..=steps).map(|t| t.max(1));
        let factors: [Vec<f64>; 3] = [
            counts().map(|t| of_mean(correction(BETA1, t), correction(BETA1, t + 1))).collect(),
            counts().map(|t| of_gradient * correction(BETA1, t)).collect(),
            counts().map(|t| correction(BETA2, t)).collect(),
        ];
        let table = |values: &[f64]| {
            let table = Tensor::from_slice(values, values.len(), &Device::Cpu)?;
            table.to_dtype(parameters.dtype())?.to_device(parameters.device())
        };
        Ok(Some(Self {
            mean: parameters.zeros_like()?,
            square: parameters.zeros_like()?,
            tables: [table(&factors[0])?, table(&factors[1])?, table(&factors[2])?],
            factors,
        }))
    }

    /// Keeps only the images of these rows.
    pub(super) fn retain_rows(&mut self, rows: &Tensor) -> Result<()> {
        self.mean = self.mean.index_select(rows, 0)?;
        self.square = self.square.index_select(rows, 0)?;
        Ok(())
    }

    /// The step at `lr` 1, as tensor operations. Updates the means of images that are `usable` `[N, ...]`, after
    /// `moves` `[N]` gradients each; the steps of other images are unspecified.
    pub(super) fn update(&mut self, gradients: &Tensor, usable: &Tensor, moves: &Tensor) -> Result<Tensor> {
        let mean = (self.mean.affine(BETA1, 0.0)? + gradients.affine(1.0 - BETA1, 0.0)?)?;
        let square = (self.square.affine(BETA2, 0.0)? + gradients.sqr()?.affine(1.0 - BETA2, 0.0)?)?;
        self.mean = usable.where_cond(&mean, &self.mean)?;
        self.square = usable.where_cond(&square, &self.square)?;
        let moves = moves.to_dtype(candle_core::DType::U32)?;
        let [a, b, c] =
            self.tables.each_ref().map(|table| super::broadcast::per_image(&table.index_select(&moves, 0)?, gradients));
        let ahead = (self.mean.broadcast_mul(&a?)? + gradients.broadcast_mul(&b?)?)?;
        ahead / self.square.broadcast_mul(&c?)?.sqrt()?.affine(1.0, EPSILON)?
    }
}
