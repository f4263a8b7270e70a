//! Images that clients bring, as they name them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest, Sha256};
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::Invalid;

/// An image that a client brings: an image file inside the request or beside it, or, once it has been read, what is known
/// of it.
#[derive(Clone, PartialEq)]
pub enum ImageSource {
    /// The bytes of an image file.
    File(Arc<[u8]>),
    /// An image file beside the request, by its name.
    Part(String),
    /// An image that has been read.
    Known(KnownImage),
}

/// An image that has been read and fitted to the stimulus' size, told by its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KnownImage {
    /// SHA-256 of its PNG, lower-case hexadecimal.
    pub sha256: String,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

/// Marks the name of a part of the request.
const PART: &str = "part:";
/// Begins a data URL (RFC 2397).
const DATA: &str = "data:";
const EXPECTED: &str = "a PNG or JPEG in base64, plain or as a data: URL, or part:NAME";
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl FromStr for ImageSource {
    type Err = Invalid;

    /// Reads base64 (RFC 4648, section 4; its padding may be missing), a `data:` URL in base64, or `part:NAME`.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        if let Some(name) = text.strip_prefix(PART) {
            return match name.is_empty() {
                false => Ok(Self::Part(name.to_owned())),
                true => Err(Invalid::new("", text, EXPECTED)),
            };
        }
        let encoded = match text.strip_prefix(DATA) {
            Some(url) => match url.split_once(',') {
                Some((head, encoded)) if head.to_ascii_lowercase().ends_with(";base64") => encoded,
                _ => return Err(Invalid::new("", text, "a data: URL in base64: data:image/png;base64,…")),
            },
            None => text,
        };
        match BASE64.decode(encoded) {
            Ok(bytes) if !bytes.is_empty() => Ok(Self::File(bytes.into())),
            _ => Err(Invalid::new("", text, EXPECTED)),
        }
    }
}

impl<'de> Deserialize<'de> for ImageSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = ImageSource;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ImageSource, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<ImageSource, M::Error> {
                KnownImage::deserialize(MapAccessDeserializer::new(map)).map(ImageSource::Known)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl Serialize for ImageSource {
    /// An image file is told by its digest: documents stay small.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct File {
            sha256: String,
            bytes: usize,
        }
        match self {
            Self::File(bytes) => {
                File { sha256: hex::encode(Sha256::digest(bytes)), bytes: bytes.len() }.serialize(serializer)
            }
            Self::Part(name) => serializer.serialize_str(&format!("{PART}{name}")),
            Self::Known(image) => image.serialize(serializer),
        }
    }
}

impl PartialSchema for ImageSource {
    fn schema() -> RefOr<Schema> {
        let text = ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(
                "In a request: a PNG or JPEG in base64, plain or as a `data:` URL; or `part:NAME` for the part of this name \
                 of a `multipart/form-data` body.",
            ))
            .examples(["data:image/png;base64,iVBORw0KGgo…", "part:photo"]);
        let mut known = KnownImage::schema();
        if let RefOr::T(Schema::Object(object)) = &mut known {
            object.description = Some("In an answer: the image as it was used.".into());
        }
        OneOfBuilder::new()
            .item(text)
            .item(known)
            .description(Some(
                "An image of the client. It is turned as its EXIF orientation says, transparency is laid over white, and it \
                 is cut around its centre and resized to the stimulus' size and to the model's colours (grey or RGB).",
            ))
            .into()
    }
}

impl ToSchema for ImageSource {}

/// `of 9f86d081` or a part's name: enough to tell images of one job apart.
impl fmt::Display for ImageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::Part(name) => write!(f, "{PART}{name}"),
            Self::Known(image) => write!(f, "{}", image.sha256.get(..8).unwrap_or(&image.sha256)),
        }
    }
}

impl fmt::Debug for ImageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ImageSource({self})")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_image_may_be_written_in_every_usual_way() {
        let file = ImageSource::File(b"image".as_slice().into());
        for text in ["aW1hZ2U=", "aW1hZ2U", "data:image/png;base64,aW1hZ2U=", "data:;BASE64,aW1hZ2U="] {
            assert_eq!(text.parse::<ImageSource>().unwrap(), file, "{text}");
        }
        assert_eq!("part:photo".parse::<ImageSource>().unwrap(), ImageSource::Part("photo".into()));
    }

    #[test]
    fn what_is_no_image_is_refused_and_not_repeated_at_length() {
        let long = "?".repeat(100_000);
        for text in ["", "part:", "data:image/png,abc", "data:", "a", "ab cd", "https://example.org/x.png", &long] {
            let error = text.parse::<ImageSource>().unwrap_err();
            assert!(error.to_string().len() < 500, "{error}");
        }
    }

    #[test]
    fn an_image_that_was_read_is_an_object() {
        let known = KnownImage { sha256: "5ad1".into(), width: 3, height: 2 };
        let json = serde_json::to_string(&ImageSource::Known(known.clone())).unwrap();
        assert_eq!(json, r#"{"sha256":"5ad1","width":3,"height":2}"#);
        assert_eq!(serde_json::from_str::<ImageSource>(&json).unwrap(), ImageSource::Known(known));
    }
}
