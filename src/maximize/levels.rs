//! 8-bit images: what is delivered.

use candle_core::{DType, Device, Result, Tensor};
use image::{ExtendedColorType, ImageEncoder};

/// An 8-bit image, rows of pixels, grey or RGB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Levels {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) channels: usize,
    /// `[H,W,C]`.
    pub(super) values: Vec<u8>,
}

impl Levels {
    /// Rounds pixels `[C,H,W]` in [0, 1] to levels 0..=255.
    pub(super) fn round(pixels: &Tensor) -> Result<Self> {
        let (channels, height, width) = pixels.dims3()?;
        let interleaved = pixels.permute((1, 2, 0))?.contiguous()?.flatten_all()?.to_dtype(DType::F32)?;
        let level = |p: f32| (p * 255.0).round().clamp(0.0, 255.0) as u8;
        let values = interleaved.to_vec1::<f32>()?.into_iter().map(level).collect();
        Ok(Self { height, width, channels, values })
    }

    /// The pixels `[C,H,W]` that a reader of the image sees, in [0, 1].
    pub(super) fn pixels(&self, device: &Device, dtype: DType) -> Result<Tensor> {
        let values: Vec<f32> = self.values.iter().map(|&v| f32::from(v) / 255.0).collect();
        let interleaved = Tensor::from_vec(values, (self.height, self.width, self.channels), &Device::Cpu)?;
        interleaved.permute((2, 0, 1))?.contiguous()?.to_dtype(dtype)?.to_device(device)
    }

    /// Reads a PNG as it is delivered, 8-bit grey or RGB.
    pub(super) fn read(png: &[u8]) -> std::result::Result<Self, image::ImageError> {
        let image = image::load_from_memory_with_format(png, image::ImageFormat::Png)?;
        let (height, width, channels) =
            (image.height() as usize, image.width() as usize, usize::from(image.color().channel_count()));
        Ok(Self { height, width, channels, values: image.into_bytes() })
    }

    /// The pixels that a reader of the image sees: `[C,H,W]` in [0, 1], row-major.
    pub(super) fn values_by_channel(&self) -> Vec<f64> {
        let plane = |c: usize| self.values.iter().skip(c).step_by(self.channels);
        // As f32, like the pixels that were scored.
        (0..self.channels).flat_map(plane).map(|&v| f64::from(f32::from(v) / 255.0)).collect()
    }

    /// Share of values at either end of the range.
    pub(super) fn saturated(&self) -> f64 {
        let ends = self.values.iter().filter(|&&v| v == 0 || v == 255).count();
        ends as f64 / self.values.len().max(1) as f64
    }

    /// The PNG of this image.
    pub(super) fn png(&self) -> std::result::Result<Vec<u8>, image::ImageError> {
        let colour = if self.channels == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
        let mut png = Vec::new();
        let encoder = image::codecs::png::PngEncoder::new(&mut png);
        encoder.write_image(&self.values, self.width as u32, self.height as u32, colour)?;
        Ok(png)
    }
}
