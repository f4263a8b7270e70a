//! What a run tells while it runs, and what it found.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A stimulus and the maximum it reaches.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The stimulus as an 8-bit PNG, grey or RGB.
    pub png: Vec<u8>,
    /// The objective's value on exactly this PNG, in the original network, without transforms.
    pub score: f32,
    /// The value on the image before the first step.
    pub initial_score: f32,
    /// The value on the image behind the last step.
    pub final_score: f32,
    /// Number of steps behind which the best image stood; 0 is the start.
    pub best_step: u32,
    /// Scores along the run, by step.
    pub trajectory: Vec<Point>,
    /// Forward and backward passes spent on this stimulus, through the part of the network below the target.
    pub passes: u32,
    /// What the reader of the score should know.
    pub warnings: Vec<Warning>,
}

/// One score of a trajectory.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Point {
    /// Number of steps done.
    pub step: u32,
    /// Value of the objective there, in the original network, without transforms.
    pub score: f32,
}

/// What the reader of a score should know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Warning {
    /// No gradient ever reached the image, and the score never moved: the unit stayed dead.
    DeadUnit,
    /// The target stands behind a softmax: its score is bounded, and other classes can be pushed down instead.
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
            Self::DeadUnit => "no gradient ever reached the image: the unit stayed dead under this gate",
            Self::SoftmaxTarget => {
                "the target stands behind a softmax, so its score is bounded; maximize the logit instead"
            }
            Self::SaturatedPixels => "more than half of the pixel values lie at an end of their range",
            Self::NonFinite => "scores or gradients became infinite or not a number; the best finite image was kept",
        }
    }
}

/// Someone who watches a run and may end parts of it.
pub trait Observer {
    /// Asked before every step for every stimulus that still runs; `false` drops the stimulus.
    fn keep(&mut self, stimulus: usize) -> bool;

    /// Told after every scored step of a stimulus: `score` on the image as it is, behind `step` steps.
    fn scored(&mut self, stimulus: usize, point: Point);
}

/// Nobody watches.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn keep(&mut self, _: usize) -> bool {
        true
    }

    fn scored(&mut self, _: usize, _: Point) {}
}
