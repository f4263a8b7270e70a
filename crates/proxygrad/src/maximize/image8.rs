//! 8-bit images and their PNG encoding.

use std::borrow::Cow;

use candle_core::{DType, Device, Result, Tensor};
use image::{ExtendedColorType, ImageEncoder};

/// An 8-bit image in row-major order, grey or RGB, optionally with transparency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Image8 {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) channels: usize,
    /// `[H,W,C]`.
    pub(super) values: Vec<u8>,
    /// `[H,W]`: 0 is transparent.
    pub(super) alpha: Option<Vec<u8>>,
}

/// Share of the pixels that are opaque: those with the highest saliency.
const OPAQUE: f64 = 0.2;

impl Image8 {
    /// Rounds pixels `[C,H,W]` in [0, 1] to levels 0..=255.
    pub(super) fn round(pixels: &Tensor) -> Result<Self> {
        let (channels, height, width) = pixels.dims3()?;
        let interleaved = pixels.permute((1, 2, 0))?.contiguous()?.flatten_all()?.to_dtype(DType::F32)?;
        let level = |p: f32| (p * 255.0).round().clamp(0.0, 255.0) as u8;
        let values = interleaved.to_vec1::<f32>()?.into_iter().map(level).collect();
        Ok(Self { height, width, channels, values, alpha: None })
    }

    /// Adds an alpha channel proportional to `saliency` `[H,W]`, which is not negative, in any unit. The share
    /// [`OPAQUE`] of the pixels with the highest saliency is opaque, so that a few outliers do not hide the rest
    /// (MACO's own plots clip at the 80th percentile). If all are 0, the whole image is opaque.
    pub(super) fn with_alpha_from(mut self, saliency: &[f32]) -> Self {
        let mut sorted = saliency.to_vec();
        sorted.sort_unstable_by(f32::total_cmp);
        let enough = sorted.get((sorted.len() as f64 * (1.0 - OPAQUE)) as usize).copied();
        let most = sorted.last().copied().unwrap_or(0.0);
        let alpha = |value: f32| match enough.filter(|&enough| enough > 0.0).unwrap_or(most) {
            0.0 => u8::MAX,
            full => (255.0 * value / full).round().min(255.0) as u8,
        };
        self.alpha = Some(saliency.iter().map(|&value| alpha(value)).collect());
        self
    }

    /// The 8-bit pixels `[C,H,W]` as values in [0, 1].
    pub(super) fn pixels(&self, device: &Device, dtype: DType) -> Result<Tensor> {
        let values: Vec<f32> = self.values.iter().map(|&v| f32::from(v) / 255.0).collect();
        let interleaved = Tensor::from_vec(values, (self.height, self.width, self.channels), &Device::Cpu)?;
        interleaved.permute((2, 0, 1))?.contiguous()?.to_dtype(dtype)?.to_device(device)
    }

    /// Reads the colours of a delivered PNG, 8-bit grey (1 channel) or RGB (3); transparency is dropped.
    pub(super) fn read(png: &[u8], channels: usize) -> std::result::Result<Self, image::ImageError> {
        let image = image::load_from_memory_with_format(png, image::ImageFormat::Png)?;
        let (height, width) = (image.height() as usize, image.width() as usize);
        let values = if channels == 1 { image.into_luma8().into_raw() } else { image.into_rgb8().into_raw() };
        Ok(Self { height, width, channels, values, alpha: None })
    }

    /// The 8-bit pixels as values in [0, 1]: `[C,H,W]`, row-major.
    pub(super) fn values_by_channel(&self) -> Vec<f64> {
        let plane = |c: usize| self.values.iter().skip(c).step_by(self.channels);
        // As f32, like the pixels that were scored.
        (0..self.channels).flat_map(plane).map(|&v| f64::from(f32::from(v) / 255.0)).collect()
    }

    /// Share of values at a limit of the range.
    pub(super) fn saturated(&self) -> f64 {
        let ends = self.values.iter().filter(|&&v| v == 0 || v == 255).count();
        ends as f64 / self.values.len().max(1) as f64
    }

    /// The PNG of this image.
    pub(super) fn png(&self) -> std::result::Result<Vec<u8>, image::ImageError> {
        let colour = match (self.channels, &self.alpha) {
            (1, None) => ExtendedColorType::L8,
            (1, Some(_)) => ExtendedColorType::La8,
            (_, None) => ExtendedColorType::Rgb8,
            (_, Some(_)) => ExtendedColorType::Rgba8,
        };
        let mut png = Vec::new();
        let encoder = image::codecs::png::PngEncoder::new(&mut png);
        let values = match &self.alpha {
            None => Cow::Borrowed(&self.values),
            Some(alpha) => {
                let pixels = self.values.chunks(self.channels).zip(alpha);
                Cow::Owned(pixels.flat_map(|(colours, &alpha)| colours.iter().copied().chain([alpha])).collect())
            }
        };
        encoder.write_image(&values, self.width as u32, self.height as u32, colour)?;
        Ok(png)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn transparency_leaves_colours_alone_and_does_not_mind_outliers() {
        let pixels = Tensor::arange(0f32, 60.0, &Device::Cpu).unwrap().affine(1.0 / 60.0, 0.0).unwrap();
        for channels in [1, 3] {
            let pixels = pixels.reshape((3, 4, 5)).unwrap().narrow(0, 0, channels).unwrap();
            let plain = Image8::round(&pixels).unwrap();
            let mut saliency: Vec<f32> = (0..20u8).map(f32::from).collect();
            saliency[19] = 1e9;
            let seen = plain.clone().with_alpha_from(&saliency);
            let alpha = seen.alpha.clone().unwrap();
            assert_eq!((alpha[0], alpha[8], alpha[16], alpha[19]), (0, 128, 255, 255));
            let png = image::load_from_memory(&seen.png().unwrap()).unwrap();
            assert!(png.color().has_alpha());
            let without = image::load_from_memory(&plain.png().unwrap()).unwrap();
            assert_eq!(png.to_rgb8(), without.to_rgb8());
            let shown: Vec<u8> = png.to_rgba8().pixels().map(|pixel| pixel.0[3]).collect();
            assert_eq!(shown, alpha);
        }
    }

    #[test]
    fn where_hardly_anything_was_looked_at_something_can_be_seen_still() {
        let plain = Image8::round(&Tensor::zeros((1, 4, 5), DType::F32, &Device::Cpu).unwrap()).unwrap();
        assert_eq!(plain.clone().with_alpha_from(&[0.0; 20]).alpha.unwrap(), [255; 20]);
        let mut saliency = [0.0; 20];
        saliency[3] = 2.0;
        let alpha = plain.with_alpha_from(&saliency).alpha.unwrap();
        assert_eq!((alpha[3], alpha[4]), (255, 0));
    }
}
