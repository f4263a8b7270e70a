//! Settings of a run, with defaults filled in.

use serde::{Deserialize, Serialize};
#[cfg(feature = "openapi")]
use utoipa::ToSchema;

use super::preset::Preset;
use crate::judge::JudgeRef;
use crate::maximize::animation::Animation;
use crate::maximize::coarse::Coarse;
use crate::maximize::diversity::Diversity;
use crate::maximize::gate_schedule::GateSchedule;
use crate::maximize::halving::Halving;
use crate::maximize::optimizer::Optimizer;
use crate::maximize::parameterization::Parameterization;
use crate::maximize::regularization::Regularizer;
use crate::maximize::start::Start;
use crate::maximize::transform::Transform;

/// Everything that determines a stimulus, except objective and seed.
///
/// Stimuli with equal settings on layers of one model can share a batch; each result is the same as if it had run
/// alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct Settings {
    /// Preset of the settings that the request omitted; null in jobs of older versions, whose default had no name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// Backward rule of activations and its schedule.
    pub gate: GateSchedule,
    /// Successive halving over gates and starts; null if there is only one candidate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<Halving>,
    /// Number of updates of the image; in a search, the total over all candidates.
    pub steps: u32,
    /// Steps without an improvement of the best score by one percent after which a stimulus is finished early; null if it
    /// makes all steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patience: Option<u32>,
    /// Optimizer.
    pub optimizer: Optimizer,
    /// Image parameterization.
    #[serde(default)]
    pub parameterization: Parameterization,
    /// Coarse stage: the first part of the steps, on a smaller image; null if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coarse: Option<Coarse>,
    /// Random transforms, applied in this order; after the coarse stage if there is one.
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
    /// With transforms, number of steps between two scores of the untransformed image, each of which takes one more
    /// forward pass; the last image is always scored. Without transforms every step is scored at no cost.
    pub score_every: u32,
    /// Whether diagnostics of the stimuli are measured.
    #[serde(default, alias = "certificates")]
    pub diagnostics: bool,
    /// Judges that are shown the stimuli.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(required = false))]
    pub judges: Vec<JudgeRef>,
    /// Whether the PNG is transparent where its saliency is low.
    #[serde(default)]
    pub alpha: bool,
    /// An animated PNG of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub animation: Option<Animation>,
    /// Several stimuli per objective, with a penalty on their similarity; null if there is one.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(required))]
    pub diversity: Option<Diversity>,
}

impl Settings {
    /// Number of stimuli per objective.
    pub fn copies(&self) -> usize {
        self.diversity.as_ref().map_or(1, |diversity| diversity.copies.max(1))
    }

    /// All gates of the run.
    pub(in crate::maximize) fn gates(&self) -> impl Iterator<Item = &GateSchedule> {
        let arms = self.search.iter().flat_map(|search| search.arms.iter().chain(&search.rescue));
        arms.chain(self.search.is_none().then_some(&self.gate))
    }
}
