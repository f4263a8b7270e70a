//! Documents of regularizers: penalties and blur, at the price of a lower score.

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

/// A penalty that is minimized while the objective is maximized, or periodic blur. Scores do not include penalties.
///
/// Penalties are relative: with the gradient `g` of the objective with respect to the image's `n` pixel values, and `R`
/// the mean of a penalty over them, the step follows `g / |g| - weight * sqrt(n) * grad R`. So a weight has the same
/// effect at any scale of the objective, and an image without a gradient does not change.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Regularizer {
    /// Distance of pixel values from middle grey: `R` is the mean of `|x - 0.5|`.
    L1 {
        /// Weight.
        weight: f32,
    },
    /// Squared distance of pixel values from middle grey: `R` is the mean of `(x - 0.5)^2`.
    L2 {
        /// Weight.
        weight: f32,
    },
    /// Total variation (Mahendran & Vedaldi, arXiv:1412.0035, equation 6, with `beta` 2): `R` is the mean of the
    /// squared differences to the pixel on the right and to the one below, where they exist.
    TotalVariation {
        /// Weight.
        weight: f32,
    },
    /// Gaussian blur of the image itself (Yosinski et al., arXiv:1506.06579, section 3): every `every` steps, with a
    /// standard deviation that falls linearly to 0 over the run.
    Blur {
        /// Standard deviation at the start, in pixels.
        sigma: f32,
        /// Steps from one blur to the next.
        every: u32,
    },
}

const GRAMMAR: &str = "l1:WEIGHT, l2:WEIGHT, tv:WEIGHT or blur:SIGMA,EVERY";

/// [`GRAMMAR`] as a regular expression.
#[cfg(feature = "openapi")]
const PATTERN: &str = "^((l1|l2|tv):[0-9]*\\.?[0-9]+|blur:[0-9]*\\.?[0-9]+,[0-9]+)$";

impl Regularizer {
    /// Whether it changes the pixels directly; all others are penalties.
    pub(in crate::maximize) fn is_blur(&self) -> bool {
        matches!(self, Self::Blur { .. })
    }
}

impl FromStr for Regularizer {
    type Err = Invalid;

    /// Reads `l1:0.01`, `tv:0.5`, `blur:1,4`.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new("", text, GRAMMAR);
        let number = |digits: &str| digits.parse::<f32>().ok().filter(|x| x.is_finite()).ok_or_else(invalid);
        let (name, values) = text.split_once(':').ok_or_else(invalid)?;
        let weight = || {
            let weight = number(values)?;
            match weight > 0.0 && weight <= 100.0 {
                true => Ok(weight),
                false => Err(Invalid::new("", text, "a weight greater than 0 and at most 100")),
            }
        };
        match name {
            "l1" => Ok(Self::L1 { weight: weight()? }),
            "l2" => Ok(Self::L2 { weight: weight()? }),
            "tv" => Ok(Self::TotalVariation { weight: weight()? }),
            "blur" => {
                let (sigma, every) = values.split_once(',').ok_or_else(invalid)?;
                let (sigma, every) = (number(sigma)?, every.parse::<u32>().map_err(|_| invalid())?);
                if !(sigma > 0.0 && sigma <= 10.0 && every >= 1) {
                    let expected = "a blur of more than 0, at most 10 pixels, every 1 or more steps";
                    return Err(Invalid::new("", text, expected));
                }
                Ok(Self::Blur { sigma, every })
            }
            _ => Err(invalid()),
        }
    }
}

impl fmt::Display for Regularizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::L1 { weight } => write!(f, "l1:{weight}"),
            Self::L2 { weight } => write!(f, "l2:{weight}"),
            Self::TotalVariation { weight } => write!(f, "tv:{weight}"),
            Self::Blur { sigma, every } => write!(f, "blur:{sigma},{every}"),
        }
    }
}

impl Serialize for Regularizer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Regularizer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(feature = "openapi")]
impl PartialSchema for Regularizer {
    fn schema() -> RefOr<Schema> {
        let description = format!(
            "A regularizer: {GRAMMAR}. `l1` and `l2` penalize the (squared) distance of pixel values from middle grey, \
             `tv` squared differences between neighbours. A weight is relative to the gradient, independent of the scale \
             of the objective: a step follows `g / |g| - WEIGHT * sqrt(n) * grad R` with the mean `R` of the penalty over \
             the image's `n` pixel values. `blur` blurs the image itself after every EVERY steps, with a standard \
             deviation in pixels that falls to 0 over the run. Scores do not include penalties."
        );
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(description))
            .pattern(Some(PATTERN))
            .examples(["l1:0.05", "l2:0.1", "tv:0.5", "blur:1,4"])
            .into()
    }
}

#[cfg(feature = "openapi")]
impl ToSchema for Regularizer {}
