//! Measures the magnitude spectrum and the colours of images.

use std::f64::consts::TAU;
use std::path::{Path, PathBuf};

use image::imageops::FilterType;
use rayon::prelude::*;

use super::fft::{Ffts, Number};
use crate::Invalid;
use crate::network::{Array, ColourMatrix, Spectrum, grey};

/// Why no spectrum could be measured.
#[derive(Debug, thiserror::Error)]
pub enum SpectrumError {
    /// An image cannot be read.
    #[error("{}: {why}", file.display())]
    Image {
        /// The image's file.
        file: PathBuf,
        /// The decoder's reason.
        why: image::ImageError,
    },
    /// The images are missing or uniform, or the size is out of range.
    #[error(transparent)]
    Value(#[from] Invalid),
}

impl Spectrum {
    /// Measures the images in these files, as grey (1 channel) or RGB (3): center-cropped and scaled to `side` pixels,
    /// the mean over all images subtracted, in colours decorrelated by their own covariance, under a Hann window (so
    /// that borders do not count as edges).
    ///
    /// # Errors
    /// When an image cannot be read, or all of them together are uniform.
    pub fn of_images(files: &[PathBuf], channels: usize, side: usize) -> Result<Self, SpectrumError> {
        if !(2..=Self::LARGEST_SIDE).contains(&side) || !side.is_multiple_of(2) {
            let expected = format!("an even number of pixels from 2 to {}", Self::LARGEST_SIDE);
            return Err(Invalid::new("side", side, expected).into());
        }
        if files.is_empty() {
            return Err(Invalid::new("images", "none", "at least one image").into());
        }
        let moments = files.par_iter().map(|file| Ok(Moments::of(&planes(file, channels, side)?)));
        let moments: Vec<Moments> = moments.collect::<Result<_, SpectrumError>>()?;
        let (mean, covariance) = Moments::together(&moments);
        let colour = ColourMatrix::of_covariance(&covariance)?;
        let Some(inverse) = colour.inverse() else {
            return Err(Invalid::new("images", format!("{covariance:?}"), "colours that differ from each other").into());
        };
        let ffts = Ffts::new([side, side]);
        let of = |file: &PathBuf| Ok(magnitudes(&planes(file, channels, side)?, &mean, &inverse, &ffts, side));
        let each: Vec<Vec<f64>> = files.par_iter().map(of).collect::<Result<_, SpectrumError>>()?;
        let average = |at: usize| (each.iter().map(|one| one[at]).sum::<f64>() / each.len() as f64) as f32;
        let half = side / 2 + 1;
        let values: Vec<f32> = (0..channels * side * half).map(average).collect();
        let magnitude = Array::new([channels, side, half], values).map_err(|why| Invalid::new("images", "", why))?;
        Ok(Self::new(magnitude, colour)?)
    }
}

/// The center square of an image: a plane of `side * side` values in [0, 1] per channel.
fn planes(file: &Path, channels: usize, side: usize) -> Result<Vec<Vec<f64>>, SpectrumError> {
    let failed = |why: image::ImageError| SpectrumError::Image { file: file.into(), why };
    let reader = image::ImageReader::open(file).and_then(image::ImageReader::with_guessed_format);
    let image = reader.map_err(|e| failed(e.into()))?.decode().map_err(failed)?;
    let shorter = image.width().min(image.height());
    let (left, top) = ((image.width() - shorter) / 2, (image.height() - shorter) / 2);
    let square =
        image.crop_imm(left, top, shorter, shorter).resize_exact(side as u32, side as u32, FilterType::Triangle);
    let values = if channels == 1 { grey(square).into_raw() } else { square.into_rgb8().into_raw() };
    let plane = |c: usize| values.iter().skip(c).step_by(channels).map(|&v| f64::from(v) / 255.0).collect();
    Ok((0..channels).map(plane).collect())
}

/// Means of the channels and of their products.
struct Moments {
    first: Vec<f64>,
    second: Vec<Vec<f64>>,
}

impl Moments {
    fn of(planes: &[Vec<f64>]) -> Self {
        let mean = |values: &mut dyn Iterator<Item = f64>, n: usize| values.sum::<f64>() / n as f64;
        let product = |a: &[f64], b: &[f64]| mean(&mut a.iter().zip(b).map(|(x, y)| x * y), a.len());
        Self {
            first: planes.iter().map(|plane| mean(&mut plane.iter().copied(), plane.len())).collect(),
            second: planes.iter().map(|a| planes.iter().map(|b| product(a, b)).collect()).collect(),
        }
    }

