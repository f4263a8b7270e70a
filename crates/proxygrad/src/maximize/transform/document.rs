//! Documents of random transforms.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
#[cfg(feature = "openapi")]
use utoipa::openapi::schema::{ObjectBuilder, Type};
#[cfg(feature = "openapi")]
use utoipa::openapi::{RefOr, Schema};
#[cfg(feature = "openapi")]
use utoipa::{PartialSchema, ToSchema};

use crate::Invalid;

/// A random transform, sampled anew for every step and stimulus.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Transform {
    /// The transform.
    pub kind: TransformKind,
    /// Probability of applying it, in (0, 1].
    pub probability: f32,
}

/// Kinds of transforms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TransformKind {
    /// Rolls the image by up to this many pixels, independently along both axes; pixels wrap around.
    Jitter {
        /// Largest shift in pixels.
        pixels: u32,
    },
    /// Scales about the centre by a factor drawn uniformly from this range.
    Scale {
        /// Smallest factor.
        low: f32,
        /// Largest factor.
        high: f32,
    },
    /// Rotates about the centre by up to this angle, in either direction.
    Rotate {
        /// Largest angle in degrees.
        degrees: f32,
    },
    /// Gaussian blur with a 5x5 kernel.
    Blur {
        /// Standard deviation in pixels.
        sigma: f32,
    },
    /// Pads the image with middle grey, which later transforms can move into view; finally the view is center-cropped
    /// to the image's size. Where `pad` is not applied, the image is padded by reflection.
    Pad {
        /// Width of the margin in pixels.
        pixels: u32,
    },
    /// Random resized crop: a window with the image's aspect ratio, at a random position, scaled to full size.
    Crop {
        /// Smallest share of the image's area.
        low: f32,
        /// Largest share of the image's area.
        high: f32,
    },
    /// Adds Gaussian noise to every value.
    Noise {
        /// Standard deviation in pixel values of range [0, 1].
        sd: f32,
    },
    /// Flips the image horizontally.
    Flip,
    /// Changes saturation, contrast and brightness: scales distances from the channel mean, then distances from middle
    /// grey, by factors drawn uniformly from `1 - strength` to `1 + strength`, then adds an offset of at most half the
    /// strength. Nothing is clipped.
    Colour {
        /// Strength of the change, in (0, 1].
        strength: f32,
    },
}

const GRAMMAR: &str = "jitter:PIXELS, scale:LOW,HIGH, rotate:DEGREES, blur:SIGMA, pad:PIXELS, crop:LOW,HIGH, noise:SD, \
    flip or colour:STRENGTH, optionally followed by @PROBABILITY";

/// [`GRAMMAR`] as a regular expression.
#[cfg(feature = "openapi")]
const PATTERN: &str = "^((jitter|pad):[0-9]+|(scale|crop):[0-9]*\\.?[0-9]+,[0-9]*\\.?[0-9]+|\
    (rotate|blur|noise|colour):[0-9]*\\.?[0-9]+|flip)(@[0-9]*\\.?[0-9]+)?$";

impl TransformKind {
    /// Default probability: 1, except for a flip, which would otherwise be no random change.
    fn usual_probability(self) -> f32 {
        if self == Self::Flip { 0.5 } else { 1.0 }
    }

    /// Whether its values are in range, and a description of the range.
    fn in_range(self) -> (bool, &'static str) {
        match self {
            Self::Jitter { pixels } => (pixels <= 1024, "a jitter of at most 1024 pixels"),
            Self::Scale { low, high } => {
                (0.1 <= low && low <= high && high <= 10.0, "a scale from LOW to HIGH, both from 0.1 to 10")
            }
            Self::Rotate { degrees } => ((0.0..=180.0).contains(&degrees), "a rotation of 0 to 180 degrees"),
            Self::Blur { sigma } => (sigma > 0.0 && sigma <= 10.0, "a blur of more than 0, at most 10 pixels"),
            Self::Pad { pixels } => ((1..=64).contains(&pixels), "a margin of 1 to 64 pixels"),
            Self::Crop { low, high } => {
                (0.01 <= low && low <= high && high <= 1.0, "a crop from LOW to HIGH, both from 0.01 to 1")
            }
            Self::Noise { sd } => (sd > 0.0 && sd <= 1.0, "noise of more than 0, at most 1"),
            Self::Flip => (true, ""),
            Self::Colour { strength } => (strength > 0.0 && strength <= 1.0, "a strength of more than 0, at most 1"),
        }
    }
}

