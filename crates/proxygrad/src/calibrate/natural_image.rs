//! A natural image, read from its file and fitted to the network's input.

use std::io::Cursor;
use std::path::Path;

use image::imageops::FilterType;
use image::{DynamicImage, ImageFormat};

use super::memory_budget;
use crate::image_file::{ImageHeader, Transparency};
use crate::network::{ChannelOrder, Preprocessing, grey};

/// An 8-bit image of the network's input size, grey or RGB.
pub(crate) struct NaturalImage(DynamicImage);

impl NaturalImage {
    /// Reads a PNG or JPEG, applies its EXIF orientation, scales it (triangle filter) to cover height and width `size`,
    /// and center-crops it. Transparency is ignored; colours become grey as ITU-R BT.601 luma.
    ///
    /// # Errors
    /// Why the file cannot be read as an image.
    pub(super) fn read(file: &Path, [height, width]: [usize; 2], channels: ChannelOrder) -> Result<Self, String> {
        let bytes = std::fs::read(file).map_err(|e| e.to_string())?;
        // The format is detected from the content; the file name may be wrong.
        let header =
            ImageHeader::read(&bytes).map_err(|invalid| format!("{}, not {}", invalid.value, invalid.expected))?;
        let _permit = memory_budget::DECODING.acquire(header.memory([height, width]));
        let image = header.decode(&bytes, Transparency::Ignored).map_err(|invalid| invalid.expected)?;
        Ok(Self::fitted(image, [height, width], channels))
    }

    /// Scales an image to cover height and width `size` and center-crops it; transparency is ignored.
    pub(crate) fn fitted(image: DynamicImage, [height, width]: [usize; 2], channels: ChannelOrder) -> Self {
        let image = match channels {
            ChannelOrder::Grey => DynamicImage::ImageLuma8(grey(image)),
            ChannelOrder::Rgb | ChannelOrder::Bgr => DynamicImage::ImageRgb8(image.into_rgb8()),
        };
        Self(image.resize_to_fill(width as u32, height as u32, FilterType::Triangle))
    }

    /// The network's input `[C,H,W]`.
    pub(crate) fn input(&self, preprocessing: &Preprocessing) -> Vec<f32> {
        let levels = self.0.as_bytes();
        let affine = preprocessing.affine();
        let channels = affine.len();
        let plane = |(c, (scale, shift)): (usize, (f64, f64))| {
            let (scale, shift) = (scale as f32, shift as f32);
            let source = preprocessing.channels.source(c);
            levels.iter().skip(source).step_by(channels).map(move |&level| f32::from(level) / 255.0 * scale + shift)
        };
        affine.into_iter().enumerate().flat_map(plane).collect()
    }

    /// Encodes the image as a PNG.
    pub(super) fn png(&self) -> Result<Vec<u8>, String> {
        let mut bytes = Cursor::new(Vec::new());
        self.0.write_to(&mut bytes, ImageFormat::Png).map_err(|e| e.to_string())?;
        Ok(bytes.into_inner())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use image::{Rgb, RgbImage};

    use super::*;

    #[test]
    fn an_image_is_center_cropped_and_in_the_networks_channels() {
        let folder = tempfile::tempdir().unwrap();
        // Three squares in a row: only the colour of the middle one remains.
        let image = RgbImage::from_fn(60, 20, |x, _| match x / 20 {
            1 => Rgb([255, 51, 0]),
            _ => Rgb([9, 9, 9]),
        });
        for name in ["photo.png", "photo.jpeg", "lies.png"] {
            let format = if name == "photo.png" { ImageFormat::Png } else { ImageFormat::Jpeg };
            image.save_with_format(folder.path().join(name), format).unwrap();
            let photo = NaturalImage::read(&folder.path().join(name), [5, 5], ChannelOrder::Bgr).unwrap();
            let preprocessing = Preprocessing {
                channels: ChannelOrder::Bgr,
                range: 255.0,
                mean: vec![0.0, 1.0, 255.0],
                std: vec![1.0, 2.0, 1.0],
            };
            let input = photo.input(&preprocessing);
            assert_eq!(input.len(), 75);
            let within = if format == ImageFormat::Png { 1e-3 } else { 12.0 };
            for (c, expected) in [(0, 0.0), (1, 25.0), (2, 0.0)] {
                let value = input[c * 25 + 12];
                assert!((value - expected).abs() < within, "{name}, channel {c}: {value}");
            }
            let png = image::load_from_memory(&photo.png().unwrap()).unwrap();
            assert_eq!((png.width(), png.height()), (5, 5));
        }
        let grey = NaturalImage::read(&folder.path().join("photo.png"), [4, 7], ChannelOrder::Grey).unwrap();
        assert_eq!(grey.input(&Preprocessing::unit_range(1).unwrap()).len(), 28);
    }

    #[test]
    fn unreadable_images_say_why() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.png");
        for bytes in [&b""[..], b"GIF89a", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"] {
            std::fs::write(&file, bytes).unwrap();
            assert!(!NaturalImage::read(&file, [4, 4], ChannelOrder::Rgb).err().unwrap().is_empty());
        }
        assert!(NaturalImage::read(&folder.path().join("none.png"), [4, 4], ChannelOrder::Rgb).is_err());
    }
}
