//! Bounded decoding of untrusted PNG and JPEG files to 8 bits per channel.
//!
//! A small file can contain a huge image, so the size is read from the header before decoding. PNGs are decoded row by
//! row to 8 bits per channel, so that memory is at most three bytes per pixel at any bit depth.

use std::io::Cursor;

use image::metadata::Orientation;
use image::{ColorType, DynamicImage, GrayImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage, RgbaImage};
use png::{BitDepth, Transformations};

use crate::Invalid;

/// Largest width or height of an image file in pixels.
const MAX_SIDE: u32 = 16_384;
/// Maximum number of pixels of an image file: more than cameras produce.
pub(crate) const MAX_PIXELS: u64 = 1 << 26;
/// Maximum memory for decoding an image file in bytes, not counting resizing.
const MAX_MEMORY: u64 = 1 << 30;

/// Header of an image file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageHeader {
    format: ImageFormat,
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Peak memory of decoding in bytes per pixel.
    bytes_per_pixel: u64,
    /// Whether the file can be decoded row by row.
    by_row: bool,
}

/// Treatment of transparent pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transparency {
    /// Blended onto white.
    White,
    /// Stored colours without alpha.
    Ignored,
}

impl ImageHeader {
    /// Reads the header of a PNG or JPEG.
    ///
    /// # Errors
    /// When the file is neither or is broken, or its image is too large: an [`Invalid`] with an empty field.
    pub(crate) fn read(file: &[u8]) -> Result<Self, Invalid> {
        let header = match image::guess_format(file) {
            Ok(ImageFormat::Png) => Self::of_png(file).map_err(|why| unreadable(file, &why)),
            Ok(ImageFormat::Jpeg) => Self::of_jpeg(file).map_err(|why| unreadable(file, &why)),
            _ => Err(Invalid::new("", format!("{} bytes", file.len()), EXPECTED)),
        }?;
        let Self { width, height, .. } = header;
        if width > MAX_SIDE || height > MAX_SIDE || header.pixels() > MAX_PIXELS {
            let expected = format!("at most {MAX_SIDE} pixels a side and {MAX_PIXELS} pixels in all");
            return Err(Invalid::new("", format!("{width}x{height} pixels"), expected));
        }
        if header.decoded_bytes() > MAX_MEMORY {
            let found = format!("{width}x{height} pixels, {} bytes decoded", header.decoded_bytes());
            return Err(Invalid::new("", found, format!("an image that takes at most {MAX_MEMORY} bytes")));
        }
        Ok(header)
    }

    fn of_png(file: &[u8]) -> Result<Self, String> {
        let mut decoder = png::Decoder::new(Cursor::new(file));
        let info = decoder.read_header_info().map_err(|why| why.to_string())?;
        let grey = matches!(info.color_type, png::ColorType::Grayscale | png::ColorType::GrayscaleAlpha);
        let bytes_per_pixel = match (info.interlaced, grey) {
            (false, true) => 1,
            (false, false) => 3,
            // The whole image at its own bit depth with alpha, in 8 bits with alpha, and in 8 bits without.
            (true, true) => 2 * depth(info.bit_depth) + 2 + 1,
            (true, false) => 4 * depth(info.bit_depth) + 4 + 3,
        };
        let (width, height, by_row) = (info.width, info.height, !info.interlaced);
        Ok(Self { format: ImageFormat::Png, width, height, bytes_per_pixel, by_row })
    }

    fn of_jpeg(file: &[u8]) -> Result<Self, String> {
        let mut decoder = reader(file, ImageFormat::Jpeg).into_decoder().map_err(|why| why.to_string())?;
        let (width, height) = decoder.dimensions();
        let channels = if decoder.color_type() == ColorType::L8 { 1 } else { 3 };
        // With several scans, coefficients of two bytes for up to four components; a rotated image is copied.
        let coefficients = if has_one_scan(file) { 0 } else { 2 * 4 };
        let upright = decoder.orientation().is_ok_and(|orientation| orientation == Orientation::NoTransforms);
        let bytes_per_pixel = channels + coefficients + if upright { 0 } else { channels };
        Ok(Self { format: ImageFormat::Jpeg, width, height, bytes_per_pixel, by_row: false })
    }

