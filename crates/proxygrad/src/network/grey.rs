//! Conversion of colour images to grey.

use image::{DynamicImage, GrayImage, ImageBuffer, Luma, Pixel, Rgb};

/// Red, green and blue in 65536ths of a grey level: ITU-R Recommendation BT.601-7, section 2.5.1, `0.299 R + 0.587 G +
/// 0.114 B`.
const WEIGHTS: [u32; 3] = [19_595, 38_470, 7_471];

/// The image in 8-bit grey: ITU-R BT.601 luma, `0.299 R + 0.587 G + 0.114 B` on the stored values, as in Pillow,
/// OpenCV, torchvision and TensorFlow. Transparency is ignored.
pub(crate) fn grey(image: DynamicImage) -> GrayImage {
    if !image.color().has_color() {
        return image.into_luma8();
    }
    match image {
        DynamicImage::ImageRgb16(_) | DynamicImage::ImageRgba16(_) => {
            let image = image.into_rgb16();
            let grey = ImageBuffer::<Luma<u16>, Vec<u16>>::from_fn(image.width(), image.height(), |x, y| {
                Luma([luma(*image.get_pixel(x, y)) as u16])
            });
            DynamicImage::ImageLuma16(grey).into_luma8()
        }
        image => {
            let image = image.into_rgb8();
            ImageBuffer::from_fn(image.width(), image.height(), |x, y| Luma([luma(*image.get_pixel(x, y)) as u8]))
        }
    }
}

/// The luma of a pixel of at most 16 bits per channel, rounded to nearest.
fn luma<T: image::Primitive + Into<u32>>(pixel: Rgb<T>) -> u32
where
    Rgb<T>: Pixel<Subpixel = T>,
{
    let sum: u32 = pixel.0.into_iter().zip(WEIGHTS).map(|(level, weight)| level.into() * weight).sum();
    (sum + (1 << 15)) >> 16
}

#[cfg(test)]
mod tests {
    use image::{LumaA, Rgba};

    use super::*;

    /// Results of Pillow's `convert("L")`.
    const KNOWN: [([u8; 3], u8); 8] = [
        ([200, 40, 40], 88),
        ([40, 180, 60], 124),
        ([255, 0, 0], 76),
        ([0, 255, 0], 150),
        ([0, 0, 255], 29),
        ([255, 255, 255], 255),
        ([0, 0, 0], 0),
        ([17, 17, 17], 17),
    ];

    fn only(image: impl Into<DynamicImage>) -> u8 {
        grey(image.into()).get_pixel(0, 0).0[0]
    }

    #[test]
    fn colours_are_weighted_as_in_training_pipelines() {
        for (colour, expected) in KNOWN {
            let [r, g, b] = colour;
            assert_eq!(only(ImageBuffer::from_pixel(1, 1, Rgb(colour))), expected, "{colour:?}");
            assert_eq!(only(ImageBuffer::from_pixel(1, 1, Rgba([r, g, b, 9]))), expected, "{colour:?} with alpha");
            let wide = colour.map(|level| u16::from(level) * 257);
            assert_eq!(only(ImageBuffer::from_pixel(1, 1, Rgb(wide))), expected, "{colour:?} of 16 bits");
            let [r, g, b] = wide;
            assert_eq!(only(ImageBuffer::from_pixel(1, 1, Rgba([r, g, b, 9]))), expected, "16 bits with alpha");
        }
    }

    #[test]
    fn grey_is_unchanged() {
        for level in [0u8, 1, 127, 128, 255] {
            assert_eq!(only(ImageBuffer::from_pixel(1, 1, Luma([level]))), level);
            assert_eq!(only(ImageBuffer::from_pixel(1, 1, LumaA([level, 3]))), level);
            assert_eq!(only(ImageBuffer::from_pixel(1, 1, Luma([u16::from(level) * 257]))), level);
        }
    }
}
