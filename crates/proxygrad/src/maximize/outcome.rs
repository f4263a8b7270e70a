//! Outcomes of a run: the stimulus and its findings.

use serde::{Deserialize, Deserializer, Serialize};
#[cfg(feature = "openapi")]
use utoipa::ToSchema;

use crate::maximize::diagnostics::document::Diagnostics;
use crate::maximize::gate_schedule::GateSchedule;

/// A stimulus and its findings.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The stimulus as an 8-bit PNG, grey or RGB.
    pub png: Vec<u8>,
    /// An animated PNG of the run, if the settings ask for it.
    pub animation: Option<Vec<u8>>,
    /// Its score and how it was found.
    pub findings: Findings,
}

/// The score of a stimulus and how it was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct Findings {
    /// The objective's value on the PNG, in the original network, without transforms; null if not finite.
    #[serde(deserialize_with = "number_or_null")]
    #[cfg_attr(feature = "openapi", schema(required, value_type = Option<f32>))]
    pub score: f32,
    /// The value on the image before the first step; null if not finite.
    #[serde(deserialize_with = "number_or_null")]
    #[cfg_attr(feature = "openapi", schema(required, value_type = Option<f32>))]
    pub initial_score: f32,
    /// The value on the image after the last step; null if not finite.
    #[serde(deserialize_with = "number_or_null")]
    #[cfg_attr(feature = "openapi", schema(required, value_type = Option<f32>))]
    pub final_score: f32,
    /// Number of steps made; with a search, by all candidates. Fewer than those of the settings if the score settled
    /// before. 0 in jobs of older versions.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(required))]
    pub steps: u32,
    /// Number of steps after which the best image was reached; 0 is the start.
    pub best_step: u32,
    /// Finite scores during the run, by step.
    pub trajectory: Vec<Point>,
    /// Number of forward and backward passes through the part of the network below the target.
    pub passes: u32,
    /// Findings of the candidates of a search, the winner last; absent without a search.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(required = false))]
    pub arms: Vec<ArmFindings>,
    /// Reasons to read the score with care.
    pub warnings: Vec<Warning>,
    /// Diagnostics of the maximum; null unless asked for.
    #[serde(default, alias = "certificates")]
    #[cfg_attr(feature = "openapi", schema(required))]
    pub diagnostics: Option<Diagnostics>,
}

/// Findings of a candidate of a search, when it was dropped or won.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct ArmFindings {
    /// Its gate, with a schedule over the steps of the winner.
    pub gate: GateSchedule,
    /// Index of its random start, from 0.
    pub restart: u32,
    /// Steps it made.
    pub steps: u32,
    /// Passes it took.
    pub passes: u32,
    /// Its best score: during the run, or of the PNG if it won; null if none was finite.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub score: Option<f32>,
    /// Whether its image is the stimulus.
    pub won: bool,
}

/// JSON has no NaN or infinity: they are written as null and read back as NaN.
fn number_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f32, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f32::NAN))
}

/// One score of a trajectory.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct Point {
    /// Number of steps done.
    pub step: u32,
    /// Value of the objective after them, in the original network, without transforms.
    pub score: f32,
}

/// Reason to read a score with care.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Warning {
    /// The score never changed: no image activates the unit, or none that is reachable with this gate and start.
    DeadUnit,
    /// The score changed, but the stimulus scores no higher than the start; mostly it is the start.
    NoImprovement,
    /// The target is a softmax, possibly scaled, reshaped or sliced: its score is bounded, and can rise because other
    /// classes fall.
    SoftmaxTarget,
    /// More than half of the pixel values are at an end of their range.
    SaturatedPixels,
    /// A score or gradient was infinite or not a number; the best image with a finite score is returned.
    NonFinite,
}

impl Warning {
    /// The warning as a sentence.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::DeadUnit => "the score never changed: the unit is dead, at least with this gate and start",
            Self::NoImprovement => "no step led to an image that scores higher than the start",
            Self::SoftmaxTarget => "the target is a softmax, so its score is bounded; maximize the logit instead",
            Self::SaturatedPixels => "more than half of the pixel values are at an end of their range",
            Self::NonFinite => {
                "a score or gradient was infinite or not a number; the best image with a finite score is returned"
            }
        }
    }
}
