//! Image parameterizations: pixels, Fourier coefficients, or phases under fixed magnitudes.

mod circle;
mod colour;
mod decoder;
mod dft;
mod document;
pub(super) mod fft;
mod magnitude;
mod measure;
mod mixing;
mod spectral;

pub use self::colour::Colour;
pub(super) use self::decoder::ImageDecoder;
pub use self::document::{Parameterization, ParameterizationKind, ParameterizationRequest, SpectrumKind};
pub use self::measure::SpectrumError;
