//! Images in requests: inline files, parts of a form, and images that were already read.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{DecodeError, Engine};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest, Sha256};
#[cfg(feature = "openapi")]
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};
#[cfg(feature = "openapi")]
use utoipa::openapi::{RefOr, Schema};
#[cfg(feature = "openapi")]
use utoipa::{PartialSchema, ToSchema};

use crate::Invalid;

/// An image of a client: an image file inside the request or in another part of the form; once read, its digest and
/// size.
#[derive(Clone, PartialEq)]
pub enum ImageSource {
    /// The bytes of an image file.
    File(Arc<[u8]>),
    /// An image file in another part of the form, by name.
    Part(String),
    /// An image that has been read.
    Known(KnownImage),
}

/// An image that has been read and resized to the stimulus' size, identified by its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(deny_unknown_fields)]
pub struct KnownImage {
    /// SHA-256 of its PNG, lower-case hexadecimal.
    pub sha256: String,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

/// Prefix of the name of a form part.
const PART: &str = "part:";
/// Scheme of a data URL (RFC 2397).
const DATA: &str = "data";
const EXPECTED: &str = "a PNG or JPEG in base64, plain or as a data: URL, or part:NAME";
/// Accepts missing padding and nonzero trailing bits.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

impl FromStr for ImageSource {
    type Err = Invalid;

    /// Parses base64 (RFC 4648, section 4; padding is optional), a `data:` URL in base64, or `part:NAME`. Line breaks,
    /// spaces and tabs in base64 are ignored (RFC 2045, section 6.8).
    fn from_str(text: &str) -> Result<Self, Invalid> {
        if let Some(name) = text.strip_prefix(PART) {
            return match name.is_empty() {
                false => Ok(Self::Part(name.to_owned())),
                true => Err(Invalid::new("", text, EXPECTED)),
            };
        }
        let encoded = match text.split_once(':') {
            Some((scheme, url)) if scheme.eq_ignore_ascii_case(DATA) => match url.split_once(',') {
                Some((head, encoded)) if head.trim_end().to_ascii_lowercase().ends_with(";base64") => encoded,
                _ => return Err(Invalid::new("", text, "a data: URL in base64: data:image/png;base64,…")),
            },
            _ => text,
        };
        match decode(encoded, text.len() - encoded.len()) {
            Ok(bytes) if !bytes.is_empty() => Ok(Self::File(bytes.into())),
            Ok(_) => Err(Invalid::new("", text, EXPECTED)),
            Err(why) => Err(Invalid::new("", text, format!("{EXPECTED}: {why}"))),
        }
    }
}

/// Decodes base64 that begins at offset `start` of a text; errors state the offset in the text.
fn decode(encoded: &str, start: usize) -> Result<Vec<u8>, String> {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
    let kept: Cow<'_, [u8]> = match encoded.bytes().any(|byte| is_blank(&byte)) {
        true => encoded.bytes().filter(|byte| !is_blank(byte)).collect(),
        false => encoded.as_bytes().into(),
    };
    let error = match BASE64.decode(kept) {
        Ok(bytes) => return Ok(bytes),
        Err(error) => error,
    };
    // The decoder counts non-blank bytes; the message gives the offset in the original text.
    let position =
        |nth: usize| encoded.bytes().enumerate().filter(|(_, byte)| !is_blank(byte)).nth(nth).map(|(at, _)| at);
    Err(match error {
        DecodeError::InvalidByte(nth, _) | DecodeError::InvalidLastSymbol { offset: nth, .. } => {
            let at = position(nth).unwrap_or_default();
            let character = encoded.get(at..).and_then(|rest| rest.chars().next()).unwrap_or_default();
            let why = match character {
                '=' => "is padding in the wrong place or one too many",
                '%' => "is percent-encoding, which base64 in JSON does not need; write the character itself",
                '-' | '_' => "belongs to the URL-safe alphabet; use + for - and / for _",
                _ => "is not a base64 character",
            };
            format!("{character:?} at offset {} {why}", start + at)
        }
        DecodeError::InvalidLength(length) => {
            format!("{length} characters without padding are not whole bytes; the end is missing")
        }
        DecodeError::InvalidPadding => "its padding is wrong".to_owned(),
    })
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
    /// Writes the digest of an image file instead of its bytes.
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

#[cfg(feature = "openapi")]
impl PartialSchema for ImageSource {
    fn schema() -> RefOr<Schema> {
        let text = ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(
                "In a request: a PNG or JPEG in base64, plain or as a `data:` URL, with or without line breaks and \
                 padding; or `part:NAME` for the part with this name of a `multipart/form-data` body.",
            ))
            .examples(["data:image/png;base64,iVBORw0KGgo…", "part:photo"]);
        let mut known = KnownImage::schema();
        if let RefOr::T(Schema::Object(object)) = &mut known {
            object.description = Some("In a response: the image as used.".into());
        }
        OneOfBuilder::new()
            .item(text)
            .item(known)
            .description(Some(
                "An image of the client. Its EXIF orientation is applied, transparency is blended onto white, and it \
                 is center-cropped and resized to the stimulus' size and converted to the model's colours (RGB, or \
                 grey as ITU-R BT.601 luma: 0.299 R + 0.587 G + 0.114 B).",
            ))
            .into()
    }
}

