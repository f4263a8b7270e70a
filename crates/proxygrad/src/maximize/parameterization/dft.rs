//! Real Fourier transform of planes as dense matrix products, for devices without an FFT.

use std::f64::consts::TAU;

use candle_core::{DType, Device, Result, Tensor};

/// The same transforms as [`Fft`](super::fft::Fft), over all planes of one image at once.
#[derive(Debug)]
pub(super) struct Dft {
    size: [usize; 2],
    /// Cosines and sines along a column of pixels: `[H,H]`, symmetric.
    columns: [Tensor; 2],
    /// Along a row, from coefficients to pixels, with the weights of the half spectrum: `[W/2+1,W]`.
    rows_back: [Tensor; 2],
    /// Along a row, from pixels to coefficients: `[W,W/2+1]`.
    rows: [Tensor; 2],
}

/// Weight of column `l` of the half spectrum of rows of this width: the number of columns of the full spectrum that it
/// represents.
pub(super) fn weight(l: usize, width: usize) -> f64 {
    if l == 0 || 2 * l == width { 1.0 } else { 2.0 }
}

impl Dft {
    pub(super) fn new(size: [usize; 2], device: &Device, dtype: DType) -> Result<Self> {
        let [height, width] = size;
        let half = width / 2 + 1;
        let table = |rows: usize, columns: usize, entry: &dyn Fn(usize, usize) -> f64| {
            let values: Vec<f64> = (0..rows * columns).map(|at| entry(at / columns, at % columns)).collect();
            Tensor::from_vec(values, (rows, columns), &Device::Cpu)?.to_dtype(dtype)?.to_device(device)
        };
        // The product is reduced to one turn while it is exact.
        let angle = |a: usize, b: usize, n: usize| TAU * ((a * b) % n) as f64 / n as f64;
        Ok(Self {
            size,
            columns: [
                table(height, height, &|k, r| angle(k, r, height).cos())?,
                table(height, height, &|k, r| angle(k, r, height).sin())?,
            ],
            rows_back: [
                table(half, width, &|l, c| weight(l, width) * angle(l, c, width).cos())?,
                table(half, width, &|l, c| weight(l, width) * angle(l, c, width).sin())?,
            ],
            rows: [
                table(width, half, &|c, l| angle(l, c, width).cos())?,
                table(width, half, &|c, l| angle(l, c, width).sin())?,
            ],
        })
    }

    /// Planes `[C,H,W]` with these real and imaginary coefficients `[C,H,W/2+1]`.
    pub(super) fn synthesize(&self, real: &Tensor, imaginary: &Tensor) -> Result<Tensor> {
        let ([height, width], channels) = (self.size, real.dim(0)?);
        let [cos, sin] = &self.columns;
        let (real, imaginary) = (turned(real)?, turned(imaginary)?);
        let along = |t: Tensor| turned(&t.reshape((channels, (), height))?)?.reshape((channels * height, ()));
        let q_real = along((real.matmul(cos)? - imaginary.matmul(sin)?)?)?;
        let q_imaginary = along((real.matmul(sin)? + imaginary.matmul(cos)?)?)?;
        let [cos, sin] = &self.rows_back;
        (q_real.matmul(cos)? - q_imaginary.matmul(sin)?)?.reshape((channels, height, width))
    }

    /// Real and imaginary coefficients `[C,H,W/2+1]` of planes `[C,H,W]`.
    pub(super) fn analyze(&self, planes: &Tensor) -> Result<[Tensor; 2]> {
        let ([height, width], channels) = (self.size, planes.dim(0)?);
        let rows = planes.contiguous()?.reshape((channels * height, width))?;
        let [cos, sin] = &self.rows;
        let along = |t: Tensor| turned(&t.reshape((channels, height, ()))?);
        let (real, imaginary) = (along(rows.matmul(cos)?)?, along(rows.matmul(sin)?.neg()?)?);
        let [cos, sin] = &self.columns;
        let back = |t: Tensor| t.reshape((channels, (), height))?.transpose(1, 2)?.contiguous();
        Ok([back((real.matmul(cos)? + imaginary.matmul(sin)?)?)?, back((imaginary.matmul(cos)? - real.matmul(sin)?)?)?])
    }
}

/// `[C,A,B]` as a matrix `[C*B,A]`.
fn turned(x: &Tensor) -> Result<Tensor> {
    let (c, a, b) = x.dims3()?;
    x.transpose(1, 2)?.contiguous()?.reshape((c * b, a))
}
