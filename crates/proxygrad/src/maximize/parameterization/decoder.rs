//! Image decoder: from parameters to pixels, and its adjoint.
//!
//! Every map from parameters to pixels has an exact adjoint, which turns gradients with respect to pixels into
//! gradients with respect to parameters. The host uses loops and FFTs, other devices tensor operations.

#[cfg(test)]
mod tests;

use candle_core::{DType, Device, Result, Tensor};
use rand::{Rng, RngExt};

use super::document::{Parameterization, ParameterizationKind, SpectrumKind};
use super::mixing::Mixing;
use super::spectral::{Spectral, frequencies};
use super::{circle, magnitude};
use crate::maximize::error::MaximizeError;
use crate::maximize::ops::Placement;
use crate::maximize::reference_image::ReferenceImages;
use crate::maximize::start::Start;
use crate::network::{ColourMatrix, Spectrum};
use crate::random::normal;

/// Decoder of images of one size.
#[derive(Debug)]
pub(in crate::maximize) struct ImageDecoder {
    /// `[C,H,W]` of an image.
    image: [usize; 3],
    placement: Placement,
    mapping: Mapping,
}

/// Map from parameters to pixels.
#[derive(Debug)]
enum Mapping {
    /// Parameters are pixels.
    Pixel,
    /// Parameters are coefficients `[N,2C,H,W/2+1]`, real parts first.
    Fourier(Spectral, Mixing),
    /// Parameters are phases `[N,C,H,W/2+1]` in radians.
    Maco(Spectral, Mixing),
}

impl ImageDecoder {
    /// For images `[C,H,W]`; `measured` is the model's spectrum, if it has one.
    pub(in crate::maximize) fn new(
        parameterization: &Parameterization,
        measured: Option<&Spectrum>,
        image: [usize; 3],
        placement: &Placement,
    ) -> Result<Self> {
        let [channels, height, width] = image;
        let colour = match &parameterization.colour {
            Some(colour) => colour.matrix(channels).map_err(candle_core::Error::wrap)?.into_owned(),
            None => ColourMatrix::identity(channels),
        };
        let decay = parameterization.decay_power.unwrap_or(Parameterization::DECAY_POWER);
        let maps = |scales: Vec<f64>| {
            Ok::<_, candle_core::Error>((Spectral::new(image, scales, placement)?, Mixing::new(&colour, placement)?))
        };
        let mapping = match parameterization.kind {
            ParameterizationKind::Pixel => Mapping::Pixel,
            ParameterizationKind::Fourier => {
                let (spectral, mixing) = maps(falling(image, decay))?;
                Mapping::Fourier(spectral, mixing)
            }
            ParameterizationKind::Maco => {
                let magnitudes = match (parameterization.spectrum, measured) {
                    (Some(SpectrumKind::Measured), Some(spectrum))
                        if Some(spectrum.digest()) == parameterization.spectrum_digest.as_deref() =>
                    {
                        magnitude::measured(spectrum, [height, width])
                    }
                    (Some(SpectrumKind::Measured), _) => {
                        candle_core::bail!("the model's measured spectrum is not the one that was asked for")
                    }
                    _ => magnitude::natural([height, width], decay).repeat(channels),
                };
                let contrast = parameterization.contrast.unwrap_or(Parameterization::CONTRAST);
                let (spectral, mixing) = maps(magnitude::fixed(&magnitudes, image, contrast))?;
                Mapping::Maco(spectral, mixing)
            }
        };
        Ok(Self { image, placement: placement.clone(), mapping })
    }

    /// Whether parameters are pixels, to be kept in [0, 1].
    pub(in crate::maximize) fn is_pixel(&self) -> bool {
        matches!(self.mapping, Mapping::Pixel)
    }

