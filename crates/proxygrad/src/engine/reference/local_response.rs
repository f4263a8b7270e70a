//! Local response normalization.

use candle_core::{Result, Tensor};

use super::{Backward, Operation};
use crate::engine::Forward;
use crate::network::LocalResponse;

pub(super) struct LocalResponseNorm(pub(super) LocalResponse);

/// Sums over neighbouring channels, `before` preceding and `after` following ones.
fn window_sum(x: &Tensor, before: usize, after: usize) -> Result<Tensor> {
    let channels = x.dim(1)?;
    let (before, after) = (before.min(channels), after.min(channels));
    let padded = x.pad_with_zeros(1, before, after)?;
    let mut sum = padded.narrow(1, 0, channels)?;
    for shift in 1..=before + after {
        sum = (sum + padded.narrow(1, shift, channels)?)?;
    }
    Ok(sum)
}

impl LocalResponseNorm {
    fn sides(&self) -> [usize; 2] {
        [(self.0.size - 1) / 2, self.0.size / 2]
    }

    fn share(&self) -> f64 {
        f64::from(self.0.alpha) / self.0.size as f64
    }

    /// `bias + alpha / size * sum(x²)`
    fn base(&self, x: &Tensor) -> Result<Tensor> {
        let [before, after] = self.sides();
        window_sum(&x.sqr()?, before, after)?.affine(self.share(), f64::from(self.0.bias))
    }
}

impl Operation for LocalResponseNorm {
    fn forward(&self, inputs: &[&Tensor], _: Forward) -> Result<Tensor> {
        inputs[0] * self.base(inputs[0])?.powf(-f64::from(self.0.beta))?
    }

    fn backward(&self, pass: Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let (x, beta) = (pass.inputs[0], f64::from(self.0.beta));
        let base = self.base(x)?;
        // A channel also acts through the sums of all channels near it.
        let through = ((pass.gradient * pass.output)? / &base)?;
        let [before, after] = self.sides();
        let through = (window_sum(&through, after, before)? * x)?.affine(2.0 * beta * self.share(), 0.0)?;
        Ok(vec![Some(((pass.gradient * base.powf(-beta)?)? - through)?)])
    }
}
