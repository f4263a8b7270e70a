//! Image files of others, PNG and JPEG: how large they are, and their pixels in eight bits, within bounds.
//!
//! A small file can hold a huge image, so sizes are read from the head before anything is unpacked. PNGs are unpacked row by
//! row, straight into eight bits a channel: however deep a file is, memory holds three bytes a pixel.

use std::io::Cursor;

use image::metadata::Orientation;
use image::{ColorType, DynamicImage, GrayImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage, RgbaImage};
use png::{BitDepth, Transformations};

use crate::Invalid;

/// Greatest width or height of an image file in pixels.
const GREATEST_SIDE: u32 = 16_384;
/// Most pixels of an image file: more than cameras make.
pub(crate) const MOST_PIXELS: u64 = 1 << 26;
/// Most memory that reading an image file may take, in bytes, but for fitting it to another size.
const MOST_MEMORY: u64 = 1 << 30;

/// What the head of an image file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    format: ImageFormat,
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Bytes a pixel that unpacking holds at its worst moment.
    pixel: u64,
    /// Whether rows can be unpacked one after the other.
    rows: bool,
}

/// What becomes of transparent pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transparency {
    /// They lie over white.
    White,
    /// Their colours stay as they are stored.
    Ignored,
}

impl Head {
    /// Reads the head of a PNG or JPEG.
    ///
    /// # Errors
    /// When the file is neither or broken, or its image is too large: an [`Invalid`] without a field.
    pub(crate) fn read(file: &[u8]) -> Result<Self, Invalid> {
        let head = match image::guess_format(file) {
            Ok(ImageFormat::Png) => Self::of_png(file).map_err(|why| unreadable(file, &why)),
            Ok(ImageFormat::Jpeg) => Self::of_jpeg(file).map_err(|why| unreadable(file, &why)),
            _ => Err(Invalid::new("", format!("{} bytes", file.len()), EXPECTED)),
        }?;
        let Self { width, height, .. } = head;
        if width > GREATEST_SIDE || height > GREATEST_SIDE || head.pixels() > MOST_PIXELS {
            let expected = format!("at most {GREATEST_SIDE} pixels a side and {MOST_PIXELS} pixels in all");
            return Err(Invalid::new("", format!("{width}x{height} pixels"), expected));
        }
        if head.unpacked() > MOST_MEMORY {
            let found = format!("{width}x{height} pixels, {} bytes unpacked", head.unpacked());
            return Err(Invalid::new("", found, format!("an image that takes at most {MOST_MEMORY} bytes")));
        }
        Ok(head)
    }

    fn of_png(file: &[u8]) -> Result<Self, String> {
        let mut decoder = png::Decoder::new(Cursor::new(file));
        let info = decoder.read_header_info().map_err(|why| why.to_string())?;
        let grey = matches!(info.color_type, png::ColorType::Grayscale | png::ColorType::GrayscaleAlpha);
        let pixel = match (info.interlaced, grey) {
            (false, true) => 1,
            (false, false) => 3,
            // All of it with transparency as it is stored, in eight bits, and without transparency.
            (true, true) => 2 * depth(info.bit_depth) + 2 + 1,
            (true, false) => 4 * depth(info.bit_depth) + 4 + 3,
        };
        let (width, height, rows) = (info.width, info.height, !info.interlaced);
        Ok(Self { format: ImageFormat::Png, width, height, pixel, rows })
    }

    fn of_jpeg(file: &[u8]) -> Result<Self, String> {
        let mut decoder = reader(file, ImageFormat::Jpeg).into_decoder().map_err(|why| why.to_string())?;
        let (width, height) = decoder.dimensions();
        let channels = if decoder.color_type() == ColorType::L8 { 1 } else { 3 };
        // Where there are several scans, coefficients of all of them, in two bytes; and an image that is turned is copied.
        let coefficients = if has_one_scan(file) { 0 } else { 2 * 4 };
        let upright = decoder.orientation().is_ok_and(|orientation| orientation == Orientation::NoTransforms);
        let pixel = channels + coefficients + if upright { 0 } else { channels };
        Ok(Self { format: ImageFormat::Jpeg, width, height, pixel, rows: false })
    }

    /// Pixels of the image.
    pub(crate) fn pixels(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }

    fn unpacked(&self) -> u64 {
        self.pixels() * self.pixel
    }

    /// Bytes of memory that it takes, at most, to unpack the image and to fit it to so many pixels.
    pub(crate) fn memory(&self, [height, width]: [usize; 2]) -> u64 {
        // Resizing holds four f32 for every pixel of as many columns as before and as many rows as after; turned images
        // have them the other way round.
        let longer = u64::from(self.width.max(self.height));
        let (height, width) = (height as u64, width as u64);
        self.unpacked() + 16 * longer * height + 16 * width * height
    }

