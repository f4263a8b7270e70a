//! Documents of image parameterizations.

use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
#[cfg(feature = "openapi")]
use utoipa::ToSchema;

use super::colour::Colour;
use crate::Invalid;
use crate::maximize::string_or_object::{string_or_object, string_or_object_schema};
use crate::network::Model;

/// The parameters that an optimizer changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum ParameterizationKind {
    /// The pixels themselves, kept in [0, 1].
    #[default]
    Pixel,
    /// Fourier coefficients of decorrelated colours (Olah, Mordvintsev & Schubert, "Feature Visualization", Distill
    /// 2017).
    Fourier,
    /// Phases of Fourier coefficients of decorrelated colours, whose magnitudes are fixed (MACO: Fel et al., NeurIPS
    /// 2023, arXiv:2306.06805).
    Maco,
}

/// Source of fixed magnitudes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum SpectrumKind {
    /// The amplitudes of natural images, `1 / frequency^decay_power`.
    Natural,
    /// The spectrum that comes with the model, measured on images.
    Measured,
}

/// A parameterization with defaults filled in.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct Parameterization {
    /// The parameters that an optimizer changes.
    pub kind: ParameterizationKind,
    /// Exponent by which coefficients (`fourier`) or amplitudes (`maco`, `natural`) decay with frequency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decay_power: Option<f32>,
    /// Colour decorrelation matrix (`fourier`, `maco`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub colour: Option<Colour>,
    /// Source of the magnitudes (`maco`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spectrum: Option<SpectrumKind>,
    /// SHA-256 of the values of a measured spectrum, lower-case hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spectrum_digest: Option<String>,
    /// Standard deviation of the decorrelated colours before the logistic function (`maco`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contrast: Option<f32>,
}

/// A parameterization as in a request: omitted fields get defaults. May be written as a string, its kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ParameterizationRequest {
    /// The parameters that an optimizer changes.
    pub kind: ParameterizationKind,
    /// Exponent by which coefficients (`fourier`) or amplitudes (`maco`, `natural`) decay with frequency, in [0, 4].
    pub decay_power: Option<f32>,
    /// Colour decorrelation matrix (`fourier`, `maco`).
    pub colour: Option<Colour>,
    /// Source of the magnitudes (`maco`).
    pub spectrum: Option<SpectrumKind>,
    /// SHA-256 that the measured spectrum must have.
    pub spectrum_digest: Option<String>,
    /// Standard deviation of the decorrelated colours before the logistic function (`maco`), in (0, 10].
    pub contrast: Option<f32>,
}

/// A parameterization with some of its settings.
#[derive(Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = ParameterizationObject))]
#[serde(deny_unknown_fields)]
struct Full {
    /// The parameters that an optimizer changes.
    kind: ParameterizationKind,
    /// Exponent by which coefficients (`fourier`) or amplitudes (`maco`, `natural`) decay with frequency; default: 1.
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 4))]
    decay_power: Option<f32>,
    /// Colour decorrelation matrix (`fourier`, `maco`). Default: the model's own, else `imagenet` for three
    /// channels and `none` for others.
    colour: Option<Colour>,
    /// Source of the magnitudes (`maco`). Default: `measured` if the model has a measured spectrum, else `natural`.
    spectrum: Option<SpectrumKind>,
    /// SHA-256 that the measured spectrum must have.
    spectrum_digest: Option<String>,
    /// Standard deviation of the decorrelated colours before the logistic function (`maco`).
    #[cfg_attr(feature = "openapi", schema(exclusive_minimum = 0, maximum = 10))]
    contrast: Option<f32>,
}

string_or_object_schema!(
    ParameterizationRequest,
    ParameterizationKind,
    Full,
    "An image parameterization: its kind, or an object; omitted fields get defaults."
);

impl From<Full> for ParameterizationRequest {
    fn from(Full { kind, decay_power, colour, spectrum, spectrum_digest, contrast }: Full) -> Self {
        Self { kind, decay_power, colour, spectrum, spectrum_digest, contrast }
    }
}

impl FromStr for ParameterizationRequest {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let kind = match text {
            "pixel" => ParameterizationKind::Pixel,
            "fourier" => ParameterizationKind::Fourier,
            "maco" => ParameterizationKind::Maco,
            _ => return Err(Invalid::new("kind", text, "pixel, fourier or maco")),
        };
        Ok(Self { kind, ..Self::default() })
    }
}

