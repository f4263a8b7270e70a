//! Changes of brightness, contrast and saturation.

use crate::maximize::ops::host::Real;

/// Maps every value `x` of a pixel to `of_own * x + of_mean * mean + shift`, where `mean` is over the pixel's channels.
/// Without the shift, the map is self-adjoint.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Colour {
    pub(super) of_own: f32,
    pub(super) of_mean: f32,
    pub(super) shift: f32,
}

impl Colour {
    pub(super) const IDENTITY: Self = Self { of_own: 1.0, of_mean: 0.0, shift: 0.0 };

    /// Scales distances from the channel mean by `saturation`, then distances from middle grey by `contrast`, then adds
    /// `brightness`.
    pub(super) fn new(brightness: f32, contrast: f32, saturation: f32) -> Self {
        Self {
            of_own: contrast * saturation,
            of_mean: contrast * (1.0 - saturation),
            shift: brightness + 0.5 * (1.0 - contrast),
        }
    }

    /// Applies the map, or its adjoint (the map without the shift), to an image of `channels` planes.
    pub(super) fn run<T: Real>(self, channels: usize, adjoint: bool, image: &[T], changed: &mut [T]) {
        let real = |x: f32| T::from_f64(f64::from(x));
        let (own, shift) = (real(self.of_own), real(if adjoint { 0.0 } else { self.shift }));
        let of_each = T::from_f64(f64::from(self.of_mean) / channels as f64);
        let area = image.len() / channels.max(1);
        let mut common = vec![shift; area];
        for plane in image.chunks_exact(area.max(1)) {
            common.iter_mut().zip(plane).for_each(|(sum, &x)| *sum += of_each * x);
        }
        for (changed, plane) in changed.chunks_exact_mut(area.max(1)).zip(image.chunks_exact(area.max(1))) {
            changed.iter_mut().zip(plane).zip(&common).for_each(|((y, &x), &common)| *y = own * x + common);
        }
    }
}
