//! Elementwise arithmetic with broadcasting, and per-channel scale and shift.

use candle_core::{Result, Tensor};

use super::{Backward, Operation, Reference, per_channel};
use crate::engine::Forward;
use crate::network::{Array, Binary, Shape};

pub(super) struct Elementwise {
    pub(super) kind: Binary,
    /// Number of axes of the output, not counting the batch.
    pub(super) rank: usize,
}

impl Elementwise {
    /// Aligns per-sample axes at the last axis by inserting axes of length 1 after the batch axis.
    fn aligned(&self, x: &Tensor) -> Result<Tensor> {
        let mut shape = x.dims().to_vec();
        while shape.len() < self.rank + 1 {
            shape.insert(1, 1);
        }
        x.reshape(shape)
    }
}

/// Sums a gradient over the axes that the input was broadcast along.
pub(super) fn unbroadcast(gradient: &Tensor, input: &Tensor) -> Result<Tensor> {
    let lead = gradient.rank() - input.rank();
    let repeated: Vec<usize> = (1..gradient.rank())
        .filter(|&axis| axis <= lead || (input.dim(axis - lead).ok() == Some(1) && gradient.dim(axis).ok() != Some(1)))
        .collect();
    let summed = if repeated.is_empty() { gradient.clone() } else { gradient.sum_keepdim(repeated)? };
    let mut shape = input.dims().to_vec();
    shape[0] = gradient.dim(0)?;
    summed.reshape(shape)
}

impl Operation for Elementwise {
    fn forward(&self, inputs: &[&Tensor], _: Forward) -> Result<Tensor> {
        let (a, b) = (self.aligned(inputs[0])?, self.aligned(inputs[1])?);
        match self.kind {
            Binary::Add => a.broadcast_add(&b),
            Binary::Sub => a.broadcast_sub(&b),
            Binary::Mul => a.broadcast_mul(&b),
            Binary::Div => a.broadcast_div(&b),
        }
    }

    fn backward(&self, pass: Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let (a, b) = (self.aligned(pass.inputs[0])?, self.aligned(pass.inputs[1])?);
        let g = pass.gradient;
        let first = |wanted: bool| match (wanted, self.kind) {
            (false, _) => Ok(None),
            (true, Binary::Add | Binary::Sub) => unbroadcast(g, pass.inputs[0]).map(Some),
            (true, Binary::Mul) => unbroadcast(&g.broadcast_mul(&b)?, pass.inputs[0]).map(Some),
            (true, Binary::Div) => unbroadcast(&g.broadcast_div(&b)?, pass.inputs[0]).map(Some),
        };
        let second = |wanted: bool| match (wanted, self.kind) {
            (false, _) => Ok(None),
            (true, Binary::Add) => unbroadcast(g, pass.inputs[1]).map(Some),
            (true, Binary::Sub) => unbroadcast(&g.neg()?, pass.inputs[1]).map(Some),
            (true, Binary::Mul) => unbroadcast(&g.broadcast_mul(&a)?, pass.inputs[1]).map(Some),
            (true, Binary::Div) => {
                let slope = pass.output.broadcast_div(&b)?.neg()?;
                unbroadcast(&(g * slope)?, pass.inputs[1]).map(Some)
            }
        };
        Ok(vec![first(pass.wanted[0])?, second(pass.wanted[1])?])
    }
}

pub(super) struct Affine {
    scale: Tensor,
    shift: Tensor,
}

impl Affine {
    pub(super) fn new(engine: &Reference, scale: &Array, shift: &Array, input: &Shape) -> Result<Self> {
        let shape = per_channel(scale.len(), input.len() + 1);
        Ok(Self { scale: engine.tensor(scale.data(), &shape)?, shift: engine.tensor(shift.data(), &shape)? })
    }
}

impl Operation for Affine {
    fn forward(&self, inputs: &[&Tensor], _: Forward) -> Result<Tensor> {
        inputs[0].broadcast_mul(&self.scale)?.broadcast_add(&self.shift)
    }

    fn backward(&self, pass: Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(pass.gradient.broadcast_mul(&self.scale)?)])
    }
}
