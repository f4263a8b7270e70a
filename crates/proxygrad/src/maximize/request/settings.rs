//! Settings of a run, everything filled in.

use serde::{Deserialize, Serialize};
#[cfg(feature = "openapi")]
use utoipa::ToSchema;

use super::preset::Preset;
use crate::maximize::animation::Animation;
use crate::maximize::diversity::Diversity;
use crate::maximize::gate_schedule::GateSchedule;
use crate::maximize::halving::Halving;
use crate::maximize::optimizer::Optimizer;
use crate::maximize::parameterization::Parameterization;
use crate::maximize::regularization::Regularizer;
use crate::maximize::start::Start;
use crate::maximize::transform::Transform;

/// Everything that decides how stimuli are made, apart from objective and seed.
///
/// Stimuli with equal settings on layers of one model can share a batch; each result is the same as if it had run alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct Settings {
    /// What filled in the settings that the request left out; null in jobs of releases whose default had no name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// The backward rule of activations and its course.
    pub gate: GateSchedule,
    /// Gates and starts that compete for the steps; null when there is but one way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<Halving>,
    /// Number of updates of the image, in a search on all candidates together.
    pub steps: u32,
    /// From a gradient to the next image.
    pub optimizer: Optimizer,
    /// What the optimizer changes.
    #[serde(default)]
    pub parameterization: Parameterization,
    /// Random views, applied in this order.
    pub transforms: Vec<Transform>,
    /// Regularizers: penalties and blur.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(required))]
    pub regularizers: Vec<Regularizer>,
    /// Height and width of the stimulus in pixels.
    #[cfg_attr(feature = "openapi", schema(min_items = 2, max_items = 2))]
    pub size: [usize; 2],
    /// The image before the first step.
    #[serde(deserialize_with = "Start::stored")]
    pub start: Start,
    /// With transforms, the image as it is gets scored every so many steps (and at the end): one more forward pass each
    /// time. Without transforms every step is scored at no cost.
    pub score_every: u32,
    /// Whether diagnostics are measured on the stimuli that were found.
    #[serde(default, alias = "certificates")]
    pub diagnostics: bool,
    /// Whether the PNG is transparent where the objective hardly looked at it.
    #[serde(default)]
    pub alpha: bool,
    /// An animated PNG of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub animation: Option<Animation>,
    /// Several stimuli for every objective, kept unlike each other; null when there is one for each.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(required))]
    pub diversity: Option<Diversity>,
}

impl Settings {
    /// Number of stimuli for every objective.
    pub fn copies(&self) -> usize {
        self.diversity.as_ref().map_or(1, |diversity| diversity.copies.max(1))
    }

    /// The gates that images may follow.
    pub(in crate::maximize) fn gates(&self) -> impl Iterator<Item = &GateSchedule> {
        let arms = self.search.iter().flat_map(|search| search.arms.iter().chain(&search.rescue));
        arms.chain(self.search.is_none().then_some(&self.gate))
    }
}
