//! Preprocessing: pixels in [0, 1] to the network's input, and its adjoint.

use candle_core::{Device, Result, Tensor};

use crate::maximize::ops::host;
use crate::maximize::ops::host::{Real, for_type_of};
use crate::maximize::ops::{Arithmetic, Placement};
use crate::network::Preprocessing;

/// Maps pixels `[N,C,H,W]` in [0, 1], grey or RGB, to the network's input, and gradients back.
#[derive(Debug)]
pub(super) struct Preprocessor {
    /// `(scale, shift)` of every network channel.
    affine: Vec<(f64, f64)>,
    /// The image channel that every network channel reads.
    sources: Vec<usize>,
    arithmetic: Arithmetic,
    /// For [`Arithmetic::Device`]: scales and shifts `[1,C,1,1]`, sources `[C]`.
    scale: Tensor,
    shift: Tensor,
    order: Tensor,
}

impl Preprocessor {
    pub(super) fn new(preprocessing: &Preprocessing, placement: &Placement) -> Result<Self> {
        let Placement { device, dtype, arithmetic } = placement;
        let affine = preprocessing.affine();
        let channels = affine.len();
        let sources: Vec<usize> = (0..channels).map(|c| preprocessing.channels.source(c)).collect();
        let column = |values: Vec<f64>| {
            Tensor::from_vec(values, (1, channels, 1, 1), &Device::Cpu)?.to_dtype(*dtype)?.to_device(device)
        };
        let (scale, shift) = affine.iter().copied().unzip();
        let order = sources.iter().map(|&c| c as u32).collect();
        Ok(Self {
            arithmetic: *arithmetic,
            scale: column(scale)?,
            shift: column(shift)?,
            order: Tensor::from_vec(order, channels, device)?,
            affine,
            sources,
        })
    }

    /// The network's input for pixels.
    pub(super) fn to_input(&self, pixels: &Tensor) -> Result<Tensor> {
        if self.arithmetic == Arithmetic::Host {
            return for_type_of!(pixels, T => self.host_input::<T>(pixels));
        }
        self.reordered(pixels)?.broadcast_mul(&self.scale)?.broadcast_add(&self.shift)
    }

    /// Gradient with respect to pixels, from one with respect to the input.
    pub(super) fn gradient(&self, gradient: &Tensor) -> Result<Tensor> {
        if self.arithmetic == Arithmetic::Host {
            return for_type_of!(gradient, T => self.host_gradient::<T>(gradient));
        }
        // A channel order is its own inverse, since it is either the identity or reversed.
        self.reordered(&gradient.broadcast_mul(&self.scale)?)
    }

    fn host_input<T: Real>(&self, pixels: &Tensor) -> Result<Tensor> {
        let [_, channels, size] = host::planes(pixels)?;
        host::fill_like::<T>(pixels, size, |plane, pixels, input| {
            let (n, c) = (plane / channels, plane % channels);
            let (scale, shift) = self.affine[c];
            let (scale, shift) = (T::from_f64(scale), T::from_f64(shift));
            let source = n * channels + self.sources[c];
            for (x, &p) in input.iter_mut().zip(&pixels[source * size..][..size]) {
                *x = p * scale + shift;
            }
        })
    }

    fn host_gradient<T: Real>(&self, gradient: &Tensor) -> Result<Tensor> {
        let [_, channels, size] = host::planes(gradient)?;
        host::fill_like::<T>(gradient, size, |plane, values, pixels| {
            let (n, c) = (plane / channels, self.sources[plane % channels]);
            let scale = T::from_f64(self.affine[c].0);
            for (p, &g) in pixels.iter_mut().zip(&values[(n * channels + c) * size..][..size]) {
                *p = g * scale;
            }
        })
    }

    fn reordered(&self, x: &Tensor) -> Result<Tensor> {
        if self.sources.is_sorted() {
            return Ok(x.clone());
        }
        x.index_select(&self.order, 1)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::DType;

    use super::*;
    use crate::network::ChannelOrder;

    #[test]
    fn host_and_device_arithmetic_agree() {
        let preprocessing = Preprocessing {
            channels: ChannelOrder::Bgr,
            range: 255.0,
            mean: vec![104.0, 117.0, 123.0],
            std: vec![1.0, 2.0, 3.0],
        };
        let placement = Placement::new(&Device::Cpu, DType::F32);
        let host = Preprocessor::new(&preprocessing, &placement).unwrap();
        let device = Placement { arithmetic: Arithmetic::Device, ..placement };
        let device = Preprocessor::new(&preprocessing, &device).unwrap();
        let x = Tensor::rand(0f32, 1.0, (2, 3, 4, 5), &Device::Cpu).unwrap();
        let values = |tensor: Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values(host.to_input(&x).unwrap()), values(device.to_input(&x).unwrap()));
        assert_eq!(values(host.gradient(&x).unwrap()), values(device.gradient(&x).unwrap()));
    }
}