impl<'de> Deserialize<'de> for ParameterizationRequest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        string_or_object::<D, Self, Full>(deserializer, "a parameterization's kind as text, or an object with a kind")
    }
}

impl ParameterizationRequest {
    /// Fills in defaults for a model.
    ///
    /// # Errors
    /// When a value is out of range or does not belong to the kind, or the model lacks what it requires.
    pub fn resolve(&self, model: &Model) -> Result<Parameterization, Invalid> {
        use ParameterizationKind::{Fourier, Maco, Pixel};
        let kind = self.kind;
        let name = match kind {
            Pixel => "pixel",
            Fourier => "fourier",
            Maco => "maco",
        };
        let unused = |field: &str, given: bool, used: bool| match given && !used {
            true => Err(Invalid::new(field, "a value", format!("nothing: {name} has no {field}"))),
            false => Ok(()),
        };
        unused("decay_power", self.decay_power.is_some(), kind != Pixel)?;
        unused("colour", self.colour.is_some(), kind != Pixel)?;
        unused("spectrum", self.spectrum.is_some(), kind == Maco)?;
        unused("spectrum_digest", self.spectrum_digest.is_some(), kind == Maco)?;
        unused("contrast", self.contrast.is_some(), kind == Maco)?;
        if kind == Pixel {
            return Ok(Parameterization::default());
        }
        let spectrum = (kind == Maco).then(|| self.spectrum(model)).transpose()?;
        let measured = model.statistics.spectrum.as_ref().filter(|_| spectrum == Some(SpectrumKind::Measured));
        if self.decay_power.is_some() && measured.is_some() {
            return Err(Invalid::new("decay_power", "a value", "nothing: a measured spectrum has no decay_power"));
        }
        let digest = measured.map(|spectrum| spectrum.digest().to_owned());
        if let Some(expected) = self.spectrum_digest.as_ref().filter(|&expected| Some(expected) != digest.as_ref()) {
            let found = digest.map_or("nothing".into(), |digest| format!("{digest}, of the model's spectrum"));
            return Err(Invalid::new("spectrum_digest", expected, found));
        }
        let decay = self.decay_power.unwrap_or(Parameterization::DECAY_POWER);
        if !(0.0..=4.0).contains(&decay) {
            return Err(Invalid::new("decay_power", decay, "a number from 0 to 4"));
        }
        let contrast = self.contrast.unwrap_or(Parameterization::CONTRAST);
        if !(contrast > 0.0 && contrast <= 10.0) {
            return Err(Invalid::new("contrast", contrast, "a number greater than 0 and at most 10"));
        }
        let channels = model.network.input_shape()[0];
        let known = measured.map(|spectrum| spectrum.colour()).or(model.statistics.colour.as_ref());
        let colour = self.colour.clone().unwrap_or_else(|| match known {
            Some(matrix) => Colour::Matrix(matrix.clone()),
            None if channels == 3 => Colour::Imagenet,
            None => Colour::None,
        });
        colour.matrix(channels).map_err(|invalid| invalid.within("colour"))?;
        Ok(Parameterization {
            kind,
            decay_power: measured.is_none().then_some(decay),
            colour: Some(colour),
            spectrum,
            spectrum_digest: digest,
            contrast: (kind == Maco).then_some(contrast),
        })
    }

    fn spectrum(&self, model: &Model) -> Result<SpectrumKind, Invalid> {
        let channels = model.network.input_shape()[0];
        match (self.spectrum, model.statistics.spectrum.as_ref().map(|spectrum| spectrum.channels())) {
            (Some(SpectrumKind::Natural), _) | (None, None) => Ok(SpectrumKind::Natural),
            (None, Some(_)) if self.decay_power.is_some() => Ok(SpectrumKind::Natural),
            (_, Some(found)) if found == channels => Ok(SpectrumKind::Measured),
            (_, Some(found)) => {
                let expected = format!("natural: the measured spectrum has {found} channels, the images {channels}");
                Err(Invalid::new("spectrum", "measured", expected))
            }
            (Some(SpectrumKind::Measured), None) => {
                Err(Invalid::new("spectrum", "measured", "natural: the model comes without a measured spectrum"))
            }
        }
    }
}

impl Parameterization {
    /// Default exponent by which amplitudes decay with frequency.
    pub const DECAY_POWER: f32 = 1.0;
    /// Default standard deviation of decorrelated colours before the logistic function.
    pub const CONTRAST: f32 = 1.0;
}