    /// Number of pixels.
    pub(crate) fn pixels(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }

    fn decoded_bytes(&self) -> u64 {
        self.pixels() * self.bytes_per_pixel
    }

    /// Maximum memory in bytes for decoding the image and resizing it to a height and width.
    pub(crate) fn memory(&self, [height, width]: [usize; 2]) -> u64 {
        // Resizing rows first needs four f32 per pixel of the original columns and the new rows; for rotated images
        // columns and rows are swapped.
        let longer = u64::from(self.width.max(self.height));
        let (height, width) = (height as u64, width as u64);
        self.decoded_bytes() + 16 * longer * height + 16 * width * height
    }

    /// Decodes `file` to 8-bit grey or RGB and applies its EXIF orientation.
    ///
    /// # Errors
    /// When the file is broken.
    pub(crate) fn decode(&self, file: &[u8], transparency: Transparency) -> Result<DynamicImage, Invalid> {
        let (image, orientation) = match self.by_row {
            true => decode_rows(file, transparency).map_err(|why| unreadable(file, &why))?,
            false => decode_whole(file, self.format, transparency).map_err(|why| unreadable(file, &why.to_string()))?,
        };
        let mut image = image;
        image.apply_orientation(orientation);
        Ok(image)
    }
}

const EXPECTED: &str = "a PNG or JPEG file";

fn unreadable(file: &[u8], why: &str) -> Invalid {
    Invalid::new("", format!("{} bytes", file.len()), format!("{EXPECTED}: {why}"))
}

/// Whether a JPEG stores all components in one scan (ITU-T T.81, annex B: a frame that is not progressive, and a first
/// scan with all components of the frame).
fn has_one_scan(file: &[u8]) -> bool {
    let (mut at, mut components) = (2, None);
    while let Some(&[0xff, marker, high, low, ..]) = file.get(at..) {
        let segment = at + 4;
        match marker {
            // A fill byte.
            0xff => {
                at += 1;
                continue;
            }
            0xc0 | 0xc1 => components = file.get(segment + 5),
            0xc2..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => return false,
            0xda => return components.is_some() && components == file.get(segment),
            _ => {}
        }
        at += 2 + usize::from(u16::from_be_bytes([high, low]));
    }
    false
}

/// Bytes per channel.
fn depth(depth: BitDepth) -> u64 {
    if depth == BitDepth::Sixteen { 2 } else { 1 }
}

fn reader(file: &[u8], format: ImageFormat) -> ImageReader<Cursor<&[u8]>> {
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_MEMORY);
    let mut reader = ImageReader::with_format(Cursor::new(file), format);
    reader.limits(limits);
    reader
}

/// Decodes a whole image at once.
fn decode_whole(
    file: &[u8],
    format: ImageFormat,
    transparency: Transparency,
) -> Result<(DynamicImage, Orientation), image::ImageError> {
    let mut decoder = reader(file, format).into_decoder()?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let image = DynamicImage::from_decoder(decoder)?;
    let (alpha, colour) = (image.color().has_alpha(), image.color().has_color());
    let image: DynamicImage = if alpha && transparency == Transparency::White {
        let mut image: RgbaImage = image.into_rgba8();
        for pixel in image.pixels_mut() {
            let [r, g, b, alpha] = pixel.0;
            pixel.0 = [over_white(r, alpha), over_white(g, alpha), over_white(b, alpha), u8::MAX];
        }
        image.into()
    } else {
        image
    };
    Ok((if colour { image.into_rgb8().into() } else { image.into_luma8().into() }, orientation))
}

