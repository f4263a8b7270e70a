//! Studies as they are shown.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::study_not_found;
use crate::api::Api;
use crate::api::base_path::PublicBasePath;
use crate::api::problem::{ApiResult, Problem};
use crate::jobs::{Failure, RunState, Study, StudyProgress};
use proxygrad::study::{ArmSummary, Fields, Plan, PlannedModel, Summary, Table, Variant};

/// A study.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Study)]
pub(super) struct StudyDocument {
    /// The study's id; later studies have greater ids (UUIDv7).
    id: Uuid,
    /// Where the study stands; the states are those of a job.
    state: RunState,
    /// When the study was accepted.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// When it was last started; null while it is queued.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    started_at: Option<OffsetDateTime>,
    /// When it ended; null until then.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    finished_at: Option<OffsetDateTime>,
    /// Whether somebody asked to stop it.
    cancel_requested: bool,
    /// How far it is.
    progress: StudyProgress,
    /// What is compared on what: the units drawn and the parts of requests.
    design: StudyDesign,
    /// What the runs come to so far; null until one is done.
    #[schema(required)]
    summary: Option<SummaryDocument>,
    /// Why the study failed; null unless it did.
    #[schema(required)]
    problem: Option<Failure>,
    links: StudyLinks,
}

/// What a study compares on what.
#[derive(Debug, Serialize, ToSchema)]
struct StudyDesign {
    /// Version of the program that runs it.
    program: String,
    /// The device that everything runs on, or several of which each may.
    device: String,
    /// The models with the units drawn from them.
    models: Vec<PlannedModel>,
    /// Seed of the choice of units; the starts' seeds follow it.
    seed: u64,
    /// Starts of each unit.
    seeds: u32,
    /// Steps of an arm whose step costs two passes.
    steps: u32,
    /// What is compared.
    arms: Vec<Variant>,
    /// How images are made.
    methods: Vec<Variant>,
    /// Fields of every run's request.
    #[schema(value_type = Object)]
    base: Fields,
    /// Units of each layer whose images are kept.
    images: usize,
}

/// What the runs of a study come to, in short; its links lead to everything.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StudySummary)]
struct SummaryDocument {
    /// The arm that the others are measured against.
    #[schema(examples("plain"))]
    against: String,
    /// Runs that do not count yet, because the same start has not been run under every arm.
    left_out: usize,
    /// One per model and method that has runs which count.
    tables: Vec<TableDocument>,
}

/// The arms on the units of one model under one method.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StudyTable)]
struct TableDocument {
    /// Id of the model.
    model: String,
    /// Name of the method.
    method: String,
    /// Number of units.
    units: usize,
    /// Units that the reference wakes from every start.
    live: usize,
    /// The arms, in the order of the design.
    arms: Vec<ArmDocument>,
}

/// How an arm does.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StudyArm)]
struct ArmDocument {
    /// Its name.
    #[schema(examples("slope:0.1"))]
    arm: String,
    /// Number of runs.
    runs: usize,
    /// Runs whose score did not rise above their start.
    dead: usize,
    /// Median over units of their score; null when there is none.
    #[schema(required)]
    median_score: Option<f64>,
    /// Median over live units of their score's ratio to the reference's; null when there is none.
    #[schema(required)]
    median_ratio: Option<f64>,
    /// Its bootstrap interval, 95 %; null when there are too few units.
    #[schema(required, min_items = 2, max_items = 2)]
    interval: Option<[f64; 2]>,
    /// Units on which it scores higher than the reference.
    wins: usize,
    /// Units on which both score the same.
    ties: usize,
    /// Units on which it scores lower.
    losses: usize,
}

/// Where to go from here; paths on this server.
#[derive(Debug, Serialize, ToSchema)]
struct StudyLinks {
    /// This study.
    #[serde(rename = "self")]
    study: String,
    /// What happens to it, as server-sent events.
    events: String,
    /// POST here to stop it.
    cancel: String,
    /// A page for people.
    report: String,
    /// Every run.
    runs: String,
    /// The tables of the page.
    summary_csv: String,
    /// The same, and more, as JSON.
    summary_json: String,
    /// Everything that decides what is run.
    plan: String,
}

