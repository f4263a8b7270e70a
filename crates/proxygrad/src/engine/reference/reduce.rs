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
            Reduce::Min => self.dims.iter().try_fold(x.clone(), |x, &dim| x.contiguous()?.min_keepdim(dim)),
            Reduce::Product => {
                let values = self.values(x)?;
                let product = values[1..].iter().try_fold(values[0].clone(), |product, value| product * value)?;
                product.reshape(self.kept_shape(x))
            }
            Reduce::L1 => x.abs()?.sum_keepdim(self.dims.clone()),
            Reduce::L2 => x.sqr()?.sum_keepdim(self.dims.clone())?.sqrt(),
            Reduce::LogSumExp => {
                let largest = self.dims.iter().try_fold(x.clone(), |x, &dim| x.contiguous()?.max_keepdim(dim))?;
                x.broadcast_sub(&largest)?.exp()?.sum_keepdim(self.dims.clone())?.log()? + largest
            }
        }
    }

    /// The shape with reduced axes kept as length 1.
    fn kept_shape(&self, x: &Tensor) -> Vec<usize> {
        let length = |(dim, &length): (usize, &usize)| if self.dims.contains(&dim) { 1 } else { length };
        x.dims().iter().enumerate().map(length).collect()
    }

    /// The tensor's axes with the reduced ones last.
    fn order(&self, x: &Tensor) -> Vec<usize> {
        (0..x.rank()).filter(|dim| !self.dims.contains(dim)).chain(self.dims.iter().copied()).collect()
    }

    /// For every place in a group, the values there of all groups.
    fn values(&self, x: &Tensor) -> Result<Vec<Tensor>> {
        let rows = x.permute(self.order(x))?.contiguous()?.reshape(((), self.count(x)))?;
        (0..self.count(x)).map(|i| rows.narrow(1, i, 1)).collect()
    }

    /// Gradient of a product: the product of all other values.
    fn others(&self, x: &Tensor) -> Result<Tensor> {
        let values = self.values(x)?;
        let mut before = vec![values[0].ones_like()?];
        for value in &values[..values.len() - 1] {
            before.push((&before[before.len() - 1] * value)?);
        }
        let mut after = values[0].ones_like()?;
        let mut others = Vec::with_capacity(values.len());
        for (value, before) in values.iter().zip(&before).rev() {
            others.push((before * &after)?);
            after = (after * value)?;
        }
        others.reverse();
        let order = self.order(x);
        let mut back = vec![0; order.len()];
        for (to, &from) in order.iter().enumerate() {
            back[from] = to;
        }
        let lengths: Vec<usize> = order.iter().map(|&dim| x.dims()[dim]).collect();
        Tensor::cat(&others, 1)?.reshape(lengths)?.permute(back)?.contiguous()
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
        let kept = self.kept_shape(x);
        let gradient = pass.gradient.contiguous()?.reshape(kept.as_slice())?;
        let spread = match self.kind {
            Reduce::Sum => gradient.broadcast_as(x.dims())?.contiguous()?,
            Reduce::Mean => gradient.affine(1.0 / self.count(x) as f64, 0.0)?.broadcast_as(x.dims())?.contiguous()?,
            Reduce::Product => self.others(x)?.broadcast_mul(&gradient)?,
            Reduce::L1 => x.sign()?.broadcast_mul(&gradient)?,
            Reduce::L2 => {
                let length = pass.output.contiguous()?.reshape(kept.as_slice())?;
                let is_zero = length.eq(0.0)?.to_dtype(x.dtype())?;
                x.broadcast_mul(&(gradient / (length + is_zero)?)?)?
            }
            Reduce::LogSumExp => {
                let result = pass.output.contiguous()?.reshape(kept.as_slice())?;
                x.broadcast_sub(&result)?.exp()?.broadcast_mul(&gradient)?
            }
            Reduce::Max | Reduce::Min => {
                let extreme = pass.output.contiguous()?.reshape(kept.as_slice())?;
                let hit = x.broadcast_eq(&extreme)?.to_dtype(x.dtype())?;
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
