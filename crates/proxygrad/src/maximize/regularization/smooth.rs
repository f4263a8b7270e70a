//! Gaussian blur of whole images.

use candle_core::{Device, Result, Tensor};

use crate::maximize::ops::Arithmetic;
use crate::maximize::ops::host;
use crate::maximize::ops::host::{Real, for_type_of};

/// Blurs images `[N,C,H,W]` with this standard deviation in pixels, truncated at three of them; at the border, the
/// weights inside the image are normalized.
pub(super) fn smoothed(sigma: f32, images: &Tensor, arithmetic: Arithmetic) -> Result<Tensor> {
    let (_, _, height, width) = images.dims4()?;
    let weights = [weights(sigma, height), weights(sigma, width)];
    match arithmetic {
        Arithmetic::Host => for_type_of!(images, T => by_loops::<T>(&weights, images)),
        Arithmetic::Device => by_tensors(&weights, images),
    }
}

/// For every position along an axis, the first source position, and the weights from there on.
type Weights = Vec<(usize, Vec<f64>)>;

fn weights(sigma: f32, length: usize) -> Weights {
    let (sigma, reach) = (f64::from(sigma), (3.0 * sigma).ceil() as usize);
    let from = |at: usize| {
        let first = at.saturating_sub(reach);
        let near = first..length.min(at + reach + 1);
        let weight = |i: usize| (-0.5 * ((i as f64 - at as f64) / sigma).powi(2)).exp();
        let sum: f64 = near.clone().map(weight).sum();
        (first, near.map(|i| weight(i) / sum).collect())
    };
    (0..length).map(from).collect()
}

fn by_loops<T: Real>([rows, columns]: &[Weights; 2], images: &Tensor) -> Result<Tensor> {
    let [_, _, area] = host::planes(images)?;
    let width = columns.len();
    host::fill_like::<T>(images, area, |plane, values, blurred| {
        let source = &values[plane * area..][..area];
        let mut line = vec![T::zero(); width];
        for (blurred, (first, weights)) in blurred.chunks_exact_mut(width).zip(rows) {
            line.fill(T::zero());
            for (source, &weight) in source[first * width..].chunks_exact(width).zip(weights) {
                let weight = T::from_f64(weight);
                line.iter_mut().zip(source).for_each(|(sum, &x)| *sum += weight * x);
            }
            for (blurred, (first, weights)) in blurred.iter_mut().zip(columns) {
                let weighted = line[*first..].iter().zip(weights).map(|(&x, &weight)| x * T::from_f64(weight));
                *blurred = weighted.fold(T::zero(), |sum, x| sum + x);
            }
        }
    })
}

/// As sums of weighted shifts; no image depends on its batch.
fn by_tensors(weights: &[Weights; 2], images: &Tensor) -> Result<Tensor> {
    [2, 3].into_iter().zip(weights).try_fold(images.clone(), |images, (axis, weights)| {
        let length = weights.len();
        let reach = weights.iter().map(|(_, weights)| weights.len()).max().unwrap_or(1);
        let shift = |offset: i64| {
            let (mut from, mut by) = (Vec::with_capacity(length), Vec::with_capacity(length));
            for (at, (first, weights)) in weights.iter().enumerate() {
                let i = at as i64 + offset;
                let weight = usize::try_from(i - *first as i64).ok().and_then(|i| weights.get(i));
                from.push(i.clamp(0, length as i64 - 1) as u32);
                by.push(weight.copied().unwrap_or(0.0) as f32);
            }
            let from = Tensor::from_vec(from, length, images.device())?;
            let mut shape = [1; 4];
            shape[axis] = length;
            let by = Tensor::from_vec(by, &shape[..], &Device::Cpu)?;
            let by = by.to_dtype(images.dtype())?.to_device(images.device())?;
            images.contiguous()?.index_select(&from, axis)?.broadcast_mul(&by)
        };
        let reach = reach as i64;
        (-reach..=reach).try_fold(images.zeros_like()?, |sum, offset| sum + shift(offset)?)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn loops_and_tensor_operations_agree_and_keep_what_is_even() {
        for sigma in [0.2, 0.9, 3.5] {
            let x = Tensor::rand(0f32, 1.0, (2, 3, 7, 9), &Device::Cpu).unwrap();
            let weights = [weights(sigma, 7), weights(sigma, 9)];
            let distance =
                |a: &Tensor, b: &Tensor| (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            let blurred = by_loops::<f32>(&weights, &x).unwrap();
            assert!(distance(&blurred, &by_tensors(&weights, &x).unwrap()) < 1e-6);
            let even = x.ones_like().unwrap();
            assert!(distance(&smoothed(sigma, &even, Arithmetic::Host).unwrap(), &even) < 1e-6);
        }
    }

    #[test]
    fn a_spot_becomes_a_gaussian() {
        let mut spot = vec![0f64; 21 * 21];
        spot[10 * 21 + 10] = 1.0;
        let spot = Tensor::from_vec(spot, (1, 1, 21, 21), &Device::Cpu).unwrap();
        let values = smoothed(1.5, &spot, Arithmetic::Host).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let density = |square: f64| (-0.5 * square / 2.25).exp() / (2.0 * std::f64::consts::PI * 2.25);
        for (down, right) in [(0, 0), (1, 0), (2, 3)] {
            let found = values[(10 + down) * 21 + 10 + right];
            let expected = density((down * down + right * right) as f64);
            assert!((found - expected).abs() < 0.003 * density(0.0), "{found}, not {expected}");
        }
    }
}
