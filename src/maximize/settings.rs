//! Settings of a run, everything filled in.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::gate_schedule::GateSchedule;
use super::optimizer::Optimizer;
use super::start::Start;
use super::transform::Transform;

/// Everything that decides how stimuli are made, apart from objective and seed.
///
/// Stimuli with equal settings on layers of one model can share a batch; each result is the same as if it had run alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Settings {
    /// The backward rule of activations and its course.
    pub gate: GateSchedule,
    /// Number of updates of the image.
    pub steps: u32,
    /// From a gradient to the next image.
    pub optimizer: Optimizer,
    /// Random views, applied in this order.
    pub transforms: Vec<Transform>,
    /// Height and width of the stimulus in pixels.
    #[schema(min_items = 2, max_items = 2)]
    pub size: [usize; 2],
    /// The image before the first step.
    pub start: Start,
    /// With transforms, the image as it is gets scored every so many steps (and at the end): one more forward pass each
    /// time. Without transforms every step is scored at no cost.
    pub score_every: u32,
}
