//! Optimizers: from a gradient to the next image.

use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::document::{string_or_object, string_or_object_schema};
use crate::Invalid;

/// Rules that turn a gradient into a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum OptimizerKind {
    /// `x += lr * g / |g|` with the Euclidean norm of the stimulus' whole gradient: every step is `lr` long, unless the
    /// gradient is zero.
    L2Ascent,
    /// Adam (Kingma & Ba, arXiv:1412.6980, algorithm 1) with beta 0.9 and 0.999, epsilon 1e-8, ascending.
    Adam,
}

/// An optimizer, everything filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Optimizer {
    /// The rule.
    pub kind: OptimizerKind,
    /// Step size in pixel values of range [0, 1]: the length of a step over the whole image (`l2-ascent`), or the size
    /// of a step of each pixel value (`adam`).
    pub lr: f32,
}

/// An optimizer as written in a request. The kind alone may be written as a string.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OptimizerRequest {
    /// The rule.
    pub kind: OptimizerKind,
    /// Step size in pixel values of range [0, 1], greater than 0 and at most 1000; chosen from the image size unless
    /// given.
    pub lr: Option<f32>,
}

/// An optimizer and its step size.
#[derive(Deserialize, ToSchema)]
#[schema(as = OptimizerObject)]
#[serde(deny_unknown_fields)]
struct Full {
    /// The rule.
    kind: OptimizerKind,
    /// Step size in pixel values of range [0, 1]; chosen from the image size unless given.
    #[schema(exclusive_minimum = 0, maximum = 1000)]
    lr: Option<f32>,
}

string_or_object_schema!(
    OptimizerRequest,
    OptimizerKind,
    Full,
    "An optimizer: its kind, or an object; what is left out is filled in."
);

impl From<Full> for OptimizerRequest {
    fn from(Full { kind, lr }: Full) -> Self {
        Self { kind, lr }
    }
}

impl FromStr for OptimizerRequest {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let kind = match text {
            "l2-ascent" => OptimizerKind::L2Ascent,
            "adam" => OptimizerKind::Adam,
            _ => return Err(Invalid::new("kind", text, "l2-ascent or adam")),
        };
        Ok(Self { kind, lr: None })
    }
}

impl<'de> Deserialize<'de> for OptimizerRequest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        string_or_object::<D, Self, Full>(deserializer, "an optimizer's kind as text, or an object with a kind")
    }
}

impl OptimizerRequest {
    /// Fills in what was left out, for images of `values` numbers (`C * H * W`).
    ///
    /// # Errors
    /// When the step size is out of range.
    pub fn resolve(&self, values: usize) -> Result<Optimizer, Invalid> {
        let default = match self.kind {
            OptimizerKind::L2Ascent => round(Optimizer::RMS_STEP * (values as f64).sqrt()),
            OptimizerKind::Adam => Optimizer::ADAM_LR,
        };
        let lr = self.lr.unwrap_or(default);
        if !(lr > 0.0 && lr <= 1000.0) {
            return Err(Invalid::new("lr", lr, "a number greater than 0 and at most 1000"));
        }
        Ok(Optimizer { kind: self.kind, lr })
    }
}

impl Optimizer {
    /// Default root mean square of an `l2-ascent` step, per pixel value.
    const RMS_STEP: f64 = 0.005;
    /// Default step size of `adam`.
    const ADAM_LR: f32 = 0.02;
}

/// Two significant digits: a default that a person can repeat.
fn round(x: f64) -> f32 {
    let unit = 10f64.powf(x.log10().floor() - 1.0);
    ((x / unit).round() * unit) as f32
}
