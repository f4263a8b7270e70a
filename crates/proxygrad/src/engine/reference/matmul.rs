//! Dense layers and matrix products of two inputs. Weights get no gradient.

use candle_core::{Result, Tensor};

use super::binary::unbroadcast;
use super::{Backward, Operation, Precision, Reference};
use crate::engine::Forward;
use crate::network::{Array, Shape};

/// A matrix applied to every vector along the last axis.
pub(super) struct Dense {
    /// `[O, I]`.
    weight: Tensor,
    /// `[I, O]`.
    back: Tensor,
    /// `[O]`.
    bias: Option<Tensor>,
    precision: Precision,
}

impl Dense {
    pub(super) fn new(engine: &Reference, weight: &Array, bias: Option<&Array>) -> Result<Self> {
        let precision = engine.precision;
        let weight = precision.operand(&engine.tensor(weight.data(), weight.shape())?)?;
        let back = weight.t()?.contiguous()?;
        let bias = bias.map(|bias| engine.tensor(bias.data(), bias.shape())).transpose()?;
        Ok(Self { weight, back, bias, precision })
    }

    /// A matrix `[B, A]` times vectors `[N, ..., A]`, one product per sample, so that no sample depends on its batch. The
    /// matrix is the first factor: candle merges the samples of a first factor whose second one is the same for all.
    fn apply(&self, matrix: &Tensor, vectors: &Tensor) -> Result<Tensor> {
        let (n, (to, from)) = (vectors.dim(0)?, matrix.dims2()?);
        let mut shape = vectors.dims().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = to;
        }
        let columns = vectors.contiguous()?.reshape((n, (), from))?.transpose(1, 2)?.contiguous()?;
        let product =
            self.precision.product(&matrix.broadcast_as((n, to, from))?, &self.precision.operand(&columns)?)?;
        product.transpose(1, 2)?.contiguous()?.reshape(shape)
    }
}

impl Operation for Dense {
    fn forward(&self, inputs: &[&Tensor], _: Forward) -> Result<Tensor> {
        let y = self.apply(&self.weight, inputs[0])?;
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }

    fn backward(&self, pass: Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(self.apply(&self.back, pass.gradient)?)])
    }
}

/// Matrix products with broadcasting of the axes before the matrices.
pub(super) struct MatMul {
    precision: Precision,
    /// Axes of the output before the matrices, without the batch axis.
    outer: Vec<usize>,
}

impl MatMul {
    pub(super) fn new(precision: Precision, output: &Shape) -> Self {
        Self { precision, outer: output[..output.len().saturating_sub(2)].to_vec() }
    }

    /// The matrices of an input `[N, ..., A, B]` for `n` samples, as `[n * outer, A, B]`.
    fn matrices(&self, x: &Tensor, n: usize) -> Result<Tensor> {
        let dims = x.dims();
        let (outer, matrix) = dims[1..].split_at(dims.len() - 3);
        let missing = vec![1; self.outer.len() - outer.len()];
        let aligned = x.reshape([&dims[..1], &missing[..], outer, matrix].concat())?;
        let repeated = aligned.broadcast_as([&[n], &self.outer[..], matrix].concat())?;
        self.precision.operand(&repeated.contiguous()?.reshape(((), matrix[0], matrix[1]))?)
    }

    /// The product of two lists of matrices, as `[N, outer, A, B]`.
    fn product(&self, a: &Tensor, b: &Tensor, n: usize) -> Result<Tensor> {
        let product = self.precision.product(a, b)?;
        let (_, rows, columns) = product.dims3()?;
        product.reshape([&[n], &self.outer[..], &[rows, columns]].concat())
    }
}

impl Operation for MatMul {
    fn forward(&self, inputs: &[&Tensor], _: Forward) -> Result<Tensor> {
        // A constant has a batch of 1.
        let n = inputs[0].dim(0)?.max(inputs[1].dim(0)?);
        self.product(&self.matrices(inputs[0], n)?, &self.matrices(inputs[1], n)?, n)
    }

    fn backward(&self, pass: Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let n = pass.gradient.dim(0)?;
        let gradient = self.matrices(pass.gradient, n)?;
        let transposed = |i: usize| self.matrices(pass.inputs[i], n)?.transpose(1, 2)?.contiguous();
        let first = || unbroadcast(&self.product(&gradient, &transposed(1)?, n)?, pass.inputs[0]);
        let second = || unbroadcast(&self.product(&transposed(0)?, &gradient, n)?, pass.inputs[1]);
        Ok(vec![pass.wanted[0].then(first).transpose()?, pass.wanted[1].then(second).transpose()?])
    }
}