/// Decodes a PNG that is not interlaced, row by row.
fn decode_rows(file: &[u8], transparency: Transparency) -> Result<(DynamicImage, Orientation), String> {
    let broken = |why: png::DecodingError| why.to_string();
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(file), png::Limits { bytes: MAX_MEMORY as usize });
    decoder.set_transformations(Transformations::EXPAND);
    let mut reader = decoder.read_info().map_err(broken)?;
    let info = reader.info();
    let orientation = info.exif_metadata.as_ref().and_then(|exif| Orientation::from_exif_chunk(exif));
    let (width, height) = (info.width, info.height);
    let (colour_type, bits) = reader.output_color_type();
    let (channels, alpha) = match colour_type {
        png::ColorType::Grayscale => (1, false),
        png::ColorType::GrayscaleAlpha => (1, true),
        png::ColorType::Rgb => (3, false),
        png::ColorType::Rgba => (3, true),
        png::ColorType::Indexed => return Err("the palette is missing".into()),
    };
    let is_16_bit = bits == BitDepth::Sixteen;
    let pixel = (channels + usize::from(alpha)) * if is_16_bit { 2 } else { 1 };
    let size = width as usize * height as usize * channels;
    let mut levels = Vec::new();
    // Reserved memory is not committed: a truncated file costs nothing.
    levels.try_reserve_exact(size).map_err(|why| why.to_string())?;
    for _ in 0..height {
        let row = reader.next_row().map_err(broken)?.ok_or("rows are missing")?;
        for pixel in row.data().chunks_exact(pixel) {
            let level = |i: usize| if is_16_bit { eight_bits([pixel[2 * i], pixel[2 * i + 1]]) } else { pixel[i] };
            match alpha && transparency == Transparency::White {
                true => levels.extend((0..channels).map(|i| over_white(level(i), level(channels)))),
                false => levels.extend((0..channels).map(level)),
            }
        }
    }
    let image = match channels {
        1 => GrayImage::from_raw(width, height, levels).map(DynamicImage::from),
        _ => RgbImage::from_raw(width, height, levels).map(DynamicImage::from),
    };
    Ok((image.ok_or("rows are too short")?, orientation.unwrap_or(Orientation::NoTransforms)))
}

/// Rounds a 16-bit big-endian level to 8 bits.
fn eight_bits(level: [u8; 2]) -> u8 {
    ((u32::from(u16::from_be_bytes(level)) + 128) / 257) as u8
}