    /// Unpacks the image of `file`, upright as its EXIF entry says: grey or RGB in eight bits.
    ///
    /// # Errors
    /// When the file is broken.
    pub(crate) fn unpack(&self, file: &[u8], transparency: Transparency) -> Result<DynamicImage, Invalid> {
        let (image, orientation) = match self.rows {
            true => rows(file, transparency).map_err(|why| unreadable(file, &why))?,
            false => whole(file, self.format, transparency).map_err(|why| unreadable(file, &why.to_string()))?,
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

/// Whether the head of a JPEG promises that one pass over the file holds all channels of every pixel (ITU-T T.81, annex B:
/// frames that are not progressive, and a first scan of as many components as the frame).
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

/// Bytes of a channel.
fn depth(depth: BitDepth) -> u64 {
    if depth == BitDepth::Sixteen { 2 } else { 1 }
}

fn reader(file: &[u8], format: ImageFormat) -> ImageReader<Cursor<&[u8]>> {
    let mut limits = Limits::default();
    limits.max_image_width = Some(GREATEST_SIDE);
    limits.max_image_height = Some(GREATEST_SIDE);
    limits.max_alloc = Some(MOST_MEMORY);
    let mut reader = ImageReader::with_format(Cursor::new(file), format);
    reader.limits(limits);
    reader
}

/// Unpacks all of an image at once.
fn whole(
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

/// Unpacks a PNG that is not interlaced, row by row.
fn rows(file: &[u8], transparency: Transparency) -> Result<(DynamicImage, Orientation), String> {
    let broken = |why: png::DecodingError| why.to_string();
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(file), png::Limits { bytes: MOST_MEMORY as usize });
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
        png::ColorType::Indexed => return Err("its palette is missing".into()),
    };
    let deep = bits == BitDepth::Sixteen;
    let pixel = (channels + usize::from(alpha)) * if deep { 2 } else { 1 };
    let size = width as usize * height as usize * channels;
    let mut levels = Vec::new();
    // Memory that is only reserved is not there yet: a file that promises more than it holds costs nothing.
    levels.try_reserve_exact(size).map_err(|why| why.to_string())?;
    for _ in 0..height {
        let row = reader.next_row().map_err(broken)?.ok_or("rows are missing")?;
        for pixel in row.data().chunks_exact(pixel) {
            let level = |i: usize| if deep { eight_bits([pixel[2 * i], pixel[2 * i + 1]]) } else { pixel[i] };
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

/// A level of 16 bits, most significant byte first, in 8: the nearest one.
fn eight_bits(level: [u8; 2]) -> u8 {
    ((u32::from(u16::from_be_bytes(level)) + 128) / 257) as u8
}

/// A level as it looks on white.
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

    /// An image of every kind that a PNG can hold, grey and in colour, with transparency and without, 8 and 16 bits deep.
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
    fn rows_are_what_the_whole_image_is() {
        for image in kinds() {
            let (kind, file) = (image.color(), png(image.clone()));
            let head = Head::read(&file).unwrap();
            assert!(head.rows && (head.width, head.height) == (7, 5));
            for transparency in [Transparency::White, Transparency::Ignored] {
                let found = head.unpack(&file, transparency).unwrap();
                let (expected, _) = whole(&file, ImageFormat::Png, transparency).unwrap();
                assert_eq!(found, expected, "{kind:?}, {transparency:?}");
            }
            let ignored = head.unpack(&file, Transparency::Ignored).unwrap();
            assert_eq!(ignored.to_rgb8(), image.to_rgb8(), "{kind:?}");
        }
    }

    #[test]
    fn small_depths_and_palettes_are_levels() {
        // Two bits of grey, and two colours of which the second is half transparent.
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
            Head::read(&file).unwrap().unpack(&file, Transparency::White).unwrap()
        };
        let grey = packed(png::ColorType::Grayscale, BitDepth::Two, &[0b0001_1011]);
        assert_eq!(grey.as_bytes(), [0, 85, 170, 255]);
        let colours = packed(png::ColorType::Indexed, BitDepth::One, &[0b0100_0000]);
        assert_eq!(colours.as_bytes()[..6], [255, 0, 0, 127, 127, 255]);
    }

    #[test]
    fn scans_of_a_jpeg_are_told_by_its_head() {
        let mut file = Cursor::new(Vec::new());
        DynamicImage::from(RgbImage::new(20, 10)).write_to(&mut file, ImageFormat::Jpeg).unwrap();
        let mut file = file.into_inner();
        assert_eq!(Head::read(&file).unwrap().unpacked(), 600);
        let frame = file.windows(2).position(|bytes| bytes == [0xff, 0xc0]).unwrap();
        file[frame + 1] = 0xc2;
        assert!(!has_one_scan(&file), "progressive");
        assert_eq!(Head::read(&file).unwrap().unpacked(), 200 * (3 + 8));
        assert!(!has_one_scan(&file[..frame]) && !has_one_scan(b"") && !has_one_scan(&[0xff; 9]), "cut off");
    }

    #[test]
    fn memory_counts_what_is_unpacked_and_not_what_is_stored() {
        let deep = png(DynamicImage::ImageRgba16(ImageBuffer::from_pixel(100, 50, Rgba([9, 9, 9, 9]))));
        let head = Head::read(&deep).unwrap();
        assert_eq!((head.pixels(), head.unpacked()), (5000, 15_000));
        assert_eq!(head.memory([10, 20]), 15_000 + 16 * 100 * 10 + 16 * 200);
        // The same file, if its head says that it is interlaced.
        let mut interlaced = deep;
        interlaced[28] = 1;
        let mut crc = flate2::Crc::new();
        crc.update(&interlaced[12..29]);
        interlaced[29..33].copy_from_slice(&crc.sum().to_be_bytes());
        assert_eq!(Head::read(&interlaced).unwrap().unpacked(), 5000 * (8 + 4 + 3));
    }
}
