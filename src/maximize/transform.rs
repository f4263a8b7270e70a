//! Random transforms: each step shows the network another view of the image.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::Invalid;

/// A random change of the view, drawn anew for every step and stimulus.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Transform {
    /// What is changed.
    pub kind: TransformKind,
    /// How often it is applied, in (0, 1].
    pub probability: f32,
}

/// What a transform changes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TransformKind {
    /// Rolls the image by up to this many pixels, independently along both axes; what leaves on one side enters on the
    /// other.
    Jitter {
        /// Largest shift in pixels.
        pixels: u32,
    },
    /// Zooms about the centre by a factor drawn evenly from this range.
    Scale {
        /// Smallest factor.
        low: f32,
        /// Largest factor.
        high: f32,
    },
    /// Rotates about the centre by up to this angle, either way.
    Rotate {
        /// Largest angle in degrees.
        degrees: f32,
    },
    /// Gaussian blur with a 5x5 kernel.
    Blur {
        /// Standard deviation in pixels.
        sigma: f32,
    },
}

const GRAMMAR: &str =
    "jitter:PIXELS, scale:LOW,HIGH, rotate:DEGREES or blur:SIGMA, optionally followed by @PROBABILITY";

/// [`GRAMMAR`] as a regular expression.
const PATTERN: &str =
    "^(jitter:[0-9]+|scale:[0-9]*\\.?[0-9]+,[0-9]*\\.?[0-9]+|(rotate|blur):[0-9]*\\.?[0-9]+)(@[0-9]*\\.?[0-9]+)?$";

impl FromStr for Transform {
    type Err = Invalid;

    /// Reads `jitter:8`, `scale:0.9,1.1`, `rotate:10@0.3`, `blur:0.5`.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new("", text, GRAMMAR);
        let number = |digits: &str| digits.parse::<f32>().ok().filter(|x| x.is_finite()).ok_or_else(invalid);
        let (body, probability) = match text.split_once('@') {
            Some((body, probability)) => (body, number(probability)?),
            None => (text, 1.0),
        };
        let (name, values) = body.split_once(':').ok_or_else(invalid)?;
        let kind = match name {
            "jitter" => TransformKind::Jitter { pixels: values.parse().map_err(|_| invalid())? },
            "scale" => {
                let (low, high) = values.split_once(',').ok_or_else(invalid)?;
                TransformKind::Scale { low: number(low)?, high: number(high)? }
            }
            "rotate" => TransformKind::Rotate { degrees: number(values)? },
            "blur" => TransformKind::Blur { sigma: number(values)? },
            _ => return Err(invalid()),
        };
        let (in_range, expected) = match kind {
            TransformKind::Jitter { pixels } => (pixels <= 1024, "a jitter of at most 1024 pixels"),
            TransformKind::Scale { low, high } => {
                (0.1 <= low && low <= high && high <= 10.0, "a scale from LOW to HIGH, both from 0.1 to 10")
            }
            TransformKind::Rotate { degrees } => ((0.0..=180.0).contains(&degrees), "a rotation of 0 to 180 degrees"),
            TransformKind::Blur { sigma } => (sigma > 0.0 && sigma <= 10.0, "a blur of more than 0, at most 10 pixels"),
        };
        if !in_range {
            return Err(Invalid::new("", text, expected));
        }
        if !(probability > 0.0 && probability <= 1.0) {
            return Err(Invalid::new("", text, "a probability greater than 0 and at most 1 behind the @"));
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
        }?;
        if self.probability < 1.0 { write!(f, "@{}", self.probability) } else { Ok(()) }
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

impl PartialSchema for Transform {
    fn schema() -> RefOr<Schema> {
        let description = format!("A random change of the view, drawn anew for every step: {GRAMMAR}.");
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(description))
            .pattern(Some(PATTERN))
            .examples(["jitter:8", "scale:0.9,1.1", "rotate:10@0.3", "blur:0.5"])
            .into()
    }
}

impl ToSchema for Transform {}
