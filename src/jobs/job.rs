//! Job: one request for stimuli, as stored and shown.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::run_state::{Failure, RunState};
use proxygrad::maximize::{Findings, Objective, ObjectiveDocument, Outcome, Resolved, Settings};

/// One request for stimuli, from submission to a terminal state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Job {
    /// UUIDv7: later jobs have greater ids.
    pub id: Uuid,
    /// State of the job.
    pub state: RunState,
    /// Id of the model.
    pub model: String,
    /// SHA-256 of the model's weight file, lower-case hexadecimal.
    pub model_digest: String,
    /// When the job was accepted.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When its latest run started; `None` while queued.
    #[serde(with = "time::serde::rfc3339::option", default)]
    pub started_at: Option<OffsetDateTime>,
    /// When it reached its terminal state.
    #[serde(with = "time::serde::rfc3339::option", default)]
    pub finished_at: Option<OffsetDateTime>,
    /// Number of runs started, not counting those that a graceful shutdown interrupted.
    pub attempts: u32,
    /// Whether a client canceled the job; a running one stops within one step.
    pub cancel_requested: bool,
    /// One stimulus each under every preset.
    #[schema(value_type = Vec<ObjectiveDocument>)]
    pub objectives: Vec<Objective>,
    /// All settings of the optimization, with defaults filled in; with several presets, those of the first.
    pub settings: Settings,
    /// Settings of the other presets, if there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_settings: Vec<Settings>,
    /// Seed of the random numbers.
    pub seed: u64,
    /// Progress of the job.
    pub progress: Progress,
    /// Results in the order of the objectives, first all of the first preset; empty unless the job succeeded.
    pub stimuli: Vec<Stimulus>,
    /// Why the job failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Failure>,
}

impl Job {
    /// Settings of every preset, in their order.
    pub fn all_settings(&self) -> impl Iterator<Item = &Settings> {
        std::iter::once(&self.settings).chain(&self.other_settings)
    }

    /// The objective and settings of every stimulus, in their order.
    pub fn planned(&self) -> impl Iterator<Item = (&Objective, &Settings)> {
        self.all_settings().flat_map(|settings| self.objectives.iter().map(move |objective| (objective, settings)))
    }
}

/// Progress of a job in steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Progress {
    /// Steps done, summed over all stimuli. A stimulus that has stopped early counts with all of its steps.
    pub step: u32,
    /// Total number of steps: steps of a run times number of stimuli.
    pub steps: u32,
}

impl Progress {
    /// Progress of a job before its first step.
    pub(super) fn none(resolved: &Resolved) -> Self {
        let objectives = u32::try_from(resolved.objectives.len()).unwrap_or(u32::MAX);
        let steps = resolved.all_settings().map(|settings| settings.steps).fold(0, u32::saturating_add);
        Self { step: 0, steps: steps.saturating_mul(objectives) }
    }
}

/// One stimulus of a succeeded job, without the PNG itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Stimulus {
    /// The objective that it maximizes.
    #[schema(value_type = ObjectiveDocument)]
    pub objective: Objective,
    /// The maximum, and how it was found.
    #[serde(flatten)]
    pub findings: Findings,
    /// SHA-256 of the PNG, lower-case hexadecimal.
    pub sha256: String,
    /// Size of the PNG in bytes.
    pub bytes: u64,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// The animation of the run, if one was requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub animation: Option<StoredAnimation>,
}

/// Animation of a stimulus, without the file itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoredAnimation {
    /// SHA-256 of the animated PNG, lower-case hexadecimal.
    pub sha256: String,
    /// Size in bytes.
    pub bytes: u64,
}

impl Stimulus {
    /// The stimulus of `outcome`, whose PNG has this digest and `[height, width]`.
    pub(super) fn new(objective: Objective, outcome: &Outcome, sha256: String, size: [usize; 2]) -> Self {
        let [height, width] = size.map(|side| u32::try_from(side).unwrap_or(u32::MAX));
        Self {
            objective,
            findings: outcome.findings.clone(),
            sha256,
            bytes: outcome.png.len() as u64,
            width,
            height,
            animation: None,
        }
    }
}

/// A validated submission of a job.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Id of the model.
    pub model: String,
    /// SHA-256 of the model's weight file; with another file the job fails.
    pub model_digest: String,
    /// Objectives, settings and seed.
    pub resolved: Resolved,
    /// Idempotency key, if the client sent one.
    pub idempotency: Option<Idempotency>,
}

/// Idempotency key of a submission, with a fingerprint of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// Chosen by the client; kept as long as the job exists.
    pub key: String,
    /// Digest of the request; the same key with another fingerprint is an error.
    pub fingerprint: String,
}
