//! Decorrelated colours to pixels: a linear map of the colours, then the sigmoid.

use candle_core::{DType, Device, Result, Tensor};

use super::fft::Number;
use super::spectral::per_image;
use crate::maximize::ops::host;
use crate::maximize::ops::host::for_type_of;
use crate::maximize::ops::{Arithmetic, Placement};
use crate::network::ColourMatrix;

/// `p = sigmoid(M x)` for the colours `x` at every position.
#[derive(Debug)]
pub(super) struct Mixing {
    channels: usize,
    /// Rows of `M`, one after the other.
    matrix: Vec<f64>,
    /// The matrix and its transpose `[C,C]`, for [`Arithmetic::Device`].
    tensors: Option<[Tensor; 2]>,
    inverse: Vec<f64>,
}

/// Distance from 0 and 1 to which pixels are clamped before the logit: a quarter of an 8-bit level.
const NEAREST: f64 = 0.25 / 255.0;

impl Mixing {
    pub(super) fn new(colour: &ColourMatrix, placement: &Placement) -> Result<Self> {
        let (channels, matrix) = (colour.channels(), colour.normalized());
        let Some(inverse) = colour.inverse() else {
            candle_core::bail!("colours that depend on each other: {:?}", colour.rows())
        };
        let tensors = match placement.arithmetic {
            Arithmetic::Host => None,
            Arithmetic::Device => Some(both_ways(&matrix, channels, &placement.device, placement.dtype)?),
        };
        Ok(Self { channels, matrix, tensors, inverse })
    }

    /// Pixels `[N,C,H,W]` in [0, 1] of planes of decorrelated colours.
    pub(super) fn paint(&self, planes: &Tensor) -> Result<Tensor> {
        match &self.tensors {
            None => for_type_of!(planes, T => self.host_paint::<T>(planes)),
            Some([matrix, _]) => (mixed(matrix, planes)?.neg()?.exp()? + 1.0)?.recip(),
        }
    }

    /// Gradient with respect to the planes, from the one with respect to the painted `pixels`.
    pub(super) fn gradient(&self, pixels: &Tensor, gradient: &Tensor) -> Result<Tensor> {
        match &self.tensors {
            None => for_type_of!(pixels, T => self.host_gradient::<T>(pixels, gradient)),
            Some([_, transposed]) => {
                let slope = (pixels * pixels.affine(-1.0, 1.0)?)?;
                mixed(transposed, &(gradient * slope)?)
            }
        }
    }

    /// The inverse of [`Mixing::paint`], with pixels clamped by [`NEAREST`]. In main memory, f64.
    pub(super) fn strip(&self, pixels: &Tensor) -> Result<Tensor> {
        host::fill_like::<f64>(pixels, host::planes(pixels)?[2], |plane, pixels, stripped| {
            self.sum(&self.inverse, plane, pixels, stripped, |_, p| {
                let p = p.clamp(NEAREST, 1.0 - NEAREST);
                (p / (1.0 - p)).ln()
            });
        })
    }

    fn host_paint<T: Number>(&self, planes: &Tensor) -> Result<Tensor> {
        host::fill_like::<T>(planes, host::planes(planes)?[2], |plane, colours, pixels| {
            self.sum(&self.matrix, plane, colours, pixels, |_, x| x);
            pixels.iter_mut().for_each(|p| *p = T::one() / (T::one() + (-*p).exp()));
        })
    }

    fn host_gradient<T: Number>(&self, pixels: &Tensor, gradient: &Tensor) -> Result<Tensor> {
        let size = host::planes(gradient)?[2];
        let n = self.channels;
        let transposed: Vec<f64> = (0..n * n).map(|at| self.matrix[at % n * n + at / n]).collect();
        host::read(pixels, |pixels: &[T]| {
            host::fill_like::<T>(gradient, size, |plane, gradient, colours| {
                self.sum(&transposed, plane, gradient, colours, |at, g| g * pixels[at] * (T::one() - pixels[at]));
            })
        })?
    }

    /// Fills plane number `plane` with the sum of `f(index, value)` over all planes of its image, weighted by the
    /// plane's row of `matrix`.
    fn sum<T: host::Real>(
        &self,
        matrix: &[f64],
        plane: usize,
        values: &[T],
        filled: &mut [T],
        f: impl Fn(usize, T) -> T,
    ) {
        let (n, size) = (self.channels, filled.len());
        let (image, row) = (plane / n, plane % n);
        for (k, &factor) in matrix[row * n..][..n].iter().enumerate() {
            let (from, factor) = ((image * n + k) * size, T::from_f64(factor));
            for (i, (sum, &value)) in filled.iter_mut().zip(&values[from..]).enumerate() {
                let term = factor * f(from + i, value);
                *sum = if k == 0 { term } else { *sum + term };
            }
        }
    }
}

fn both_ways(matrix: &[f64], channels: usize, device: &Device, dtype: DType) -> Result<[Tensor; 2]> {
    let matrix = Tensor::from_slice(matrix, (channels, channels), &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?;
    let transposed = matrix.t()?.contiguous()?;
    Ok([matrix, transposed])
}

/// `matrix` `[C,C]` times the colours of `planes` `[N,C,H,W]` at every position.
fn mixed(matrix: &Tensor, planes: &Tensor) -> Result<Tensor> {
    let (_, c, h, w) = planes.dims4()?;
    per_image(planes, |image| matrix.matmul(&image.contiguous()?.reshape((c, h * w))?)?.reshape((c, h, w)))
}

#[cfg(test)]
impl Mixing {
    /// The same map as tensor operations.
    pub(super) fn by_tensors(&self) -> Self {
        let tensors = both_ways(&self.matrix, self.channels, &Device::Cpu, DType::F64);
        Self {
            channels: self.channels,
            matrix: self.matrix.clone(),
            tensors: Some(tensors.unwrap_or_else(|e| panic!("{e}"))),
            inverse: self.inverse.clone(),
        }
    }
}
