//! Average magnitude spectrum of a set of images, and its file format.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use sha2::{Digest, Sha256};

use super::array::Array;
use super::colour::ColourMatrix;
use super::error::ArrayError;
use crate::Invalid;

/// Average magnitude of every frequency in the decorrelated colours of images, and the colour decorrelation matrix.
///
/// As a file: safetensors with the tensors `magnitude` `[C,S,S/2+1]` (the half spectrum of images of side `S`, in any
/// unit) and `colour` `[C,C]` (the [`ColourMatrix`] that the channels were decorrelated with), both f32.
#[derive(Debug, Clone, PartialEq)]
pub struct Spectrum {
    magnitude: Array,
    colour: ColourMatrix,
    digest: String,
}

/// Why a spectrum file cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpectrumFileError {
    /// A tensor is missing.
    #[error("has no tensor {0}")]
    Missing(&'static str),
    /// A tensor does not have the size that its shape says.
    #[error(transparent)]
    Array(#[from] ArrayError),
    /// The tensors are not a spectrum.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The file cannot be read or written as safetensors.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl Spectrum {
    /// Largest side of the measured images.
    pub const LARGEST_SIDE: usize = 1024;

    /// A spectrum of magnitudes `[C,S,S/2+1]` of the colours that `colour` decorrelates; `S` is even.
    ///
    /// # Errors
    /// When shapes do not fit, a magnitude is negative or not finite, or a channel has only zeros.
    pub fn new(magnitude: Array, colour: ColourMatrix) -> Result<Self, Invalid> {
        let &[channels, side, half] = magnitude.shape() else {
            return Err(Invalid::new("magnitude", format!("{:?}", magnitude.shape()), "a shape [C,S,S/2+1]"));
        };
        if channels == 0 || !(2..=Self::LARGEST_SIDE).contains(&side) || !side.is_multiple_of(2) || half != side / 2 + 1
        {
            let expected = format!("a shape [C,S,S/2+1] with an even S of at most {}", Self::LARGEST_SIDE);
            return Err(Invalid::new("magnitude", format!("{:?}", magnitude.shape()), expected));
        }
        colour.check(channels).map_err(|invalid| invalid.within("colour"))?;
        if let Some(wrong) = magnitude.data().iter().find(|x| !(x.is_finite() && **x >= 0.0)) {
            return Err(Invalid::new("magnitude", wrong, "finite numbers of at least 0"));
        }
        // The first value of row 0 belongs to the mean of an image, which a spectrum does not determine.
        if magnitude.data().chunks(side * half).any(|channel| channel[1..].iter().all(|&x| x == 0.0)) {
            return Err(Invalid::new("magnitude", "only zeros", "a frequency other than 0 in every channel"));
        }
        let mut digest = Sha256::new();
        let numbers = [channels as u64, side as u64].map(u64::to_le_bytes);
        numbers.iter().for_each(|bytes| digest.update(bytes));
        let values = magnitude.data().iter().chain(colour.rows().iter().flatten());
        values.for_each(|value| digest.update(value.to_le_bytes()));
        Ok(Self { magnitude, colour, digest: hex::encode(digest.finalize()) })
    }

    /// Reads the content of a spectrum file.
    ///
    /// # Errors
    /// When it does not have the format of [`Spectrum::save`].
    pub fn parse(bytes: &[u8]) -> Result<Self, SpectrumFileError> {
        let tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu)?;
        let find = |name: &'static str| {
            let tensor = tensors.get(name).ok_or(SpectrumFileError::Missing(name))?;
            let values = tensor.to_dtype(candle_core::DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
            Ok::<_, SpectrumFileError>(Array::new(tensor.dims(), values)?)
        };
        let (magnitude, colour) = (find("magnitude")?, find("colour")?);
        let rows = colour.shape().get(1).copied().unwrap_or_default().max(1);
        let colour = ColourMatrix::new(colour.data().chunks(rows).map(<[f32]>::to_vec).collect());
        Ok(Self::new(magnitude, colour)?)
    }

    /// Writes the spectrum to a file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), SpectrumFileError> {
        let tensor = |array: &[f32], shape: &[usize]| Tensor::from_slice(array, shape, &Device::Cpu);
        let n = self.channels();
        let rows = self.colour.rows().concat();
        let magnitude = tensor(self.magnitude.data(), self.magnitude.shape())?;
        let tensors = [("magnitude".to_owned(), magnitude), ("colour".to_owned(), tensor(&rows, &[n, n])?)];
        Ok(candle_core::safetensors::save(&HashMap::from(tensors), path)?)
    }

    /// Number of channels.
    pub fn channels(&self) -> usize {
        self.magnitude.shape()[0]
    }

    /// Side of the measured images.
    pub fn side(&self) -> usize {
        self.magnitude.shape()[1]
    }

    /// The magnitudes `[C,S,S/2+1]`.
    pub fn magnitude(&self) -> &Array {
        &self.magnitude
    }

    /// The matrix that the channels were decorrelated with.
    pub fn colour(&self) -> &ColourMatrix {
        &self.colour
    }

    /// SHA-256 of the values, lower-case hexadecimal.
    pub fn digest(&self) -> &str {
        &self.digest
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn magnitude(shape: [usize; 3], value: f32) -> Array {
        Array::new(shape, vec![value; shape.iter().product()]).unwrap()
    }

    #[test]
    fn a_spectrum_survives_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("spectrum.safetensors");
        let spectrum = Spectrum::new(magnitude([3, 4, 3], 0.5), ColourMatrix::imagenet()).unwrap();
        spectrum.save(&file).unwrap();
        assert_eq!(Spectrum::parse(&std::fs::read(&file).unwrap()).unwrap(), spectrum);
        let other = Spectrum::new(magnitude([3, 4, 3], 0.25), ColourMatrix::imagenet()).unwrap();
        assert_ne!(other.digest(), spectrum.digest());
    }

    #[test]
    fn what_is_no_spectrum_is_refused() {
        for (shape, value, colour) in [
            ([3, 5, 3], 1.0, ColourMatrix::imagenet()),
            ([3, 4, 4], 1.0, ColourMatrix::imagenet()),
            ([1, 4, 3], 1.0, ColourMatrix::imagenet()),
            ([3, 4, 3], -1.0, ColourMatrix::imagenet()),
            ([3, 4, 3], f32::NAN, ColourMatrix::imagenet()),
            ([3, 4, 3], 0.0, ColourMatrix::imagenet()),
            ([0, 4, 3], 1.0, ColourMatrix::identity(0)),
        ] {
            assert!(Spectrum::new(magnitude(shape, value), colour).is_err(), "{shape:?} of {value}");
        }
        for bytes in [&b""[..], b"\x02\0\0\0\0\0\0\0{}", b"no safetensors"] {
            assert!(Spectrum::parse(bytes).is_err());
        }
    }
}
