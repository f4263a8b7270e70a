//! A job as it is stored and shown.

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
    /// Where the job stands.
    pub state: RunState,
    /// Id of the model.
    pub model: String,
    /// SHA-256 of the model's weight file, lower-case hexadecimal.
    pub model_digest: String,
    /// When the job was accepted.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When its latest run started; nothing while it is queued.
    #[serde(with = "time::serde::rfc3339::option", default)]
    pub started_at: Option<OffsetDateTime>,
    /// When it reached its terminal state.
    #[serde(with = "time::serde::rfc3339::option", default)]
    pub finished_at: Option<OffsetDateTime>,
    /// How often it was put on a device, without runs that an orderly shutdown cut short.
    pub attempts: u32,
    /// Whether somebody asked to stop the job; a running one stops within one step.
    pub cancel_requested: bool,
    /// One stimulus each.
    #[schema(value_type = Vec<ObjectiveDocument>)]
    pub objectives: Vec<Objective>,
    /// Everything that decides how stimuli are made, defaults filled in.
    pub settings: Settings,
    /// Seed of everything random.
    pub seed: u64,
    /// How far the job is.
    pub progress: Progress,
    /// What was found, in the order of the objectives; empty unless the job succeeded.
    pub stimuli: Vec<Stimulus>,
    /// Why the job failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Failure>,
}

/// How far a job is, counted in steps over all its stimuli.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Progress {
    /// Steps done, summed over the job's stimuli.
    pub step: u32,
    /// Steps to do: steps of a run times number of stimuli.
    pub steps: u32,
}

impl Progress {
    /// Nothing done yet of what `objectives` need.
    pub(super) fn none(objectives: usize, settings: &Settings) -> Self {
        let stimuli = u32::try_from(objectives).unwrap_or(u32::MAX);
        Self { step: 0, steps: settings.steps.saturating_mul(stimuli) }
    }
}

/// One stimulus of a job that succeeded: everything but the PNG itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Stimulus {
    /// What it maximizes.
    #[schema(value_type = ObjectiveDocument)]
    pub objective: Objective,
    /// The maximum that it reaches, and how it was found.
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
    /// The animation of the run, if the settings ask for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub animation: Option<StoredAnimation>,
}

/// An animation beside a stimulus: everything but the bytes themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoredAnimation {
    /// SHA-256 of the animated PNG, lower-case hexadecimal.
    pub sha256: String,
    /// Its size in bytes.
    pub bytes: u64,
}

impl Stimulus {
    /// What `outcome` says about `objective`, for a PNG with this digest and `[height, width]`.
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

/// What a client asks for, checked and filled in.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Id of the model.
    pub model: String,
    /// SHA-256 of the model's weight file; the job fails rather than run on another file.
    pub model_digest: String,
    /// Objectives, settings and seed.
    pub resolved: Resolved,
    /// Makes a repeated submission harmless.
    pub idempotency: Option<Idempotency>,
}

/// A client's key for one submission, and what it submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// Chosen by the client; remembered as long as the job exists.
    pub key: String,
    /// Digest of the request: the same key with another fingerprint is an error.
    pub fingerprint: String,
}