/// Blends a level onto white.
fn over_white(level: u8, alpha: u8) -> u8 {
    let (level, alpha) = (u32::from(level), u32::from(alpha));
    ((level * alpha + 255 * (255 - alpha) + 127) / 255) as u8
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use image::{ImageBuffer, Luma, LumaA, Rgb, Rgba};

    use super::*;

    fn png(image: impl Into<DynamicImage>) -> Vec<u8> {
        let mut file = Cursor::new(Vec::new());
        image.into().write_to(&mut file, ImageFormat::Png).unwrap();
        file.into_inner()
    }

    fn wave(x: u32, y: u32, c: u32) -> u16 {
        ((x * 7919 + y * 104_729 + c * 1_299_709) % 65_536) as u16
    }

    /// An image of every PNG color type and bit depth 8 or 16, except palettes.
    fn kinds() -> Vec<DynamicImage> {
        let low = |x, y, c| (wave(x, y, c) >> 8) as u8;
        vec![
            ImageBuffer::from_fn(7, 5, |x, y| Luma([low(x, y, 0)])).into(),
            ImageBuffer::from_fn(7, 5, |x, y| LumaA([low(x, y, 0), low(x, y, 1)])).into(),
            ImageBuffer::from_fn(7, 5, |x, y| Rgb([0, 1, 2].map(|c| low(x, y, c)))).into(),
            ImageBuffer::from_fn(7, 5, |x, y| Rgba([0, 1, 2, 3].map(|c| low(x, y, c)))).into(),
            DynamicImage::ImageLuma16(ImageBuffer::from_fn(7, 5, |x, y| Luma([wave(x, y, 0)]))),
            DynamicImage::ImageLumaA16(ImageBuffer::from_fn(7, 5, |x, y| LumaA([0, 1].map(|c| wave(x, y, c))))),
            DynamicImage::ImageRgb16(ImageBuffer::from_fn(7, 5, |x, y| Rgb([0, 1, 2].map(|c| wave(x, y, c))))),
            DynamicImage::ImageRgba16(ImageBuffer::from_fn(7, 5, |x, y| Rgba([0, 1, 2, 3].map(|c| wave(x, y, c))))),
        ]
    }

    #[test]
    fn row_by_row_equals_the_whole_image() {
        for image in kinds() {
            let (kind, file) = (image.color(), png(image.clone()));
            let header = ImageHeader::read(&file).unwrap();
            assert!(header.by_row && (header.width, header.height) == (7, 5));
            for transparency in [Transparency::White, Transparency::Ignored] {
                let found = header.decode(&file, transparency).unwrap();
                let (expected, _) = decode_whole(&file, ImageFormat::Png, transparency).unwrap();
                assert_eq!(found, expected, "{kind:?}, {transparency:?}");
            }
            let ignored = header.decode(&file, Transparency::Ignored).unwrap();
            assert_eq!(ignored.to_rgb8(), image.to_rgb8(), "{kind:?}");
        }
    }

    #[test]
    fn small_depths_and_palettes_are_levels() {
        // Two bits of grey, and a palette of two colours, the second half transparent.
        let packed = |colour: png::ColorType, depth: BitDepth, data: &[u8]| {
            let mut file = Vec::new();
            let mut encoder = png::Encoder::new(&mut file, 4, 1);
            encoder.set_color(colour);
            encoder.set_depth(depth);
            if colour == png::ColorType::Indexed {
                encoder.set_palette(vec![255, 0, 0, 0, 0, 255]);
                encoder.set_trns(vec![255, 128]);
            }
            encoder.write_header().unwrap().write_image_data(data).unwrap();
            ImageHeader::read(&file).unwrap().decode(&file, Transparency::White).unwrap()
        };
        let grey = packed(png::ColorType::Grayscale, BitDepth::Two, &[0b0001_1011]);
        assert_eq!(grey.as_bytes(), [0, 85, 170, 255]);
        let colours = packed(png::ColorType::Indexed, BitDepth::One, &[0b0100_0000]);
        assert_eq!(colours.as_bytes()[..6], [255, 0, 0, 127, 127, 255]);
    }

    #[test]
    fn scans_of_a_jpeg_are_counted_by_its_header() {
        let mut file = Cursor::new(Vec::new());
        DynamicImage::from(RgbImage::new(20, 10)).write_to(&mut file, ImageFormat::Jpeg).unwrap();
        let mut file = file.into_inner();
        assert_eq!(ImageHeader::read(&file).unwrap().decoded_bytes(), 600);
        let frame = file.windows(2).position(|bytes| bytes == [0xff, 0xc0]).unwrap();
        file[frame + 1] = 0xc2;
        assert!(!has_one_scan(&file), "progressive");
        assert_eq!(ImageHeader::read(&file).unwrap().decoded_bytes(), 200 * (3 + 8));
        assert!(!has_one_scan(&file[..frame]) && !has_one_scan(b"") && !has_one_scan(&[0xff; 9]), "cut off");
    }

    #[test]
    fn memory_counts_decoded_and_not_stored_bytes() {
        let deep = png(DynamicImage::ImageRgba16(ImageBuffer::from_pixel(100, 50, Rgba([9, 9, 9, 9]))));
        let header = ImageHeader::read(&deep).unwrap();
        assert_eq!((header.pixels(), header.decoded_bytes()), (5000, 15_000));
        assert_eq!(header.memory([10, 20]), 15_000 + 16 * 100 * 10 + 16 * 200);
        // The same file, marked as interlaced.
        let mut interlaced = deep;
        interlaced[28] = 1;
        let mut crc = flate2::Crc::new();
        crc.update(&interlaced[12..29]);
        interlaced[29..33].copy_from_slice(&crc.sum().to_be_bytes());
        assert_eq!(ImageHeader::read(&interlaced).unwrap().decoded_bytes(), 5000 * (8 + 4 + 3));
    }
}
