//! Response documents of jobs.

use base64::Engine;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::Api;
use crate::api::base_path::PublicBasePath;
use crate::api::problem::{Kind, Problem};
use crate::jobs::{Failure, Job, Progress, RunState, Stimulus};
use proxygrad::maximize::{Findings, Objective, ObjectiveDocument, Preset, Settings};

/// A job.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Job)]
pub(super) struct JobDocument {
    /// Id of the job (UUIDv7, increasing with time).
    id: Uuid,
    /// State of the job.
    state: RunState,
    /// Id of the model.
    #[schema(examples("fashion-resnet8"))]
    model: String,
    /// SHA-256 of the model's weight file, lower-case hexadecimal.
    model_digest: String,
    /// When the job was accepted.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// When its latest run started; null while it is queued.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    started_at: Option<OffsetDateTime>,
    /// When it ended; null until then.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    finished_at: Option<OffsetDateTime>,
    /// Number of times the job was started, not counting runs interrupted by a graceful shutdown.
    attempts: u32,
    /// Whether cancellation was requested.
    cancel_requested: bool,
    /// Progress of the current run.
    progress: Progress,
    /// All settings of the optimization, including defaults; with several presets, those of the first.
    settings: SettingsDocument,
    /// With several presets: the settings of the others, in their order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    other_settings: Vec<SettingsDocument>,
    /// What is maximized, one stimulus per objective and preset.
    #[schema(value_type = Vec<ObjectiveDocument>)]
    objectives: Vec<Objective>,
    /// The stimuli in the order of the objectives, with several presets first all of the first preset; empty unless the
    /// job succeeded.
    stimuli: Vec<StimulusDocument>,
    /// Why the job failed; otherwise null.
    #[schema(required)]
    problem: Option<Failure>,
    links: Links,
}

/// Settings and seed. The same model, objectives, settings and seed reproduce the stimuli.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JobSettings)]
struct SettingsDocument {
    #[serde(flatten)]
    settings: Settings,
    /// Seed of the random number generators.
    #[schema(maximum = 9_007_199_254_740_991_u64)]
    seed: u64,
}

/// A stimulus and its score.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Stimulus)]
struct StimulusDocument {
    /// The preset of the settings that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    preset: Option<Preset>,
    /// The objective that it maximizes.
    #[schema(value_type = ObjectiveDocument)]
    objective: Objective,
    #[serde(flatten)]
    findings: Findings,
    /// Path of the PNG on this server.
    #[schema(examples("/v1/jobs/0199b4f4-7a7c-7cc1-8a55-d3a1c1bb1f0a/stimuli/0"))]
    png: String,
    /// The PNG as a `data:` URL, with `include=png`; null if its file is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^data:image/png;base64,[A-Za-z0-9+/]*={0,2}$", value_type = Option<String>)]
    data_url: Option<Option<String>>,
    /// SHA-256 of the PNG, lower-case hexadecimal.
    sha256: String,
    /// Size of the PNG in bytes.
    bytes: u64,
    /// Width in pixels.
    width: u32,
    /// Height in pixels.
    height: u32,
    /// Path of the animation on this server; omitted unless the settings ask for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(examples("/v1/jobs/0199b4f4-7a7c-7cc1-8a55-d3a1c1bb1f0a/stimuli/0/animation"), nullable = false)]
    animation: Option<String>,
}

/// Links to related resources: paths on this server.
#[derive(Debug, Serialize, ToSchema)]
struct Links {
    /// This job.
    #[serde(rename = "self")]
    job: String,
    /// Its server-sent events.
    events: String,
    /// POST to this path to cancel it.
    cancel: String,
}

/// A job in a list.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct JobSummary {
    /// The job's id.
    id: Uuid,
    /// State of the job.
    state: RunState,
    /// Id of the model.
    model: String,
    /// When the job was accepted.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// When it ended; null until then.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    finished_at: Option<OffsetDateTime>,
    /// Progress of the current run.
    progress: Progress,
    /// The objectives as text: `logits:281 - logits:285`.
    objectives: Vec<String>,
    /// The stimuli in the order of the objectives, with several presets first all of the first preset; empty unless the
    /// job succeeded.
    stimuli: Vec<StimulusSummary>,
    /// Why the job failed; otherwise null.
    #[schema(required)]
    problem: Option<Failure>,
    links: Links,
}

