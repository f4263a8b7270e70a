//! Max and average pooling over taps.

use candle_core::{Result, Tensor};

use super::taps::{Gather, Taps};
use super::{Backward, Operation, Reference};
use crate::engine::Forward;
use crate::network::{Shape, Window};

pub(super) struct MaxPool {
    /// Forward gather of each tap.
    taps: Vec<Gather>,
    /// Backward gather of each tap.
    back: Vec<Gather>,
    /// Padding value, minus infinity, `[1, 1]`.
    border: Tensor,
    input: [usize; 2],
    output: [usize; 2],
}

impl MaxPool {
    pub(super) fn new(engine: &Reference, window: &Window, input: &Shape, output: &Shape) -> Result<Self> {
        let (input, output) = ([input[1], input[2]], [output[1], output[2]]);
        let taps = Taps::new(window, input, output);
        let border = engine.tensor(&[f32::NEG_INFINITY], &[1, 1])?;
        Ok(Self { taps: taps.each(engine)?, back: taps.each_back(engine)?, border, input, output })
    }

    /// `[N,C,H,W]` to flat maps, each followed by the padding value, `[N*C, H*W + 1]`.
    fn with_padding_value(&self, x: &Tensor) -> Result<Tensor> {
        let maps = x.contiguous()?.reshape(((), self.input[0] * self.input[1]))?;
        Tensor::cat(&[&maps, &self.border.broadcast_as((maps.dim(0)?, 1))?.contiguous()?], 1)
    }
}

impl Operation for MaxPool {
    fn forward(&self, inputs: &[&Tensor], _: Forward) -> Result<Tensor> {
        let (n, c, ..) = inputs[0].dims4()?;
        let maps = self.with_padding_value(inputs[0])?;
        let mut taps = self.taps.iter().map(|tap| tap.apply(&maps));
        let Some(first) = taps.next() else { candle_core::bail!("a pool without taps") };
        let largest = taps.try_fold(first?, |largest, tap| largest.maximum(&tap?))?;
        largest.reshape((n, c, self.output[0], self.output[1]))
    }

    /// Among equal values the first in row-major order gets the gradient.
    fn backward(&self, pass: Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let maps = self.with_padding_value(pass.inputs[0])?;
        let (count, outputs) = (maps.dim(0)?, self.output[0] * self.output[1]);
        let largest = pass.output.contiguous()?.reshape((count, outputs))?;
        // The part of the gradient that is not assigned to a tap yet.
        let mut left = pass.gradient.contiguous()?.reshape((count, outputs))?;
        let mut sum = None;
        for (tap, back) in self.taps.iter().zip(&self.back) {
            let hit = tap.apply(&maps)?.eq(&largest)?.to_dtype(left.dtype())?;
            let part = (hit * &left)?;
            left = (left - &part)?;
            super::accumulate(&mut sum, back.apply(&part)?)?;
        }
        sum.map(|sum| Ok(Some(sum.reshape(pass.inputs[0].dims())?))).into_iter().collect()
    }
}

pub(super) struct AveragePool {
    columns: Gather,
    spread: Gather,
    /// Inverse divisor of each window, `[1,1,OH,OW]`.
    share: Tensor,
    output: [usize; 2],
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
        let output = [output[1], output[2]];
        let taps = Taps::new(window, [input[1], input[2]], output);
        Ok(Self { columns: taps.columns(engine)?, spread: taps.spread(engine)?, share, output })
    }
}

impl Operation for AveragePool {
    fn forward(&self, inputs: &[&Tensor], _: Forward) -> Result<Tensor> {
        let (n, c, ..) = inputs[0].dims4()?;
        let sum = self.columns.apply_sum(inputs[0])?.reshape((n, c, self.output[0], self.output[1]))?;
        sum.broadcast_mul(&self.share)
    }

    fn backward(&self, pass: Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let part = pass.gradient.broadcast_mul(&self.share)?;
        Ok(vec![Some(self.spread.apply_sum(&part)?.reshape(pass.inputs[0].dims())?)])
    }
}
