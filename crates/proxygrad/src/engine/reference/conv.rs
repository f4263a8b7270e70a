//! Convolutions as matrix products over taps (im2col). Weights get no gradient.

use candle_core::{Result, Tensor};

use super::taps::{Gather, Taps, weighted};
use super::{Backward, Operation, Precision, Reference};
use crate::engine::Forward;
use crate::network::{self, Shape};

/// A convolution with `G` groups of `C/G` input and `O/G` output channels and `T` taps; maps have `H*W` input pixels
/// and `P` output positions.
pub(super) struct Conv {
    product: Product,
    /// Per-sample shapes `[C,H,W]` and `[O,OH,OW]`.
    input: Vec<usize>,
    output: Vec<usize>,
    /// `[1, O, 1, 1]`.
    bias: Option<Tensor>,
}

enum Product {
    /// 1x1 with stride 1: the map itself is the matrix. `weight` `[G, O/G, C/G]`, `back` `[G, C/G, O/G]`.
    Pointwise { weight: Tensor, back: Tensor, precision: Precision },
    /// Stride 1: backward is a convolution with transposed weights. `weight` `[G, O/G, C/G * T]`, `back`
    /// `[G, C/G, O/G * T]`.
    Dense { weight: Tensor, back: Tensor, columns: Gather, readers: Gather, precision: Precision },
    /// Other strides: backward multiplies first, then sums per pixel (col2im). `weight` `[G, O/G, C/G * T]`, `back`
    /// `[G, C/G * T, O/G]`.
    Strided { weight: Tensor, back: Tensor, columns: Gather, fold: Gather, precision: Precision },
    /// One input and output channel per group: a weighted sum of taps, forward and backward. `weight` `[C, T]`.
    Depthwise { weight: Tensor, columns: Gather, back: DepthwiseBack },
}

enum DepthwiseBack {
    /// Stride 1: each row of `readers` is a tap.
    Dense { readers: Gather },
    /// Other strides: taps are weighted first, then summed per pixel.
    Strided { fold: Gather },
}

impl Conv {
    pub(super) fn new(engine: &Reference, conv: &network::Conv, input: &Shape, output: &Shape) -> Result<Self> {
        let (groups, out) = (conv.groups, conv.out_channels());
        let (a, b) = (out / groups, input[0] / groups);
        let taps = Taps::new(&conv.window, [input[1], input[2]], [output[1], output[2]]);
        let count = taps.count();
        let precision = engine.precision;
        let weight = engine.tensor(conv.weight.data(), &[groups, a, b * count])?;
        let operand = |weight: &Tensor| precision.operand(&weight.contiguous()?);
        let product = if taps.is_pointwise() {
            let back = operand(&weight.transpose(1, 2)?)?;
            Product::Pointwise { weight: operand(&weight)?, back, precision }
        } else if a == 1 && b == 1 {
            let back = if taps.is_dense() {
                DepthwiseBack::Dense { readers: taps.readers(engine)? }
            } else {
                DepthwiseBack::Strided { fold: taps.fold(engine)? }
            };
            Product::Depthwise { weight: weight.reshape((groups, count))?, columns: taps.columns(engine)?, back }
        } else if taps.is_dense() {
            let transposed = weight.reshape((groups, a, b, count))?.transpose(1, 2)?.contiguous()?;
            let back = operand(&transposed.reshape((groups, b, a * count))?)?;
            let (columns, readers) = (taps.columns(engine)?, taps.readers(engine)?);
            Product::Dense { weight: operand(&weight)?, back, columns, readers, precision }
        } else {
            let back = operand(&weight.transpose(1, 2)?)?;
            let (columns, fold) = (taps.columns(engine)?, taps.fold(engine)?);
            Product::Strided { weight: operand(&weight)?, back, columns, fold, precision }
        };
        let bias = conv.bias.as_ref().map(|bias| engine.tensor(bias.data(), &[1, out, 1, 1])).transpose()?;
        Ok(Self { product, input: input.to_vec(), output: output.to_vec(), bias })
    }
}

/// `weight [G,A,B] x columns [N,G,B,P]`, one product per sample and group, so that no sample depends on its batch.
/// `columns` may have any shape with the same number of values, for `n` samples.
fn multiply(precision: Precision, weight: &Tensor, columns: &Tensor, n: usize) -> Result<Tensor> {
    let (groups, a, b) = weight.dims3()?;
    if groups == 1 {
        let weight = weight.broadcast_as((n, a, b))?;
        return precision.product(&weight, &columns.reshape((n, b, ()))?);
    }
    let weight = weight.unsqueeze(0)?.broadcast_as((n, groups, a, b))?.contiguous()?;
    precision.product(&weight, &columns.reshape((n, groups, b, ()))?)
}

/// A weighted sum of rows per channel: `weight [C,R]`, `rows [N*C, R*length]`.
fn weighted_per_channel(weight: &Tensor, rows: &Tensor, n: usize) -> Result<Tensor> {
    let (channels, count) = weight.dims2()?;
    let weight = weight.unsqueeze(0)?.broadcast_as((n, channels, count))?.contiguous()?;
    weighted(&weight.reshape((n * channels, 1, count))?, rows)
}

/// A per-sample shape for `n` samples.
fn samples(n: usize, shape: &[usize]) -> Vec<usize> {
    std::iter::once(n).chain(shape.iter().copied()).collect()
}

impl Operation for Conv {
    fn forward(&self, inputs: &[&Tensor], _: Forward) -> Result<Tensor> {
        let x = inputs[0];
        let n = x.dim(0)?;
        let y = match &self.product {
            Product::Pointwise { weight, precision, .. } => {
                multiply(*precision, weight, &precision.operand(&x.contiguous()?)?, n)?
            }
            Product::Dense { weight, columns, precision, .. } | Product::Strided { weight, columns, precision, .. } => {
                multiply(*precision, weight, &columns.apply(&precision.operand(x)?)?, n)?
            }
            Product::Depthwise { weight, columns, .. } => weighted_per_channel(weight, &columns.apply(x)?, n)?,
        };
        let y = y.reshape(samples(n, &self.output))?;
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }

    fn backward(&self, pass: Backward<'_>) -> Result<Vec<Option<Tensor>>> {
        let g = pass.gradient;
        let n = g.dim(0)?;
        let gradient = match &self.product {
            Product::Pointwise { back, precision, .. } => {
                multiply(*precision, back, &precision.operand(&g.contiguous()?)?, n)?
            }
            Product::Dense { back, readers, precision, .. } => {
                multiply(*precision, back, &readers.apply(&precision.operand(g)?)?, n)?
            }
            Product::Strided { back, fold, precision, .. } => {
                fold.apply_sum(&multiply(*precision, back, &precision.operand(&g.contiguous()?)?, n)?)?
            }
            Product::Depthwise { weight, back: DepthwiseBack::Dense { readers }, .. } => {
                weighted_per_channel(weight, &readers.apply(g)?, n)?
            }
            Product::Depthwise { weight, back: DepthwiseBack::Strided { fold }, .. } => {
                let (channels, count) = weight.dims2()?;
                let weight = weight.reshape((1, channels, count, 1))?;
                fold.apply_sum(&weight.broadcast_mul(&g.contiguous()?.reshape((n, channels, 1, ()))?)?)?
            }
        };
        Ok(vec![Some(gradient.reshape(samples(n, &self.input))?)])
    }
}
