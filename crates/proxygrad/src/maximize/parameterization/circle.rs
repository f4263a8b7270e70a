//! Phases: coefficients on the unit circle.

use candle_core::{Device, Result, Tensor};
use rayon::prelude::*;

use super::fft::Number;
use crate::maximize::ops::Arithmetic;
use crate::maximize::ops::host;
use crate::maximize::ops::host::for_type_of;

/// The coefficients `[N,2C,H,K]` with these phases `[N,C,H,K]` in radians: all cosines, then all sines.
pub(super) fn coefficients(phases: &Tensor, arithmetic: Arithmetic) -> Result<Tensor> {
    match arithmetic {
        Arithmetic::Host => for_type_of!(phases, T => host_coefficients::<T>(phases)),
        Arithmetic::Device => Tensor::cat(&[phases.cos()?, phases.sin()?], 1),
    }
}

/// Gradient with respect to the phases, from the one with respect to the coefficients.
pub(super) fn gradient(phases: &Tensor, gradient: &Tensor, arithmetic: Arithmetic) -> Result<Tensor> {
    if arithmetic == Arithmetic::Host {
        return for_type_of!(phases, T => host_gradient::<T>(phases, gradient));
    }
    let channels = phases.dim(1)?;
    let (real, imaginary) = (gradient.narrow(1, 0, channels)?, gradient.narrow(1, channels, channels)?);
    (imaginary * phases.cos()?)? - (real * phases.sin()?)?
}

fn host_coefficients<T: Number>(phases: &Tensor) -> Result<Tensor> {
    let (n, channels, height, half) = phases.dims4()?;
    let size = channels * height * half;
    let mut coefficients = vec![T::zero(); 2 * n * size];
    host::read(phases, |phases: &[T]| {
        coefficients.par_chunks_mut(2 * size).zip(phases.par_chunks(size)).for_each(|(image, phases)| {
            let (reals, imaginaries) = image.split_at_mut(size);
            for ((&phase, real), imaginary) in phases.iter().zip(reals).zip(imaginaries) {
                (*imaginary, *real) = phase.sin_cos();
            }
        });
    })?;
    Tensor::from_vec(coefficients, (n, 2 * channels, height, half), &Device::Cpu)
}

fn host_gradient<T: Number>(phases: &Tensor, gradient: &Tensor) -> Result<Tensor> {
    let (_, channels, height, half) = phases.dims4()?;
    let size = channels * height * half;
    host::read(gradient, |gradient: &[T]| {
        host::fill_like::<T>(phases, size, |image, phases, along| {
            let (real, imaginary) = gradient[2 * image * size..][..2 * size].split_at(size);
            let phases = &phases[image * size..][..size];
            for (((along, &phase), &real), &imaginary) in along.iter_mut().zip(phases).zip(real).zip(imaginary) {
                let (sin, cos) = phase.sin_cos();
                *along = imaginary * cos - real * sin;
            }
        })
    })?
}

/// Phases `[N,C,H,K]` of coefficients `[N,2C,H,K]` in main memory, f64; 0 for zero coefficients.
pub(super) fn phases(coefficients: &Tensor) -> Result<Tensor> {
    let (n, both, height, half) = coefficients.dims4()?;
    let size = both / 2 * height * half;
    let phases = host::read(coefficients, |values: &[f64]| {
        let phase = |at: usize| {
            let real = at / size * 2 * size + at % size;
            values[real + size].atan2(values[real])
        };
        (0..n * size).map(phase).collect::<Vec<f64>>()
    })?;
    Tensor::from_vec(phases, (n, both / 2, height, half), &Device::Cpu)
}
