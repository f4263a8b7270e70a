//! Where a run starts.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Invalid;

/// The image before the first step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Start {
    /// Middle grey plus normal noise.
    Grey {
        /// Standard deviation of the noise in pixel values of range [0, 1].
        #[serde(default = "default_noise")]
        #[schema(minimum = 0, maximum = 1)]
        noise: f32,
    },
    /// Every value drawn evenly from the whole range.
    Uniform,
}

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
}
