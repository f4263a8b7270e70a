//! Magnitude spectra of images, as measured.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use sha2::{Digest, Sha256};

use super::array::Array;
use super::colour::ColourMatrix;
use crate::Invalid;

/// How strong every frequency is in the decorrelated colours of images, on average, and how the colours hang together.
///
/// As a file: safetensors with the tensors `magnitude` `[C,S,S/2+1]` (of the half spectrum of images of side `S`, in any
/// unit) and `colour` `[C,C]` (the [`ColourMatrix`] that the channels were decorrelated with), both f32.
#[derive(Debug, Clone, PartialEq)]
pub struct Spectrum {
    magnitude: Array,
    colour: ColourMatrix,
    digest: String,
}

impl Spectrum {
    /// Largest side of the measured images.
    pub const LARGEST_SIDE: usize = 1024;

    /// Magnitudes `[C,S,S/2+1]` of the colours that `colour` decorrelates; `S` is even.
    ///
    /// # Errors
    /// When shapes do not fit, or a magnitude is negative or not finite.
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
        // Row 0 begins with the mean of an image, which no spectrum fixes.
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

    /// Reads a file's content.
    ///
    /// # Errors
    /// When it is not what [`Spectrum::save`] writes.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu).map_err(|e| e.to_string())?;
        let find = |name: &str| {
            let tensor = tensors.get(name).ok_or_else(|| format!("has no tensor {name}"))?;
            let tensor = tensor.to_dtype(candle_core::DType::F32).map_err(|e| format!("{name}: {e}"))?;
            let values = tensor.flatten_all().and_then(|flat| flat.to_vec1::<f32>()).map_err(|e| e.to_string())?;
            Array::new(tensor.dims(), values)
        };
        let (magnitude, colour) = (find("magnitude")?, find("colour")?);
        let rows = colour.shape().get(1).copied().unwrap_or_default().max(1);
        let colour = ColourMatrix::new(colour.data().chunks(rows).map(<[f32]>::to_vec).collect());
        Self::new(magnitude, colour).map_err(|invalid| invalid.to_string())
    }

    /// Writes the file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), String> {
        let tensor = |array: &[f32], shape: &[usize]| Tensor::from_slice(array, shape, &Device::Cpu);
        let n = self.channels();
        let rows = self.colour.rows().concat();
        let tensors = tensor(self.magnitude.data(), self.magnitude.shape()).and_then(|magnitude| {
            Ok(HashMap::from([("magnitude".to_owned(), magnitude), ("colour".to_owned(), tensor(&rows, &[n, n])?)]))
        });
        tensors.and_then(|tensors| candle_core::safetensors::save(&tensors, path)).map_err(|e| e.to_string())
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

    /// The colours that the channels were decorrelated with.
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