    /// Mean and covariance of the channels over all images.
    fn together(all: &[Self]) -> (Vec<f64>, Vec<Vec<f64>>) {
        let n = all[0].first.len();
        let mean = |of: &dyn Fn(&Self) -> f64| all.iter().map(of).sum::<f64>() / all.len() as f64;
        let first: Vec<f64> = (0..n).map(|i| mean(&|m| m.first[i])).collect();
        let entry = |i: usize, j: usize| mean(&|m| m.second[i][j]) - first[i] * first[j];
        let covariance = (0..n).map(|i| (0..n).map(|j| entry(i, j)).collect()).collect();
        (first, covariance)
    }
}

/// Magnitudes `[C, S * (S/2+1)]` of one image's decorrelated colours.
fn magnitudes(planes: &[Vec<f64>], mean: &[f64], inverse: &[f64], ffts: &Ffts, side: usize) -> Vec<f64> {
    let n = planes.len();
    let window: Vec<f64> = (0..side).map(|i| 0.5 - 0.5 * (TAU * (i as f64 + 0.5) / side as f64).cos()).collect();
    let channel = |row: usize| {
        let pixel = |at: usize| {
            let colour: f64 = (0..n).map(|k| inverse[row * n + k] * (planes[k][at] - mean[k])).sum();
            colour * window[at / side] * window[at % side]
        };
        let plane: Vec<f64> = (0..side * side).map(pixel).collect();
        f64::fft(ffts).analyze(&plane).into_iter().map(|number| number.norm())
    };
    (0..n).flat_map(channel).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Three pictures of waves: brightness swings along rows, the difference of red and blue, faintly, down columns.
    fn pictures(folder: &Path) -> Vec<PathBuf> {
        let picture = |i: u32| {
            let image = image::RgbImage::from_fn(40, 32, |x, y| {
                let light = 60.0 * (TAU * (f64::from(x) - 4.0) * 4.0 / 32.0 + f64::from(i)).sin();
                let hue = 20.0 * (TAU * f64::from(y) * 2.0 / 32.0 + f64::from(i)).sin();
                image::Rgb([light + hue, light, light - hue].map(|v| (128.0 + v).round() as u8))
            });
            let file = folder.join(format!("{i}.png"));
            image.save(&file).unwrap();
            file
        };
        (0..3).map(picture).collect()
    }

    #[test]
    fn waves_are_found_in_their_colours_and_at_their_frequencies() {
        let folder = tempfile::tempdir().unwrap();
        let spectrum = Spectrum::of_images(&pictures(folder.path()), 3, 32).unwrap();
        let strongest = |channel: usize| {
            let plane = &spectrum.magnitude().data()[channel * 32 * 17..][..32 * 17];
            let at = (0..plane.len()).max_by(|&a, &b| plane[a].total_cmp(&plane[b])).unwrap();
            [at / 17, at % 17]
        };
        assert_eq!(strongest(0), [0, 4], "brightness: four waves along a row");
        assert!([[2, 0], [30, 0]].contains(&strongest(1)), "red against blue: two waves down a column");
        let brightness: Vec<f32> = spectrum.colour().rows().iter().map(|row| row[0]).collect();
        assert!(brightness.iter().all(|x| (x - brightness[1]).abs() < 0.05 * brightness[1]), "{brightness:?}");
        let grey = Spectrum::of_images(&pictures(folder.path()), 1, 32).unwrap();
        assert_eq!(grey.channels(), 1);
    }

    #[test]
    fn what_says_nothing_of_frequencies_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let blank = folder.path().join("blank.png");
        image::RgbImage::new(8, 8).save(&blank).unwrap();
        std::fs::write(folder.path().join("no.png"), "no image").unwrap();
        assert!(matches!(Spectrum::of_images(std::slice::from_ref(&blank), 3, 8), Err(SpectrumError::Value(_))));
        assert!(matches!(Spectrum::of_images(&[blank], 3, 7), Err(SpectrumError::Value(_))));
        assert!(matches!(Spectrum::of_images(&[], 3, 8), Err(SpectrumError::Value(_))));
        let broken = Spectrum::of_images(&[folder.path().join("no.png")], 3, 8).unwrap_err();
        assert!(broken.to_string().contains("no.png"), "{broken}");
    }
}
