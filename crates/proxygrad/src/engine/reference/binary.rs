//! Elementwise arithmetic and selection with broadcasting, and per-channel scale and shift.

use candle_core::{Result, Tensor};

use super::unary::{finite, power};
use super::{Backward, Operation, Reference, per_channel};
use crate::engine::Forward;
use crate::network::{Array, Binary, Shape};

pub(super) struct Elementwise {
    pub(super) kind: Binary,
    /// Number of axes of the output, not counting the batch.
    pub(super) rank: usize,
}

/// Aligns per-sample axes with those of a tensor of `rank` axes, at the last axis, by inserting axes of length 1 after
/// the batch axis.
fn aligned(x: &Tensor, rank: usize) -> Result<Tensor> {
    let mut shape = x.dims().to_vec();
    while shape.len() < rank + 1 {
        shape.insert(1, 1);
    }
    x.reshape(shape)
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
        let (a, b) = (aligned(inputs[0], self.rank)?, aligned(inputs[1], self.rank)?);
        match self.kind {
            Binary::Add => a.broadcast_add(&b),
            Binary::Sub => a.broadcast_sub(&b),
            Binary::Mul => a.broadcast_mul(&b),
            Binary::Div => a.broadcast_div(&b),
            Binary::Min => a.broadcast_minimum(&b),
            Binary::Max => a.broadcast_maximum(&b),
            Binary::Pow => {
                let (a, b) = joint(&a, &b)?;
                power(&a, &b)
            }
            Binary::Less => a.broadcast_lt(&b)?.to_dtype(a.dtype()),
            Binary::LessOrEqual => a.broadcast_le(&b)?.to_dtype(a.dtype()),
            Binary::Equal => a.broadcast_eq(&b)?.to_dtype(a.dtype()),
        }
    }

    fn backward(&self, pass: Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let (a, b) = (aligned(pass.inputs[0], self.rank)?, aligned(pass.inputs[1], self.rank)?);
        let g = pass.gradient;
        let as_factor = |chosen: Tensor| chosen.to_dtype(g.dtype());
        let first = |wanted: bool| match (wanted, self.kind) {
            (false, _) => Ok(None),
            (true, Binary::Add | Binary::Sub) => unbroadcast(g, pass.inputs[0]).map(Some),
            (true, Binary::Mul) => unbroadcast(&g.broadcast_mul(&b)?, pass.inputs[0]).map(Some),
            (true, Binary::Div) => unbroadcast(&g.broadcast_div(&b)?, pass.inputs[0]).map(Some),
            (true, Binary::Min) => unbroadcast(&(g * as_factor(a.broadcast_le(&b)?)?)?, pass.inputs[0]).map(Some),
            (true, Binary::Max) => unbroadcast(&(g * as_factor(a.broadcast_ge(&b)?)?)?, pass.inputs[0]).map(Some),
            (true, Binary::Pow) => {
                let (a, b) = joint(&a, &b)?;
                let slope = finite(&(power(&a, &b.affine(1.0, -1.0)?)? * b)?)?;
                unbroadcast(&(g * slope)?, pass.inputs[0]).map(Some)
            }
            (true, Binary::Less | Binary::LessOrEqual | Binary::Equal) => Ok(None),
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
            (true, Binary::Min) => unbroadcast(&(g * as_factor(a.broadcast_gt(&b)?)?)?, pass.inputs[1]).map(Some),
            (true, Binary::Max) => unbroadcast(&(g * as_factor(a.broadcast_lt(&b)?)?)?, pass.inputs[1]).map(Some),
            (true, Binary::Pow) => {
                let slope = finite(&pass.output.broadcast_mul(&a.log()?)?)?;
                unbroadcast(&(g * slope)?, pass.inputs[1]).map(Some)
            }
            (true, Binary::Less | Binary::LessOrEqual | Binary::Equal) => Ok(None),
        };
        Ok(vec![first(pass.wanted[0])?, second(pass.wanted[1])?])
    }
}

/// Both tensors repeated to their common shape.
fn joint(a: &Tensor, b: &Tensor) -> Result<(Tensor, Tensor)> {
    let shape = a.shape().broadcast_shape_binary_op(b.shape(), "power")?;
    Ok((a.broadcast_as(&shape)?.contiguous()?, b.broadcast_as(&shape)?.contiguous()?))
}

/// Elementwise selection: see [`Op::Select`](crate::network::Op::Select).
pub(super) struct Select {
    /// Number of axes of the output, not counting the batch.
    pub(super) rank: usize,
}

impl Operation for Select {
    fn forward(&self, inputs: &[&Tensor], _: Forward) -> Result<Tensor> {
        let x = inputs.iter().map(|x| aligned(x, self.rank)).collect::<Result<Vec<_>>>()?;
        let (yes, no) = joint(&x[1], &x[2])?;
        let (condition, yes) = joint(&x[0], &yes)?;
        let (_, no) = joint(&yes, &no)?;
        condition.ne(&condition.zeros_like()?)?.where_cond(&yes, &no)
    }

    fn backward(&self, pass: Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let (condition, gradient) = joint(&aligned(pass.inputs[0], self.rank)?, pass.gradient)?;
        let (chosen, zeros) = (condition.ne(&condition.zeros_like()?)?, gradient.zeros_like()?);
        let branch = |i: usize, [yes, no]: [&Tensor; 2]| match pass.wanted[i] {
            true => unbroadcast(&chosen.where_cond(yes, no)?, pass.inputs[i]).map(Some),
            false => Ok(None),
        };
        Ok(vec![None, branch(1, [&gradient, &zeros])?, branch(2, [&zeros, &gradient])?])
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
