//! Reference images: client images, decoded and resized to the stimulus.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Device, Result as TensorResult, Tensor};
use image::imageops::{self, FilterType};
use image::{DynamicImage, ImageFormat};
use sha2::{Digest, Sha256};

use crate::Invalid;
use crate::image_file::{ImageHeader, Transparency};
use crate::maximize::error::MaximizeError;
use crate::maximize::image8::Image8;
use crate::network::{ImageSource, KnownImage, grey};

/// A client's image as 8 bits, with the size and channels of a stimulus.
#[derive(Clone, PartialEq, Eq)]
pub struct ReferenceImage {
    levels: Image8,
    png: Arc<[u8]>,
    sha256: String,
}

/// The reference images of a job by their digests.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReferenceImages(BTreeMap<String, Arc<ReferenceImage>>);

const EXPECTED: &str = "a PNG or JPEG file";

impl ReferenceImage {
    /// Reads a PNG or JPEG file and fits it to `[C,H,W]`: grey (ITU-R BT.601 luma) for one channel, RGB for three.
    ///
    /// Applies the EXIF orientation and blends transparency onto white. An image with another aspect ratio is
    /// center-cropped to that of the stimulus, then resized with a Lanczos filter with three lobes (widened when
    /// shrinking) on the stored values. An image of the right size is unchanged.
    ///
    /// # Errors
    /// When the file is not a PNG or JPEG, or has too many pixels: an `Invalid` without a field.
    pub fn read(file: &[u8], shape: [usize; 3]) -> Result<Self, Invalid> {
        let header = ImageHeader::read(file)?;
        let image = header.decode(file, Transparency::White)?;
        let [channels, height, width] = shape;
        let image = fitted(image, width as u32, height as u32);
        let values = match channels {
            1 => grey(image).into_raw(),
            _ => image.into_rgb8().into_raw(),
        };
        let invalid = |why| Invalid::new("", format!("{} bytes", file.len()), format!("{EXPECTED}: {why}"));
        Self::of(Image8 { height, width, channels, values, alpha: None }).map_err(invalid)
    }

    /// Reads the PNG of a reference image.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn from_png(png: &[u8]) -> Result<Self, image::ImageError> {
        let image = image::load_from_memory_with_format(png, ImageFormat::Png)?;
        let (width, height) = (image.width() as usize, image.height() as usize);
        let (channels, values) = match image {
            DynamicImage::ImageLuma8(grey) => (1, grey.into_raw()),
            image => (3, image.into_rgb8().into_raw()),
        };
        let levels = Image8 { height, width, channels, values, alpha: None };
        Ok(Self { levels, sha256: digest(png), png: png.into() })
    }

    fn of(levels: Image8) -> Result<Self, image::ImageError> {
        let png = levels.png()?;
        Ok(Self { levels, sha256: digest(&png), png: png.into() })
    }

    /// The image as a PNG.
    pub fn png(&self) -> &[u8] {
        &self.png
    }

    /// Its digest and size, as shown in documents.
    pub fn known(&self) -> KnownImage {
        let side = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
        KnownImage { sha256: self.sha256.clone(), width: side(self.levels.width), height: side(self.levels.height) }
    }

    /// Pixels `[C,H,W]` in [0, 1].
    pub(super) fn pixels(&self, device: &Device, dtype: DType) -> TensorResult<Tensor> {
        self.levels.pixels(device, dtype)
    }
}

impl std::fmt::Debug for ReferenceImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ReferenceImage({}, {}x{})", self.sha256, self.levels.width, self.levels.height)
    }
}

impl ReferenceImages {
    /// Adds an image unless it is already present.
    pub fn add(&mut self, picture: ReferenceImage) {
        self.0.insert(picture.sha256.clone(), Arc::new(picture));
    }

    /// The image with this SHA-256.
    pub fn get(&self, sha256: &str) -> Option<&Arc<ReferenceImage>> {
        self.0.get(sha256)
    }

    /// The image that a source names.
    pub(super) fn find(&self, source: &ImageSource) -> Result<&ReferenceImage, MaximizeError> {
        let found = match source {
            ImageSource::Known(image) => self.0.get(&image.sha256).map(|picture| &**picture),
            ImageSource::File(_) | ImageSource::Part(_) => None,
        };
        found.ok_or_else(|| MaximizeError::ReferenceImage(source.to_string()))
    }

    /// Every image, by its digest.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &ReferenceImage)> {
        self.0.iter().map(|(sha256, picture)| (sha256.as_str(), &**picture))
    }
}

fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Center-crops to the aspect ratio of `width` to `height`, then resizes to that size.
fn fitted(image: DynamicImage, width: u32, height: u32) -> DynamicImage {
    if (image.width(), image.height()) == (width, height) {
        return image;
    }
    let part = |own: u32, other: u32, side: u32, other_side: u32| {
        let exact = (u64::from(other) * u64::from(side) + u64::from(other_side) / 2) / u64::from(other_side.max(1));
        own.min(u32::try_from(exact).unwrap_or(u32::MAX)).max(1)
    };
    let wide = part(image.width(), image.height(), width, height);
    let high = part(image.height(), image.width(), height, width);
    let (left, top) = ((image.width() - wide) / 2, (image.height() - high) / 2);
    // Eight bits from here on: a filter over 16-bit values would only cost memory.
    match image.color().has_color() {
        true => resized(&image.into_rgb8(), [left, top, wide, high], width, height).into(),
        false => resized(&image.into_luma8(), [left, top, wide, high], width, height).into(),
    }
}

fn resized<P: image::Pixel<Subpixel = u8> + 'static>(
    image: &image::ImageBuffer<P, Vec<u8>>,
    [left, top, wide, high]: [u32; 4],
    width: u32,
    height: u32,
) -> image::ImageBuffer<P, Vec<u8>> {
    imageops::resize(&*imageops::crop_imm(image, left, top, wide, high), width, height, FilterType::Lanczos3)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Cursor;

    use image::{ExtendedColorType, ImageBuffer, ImageEncoder, Luma, LumaA, Rgb, Rgba};

    use super::*;

    fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut file = Cursor::new(Vec::new());
        image.write_to(&mut file, format).unwrap();
        file.into_inner()
    }

    fn png(image: impl Into<DynamicImage>) -> Vec<u8> {
        encoded(&image.into(), ImageFormat::Png)
    }

    /// Red at the top left, green at the top right, blue below.
    fn flag(width: u32, height: u32) -> DynamicImage {
        ImageBuffer::from_fn(width, height, |x, y| match (x < width / 2, y < height / 2) {
            (_, false) => Rgb([0u8, 0, 255]),
            (true, true) => Rgb([255, 0, 0]),
            (false, true) => Rgb([0, 255, 0]),
        })
        .into()
    }

    fn at(picture: &ReferenceImage, x: usize, y: usize) -> Vec<u8> {
        let Image8 { width, channels, values, .. } = &picture.levels;
        values[(y * width + x) * channels..][..*channels].to_vec()
    }

    #[test]
    fn an_image_that_fits_keeps_every_level() {
        let image = ImageBuffer::from_fn(5, 7, |x, y| Rgb([x as u8 * 9, y as u8 * 7, (x * y) as u8]));
        let picture = ReferenceImage::read(&png(image.clone()), [3, 7, 5]).unwrap();
        assert_eq!(picture.levels.values, image.into_raw());
        assert_eq!(ReferenceImage::from_png(picture.png()).unwrap(), picture);
        assert_eq!(picture.known().sha256, digest(picture.png()));
        assert_eq!((picture.known().width, picture.known().height), (5, 7));
        let pixels = picture.pixels(&Device::Cpu, DType::F32).unwrap();
        assert_eq!(pixels.dims(), [3, 7, 5]);
        assert_eq!(Image8::round(&pixels).unwrap(), picture.levels);
    }

    #[test]
    fn a_larger_image_is_cut_around_its_centre_and_shrunk() {
        // Black margins to the left and right of a square.
        let wide: DynamicImage = ImageBuffer::from_fn(90, 30, |x, y| match (30..60).contains(&x) {
            true => Rgb([(x * 3) as u8, 200, (y * 8) as u8]),
            false => Rgb([0, 0, 0]),
        })
        .into();
        let picture = ReferenceImage::read(&png(wide.clone()), [3, 10, 10]).unwrap();
        for (x, y) in [(0, 0), (9, 0), (0, 9), (9, 9), (5, 5)] {
            let [r, g, b] = at(&picture, x, y)[..] else { panic!("no colour") };
            let (red, blue) = ((30 + 3 * x + 1) * 3, (3 * y + 1) * 8);
            assert!(r.abs_diff(red as u8) < 8 && g > 195 && b.abs_diff(blue as u8) < 12, "{x} {y}: {r} {g} {b}");
        }
        let high = ReferenceImage::read(&png(wide.rotate90()), [3, 10, 10]).unwrap();
        assert!(at(&high, 0, 5)[1] > 195);
        for shape in [[3, 31, 17], [1, 9, 64], [3, 1, 1], [1, 200, 3]] {
            let picture = ReferenceImage::read(&png(wide.clone()), shape).unwrap();
            assert_eq!(picture.levels.values.len(), shape.iter().product::<usize>(), "{shape:?}");
        }
    }

    #[test]
    fn every_kind_of_png_and_jpeg_is_read() {
        let grey16 = ImageBuffer::from_pixel(4, 4, Luma([0x8000_u16]));
        let colour16 = ImageBuffer::from_pixel(4, 4, Rgb([0x4000_u16, 0x8000, 0xc000]));
        let half = ImageBuffer::from_pixel(4, 4, Rgba([255u8, 0, 0, 128]));
        let half_grey = ImageBuffer::from_pixel(4, 4, LumaA([0u8, 51]));
        let cases: [(Vec<u8>, [u8; 3]); 4] = [
            (png(DynamicImage::ImageLuma16(grey16)), [128; 3]),
            (png(DynamicImage::ImageRgb16(colour16)), [64, 128, 191]),
            (png(half), [255, 127, 127]),
            (png(half_grey), [204; 3]),
        ];
        for (file, expected) in cases {
            let picture = ReferenceImage::read(&file, [3, 2, 2]).unwrap();
            let found = at(&picture, 1, 1);
            assert!(found.iter().zip(expected).all(|(a, b)| a.abs_diff(b) <= 1), "{found:?}, not {expected:?}");
        }
        let jpeg = ReferenceImage::read(&encoded(&flag(64, 64), ImageFormat::Jpeg), [3, 16, 16]).unwrap();
        assert!(at(&jpeg, 2, 2)[0] > 240 && at(&jpeg, 13, 2)[1] > 240 && at(&jpeg, 8, 13)[2] > 240);
        let grey = ReferenceImage::read(&png(flag(8, 8)), [1, 8, 8]).unwrap();
        assert_eq!(grey.levels.values.len(), 64);
        assert!(
            at(&grey, 7, 0) > at(&grey, 0, 0) && at(&grey, 0, 0) > at(&grey, 0, 7),
            "green is brightest, blue darkest"
        );
    }

    #[test]
    fn a_photo_is_turned_as_its_camera_was_held() {
        let mut file = Vec::new();
        let mut encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut file, 95);
        // Orientation 6: the image is shown rotated by 90 degrees clockwise.
        let exif = b"II\x2a\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
        encoder.set_exif_metadata(exif.to_vec()).unwrap();
        let flag = flag(64, 64).into_rgb8();
        encoder.write_image(&flag, 64, 64, ExtendedColorType::Rgb8).unwrap();
        let picture = ReferenceImage::read(&file, [3, 16, 16]).unwrap();
        assert!(at(&picture, 2, 8)[2] > 200, "what was below is to the left: {:?}", at(&picture, 2, 8));
        assert!(at(&picture, 13, 2)[0] > 200, "what was to the left is above: {:?}", at(&picture, 13, 2));
    }

    /// A tiny PNG whose header claims this size.
    fn bomb(width: u32, height: u32) -> Vec<u8> {
        let mut file = png(ImageBuffer::from_pixel(1, 1, Luma([0u8])));
        file[16..20].copy_from_slice(&width.to_be_bytes());
        file[20..24].copy_from_slice(&height.to_be_bytes());
        let mut crc = flate2::Crc::new();
        crc.update(&file[12..29]);
        file[29..33].copy_from_slice(&crc.sum().to_be_bytes());
        file
    }

    #[test]
    fn what_is_no_image_or_too_large_is_refused() {
        let whole = png(flag(40, 40));
        let jpeg = encoded(&flag(40, 40), ImageFormat::Jpeg);
        let cut = &whole[..whole.len() / 2];
        let mut flipped = whole.clone();
        flipped[60] ^= 0xff;
        for (what, file, part) in [
            ("nothing", &b""[..], "PNG or JPEG"),
            ("text", b"hello", "PNG or JPEG"),
            ("a GIF", b"GIF89a\x01\0\x01\0\0\0\0;", "PNG or JPEG"),
            ("a PNG cut short", cut, "PNG or JPEG"),
            ("a damaged PNG", &flipped, "PNG or JPEG"),
            ("a JPEG cut off in its head", &jpeg[..20], "PNG or JPEG"),
            ("a bomb", &bomb(60_000, 60_000), "pixels"),
            ("a wide bomb", &bomb(100_000, 4), "pixels"),
            ("a large lie", &bomb(8_000, 8_000), "PNG or JPEG"),
        ] {
            let error = ReferenceImage::read(file, [3, 8, 8]).unwrap_err();
            assert!(error.field.is_empty() && error.expected.contains(part), "{what}: {error}");
        }
    }
}
