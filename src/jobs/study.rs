//! A study as it is stored and shown.

use std::sync::Arc;

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::job::Idempotency;
use super::run_state::{Failure, RunState};
use proxygrad::study::Plan;

/// One request for a study, from submission to a terminal state: everything but its plan and its runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Study {
    /// UUIDv7: later studies have greater ids.
    pub id: Uuid,
    /// Where the study stands; the states are those of a job.
    pub state: RunState,
    /// Ids of the models.
    pub models: Vec<String>,
    /// When the study was accepted.
    pub created_at: OffsetDateTime,
    /// When it was last started; nothing while it is queued.
    pub started_at: Option<OffsetDateTime>,
    /// When it reached its terminal state.
    pub finished_at: Option<OffsetDateTime>,
    /// Whether somebody asked to stop it; a running one stops within one step.
    pub cancel_requested: bool,
    /// Units of each layer whose images are kept.
    pub images: usize,
    /// How far it is.
    pub progress: StudyProgress,
    /// Why it failed.
    pub problem: Option<Failure>,
}

/// How far a study is.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct StudyProgress {
    /// Runs done, and the part of those that run now.
    #[schema(minimum = 0, examples(12.5))]
    pub done: f64,
    /// Runs of the plan.
    #[schema(minimum = 1, examples(96))]
    pub total: usize,
    /// What runs now; null unless the study is on a device.
    #[schema(required, value_type = Option<String>, examples("fashion-resnet8 layer2/Relu pixel, plain, start 1"))]
    pub now: Option<Arc<str>>,
}

/// A study that a client asks for, planned.
#[derive(Debug, Clone)]
pub struct NewStudy {
    /// What is run.
    pub plan: Plan,
    /// Units of each layer whose images are kept.
    pub images: usize,
    /// Makes a repeated submission harmless.
    pub idempotency: Option<Idempotency>,
}
