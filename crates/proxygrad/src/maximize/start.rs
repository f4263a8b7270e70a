//! Start of a run: noise or an image.

use candle_core::{DType, Device, Tensor};
use rand::{Rng, RngExt};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
#[cfg(feature = "openapi")]
use utoipa::openapi::schema::AdditionalProperties;
#[cfg(feature = "openapi")]
use utoipa::openapi::{RefOr, Schema};
#[cfg(feature = "openapi")]
use utoipa::{PartialSchema, ToSchema};

use crate::Invalid;
use crate::maximize::error::MaximizeError;
use crate::maximize::reference_image::ReferenceImages;
use crate::network::ImageSource;
use crate::random::normal;

/// The image before the first step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", from = "Document")]
pub enum Start {
    /// Middle grey plus normal noise.
    Grey {
        /// Standard deviation of the noise, in pixel values of range [0, 1], or of the coefficients (`fourier`).
        noise: f32,
    },
    /// Every value (`maco`: every phase) drawn uniformly from its range.
    Uniform,
    /// An image of the client, whose features the objective amplifies.
    Image {
        /// The image.
        image: ImageSource,
        /// Standard deviation of normal noise that is added, in pixel values of range [0, 1].
        noise: f32,
        /// Greatest root-mean-square distance of the pixel values, of range [0, 1], from this start.
        max_rms_distance: Option<f32>,
    },
}

/// The image before the first step.
#[derive(Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
enum Document {
    /// Middle grey plus normal noise.
    Grey {
        /// Standard deviation of the noise, in pixel values of range [0, 1], or of the coefficients (`fourier`).
        #[serde(default = "default_noise")]
        #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 1))]
        noise: f32,
    },
    /// Every value (`maco`: every phase) drawn uniformly from its range.
    // With braces, since unknown fields are only rejected in struct variants.
    Uniform {},
    /// An image of the client, whose features the objective amplifies.
    Image {
        /// The image.
        #[serde(deserialize_with = "image")]
        image: ImageSource,
        /// Standard deviation of normal noise that is added, in pixel values of range [0, 1]; 0 unless given.
        #[serde(default)]
        #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 1))]
        noise: f32,
        /// Greatest root-mean-square distance of the stimulus from this start, in pixel values of range [0, 1] before
        /// rounding to 8 bits. After every step `x` is projected onto that ball:
        /// `start + (x - start) * min(1, max_rms_distance / distance)`. Default: no limit.
        #[serde(default)]
        #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 1))]
        max_rms_distance: Option<f32>,
    },
}

/// Deserializes an image and adds its field to errors: the deserializer of a tagged enum loses it.
fn image<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ImageSource, D::Error> {
    ImageSource::deserialize(deserializer).map_err(|error| match error.to_string() {
        invalid if invalid.starts_with(": ") => D::Error::custom(format_args!("image{invalid}")),
        _ => error,
    })
}

impl From<Document> for Start {
    fn from(document: Document) -> Self {
        match document {
            Document::Grey { noise } => Self::Grey { noise },
            Document::Uniform {} => Self::Uniform,
            Document::Image { image, noise, max_rms_distance } => Self::Image { image, noise, max_rms_distance },
        }
    }
}

/// A start in stored settings, where `max_rms_distance` may have its old name `leash`.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum Stored {
    Grey {
        noise: f32,
    },
    Uniform,
    Image {
        image: ImageSource,
        noise: f32,
        #[serde(default, alias = "leash")]
        max_rms_distance: Option<f32>,
    },
}

impl From<Stored> for Start {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::Grey { noise } => Self::Grey { noise },
            Stored::Uniform => Self::Uniform,
            Stored::Image { image, noise, max_rms_distance } => Self::Image { image, noise, max_rms_distance },
        }
    }
}

#[cfg(feature = "openapi")]
impl PartialSchema for Start {
    /// As derived, with closed objects.
    fn schema() -> RefOr<Schema> {
        let mut schema = Document::schema();
        if let RefOr::T(Schema::OneOf(kinds)) = &mut schema {
            for kind in &mut kinds.items {
                if let RefOr::T(Schema::Object(object)) = kind {
                    object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
                }
            }
        }
        schema
    }
}

#[cfg(feature = "openapi")]
impl ToSchema for Start {}

fn default_noise() -> f32 {
    0.01
}

impl Default for Start {
    fn default() -> Self {
        Self::Grey { noise: default_noise() }
    }
}

impl Start {
    /// Reads a start from stored settings.
    pub(super) fn stored<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Stored::deserialize(deserializer).map(Self::from)
    }

    /// Checks the ranges of its numbers.
    ///
    /// # Errors
    /// When the noise or the distance is outside [0, 1].
    pub fn check(&self) -> Result<(), Invalid> {
        let unit = |field: &str, value: f32| match (0.0..=1.0).contains(&value) {
            true => Ok(()),
            false => Err(Invalid::new(field, value, "a number from 0 to 1")),
        };
        match self {
            Self::Grey { noise } => unit("noise", *noise),
            Self::Uniform => Ok(()),
            Self::Image { noise, max_rms_distance, .. } => {
                unit("noise", *noise)?;
                max_rms_distance.map_or(Ok(()), |distance| unit("max_rms_distance", distance))
            }
        }
    }

    /// Greatest root-mean-square distance of images from this start; None without a limit.
    pub(super) fn max_rms_distance(&self) -> Option<f32> {
        match self {
            Self::Image { max_rms_distance, .. } => *max_rms_distance,
            _ => None,
        }
    }

    /// Draws the image: pixels `[C,H,W]` in [0, 1].
    pub(super) fn draw(
        &self,
        rng: &mut impl Rng,
        shape: [usize; 3],
        reference_images: &ReferenceImages,
        device: &Device,
        dtype: DType,
    ) -> Result<Tensor, MaximizeError> {
        let count = shape.iter().product();
        let values: Vec<f32> = match self {
            Self::Uniform => (0..count).map(|_| rng.random()).collect(),
            Self::Grey { noise } => (0..count).map(|_| (0.5 + noise * normal(rng) as f32).clamp(0.0, 1.0)).collect(),
            Self::Image { image, noise, .. } => {
                let pixels = reference_images.find(image)?.pixels(device, dtype)?;
                if *noise == 0.0 {
                    return Ok(pixels);
                }
                let pixels = pixels.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
                pixels.into_iter().map(|p| (p + noise * normal(rng) as f32).clamp(0.0, 1.0)).collect()
            }
        };
        Ok(Tensor::from_vec(values, &shape, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?)
    }
}
