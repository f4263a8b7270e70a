//! The request document, as a client writes it.

use serde::{Deserialize, Serialize};
#[cfg(feature = "openapi")]
use utoipa::ToSchema;

use super::preset::Preset;
use crate::maximize::animation::Animation;
use crate::maximize::coarse::CoarseRequest;
use crate::maximize::diagnostics::request::DiagnosticsRequest;
use crate::maximize::diversity::Diversity;
use crate::maximize::gate_schedule::GateRequest;
use crate::maximize::halving::SearchRequest;
use crate::maximize::objective::Objective;
use crate::maximize::optimizer::OptimizerRequest;
use crate::maximize::parameterization::ParameterizationRequest;
use crate::maximize::regularization::Regularizer;
use crate::maximize::start::Start;
use crate::maximize::transform::Transform;

/// A request for stimuli: a model, one or more objectives, and settings that differ from the defaults.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Id of the model.
    #[cfg_attr(feature = "openapi", schema(examples("fashion-resnet8"), pattern = "^[a-z0-9][a-z0-9._-]{0,63}$"))]
    pub model: String,
    /// Objective to maximize; mutually exclusive with `objectives`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<crate::maximize::ObjectiveDocument>))]
    pub objective: Option<Objective>,
    /// Several objectives: one stimulus each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<crate::maximize::ObjectiveDocument>>, min_items = 1))]
    pub objectives: Option<Vec<Objective>>,
    /// Preset of the settings that are omitted. Default: `readable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// Two to four different presets instead of one: every objective gets one stimulus under each, first all under the
    /// first preset. Each stimulus is the same as in a request with its preset alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(min_items = 2, max_items = 4))]
    pub presets: Option<Vec<Preset>>,
    /// Backward rule of activations. Default: the preset's; `soft` instead of `auto` with `diversity`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<GateRequest>,
    /// Successive halving over several gates and starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<SearchRequest>,
    /// Number of updates of the image; with a search, the total over all candidates. Default: the preset's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub steps: Option<u32>,
    /// Early stopping: a stimulus is finished when its best score has not improved by at least one percent of its absolute
    /// value within this many steps. They are counted after the coarse stage, when the gate no longer changes, and in a
    /// search for the winner. Schedules keep the length of `steps`. With `diversity`, the stimuli of an objective stop
    /// together. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub patience: Option<u32>,
    /// Optimizer. Default: the preset's, if the parameterization is too; else `adam` for `fourier`,
    /// `l2-ascent` for `maco`, and for pixels `momentum` without transforms and `l2-ascent` with them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimizer: Option<OptimizerRequest>,
    /// Image parameterization. Default: the preset's, but `pixel` for a start from an image and for the regularizer
    /// `blur`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameterization: Option<ParameterizationRequest>,
    /// Coarse stage: the first part of the steps, with views and regularizers of its own and usually on a smaller image.
    /// Default: the preset's, unless the request has transforms, regularizers, a start from an image or another
    /// parameterization, or a side is below 96 pixels; `{"share": 0}` for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coarse: Option<CoarseRequest>,
    /// Random transforms, applied in this order; strings such as `["jitter:8"]`. Default: the preset's; `[]` for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_items = 16))]
    pub transforms: Option<Vec<Transform>>,
    /// Regularizers such as `["tv:0.5"]`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_items = 8))]
    pub regularizers: Option<Vec<Regularizer>>,
    /// Height and width of the stimulus. Default: the model's input size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(min_items = 2, max_items = 2))]
    pub size: Option<[usize; 2]>,
    /// The image before the first step. Default: the preset's, if it has one; else near-grey; `uniform` for `maco`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Start>,
    /// With transforms, number of steps between two scores of the untransformed image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub score_every: Option<u32>,
    /// Whether to measure diagnostics of the maxima after the last step: 165 more passes, counted separately; with
    /// `judges`, also what other networks see. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diagnostics: Option<DiagnosticsRequest>,
    /// Whether pixels of low saliency are transparent in the PNG: the saliency is the absolute gradient, summed over
    /// the run. Colours are unchanged. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpha: Option<bool>,
    /// Animated PNG of the run, in addition to the stimulus. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub animation: Option<Animation>,
    /// Several stimuli per objective, with a penalty on their similarity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diversity: Option<Diversity>,
    /// Random seed, from 0 to 2^53 - 1. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(maximum = 9_007_199_254_740_991_u64))]
    pub seed: Option<u64>,
}

/// Limits on requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of steps of a run.
    pub steps: u32,
    /// Greatest height or width of a stimulus in pixels.
    pub side: usize,
    /// Maximum number of objectives of one request.
    pub objectives: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { steps: 4096, side: 1024, objectives: 64 }
    }
}

/// Old and new names of request fields.
const RENAMED: [(&str, &str); 2] = [("certificates", "diagnostics"), ("leash", "max_rms_distance")];

impl Request {
    /// The new name of a request field that was renamed; None of other fields.
    pub fn renamed_field(old: &str) -> Option<&'static str> {
        RENAMED.into_iter().find_map(|(name, new)| (name == old).then_some(new))
    }

    /// A request with one objective and default settings.
    pub fn new(model: impl Into<String>, objective: Objective) -> Self {
        Self { model: model.into(), objective: Some(objective), ..Self::default() }
    }

    /// Ids of the judges that it asks for.
    pub fn judges(&self) -> &[String] {
        self.diagnostics.as_ref().map_or(&[], DiagnosticsRequest::judges)
    }

    /// Path of an objective, or of one of its several terms.
    pub(super) fn field_of_term(&self, objective: usize, term: Option<usize>) -> String {
        let field = match self.objective {
            Some(_) => "objective".to_owned(),
            None => format!("objectives[{objective}]"),
        };
        match term {
            None => field,
            Some(term) => format!("{field}.sum[{term}]"),
        }
    }
}
