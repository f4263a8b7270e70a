//! Max and average pooling over taps.

use candle_core::{DType, Result, Tensor};

use super::taps::Taps;
use super::{Backward, Operation, Reference};
use crate::engine::Forward;
use crate::network::{Shape, Window};

pub(super) struct MaxPool {
    taps: Taps,
}

impl MaxPool {
    pub(super) fn new(window: &Window, input: &Shape, output: &Shape) -> Self {
        Self { taps: Taps::new(window, [input[1], input[2]], [output[1], output[2]]) }
    }
}

impl Operation for MaxPool {
    fn forward(&self, inputs: &[&Tensor], _: Forward) -> Result<Tensor> {
        let views = self.taps.views(inputs[0], f64::NEG_INFINITY)?;
        let mut largest = views[0].contiguous()?;
        for view in &views[1..] {
            largest = largest.maximum(&view.contiguous()?)?;
        }
        Ok(largest)
    }

    /// The first of equal values in row-major order gets the gradient.
    fn backward(&self, pass: Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let views = self.taps.views(pass.inputs[0], f64::NEG_INFINITY)?;
        let mut open = pass.gradient.ones_like()?.to_dtype(DType::U8)?;
        let mut taps = Vec::with_capacity(views.len());
        for view in &views {
            let hit = (view.contiguous()?.eq(pass.output)? * &open)?;
            open = (open - &hit)?;
            taps.push((hit.to_dtype(pass.gradient.dtype())? * pass.gradient)?);
        }
        Ok(vec![Some(self.taps.fold(&taps)?)])
    }
}

pub(super) struct AveragePool {
    taps: Taps,
    /// One over the number of values that count in each window, `[1,1,OH,OW]`.
    share: Tensor,
}

impl AveragePool {
    pub(super) fn new(
        engine: &Reference,
        window: &Window,
        count_padding: bool,
        input: &Shape,
        output: &Shape,
    ) -> Result<Self> {
        let counts = [0, 1].map(|i| window.counts(i, input[i + 1], output[i + 1], count_padding));
        let shares: Vec<f32> =
            counts[0].iter().flat_map(|y| counts[1].iter().map(move |x| 1.0 / (y * x).max(1) as f32)).collect();
        let share = engine.tensor(&shares, &[1, 1, output[1], output[2]])?;
        Ok(Self { taps: Taps::new(window, [input[1], input[2]], [output[1], output[2]]), share })
    }
}

impl Operation for AveragePool {
    fn forward(&self, inputs: &[&Tensor], _: Forward) -> Result<Tensor> {
        let views = self.taps.views(inputs[0], 0.0)?;
        let mut sum = views[0].contiguous()?;
        for view in &views[1..] {
            sum = (sum + view.contiguous()?)?;
        }
        sum.broadcast_mul(&self.share)
    }

    fn backward(&self, pass: Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let part = pass.gradient.broadcast_mul(&self.share)?;
        Ok(vec![Some(self.taps.fold(&vec![part; self.taps.count()])?)])
    }
}