impl FromStr for Transform {
    type Err = Invalid;

    /// Reads `jitter:8`, `scale:0.9,1.1`, `rotate:10@0.3`, `flip`.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new("", text, GRAMMAR);
        let number = |digits: &str| digits.parse::<f32>().ok().filter(|x| x.is_finite()).ok_or_else(invalid);
        let whole = |digits: &str| digits.parse::<u32>().map_err(|_| invalid());
        let pair = |values: &str| {
            let (low, high) = values.split_once(',').ok_or_else(invalid)?;
            Ok::<_, Invalid>((number(low)?, number(high)?))
        };
        let (body, probability) = match text.split_once('@') {
            Some((body, probability)) => (body, Some(number(probability)?)),
            None => (text, None),
        };
        let kind = match body.split_once(':') {
            None if body == "flip" => TransformKind::Flip,
            Some(("jitter", pixels)) => TransformKind::Jitter { pixels: whole(pixels)? },
            Some(("scale", values)) => pair(values).map(|(low, high)| TransformKind::Scale { low, high })?,
            Some(("rotate", degrees)) => TransformKind::Rotate { degrees: number(degrees)? },
            Some(("blur", sigma)) => TransformKind::Blur { sigma: number(sigma)? },
            Some(("pad", pixels)) => TransformKind::Pad { pixels: whole(pixels)? },
            Some(("crop", values)) => pair(values).map(|(low, high)| TransformKind::Crop { low, high })?,
            Some(("noise", sd)) => TransformKind::Noise { sd: number(sd)? },
            Some(("colour", strength)) => TransformKind::Colour { strength: number(strength)? },
            _ => return Err(invalid()),
        };
        let (in_range, expected) = kind.in_range();
        if !in_range {
            return Err(Invalid::new("", text, expected));
        }
        let probability = probability.unwrap_or(kind.usual_probability());
        if !(probability > 0.0 && probability <= 1.0) {
            return Err(Invalid::new("", text, "a probability greater than 0 and at most 1 after the @"));
        }
        Ok(Self { kind, probability })
    }
}

impl fmt::Display for Transform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TransformKind::Jitter { pixels } => write!(f, "jitter:{pixels}"),
            TransformKind::Scale { low, high } => write!(f, "scale:{low},{high}"),
            TransformKind::Rotate { degrees } => write!(f, "rotate:{degrees}"),
            TransformKind::Blur { sigma } => write!(f, "blur:{sigma}"),
            TransformKind::Pad { pixels } => write!(f, "pad:{pixels}"),
            TransformKind::Crop { low, high } => write!(f, "crop:{low},{high}"),
            TransformKind::Noise { sd } => write!(f, "noise:{sd}"),
            TransformKind::Flip => write!(f, "flip"),
            TransformKind::Colour { strength } => write!(f, "colour:{strength}"),
        }?;
        match self.probability == self.kind.usual_probability() {
            true => Ok(()),
            false => write!(f, "@{}", self.probability),
        }
    }
}

impl Serialize for Transform {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Transform {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(feature = "openapi")]
impl PartialSchema for Transform {
    fn schema() -> RefOr<Schema> {
        let description = format!(
            "A random transform, sampled anew for every step: {GRAMMAR}. It is always applied unless a probability is \
             given, `flip` half of the time. `pad` pads the image with middle grey, which later transforms can move into \
             view (by reflection where it is not applied); finally the view is center-cropped to the image's size. `crop` \
             is a random resized crop with this share of the area. `colour` changes saturation, contrast and brightness \
             by up to this share."
        );
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(description))
            .pattern(Some(PATTERN))
            .examples([
                "jitter:8",
                "scale:0.9,1.1",
                "rotate:10@0.3",
                "blur:0.5",
                "pad:12",
                "crop:0.2,1",
                "noise:0.05",
                "flip",
            ])
            .into()
    }
}

#[cfg(feature = "openapi")]
impl ToSchema for Transform {}
