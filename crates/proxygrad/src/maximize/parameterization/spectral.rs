//! Scaled Fourier coefficients to planes, and the adjoint.

use candle_core::{DType, Device, Result, Tensor, WithDType};
use rayon::prelude::*;
use realfft::num_complex::Complex;

use super::dft::{Dft, weight};
use super::fft::{Ffts, Number};
use crate::maximize::ops::host;
use crate::maximize::ops::host::for_type_of;
use crate::maximize::ops::{Arithmetic, Placement};

/// Distance from frequency 0 of every coefficient of the half spectrum of planes of this height and width, row by row,
/// in cycles per pixel.
pub(super) fn frequencies([height, width]: [usize; 2]) -> Vec<f64> {
    let half = width / 2 + 1;
    let row = |k: usize| k.min(height - k) as f64 / height as f64;
    (0..height * half).map(|at| row(at / half).hypot((at % half) as f64 / width as f64)).collect()
}

/// The linear map from coefficients to planes: coefficients times their scale, then [`Ffts`] (or [`Dft`]),
/// unnormalized.
#[derive(Debug)]
pub(super) struct Spectral {
    size: [usize; 2],
    channels: usize,
    /// Scale of each coefficient: `[C, H * (W/2+1)]`, not negative.
    scales: Vec<f64>,
    work: Work,
}

#[derive(Debug)]
enum Work {
    Loops(Box<Ffts>),
    /// With the scales as a tensor `[C,H,W/2+1]`.
    Tensors(Dft, Tensor),
}

impl Spectral {
    /// For `channels` planes of height and width `size`.
    pub(super) fn new([channels, height, width]: [usize; 3], scales: Vec<f64>, placement: &Placement) -> Result<Self> {
        let size = [height, width];
        let work = match placement.arithmetic {
            Arithmetic::Host => Work::Loops(Box::new(Ffts::new(size))),
            Arithmetic::Device => {
                Self::tensors([channels, height, width], &scales, &placement.device, placement.dtype)?
            }
        };
        Ok(Self { size, channels, scales, work })
    }

