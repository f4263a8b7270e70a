//! Study: as stored and shown.

use std::sync::Arc;

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::job::Idempotency;
use super::run_state::{Failure, RunState};
use proxygrad::study::Plan;

/// One request for a study, without its plan and its runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Study {
    /// UUIDv7: later studies have greater ids.
    pub id: Uuid,
    /// State of the study; the same states as of a job.
    pub state: RunState,
    /// Ids of the models.
    pub models: Vec<String>,
    /// When the study was accepted.
    pub created_at: OffsetDateTime,
    /// When it was last started; `None` while queued.
    pub started_at: Option<OffsetDateTime>,
    /// When it reached its terminal state.
    pub finished_at: Option<OffsetDateTime>,
    /// Whether a client canceled it; a running one stops within one step.
    pub cancel_requested: bool,
    /// Number of units per layer whose images are kept.
    pub images: usize,
    /// Progress of the study.
    pub progress: StudyProgress,
    /// Why it failed.
    pub problem: Option<Failure>,
}

/// Progress of a study.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct StudyProgress {
    /// Runs done, including the fraction of those running now.
    #[schema(minimum = 0, examples(12.5))]
    pub done: f64,
    /// Number of runs of the plan.
    #[schema(minimum = 1, examples(96))]
    pub total: usize,
    /// Description of the batch running now; null unless the study is on a device.
    #[schema(required, value_type = Option<String>, examples("fashion-resnet8 layer2/Relu pixel, plain, start 1"))]
    pub now: Option<Arc<str>>,
}

/// A validated submission of a study.
#[derive(Debug, Clone)]
pub struct NewStudy {
    /// All runs of the study.
    pub plan: Plan,
    /// Number of units per layer whose images are kept.
    pub images: usize,
    /// Idempotency key, if the client sent one.
    pub idempotency: Option<Idempotency>,
}