/// A stimulus in a list.
#[derive(Debug, Serialize, ToSchema)]
struct StimulusSummary {
    /// The preset of the settings that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    preset: Option<Preset>,
    /// The objective's value on this PNG; null if it is not finite.
    #[schema(required, value_type = Option<f32>)]
    score: f32,
    /// Path of the PNG on this server.
    png: String,
}

/// Path of a job on this server.
pub(super) fn path(id: Uuid) -> String {
    format!("/v1/jobs/{id}")
}

impl Links {
    fn new(id: Uuid, base: &PublicBasePath) -> Self {
        let job = base.path(&path(id));
        Self { events: format!("{job}/events"), cancel: format!("{job}/cancel"), job }
    }
}

impl JobDocument {
    /// The document with paths to the images.
    pub fn new(job: Job, base: &PublicBasePath) -> Self {
        let links = Links::new(job.id, base);
        let presets = presets(&job);
        let stimuli = job.stimuli.into_iter().zip(presets).enumerate();
        let stimulus = |(n, (stimulus, preset))| StimulusDocument::new(png_path(&links.job, n), preset, stimulus);
        let other = |settings| SettingsDocument { settings, seed: job.seed };
        Self {
            stimuli: stimuli.map(stimulus).collect(),
            other_settings: job.other_settings.into_iter().map(other).collect(),
            id: job.id,
            state: job.state,
            model: job.model,
            model_digest: job.model_digest,
            created_at: job.created_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
            attempts: job.attempts,
            cancel_requested: job.cancel_requested,
            progress: job.progress,
            settings: SettingsDocument { settings: job.settings, seed: job.seed },
            objectives: job.objectives,
            problem: job.problem,
            links,
        }
    }

    /// The document with the images embedded as `data:` URLs.
    pub async fn with_pngs(job: Job, api: &Api, base: &PublicBasePath) -> Result<Self, Problem> {
        let mut document = Self::new(job, base);
        for (n, stimulus) in document.stimuli.iter_mut().enumerate() {
            let png = match api.store().png(document.id, n).await.map_err(Problem::unreadable) {
                Ok(png) => png,
                // The rest of the document is still useful.
                Err(problem) if problem.kind() == Kind::FileGone => None,
                Err(problem) => return Err(problem),
            };
            let url = |png| format!("data:image/png;base64,{}", base64::prelude::BASE64_STANDARD.encode(png));
            stimulus.data_url = Some(png.map(url));
        }
        Ok(document)
    }
}

impl StimulusDocument {
    fn new(png: String, preset: Option<Preset>, stimulus: Stimulus) -> Self {
        Self {
            preset,
            objective: stimulus.objective,
            findings: stimulus.findings,
            animation: stimulus.animation.map(|_| format!("{png}/animation")),
            png,
            data_url: None,
            sha256: stimulus.sha256,
            bytes: stimulus.bytes,
            width: stimulus.width,
            height: stimulus.height,
        }
    }
}

impl JobSummary {
    /// The summary with paths to the images.
    pub fn new(job: Job, base: &PublicBasePath) -> Self {
        let links = Links::new(job.id, base);
        let stimuli = job.stimuli.iter().zip(presets(&job)).enumerate();
        let stimulus = |(n, (stimulus, preset)): (usize, (&Stimulus, _))| StimulusSummary {
            preset,
            score: stimulus.findings.score,
            png: png_path(&links.job, n),
        };
        Self {
            stimuli: stimuli.map(stimulus).collect(),
            id: job.id,
            state: job.state,
            model: job.model,
            created_at: job.created_at,
            finished_at: job.finished_at,
            progress: job.progress,
            objectives: job.objectives.iter().map(ToString::to_string).collect(),
            problem: job.problem,
            links,
        }
    }
}

/// The preset of every stimulus of a job.
fn presets(job: &Job) -> Vec<Option<Preset>> {
    job.planned().map(|(_, settings)| settings.preset).collect()
}

fn png_path(job: &str, n: usize) -> String {
    format!("{job}/stimuli/{n}")
}
