//! Normalization of groups of values.

use candle_core::{Result, Tensor};

use super::{Backward, Operation, Reference, batched};
use crate::engine::Forward;
use crate::network::{Array, Norm, Normalize, Shape};

pub(super) struct Normalized {
    kind: Norm,
    epsilon: f64,
    /// Shape of one sample with the groups as an axis of their own.
    split: Vec<usize>,
    /// Normalized axes of that shape, counting the batch.
    dims: Vec<usize>,
    /// Number of values per group.
    count: usize,
    scale: Option<Tensor>,
    shift: Option<Tensor>,
}

/// The statistics of all groups; their axes have length 1.
struct Statistics {
    /// The normalized values.
    values: Tensor,
    factor: Tensor,
    feedback: Option<Tensor>,
}

impl Normalized {
    pub(super) fn new(engine: &Reference, normalize: &Normalize, input: &Shape) -> Result<Self> {
        let Normalize { axes, groups, kind, epsilon, .. } = normalize;
        let mut split = input.to_vec();
        split[axes[0]] /= groups;
        split.insert(axes[0], *groups);
        let aligned = |values: &Option<Array>| {
            let tensor = |values: &Array| {
                let lead = vec![1; input.len() - values.shape().len()];
                engine.tensor(values.data(), &batched(&[&lead, values.shape()].concat()))
            };
            values.as_ref().map(tensor).transpose()
        };
        Ok(Self {
            kind: *kind,
            epsilon: f64::from(*epsilon),
            split,
            dims: axes.iter().map(|axis| axis + 2).collect(),
            count: normalize.group_len(input),
            scale: aligned(&normalize.scale)?,
            shift: aligned(&normalize.shift)?,
        })
    }

    fn split(&self, x: &Tensor) -> Result<Tensor> {
        x.reshape([&[x.dim(0)?], self.split.as_slice()].concat())
    }

    fn sum(&self, x: &Tensor) -> Result<Tensor> {
        x.sum_keepdim(self.dims.as_slice())
    }

    fn mean(&self, x: &Tensor) -> Result<Tensor> {
        self.sum(x)?.affine(1.0 / self.count as f64, 0.0)
    }

    fn statistics(&self, x: &Tensor) -> Result<Statistics> {
        let centered = if self.kind.is_centered() { x.broadcast_sub(&self.mean(x)?)? } else { x.clone() };
        let norm = match self.kind {
            Norm::Deviation | Norm::RootMeanSquare => (self.mean(&centered.sqr()?)? + self.epsilon)?.sqrt()?,
            Norm::L1 => self.sum(&centered.abs()?)?,
            Norm::L2 => self.sum(&centered.sqr()?)?.sqrt()?,
        };
        let feedback = match self.kind {
            Norm::Deviation | Norm::RootMeanSquare => None,
            Norm::L1 | Norm::L2 => Some(norm.gt(self.epsilon)?.to_dtype(x.dtype())?),
        };
        let divisor = if feedback.is_some() { norm.maximum(self.epsilon)? } else { norm };
        // 1 / divisor, but 0 for 0.
        let zero = divisor.eq(0.0)?.to_dtype(x.dtype())?;
        let factor = ((&divisor + &zero)?.recip()? - zero)?;
        Ok(Statistics { values: centered.broadcast_mul(&factor)?, factor, feedback })
    }
}

impl Operation for Normalized {
    fn forward(&self, inputs: &[&Tensor], _: Forward) -> Result<Tensor> {
        let mut y = self.statistics(&self.split(inputs[0])?)?.values.reshape(inputs[0].dims())?;
        if let Some(scale) = &self.scale {
            y = y.broadcast_mul(scale)?;
        }
        match &self.shift {
            Some(shift) => y.broadcast_add(shift),
            None => Ok(y),
        }
    }

    fn backward(&self, pass: Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let x = self.split(pass.inputs[0])?;
        let Statistics { values, factor, feedback } = self.statistics(&x)?;
        let gradient = match &self.scale {
            Some(scale) => pass.gradient.broadcast_mul(scale)?,
            None => pass.gradient.contiguous()?,
        };
        let gradient = self.split(&gradient)?;
        let along = (&gradient * &values)?;
        let along = match feedback {
            Some(feedback) => (self.sum(&along)? * feedback)?,
            None => self.mean(&along)?,
        };
        let direction = if self.kind == Norm::L1 { x.sign()? } else { values };
        let mut inner = (&gradient - direction.broadcast_mul(&along)?)?;
        if self.kind.is_centered() {
            inner = inner.broadcast_sub(&self.mean(&gradient)?)?;
        }
        Ok(vec![Some(inner.broadcast_mul(&factor)?.reshape(pass.inputs[0].dims())?)])
    }
}