    /// Draws the parameters of one image before the first step.
    ///
    /// # Errors
    /// When the start is an image that is not among `reference_images`.
    pub(in crate::maximize) fn draw(
        &self,
        start: &Start,
        reference_images: &ReferenceImages,
        rng: &mut impl Rng,
    ) -> std::result::Result<Tensor, MaximizeError> {
        let [channels, height, width] = self.image;
        let half = width / 2 + 1;
        match (&self.mapping, start) {
            (Mapping::Fourier(..), Start::Grey { noise }) => {
                let values = (0..2 * channels * height * half).map(|_| noise * normal(rng) as f32).collect();
                Ok(self.tensor(values, [2 * channels, height, half])?)
            }
            (Mapping::Maco(..), Start::Uniform) => {
                let phase = |_| std::f32::consts::PI * (2.0 * rng.random::<f32>() - 1.0);
                let values = (0..channels * height * half).map(phase).collect();
                Ok(self.tensor(values, [channels, height, half])?)
            }
            (_, start) => Ok(self.encode(&start.draw(
                rng,
                self.image,
                reference_images,
                &self.placement.device,
                self.placement.dtype,
            )?)?),
        }
    }

    fn tensor(&self, values: Vec<f32>, shape: [usize; 3]) -> Result<Tensor> {
        Tensor::from_vec(values, &shape[..], &Device::Cpu)?
            .to_dtype(self.placement.dtype)?
            .to_device(&self.placement.device)
    }

    /// Parameters of the image with these pixels `[C,H,W]`. Exact for pixels; for coefficients up to rounding and the
    /// clamping of black and white; for phases up to their fixed magnitudes.
    pub(in crate::maximize) fn encode(&self, pixels: &Tensor) -> Result<Tensor> {
        let (Mapping::Fourier(spectral, mixing) | Mapping::Maco(spectral, mixing)) = &self.mapping else {
            return Ok(pixels.clone());
        };
        let pixels = pixels.unsqueeze(0)?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
        let coefficients = spectral.in_main_memory()?.invert(&mixing.strip(&pixels)?)?;
        let parameters = match &self.mapping {
            Mapping::Maco(..) => circle::phases(&coefficients)?,
            _ => coefficients,
        };
        parameters.squeeze(0)?.to_dtype(self.placement.dtype)?.to_device(&self.placement.device)
    }

    /// Decodes parameters to pixels `[N,C,H,W]` in [0, 1].
    pub(in crate::maximize) fn decode(&self, parameters: &Tensor) -> Result<Tensor> {
        match &self.mapping {
            Mapping::Pixel => Ok(parameters.clone()),
            Mapping::Fourier(spectral, mixing) => mixing.paint(&spectral.synthesize(parameters)?),
            Mapping::Maco(spectral, mixing) => {
                mixing.paint(&spectral.synthesize(&circle::coefficients(parameters, self.placement.arithmetic)?)?)
            }
        }
    }

    /// Gradient with respect to the parameters, from the one with respect to their decoded `pixels`.
    pub(in crate::maximize) fn gradient(
        &self,
        parameters: &Tensor,
        pixels: &Tensor,
        gradient: &Tensor,
    ) -> Result<Tensor> {
        match &self.mapping {
            Mapping::Pixel => Ok(gradient.clone()),
            Mapping::Fourier(spectral, mixing) => spectral.adjoint(&mixing.gradient(pixels, gradient)?),
            Mapping::Maco(spectral, mixing) => {
                let gradient = spectral.adjoint(&mixing.gradient(pixels, gradient)?)?;
                circle::gradient(parameters, &gradient, self.placement.arithmetic)
            }
        }
    }
}

/// Scales that decay with a power of the frequency, as in Lucid (`lucid/optvis/param/spatial.py`), whose step sizes and
/// noise apply here unchanged: `1 / max(f, 1 / max(H, W))^decay / (4 sqrt(H W))`, for all channels.
fn falling([channels, height, width]: [usize; 3], decay: f32) -> Vec<f64> {
    let lowest = 1.0 / height.max(width) as f64;
    let common = 0.25 / ((height * width) as f64).sqrt();
    let scale = |f: f64| common / f.max(lowest).powf(f64::from(decay));
    frequencies([height, width]).into_iter().map(scale).collect::<Vec<f64>>().repeat(channels)
}
