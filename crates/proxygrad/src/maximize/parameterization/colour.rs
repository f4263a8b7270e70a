//! Colour decorrelation as a setting.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
#[cfg(feature = "openapi")]
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Type};
#[cfg(feature = "openapi")]
use utoipa::openapi::{RefOr, Schema};
#[cfg(feature = "openapi")]
use utoipa::{PartialSchema, ToSchema};

use crate::Invalid;
use crate::network::ColourMatrix;

/// Colour decorrelation matrix.
#[derive(Debug, Clone, PartialEq)]
pub enum Colour {
    /// As in the photographs of `ImageNet` ([`ColourMatrix::imagenet`]); three channels.
    Imagenet,
    /// Channels are independent of each other.
    None,
    /// From decorrelated colours to the channels of the image.
    Matrix(ColourMatrix),
}

const EXPECTED: &str = "imagenet, none, or a matrix of a row per channel, such as [[1,0.2],[1,-0.2]]";

impl Colour {
    /// The matrix for images of this number of channels.
    ///
    /// # Errors
    /// When it does not fit this number of channels, or is singular; the error names no field.
    pub fn matrix(&self, channels: usize) -> Result<Cow<'_, ColourMatrix>, Invalid> {
        match self {
            Self::Imagenet if channels == 3 => Ok(Cow::Owned(ColourMatrix::imagenet())),
            Self::Imagenet => {
                let expected = format!("none or a matrix of {channels} rows: the images have {channels} channels");
                Err(Invalid::new("", "imagenet", expected))
            }
            Self::None => Ok(Cow::Owned(ColourMatrix::identity(channels))),
            Self::Matrix(matrix) => matrix.check(channels).map(|()| Cow::Borrowed(matrix)),
        }
    }
}

impl FromStr for Colour {
    type Err = Invalid;

    /// Reads a name, or a matrix as JSON.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "imagenet" => Ok(Self::Imagenet),
            "none" => Ok(Self::None),
            _ => {
                let rows = serde_json::from_str(text).map_err(|_| Invalid::new("", text, EXPECTED))?;
                Ok(Self::Matrix(ColourMatrix::new(rows)))
            }
        }
    }
}

impl Serialize for Colour {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Imagenet => serializer.serialize_str("imagenet"),
            Self::None => serializer.serialize_str("none"),
            Self::Matrix(matrix) => matrix.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Colour {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Colour;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Colour, E> {
                match text {
                    "imagenet" => Ok(Colour::Imagenet),
                    "none" => Ok(Colour::None),
                    _ => Err(E::custom(Invalid::new("colour", text, EXPECTED))),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, rows: A) -> Result<Colour, A::Error> {
                Ok(Colour::Matrix(ColourMatrix::deserialize(SeqAccessDeserializer::new(rows))?))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

#[cfg(feature = "openapi")]
impl PartialSchema for Colour {
    fn schema() -> RefOr<Schema> {
        let name = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["imagenet", "none"]));
        let row = ArrayBuilder::new().items(ObjectBuilder::new().schema_type(Type::Number)).min_items(Some(1));
        let matrix = ArrayBuilder::new().items(row).min_items(Some(1));
        OneOfBuilder::new()
            .item(name)
            .item(matrix)
            .description(Some(
                "Colour decorrelation: a name, or a matrix from decorrelated colours to the channels of the image (red, \
                 green, blue), one row per channel. Only the proportions matter.",
            ))
            .into()
    }
}

#[cfg(feature = "openapi")]
impl ToSchema for Colour {}
