//! Response documents of studies.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::study_not_found;
use crate::api::Api;
use crate::api::base_path::PublicBasePath;
use crate::api::problem::{ApiResult, Problem};
use crate::jobs::{Failure, RunState, Study, StudyProgress};
use proxygrad::judge::JudgeRef;
use proxygrad::study::{ArmSummary, Comparison, Fields, JudgeSummary, Plan, PlannedModel, Summary, Variant};

/// A study.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Study)]
pub(super) struct StudyDocument {
    /// Id of the study (UUIDv7, increasing with time).
    id: Uuid,
    /// State of the study; the states are those of a job.
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
    /// Whether cancellation was requested.
    cancel_requested: bool,
    /// Progress of the study.
    progress: StudyProgress,
    /// Design of the study: the sampled units, and the settings that are compared on them.
    design: StudyDesign,
    /// Summary of the finished runs; null until one has finished.
    #[schema(required)]
    summary: Option<SummaryDocument>,
    /// Why the study failed; otherwise null.
    #[schema(required)]
    problem: Option<Failure>,
    links: StudyLinks,
}

/// Design of a study: the compared settings, and the units and starts they are compared on.
#[derive(Debug, Serialize, ToSchema)]
struct StudyDesign {
    /// Version of the program that runs it.
    program: String,
    /// The device, or the possible devices, that the runs use.
    device: String,
    /// The models and their sampled units.
    models: Vec<PlannedModel>,
    /// Seed for sampling units; the seeds of the starts follow it.
    seed: u64,
    /// Number of starts per unit.
    seeds: u32,
    /// Number of steps of an arm whose steps cost two passes.
    steps: u32,
    /// The compared settings.
    arms: Vec<Variant>,
    /// The optimization methods; each has its own tables.
    methods: Vec<Variant>,
    /// Request fields that all runs share.
    #[schema(value_type = Object)]
    base: Fields,
    /// Number of units per layer whose images are kept.
    images: usize,
    /// Models that judge the readability of every stimulus.
    judges: Vec<JudgeRef>,
}

/// Short summary of the runs of a study; the full summary is linked.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StudySummary)]
struct SummaryDocument {
    /// The reference arm.
    #[schema(examples("plain"))]
    against: String,
    /// Number of runs not counted yet, because other arms have not finished the same start.
    left_out: usize,
    /// One table per model and method with counted runs.
    tables: Vec<TableDocument>,
}

/// Results of the arms on the units of one model with one method.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StudyTable)]
struct TableDocument {
    /// Id of the model.
    model: String,
    /// Name of the method.
    method: String,
    /// Number of units.
    units: usize,
    /// Number of live units: those whose score the reference raises from every start.
    live: usize,
    /// The arms, in the order of the design.
    arms: Vec<ArmDocument>,
}

/// Results of an arm.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StudyArm)]
struct ArmDocument {
    /// Its name.
    #[schema(examples("slope:0.1"))]
    arm: String,
    /// Number of runs.
    runs: usize,
    /// Number of dead runs: those whose score did not rise above the start's.
    dead: usize,
    /// Median score over units; null if there is none.
    #[schema(required)]
    median_score: Option<f64>,
    /// Median ratio to the reference's score over live units; null if there is none.
    #[schema(required)]
    median_ratio: Option<f64>,
    /// 95 % bootstrap interval of the median ratio; null if there are too few units.
    #[schema(required, min_items = 2, max_items = 2)]
    interval: Option<[f64; 2]>,
    /// Number of units with a higher score than the reference.
    wins: usize,
    /// Number of units with the same score.
    ties: usize,
    /// Number of units with a lower score.
    losses: usize,
    /// What each judge says about its stimuli; empty without judges.
    judges: Vec<JudgeDocument>,
}

/// Readability of the stimuli of an arm to a judge.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StudyJudge)]
struct JudgeDocument {
    /// Id of the judge.
    judge: String,
    /// Number of units whose class it knows.
    classes: usize,
    /// Share of the stimuli whose class it ranks first; null without classes.
    #[schema(required)]
    top_1: Option<f64>,
    /// Share of the stimuli whose class is among its first five; null without classes.
    #[schema(required)]
    top_5: Option<f64>,
    /// Median probability of the class over units; null without classes.
    #[schema(required)]
    median_probability: Option<f64>,
    /// Median affinity to the natural images of the unit over units; null without calibrated units.
    #[schema(required)]
    median_affinity: Option<f64>,
}

impl JudgeDocument {
    fn new(judge: &JudgeSummary) -> Self {
        Self {
            judge: judge.judge.clone(),
            classes: judge.classes,
            top_1: judge.top_1.share,
            top_5: judge.top_5.share,
            median_probability: judge.median_probability,
            median_affinity: judge.median_affinity,
        }
    }
}

/// Links to related resources: paths on this server.
#[derive(Debug, Serialize, ToSchema)]
struct StudyLinks {
    /// This study.
    #[serde(rename = "self")]
    study: String,
    /// Its server-sent events.
    events: String,
    /// POST to this path to cancel it.
    cancel: String,
    /// Report as an HTML page.
    report: String,
    /// All runs as CSV.
    runs: String,
    /// Summary as CSV.
    summary_csv: String,
    /// Full summary as JSON.
    summary_json: String,
    /// Plan of all runs as JSON.
    plan: String,
}

/// A study in a list.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StudyInList {
    /// The study's id.
    id: Uuid,
    /// State of the study.
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
    /// Progress of the study.
    progress: StudyProgress,
    /// Why the study failed; otherwise null.
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
        let child = |name: &str| format!("{study}/{name}");
        Self {
            events: child("events"),
            cancel: child("cancel"),
            report: child("report"),
            runs: child("runs.csv"),
            summary_csv: child("summary.csv"),
            summary_json: child("summary.json"),
            plan: child("plan.json"),
            study,
        }
    }
}

impl StudyDocument {
    /// The document with the summary of the finished runs.
    pub async fn of(api: &Api, study: Study, base: &PublicBasePath) -> ApiResult<Self> {
        // The study may have been deleted in between.
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
        let Plan { program, device, seed, repeats, steps, base, models, methods, arms, judges, .. } = plan;
        Self { program, device, models, seed, seeds: repeats, steps, arms, methods, base, images, judges }
    }
}

impl SummaryDocument {
    fn new(summary: &Summary) -> Self {
        let table = |table: &Comparison| {
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
            judges: arm.readability.iter().flat_map(|found| &found.judges).map(JudgeDocument::new).collect(),
        }
    }
}

impl StudyInList {
    /// The list entry of a study.
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
