//! Convolution as a matrix product over taps, and dense layers. Weights get no gradient.

use candle_core::{Result, Tensor};

use super::taps::Taps;
use super::{Backward, Operation, Reference};
use crate::engine::Forward;
use crate::network::{self, Array, Shape};

pub(super) struct Conv {
    taps: Taps,
    groups: usize,
    /// `[G, O/G, C/G * taps]`.
    weight: Tensor,
    /// `[G, C/G * taps, O/G]`.
    transposed: Tensor,
    /// `[1, O, 1, 1]`.
    bias: Option<Tensor>,
}

impl Conv {
    pub(super) fn new(engine: &Reference, conv: &network::Conv, input: &Shape, output: &Shape) -> Result<Self> {
        let (groups, out) = (conv.groups, conv.out_channels());
        let weight = engine.tensor(conv.weight.data(), &[groups, out / groups, conv.weight.len() / out])?;
        let transposed = weight.transpose(1, 2)?.contiguous()?;
        let bias = conv.bias.as_ref().map(|bias| engine.tensor(bias.data(), &[1, out, 1, 1])).transpose()?;
        let taps = Taps::new(&conv.window, [input[1], input[2]], [output[1], output[2]]);
        Ok(Self { taps, groups, weight, transposed, bias })
    }

    /// `[N, C, H, W]` to `[N, G, C/G * taps, P]`, channels outermost, as the weights are.
    fn columns(&self, x: &Tensor) -> Result<Tensor> {
        let (n, c, ..) = x.dims4()?;
        if self.taps.is_pointwise() {
            return x.reshape((n, self.groups, c / self.groups, ()));
        }
        let views = self.taps.views(x, 0.0)?;
        Tensor::stack(&views, 2)?.reshape((n, self.groups, c / self.groups * self.taps.count(), ()))
    }
}

/// `weight [G,A,B] x columns [N,G,B,P]`, one product per sample and group, so that no sample depends on its batch.
fn multiply(weight: &Tensor, columns: &Tensor) -> Result<Tensor> {
    let (n, groups, b, p) = columns.dims4()?;
    let a = weight.dim(1)?;
    if groups == 1 {
        let product = weight.broadcast_as((n, a, b))?.matmul(&columns.reshape((n, b, p))?)?;
        return product.reshape((n, 1, a, p));
    }
    let weight = weight.unsqueeze(0)?.broadcast_as((n, groups, a, b))?.contiguous()?;
    weight.matmul(&columns.contiguous()?)
}

impl Operation for Conv {
    fn forward(&self, inputs: &[&Tensor], _: Forward) -> Result<Tensor> {
        let n = inputs[0].dim(0)?;
        let [height, width] = self.taps.output();
        let y = multiply(&self.weight, &self.columns(inputs[0])?)?.reshape((n, (), height, width))?;
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }

    fn backward(&self, pass: Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let (n, out, height, width) = pass.gradient.dims4()?;
        let gradient = pass.gradient.contiguous()?.reshape((n, self.groups, out / self.groups, height * width))?;
        let columns = multiply(&self.transposed, &gradient)?;
        if self.taps.is_pointwise() {
            return Ok(vec![Some(columns.reshape(pass.inputs[0].dims())?)]);
        }
        let channels = pass.inputs[0].dim(1)?;
        let columns = columns.reshape((n, channels, self.taps.count(), height, width))?;
        let taps = (0..self.taps.count()).map(|k| columns.narrow(2, k, 1)?.squeeze(2)).collect::<Result<Vec<_>>>()?;
        Ok(vec![Some(self.taps.fold(&taps)?)])
    }
}

pub(super) struct Dense {
    /// `[1, O, I]`.
    weight: Tensor,
    /// `[1, I, O]`.
    transposed: Tensor,
    /// `[1, O]`.
    bias: Option<Tensor>,
}

impl Dense {
    pub(super) fn new(engine: &Reference, weight: &Array, bias: Option<&Array>) -> Result<Self> {
        let &[out, features] = weight.shape() else {
            candle_core::bail!("dense weights of {:?}", weight.shape());
        };
        let weight = engine.tensor(weight.data(), &[1, out, features])?;
        let transposed = weight.transpose(1, 2)?.contiguous()?;
        let bias = bias.map(|bias| engine.tensor(bias.data(), &[1, out])).transpose()?;
        Ok(Self { weight, transposed, bias })
    }
}

/// `weight [1,A,B] x vectors [N,B]`, one product per sample.
fn apply(weight: &Tensor, vectors: &Tensor) -> Result<Tensor> {
    let (n, b) = vectors.dims2()?;
    let a = weight.dim(1)?;
    weight.broadcast_as((n, a, b))?.matmul(&vectors.contiguous()?.reshape((n, b, 1))?)?.squeeze(2)
}

impl Operation for Dense {
    fn forward(&self, inputs: &[&Tensor], _: Forward) -> Result<Tensor> {
        let y = apply(&self.weight, inputs[0])?;
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }

    fn backward(&self, pass: Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(apply(&self.transposed, pass.gradient)?)])
    }
}
