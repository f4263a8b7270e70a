//! What a run tells while it runs, and what it found.

use serde::{Deserialize, Deserializer, Serialize};
#[cfg(feature = "openapi")]
use utoipa::ToSchema;

use crate::maximize::diagnostics::document::Certificates;
use crate::maximize::gate_schedule::GateSchedule;

/// A stimulus and what is known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The stimulus as an 8-bit PNG, grey or RGB.
    pub png: Vec<u8>,
    /// How it came to be, as an animated PNG, if the settings ask for that.
    pub animation: Option<Vec<u8>>,
    /// The maximum that it reaches, and how it was found.
    pub findings: Findings,
}

/// The maximum that a stimulus reaches, and how it was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct Findings {
    /// The objective's value on exactly the PNG delivered, in the original network, without transforms; null when the
    /// network gives no finite value.
    #[serde(deserialize_with = "number_or_null")]
    #[cfg_attr(feature = "openapi", schema(required, value_type = Option<f32>))]
    pub score: f32,
    /// The value on the image before the first step; null when not finite.
    #[serde(deserialize_with = "number_or_null")]
    #[cfg_attr(feature = "openapi", schema(required, value_type = Option<f32>))]
    pub initial_score: f32,
    /// The value on the image behind the last step; null when not finite.
    #[serde(deserialize_with = "number_or_null")]
    #[cfg_attr(feature = "openapi", schema(required, value_type = Option<f32>))]
    pub final_score: f32,
    /// Number of steps behind which the best image stood; 0 is the start.
    pub best_step: u32,
    /// Scores along the run, by step; only finite ones.
    pub trajectory: Vec<Point>,
    /// Forward and backward passes spent, through the part of the network below the target.
    pub passes: u32,
    /// What the candidates of a search reached, the winner last; nothing without a search.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(required = false))]
    pub arms: Vec<ArmFindings>,
    /// What the reader of the score should know.
    pub warnings: Vec<Warning>,
    /// What else can be said about the maximum; null unless certificates were asked for.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(required))]
    pub certificates: Option<Certificates>,
}

/// What a candidate of a search reached before it was dropped, or as the winner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct ArmFindings {
    /// Its gate; the schedule runs over the steps that the winner does.
    pub gate: GateSchedule,
    /// Which start it went from, from 0.
    pub restart: u32,
    /// Steps it did.
    pub steps: u32,
    /// Passes it took.
    pub passes: u32,
    /// Its best score: while it ran, or of the delivered PNG if it won; null when none was finite.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub score: Option<f32>,
    /// Whether its image is the one delivered.
    pub won: bool,
}

/// JSON has no NaN and no infinity: they are written as null and read back as NaN.
fn number_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f32, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f32::NAN))
}

/// One score of a trajectory.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct Point {
    /// Number of steps done.
    pub step: u32,
    /// Value of the objective there, in the original network, without transforms.
    pub score: f32,
}

/// What the reader of a score should know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Warning {
    /// The score never moved from its start, whatever gradient came: no image wakes the unit, or none that this gate and
    /// start lead to.
    DeadUnit,
    /// The score moved, but the image delivered scores no higher than the start; most often it is the start.
    NoImprovement,
    /// The target is a softmax, at most scaled, reshaped or cut since: its score is bounded, and other classes can be
    /// pushed down instead.
    SoftmaxTarget,
    /// More than half of the pixel values lie at an end of their range.
    SaturatedPixels,
    /// The score or gradient became infinite or not a number; the best finite image was kept.
    NonFinite,
}

impl Warning {
    /// The warning as a sentence.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::DeadUnit => {
                "the score never moved from its start: the unit is dead, at least for this gate and start"
            }
            Self::NoImprovement => "no step led to an image that scores higher than the start",
            Self::SoftmaxTarget => "the target is a softmax, so its score is bounded; maximize the logit instead",
            Self::SaturatedPixels => "more than half of the pixel values lie at an end of their range",
            Self::NonFinite => "scores or gradients became infinite or not a number; the best finite image was kept",
        }
    }
}