#[cfg(feature = "openapi")]
impl ToSchema for ImageSource {}

/// `9f86d081` or a part's name: enough to distinguish the images of one job.
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
    fn an_image_may_be_encoded_in_every_usual_way() {
        let file = ImageSource::File(b"image".as_slice().into());
        for text in [
            "aW1hZ2U=",
            "aW1hZ2U",
            "data:image/png;base64,aW1hZ2U=",
            "data:;BASE64,aW1hZ2U=",
            "DATA:image/png;name=a.png;base64 ,aW1hZ2U=",
            "aW1h\nZ2U=\n",
            "aW1h\r\nZ2U\r\n",
            "\taW 1h\r\nZ2U\n=",
            "data:image/png;base64,\r\naW1h\r\nZ2U=",
        ] {
            assert_eq!(text.parse::<ImageSource>().unwrap(), file, "{text}");
        }
        assert_eq!("part:photo".parse::<ImageSource>().unwrap(), ImageSource::Part("photo".into()));
    }

    #[test]
    fn invalid_images_are_refused_and_not_quoted_at_length() {
        let long = "?".repeat(100_000);
        for text in
            ["", "part:", "data:image/png,abc", "data:", "a", "ab:cd", "\n \n", "https://example.org/x.png", &long]
        {
            let error = text.parse::<ImageSource>().unwrap_err();
            assert!(error.to_string().len() < 500, "{error}");
        }
    }

    #[test]
    fn invalid_base64_is_reported_with_its_offset() {
        for (text, parts) in [
            ("aW1h*2U=", ["'*'", "offset 4"]),
            ("aW1h\nZ2?U=", ["'?'", "offset 7"]),
            ("\r\n aW1hZ2\u{e9}=", ["'\u{e9}'", "offset 9"]),
            ("data:image/png;base64,aW1hZ2%3D", ["'%'", "offset 28 is percent-encoding"]),
            ("aW1h-2U=", ["'-'", "URL-safe"]),
            ("aW1hZ2U_", ["'_'", "offset 7"]),
            ("\u{feff}aW1hZ2U=", ["'\\u{feff}'", "offset 0"]),
            ("aW1hZ2U==", ["padding", "offset 7"]),
            ("aW1=hZ2U", ["padding", "offset 3"]),
            ("aW1hZ", ["5 characters", "the end is missing"]),
        ] {
            let error = text.parse::<ImageSource>().unwrap_err().to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{text:?}: {error}");
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