    fn tensors([channels, height, width]: [usize; 3], scales: &[f64], device: &Device, dtype: DType) -> Result<Work> {
        let shape = (channels, height, width / 2 + 1);
        let scales = Tensor::from_slice(scales, shape, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?;
        Ok(Work::Tensors(Dft::new([height, width], device, dtype)?, scales))
    }

    /// This map for f64 in main memory.
    pub(super) fn in_main_memory(&self) -> Result<Self> {
        Self::new([self.channels, self.size[0], self.size[1]], self.scales.clone(), &Placement::host_f64())
    }

    /// Number of coefficients of one plane.
    pub(super) fn area(&self) -> usize {
        self.size[0] * (self.size[1] / 2 + 1)
    }

    /// Weight of a coefficient of a plane: `w` of [`Fft::synthesize`](super::fft::Fft::synthesize).
    fn weight(&self, at: usize) -> f64 {
        weight(at % (self.size[1] / 2 + 1), self.size[1])
    }

    /// Planes `[N,C,H,W]` of coefficients `[N,2C,H,W/2+1]`: first the real parts of all channels, then the imaginary
    /// ones.
    pub(super) fn synthesize(&self, coefficients: &Tensor) -> Result<Tensor> {
        match &self.work {
            Work::Loops(ffts) => for_type_of!(coefficients, T => self.host_synthesize::<T>(ffts, coefficients)),
            Work::Tensors(dft, scales) => per_image(coefficients, |image| {
                let part = |i: usize| image.narrow(0, i * self.channels, self.channels)? * scales;
                dft.synthesize(&part(0)?, &part(1)?)
            }),
        }
    }

    /// The adjoint of [`Spectral::synthesize`].
    pub(super) fn adjoint(&self, planes: &Tensor) -> Result<Tensor> {
        match &self.work {
            Work::Loops(ffts) => for_type_of!(planes, T => self.host_adjoint::<T>(ffts, planes)),
            Work::Tensors(dft, scales) => {
                let half = self.size[1] / 2 + 1;
                let weights: Vec<f64> = (0..half).map(|l| weight(l, self.size[1])).collect();
                let weights = Tensor::from_vec(weights, (1, 1, half), &Device::Cpu)?.to_dtype(scales.dtype())?;
                let scales = scales.broadcast_mul(&weights.to_device(scales.device())?)?;
                per_image(planes, |image| {
                    let [real, imaginary] = dft.analyze(image)?;
                    Tensor::cat(&[(real * &scales)?, (imaginary * &scales)?], 0)
                })
            }
        }
    }

    /// The coefficients of these planes, up to rounding; 0 where the scale is 0.
    pub(super) fn invert(&self, planes: &Tensor) -> Result<Tensor> {
        let pixels = (self.size[0] * self.size[1]) as f64;
        // The adjoint maps planes with half spectrum F to w s F, and their coefficients are F / (s H W).
        let factor = |(at, scale): (usize, &f64)| match scale * scale * pixels * self.weight(at % self.area()) {
            0.0 => 0.0,
            strength => 1.0 / strength,
        };
        let factors: Vec<f64> = self.scales.iter().enumerate().map(factor).collect();
        let shape = (1, self.channels, self.size[0], self.size[1] / 2 + 1);
        let factors = Tensor::from_vec(factors, shape, &Device::Cpu)?;
        let factors = Tensor::cat(&[&factors, &factors], 1)?;
        self.adjoint(planes)?.broadcast_mul(&factors.to_dtype(planes.dtype())?.to_device(planes.device())?)
    }

    fn host_synthesize<T: Number>(&self, ffts: &Ffts, coefficients: &Tensor) -> Result<Tensor> {
        let ([height, width], area, channels) = (self.size, self.area(), self.channels);
        let n = coefficients.dim(0)?;
        let mut planes = vec![T::zero(); n * channels * height * width];
        host::read(coefficients, |values: &[T]| {
            planes.par_chunks_mut(height * width).enumerate().for_each(|(plane, pixels)| {
                let (image, channel) = (plane / channels, plane % channels);
                let part = |i: usize| &values[((2 * image + i) * channels + channel) * area..][..area];
                let scales = &self.scales[channel * area..][..area];
                let scaled = |((&real, &imaginary), &scale): ((&T, &T), &f64)| {
                    let scale = <T as WithDType>::from_f64(scale);
                    Complex::new(real * scale, imaginary * scale)
                };
                let mut spectrum: Vec<Complex<T>> = part(0).iter().zip(part(1)).zip(scales).map(scaled).collect();
                T::fft(ffts).synthesize(&mut spectrum, pixels);
            });
        })?;
        Tensor::from_vec(planes, (n, channels, height, width), &Device::Cpu)
    }

    fn host_adjoint<T: Number>(&self, ffts: &Ffts, planes: &Tensor) -> Result<Tensor> {
        let ([height, width], area, channels) = (self.size, self.area(), self.channels);
        let n = planes.dim(0)?;
        let mut coefficients = vec![T::zero(); n * 2 * channels * area];
        host::read(planes, |values: &[T]| {
            // Real and imaginary parts of an image are not adjacent, so all transforms are computed first.
            let plane = |plane: usize| T::fft(ffts).analyze(&values[plane * height * width..][..height * width]);
            let spectra: Vec<Vec<Complex<T>>> = (0..n * channels).into_par_iter().map(plane).collect();
            coefficients.par_chunks_mut(area).enumerate().for_each(|(at, part)| {
                let (image, imaginary, channel) = (at / (2 * channels), at / channels % 2 == 1, at % channels);
                let spectrum = &spectra[image * channels + channel];
                let scales = &self.scales[channel * area..][..area];
                for (i, ((value, number), scale)) in part.iter_mut().zip(spectrum).zip(scales).enumerate() {
                    let number = if imaginary { number.im } else { number.re };
                    *value = number * <T as WithDType>::from_f64(scale * self.weight(i));
                }
            });
        })?;
        Tensor::from_vec(coefficients, (n, 2 * channels, height, width / 2 + 1), &Device::Cpu)
    }
}

/// Maps image by image: the order of sums in a device's matrix product may depend on its number of rows, and a result
/// must not depend on its batch.
pub(super) fn per_image(batch: &Tensor, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let images: Vec<Tensor> = (0..batch.dim(0)?).map(|i| f(&batch.get(i)?)).collect::<Result<_>>()?;
    Tensor::stack(&images, 0)
}

#[cfg(test)]
impl Spectral {
    /// The same map as tensor operations.
    pub(super) fn by_tensors(&self) -> Self {
        let shape = [self.channels, self.size[0], self.size[1]];
        let work = Self::tensors(shape, &self.scales, &Device::Cpu, DType::F64);
        Self {
            size: self.size,
            channels: self.channels,
            scales: self.scales.clone(),
            work: work.unwrap_or_else(|e| panic!("{e}")),
        }
    }
}
