//! Where a run starts.

use candle_core::{DType, Device, Result as TensorResult, Tensor};
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::AdditionalProperties;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::Invalid;

/// The image before the first step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", from = "Document")]
pub enum Start {
    /// Middle grey plus normal noise.
    Grey {
        /// Standard deviation of the noise in pixel values of range [0, 1].
        noise: f32,
    },
    /// Every value drawn evenly from the whole range.
    Uniform,
}

/// The image before the first step.
#[derive(Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
enum Document {
    /// Middle grey plus normal noise.
    Grey {
        /// Standard deviation of the noise in pixel values of range [0, 1].
        #[serde(default = "default_noise")]
        #[schema(minimum = 0, maximum = 1)]
        noise: f32,
    },
    /// Every value drawn evenly from the whole range.
    // With braces, because only then unknown fields are refused.
    Uniform {},
}

impl From<Document> for Start {
    fn from(document: Document) -> Self {
        match document {
            Document::Grey { noise } => Self::Grey { noise },
            Document::Uniform {} => Self::Uniform,
        }
    }
}

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
    /// Checks the range of the noise.
    ///
    /// # Errors
    /// When it lies outside [0, 1].
    pub fn check(&self) -> Result<(), Invalid> {
        match self {
            Self::Grey { noise } if !(0.0..=1.0).contains(noise) => {
                Err(Invalid::new("noise", noise, "a number from 0 to 1"))
            }
            _ => Ok(()),
        }
    }

    /// Draws the image: pixels `[C,H,W]` in [0, 1].
    pub(super) fn draw(
        self,
        rng: &mut impl Rng,
        shape: [usize; 3],
        device: &Device,
        dtype: DType,
    ) -> TensorResult<Tensor> {
        let count = shape.iter().product();
        let values: Vec<f32> = match self {
            Self::Uniform => (0..count).map(|_| rng.random()).collect(),
            Self::Grey { noise } => (0..count).map(|_| (0.5 + noise * normal(rng)).clamp(0.0, 1.0)).collect(),
        };
        Tensor::from_vec(values, &shape, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)
    }
}

/// A standard normal number (Box & Muller 1958).
pub(super) fn normal(rng: &mut impl Rng) -> f32 {
    let (u, v): (f64, f64) = (rng.random(), rng.random());
    ((-2.0 * (1.0 - u).ln()).sqrt() * (2.0 * std::f64::consts::PI * v).cos()) as f32
}
