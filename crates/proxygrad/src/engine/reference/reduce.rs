//! Reductions of whole axes, softmax and log-softmax.

use candle_core::{Result, Tensor};

use super::{Backward, Operation};
use crate::engine::Forward;
use crate::network::{Reduce, Shape};

pub(super) struct Reduced {
    kind: Reduce,
    /// Reduced tensor axes, counting the batch.
    dims: Vec<usize>,
    keep: bool,
    output: Shape,
}

impl Reduced {
    pub(super) fn new(kind: Reduce, axes: &[usize], keep: bool, output: &Shape) -> Self {
        Self { kind, dims: axes.iter().map(|axis| axis + 1).collect(), keep, output: output.clone() }
    }

    /// The reduction, with reduced axes kept as length 1.
    fn kept(&self, x: &Tensor) -> Result<Tensor> {
        match self.kind {
            Reduce::Sum => x.sum_keepdim(self.dims.clone()),
            Reduce::Mean => x.sum_keepdim(self.dims.clone())?.affine(1.0 / self.count(x) as f64, 0.0),
            Reduce::Max => self.dims.iter().try_fold(x.clone(), |x, &dim| x.contiguous()?.max_keepdim(dim)),
        }
    }

    /// Number of values per reduced value.
    fn count(&self, x: &Tensor) -> usize {
        self.dims.iter().map(|&dim| x.dims()[dim]).product()
    }
}

impl Operation for Reduced {
    fn forward(&self, inputs: &[&Tensor], _: Forward) -> Result<Tensor> {
        let kept = self.kept(inputs[0])?;
        if self.keep {
            return Ok(kept);
        }
        let mut shape = vec![inputs[0].dim(0)?];
        shape.extend_from_slice(&self.output);
        kept.reshape(shape)
    }

    /// Equal maxima share the gradient equally.
    fn backward(&self, pass: Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let x = pass.inputs[0];
        let mut kept = x.dims().to_vec();
        for &dim in &self.dims {
            kept[dim] = 1;
        }
        let gradient = pass.gradient.contiguous()?.reshape(kept.as_slice())?;
        let spread = match self.kind {
            Reduce::Sum => gradient.broadcast_as(x.dims())?.contiguous()?,
            Reduce::Mean => gradient.affine(1.0 / self.count(x) as f64, 0.0)?.broadcast_as(x.dims())?.contiguous()?,
            Reduce::Max => {
                let largest = pass.output.contiguous()?.reshape(kept.as_slice())?;
                let hit = x.broadcast_eq(&largest)?.to_dtype(x.dtype())?;
                let ties = hit.sum_keepdim(self.dims.clone())?;
                hit.broadcast_mul(&(gradient / ties)?)?
            }
        };
        Ok(vec![Some(spread)])
    }
}

pub(super) struct Softmax {
    pub(super) dim: usize,
}

impl Operation for Softmax {
    fn forward(&self, inputs: &[&Tensor], _: Forward) -> Result<Tensor> {
        let largest = inputs[0].contiguous()?.max_keepdim(self.dim)?;
        let exp = inputs[0].broadcast_sub(&largest)?.exp()?;
        exp.broadcast_div(&exp.sum_keepdim(self.dim)?)
    }

    fn backward(&self, pass: Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let inner = (pass.gradient * pass.output)?.sum_keepdim(self.dim)?;
        Ok(vec![Some((pass.gradient.broadcast_sub(&inner)? * pass.output)?)])
    }
}

pub(super) struct LogSoftmax {
    pub(super) dim: usize,
}

impl Operation for LogSoftmax {
    fn forward(&self, inputs: &[&Tensor], _: Forward) -> Result<Tensor> {
        let largest = inputs[0].contiguous()?.max_keepdim(self.dim)?;
        let shifted = inputs[0].broadcast_sub(&largest)?;
        shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(self.dim)?.log()?)
    }

    fn backward(&self, pass: Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let total = pass.gradient.sum_keepdim(self.dim)?;
        Ok(vec![Some((pass.gradient - pass.output.exp()?.broadcast_mul(&total)?)?)])
    }
}
