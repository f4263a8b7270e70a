//! Verdict documents.

use serde::{Deserialize, Serialize};
#[cfg(feature = "openapi")]
use utoipa::ToSchema;

use crate::network::Model;

/// What a judge, another network, sees in a stimulus. A number is null where it is undefined.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct Verdict {
    /// Id of the judge.
    #[cfg_attr(feature = "openapi", schema(examples("efficientnet-lite2")))]
    pub judge: String,
    /// Rank of the stimulus' class among the classes of the judge, 1 for the one with the largest logit. Null if the
    /// stimulus shows no class, or the judge is the network that it was made with.
    #[cfg_attr(feature = "openapi", schema(required, minimum = 1))]
    pub rank: Option<u32>,
    /// Probability of the class, the softmax of the judge's logits; null like `rank`.
    #[cfg_attr(feature = "openapi", schema(required, minimum = 0, maximum = 1))]
    pub probability: Option<f32>,
    /// Whether the stimulus resembles the natural images of its unit, to the judge: the probability that a top patch of
    /// the unit is more similar to the stimulus than a top patch of another unit of the layer is, from 0 to 1. One half
    /// is chance. Null without a calibration of the layer.
    #[cfg_attr(feature = "openapi", schema(required, minimum = 0, maximum = 1))]
    pub affinity: Option<f32>,
    /// Forward passes of the judge on this stimulus. Those on natural images, which stimuli of a layer share, are not
    /// included.
    pub passes: u32,
}

/// A judge by its id and weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = Judge))]
#[serde(deny_unknown_fields)]
pub struct JudgeRef {
    /// Id of the model.
    pub id: String,
    /// SHA-256 of its weights.
    pub digest: String,
}

impl JudgeRef {
    /// Refers to a model that is not loaded yet, and may not exist.
    pub(crate) fn not_loaded(id: &str) -> Self {
        Self { id: id.to_owned(), digest: String::new() }
    }

    /// Refers to a loaded model.
    pub fn of(judge: &Model) -> Self {
        Self { id: judge.id.clone(), digest: judge.digest.clone() }
    }
}