/// A study in a list.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StudyInList {
    /// The study's id.
    id: Uuid,
    /// Where the study stands.
    state: RunState,
    /// Ids of the models.
    models: Vec<String>,
    /// When the study was accepted.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// When it ended; null until then.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    finished_at: Option<OffsetDateTime>,
    /// How far it is.
    progress: StudyProgress,
    /// Why the study failed; null unless it did.
    #[schema(required)]
    problem: Option<Failure>,
    links: StudyLinks,
}

/// Path of a study on this server.
pub(super) fn path(id: Uuid) -> String {
    format!("/v1/studies/{id}")
}

impl StudyLinks {
    fn new(id: Uuid, base: &PublicBasePath) -> Self {
        let study = base.path(&path(id));
        let below = |name: &str| format!("{study}/{name}");
        Self {
            events: below("events"),
            cancel: below("cancel"),
            report: below("report"),
            runs: below("runs.csv"),
            summary_csv: below("summary.csv"),
            summary_json: below("summary.json"),
            plan: below("plan.json"),
            study,
        }
    }
}

impl StudyDocument {
    /// The study with what its runs come to.
    pub async fn of(api: &Api, study: Study, base: &PublicBasePath) -> ApiResult<Self> {
        // Between two looks somebody may delete the study.
        let plan = api.store().plan(study.id).await.map_err(Problem::internal)?;
        let plan = plan.ok_or_else(|| study_not_found(study.id))?;
        let summary = match study.progress.done >= 1.0 {
            true => api.summary(study.id).await?,
            false => None,
        };
        Ok(Self {
            id: study.id,
            state: study.state,
            created_at: study.created_at,
            started_at: study.started_at,
            finished_at: study.finished_at,
            cancel_requested: study.cancel_requested,
            progress: study.progress,
            design: StudyDesign::new(plan, study.images),
            summary: summary.map(|summary| SummaryDocument::new(&summary)),
            problem: study.problem,
            links: StudyLinks::new(study.id, base),
        })
    }
}

impl StudyDesign {
    fn new(plan: Plan, images: usize) -> Self {
        let Plan { program, device, seed, repeats, steps, base, models, methods, arms, .. } = plan;
        Self { program, device, models, seed, seeds: repeats, steps, arms, methods, base, images }
    }
}

impl SummaryDocument {
    fn new(summary: &Summary) -> Self {
        let table = |table: &Table| {
            let all = table.sections.first()?;
            Some(TableDocument {
                model: table.model.clone(),
                method: table.method.clone(),
                units: all.units,
                live: all.live,
                arms: all.arms.iter().map(ArmDocument::new).collect(),
            })
        };
        Self {
            against: summary.options.against.clone(),
            left_out: summary.left_out,
            tables: summary.tables.iter().filter_map(table).collect(),
        }
    }
}

impl ArmDocument {
    fn new(arm: &ArmSummary) -> Self {
        Self {
            arm: arm.arm.clone(),
            runs: arm.runs,
            dead: arm.dead,
            median_score: arm.median_score,
            median_ratio: arm.versus_reference.median_ratio,
            interval: arm.versus_reference.interval,
            wins: arm.versus_reference.wins,
            ties: arm.versus_reference.ties,
            losses: arm.versus_reference.losses,
        }
    }
}

impl StudyInList {
    /// The study in a list.
    pub fn new(study: Study, base: &PublicBasePath) -> Self {
        Self {
            id: study.id,
            state: study.state,
            models: study.models,
            created_at: study.created_at,
            finished_at: study.finished_at,
            progress: study.progress,
            problem: study.problem,
            links: StudyLinks::new(study.id, base),
        }
    }
}
