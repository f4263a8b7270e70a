//! Response documents of trainings.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::base_path::PublicBasePath;
use crate::jobs::{Failure, RunState, Training, TrainingProgress};
use proxygrad::train::{Epoch, Recipe};

/// A training.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Training)]
pub(super) struct TrainingDocument {
    /// Id of the training (UUIDv7, increasing with time).
    id: Uuid,
    /// State of the training; the states are those of a job.
    state: RunState,
    /// When the training was accepted.
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
    /// Progress of the training.
    progress: TrainingProgress,
    /// Measurements of the last epoch; null before the first has ended.
    #[schema(required)]
    last: Option<Epoch>,
    /// Measurements of the epoch with the best test accuracy so far; null before the first has ended.
    #[schema(required)]
    best: Option<Epoch>,
    /// The dataset.
    #[schema(examples("fashion-mnist"))]
    dataset: String,
    /// Height and width to which the images of a folder are scaled; null for those of the first image.
    #[schema(required, value_type = Option<Vec<usize>>, min_items = 2, max_items = 2)]
    size: Option<[usize; 2]>,
    /// Whether the images of a folder are read as grey.
    grey: bool,
    /// Share of the images that becomes the test part, if the dataset has none.
    test_share: f64,
    /// The settings, with all defaults filled in.
    #[schema(value_type = Object)]
    recipe: Recipe,
    /// Id under which the network of the best epoch becomes a model; null if it does not.
    #[schema(required)]
    add: Option<String>,
    /// Why the training failed; otherwise null.
    #[schema(required)]
    problem: Option<Failure>,
    links: TrainingLinks,
}

/// Links to related resources: paths on this server.
#[derive(Debug, Serialize, ToSchema)]
struct TrainingLinks {
    /// This training.
    #[serde(rename = "self")]
    training: String,
    /// Its server-sent events.
    events: String,
    /// POST to this path to cancel it.
    cancel: String,
    /// Measurements of all epochs as CSV, once one has ended.
    metrics: String,
    /// The network of the best epoch as an ONNX file, once the training has succeeded.
    model: String,
}

/// A training in a list.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TrainingInList {
    /// The training's id.
    id: Uuid,
    /// State of the training.
    state: RunState,
    /// The dataset.
    dataset: String,
    /// Id under which the trained network becomes a model; null if it does not.
    #[schema(required)]
    add: Option<String>,
    /// When the training was accepted.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// When it ended; null until then.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    finished_at: Option<OffsetDateTime>,
    /// Progress of the training.
    progress: TrainingProgress,
    /// Test accuracy of the last epoch; null before the first has ended.
    #[schema(required)]
    test_accuracy: Option<f64>,
    /// Why the training failed; otherwise null.
    #[schema(required)]
    problem: Option<Failure>,
    links: TrainingLinks,
}

/// Path of a training on this server.
pub(super) fn path(id: Uuid) -> String {
    format!("/v1/trainings/{id}")
}

impl TrainingLinks {
    fn new(id: Uuid, base: &PublicBasePath) -> Self {
        let training = base.path(&path(id));
        let child = |name: &str| format!("{training}/{name}");
        Self {
            events: child("events"),
            cancel: child("cancel"),
            metrics: child("metrics.csv"),
            model: child("model.onnx"),
            training,
        }
    }
}

impl TrainingDocument {
    /// The document of a training.
    pub fn new(training: Training, base: &PublicBasePath) -> Self {
        let order = training.order;
        Self {
            id: training.id,
            state: training.state,
            created_at: training.created_at,
            started_at: training.started_at,
            finished_at: training.finished_at,
            cancel_requested: training.cancel_requested,
            progress: training.progress,
            last: training.last,
            best: training.best,
            dataset: order.dataset,
            size: order.data.size,
            grey: order.data.grey,
            test_share: order.data.test_share,
            recipe: order.recipe,
            add: order.add,
            problem: training.problem,
            links: TrainingLinks::new(training.id, base),
        }
    }
}

impl TrainingInList {
    /// The list entry of a training.
    pub fn new(training: Training, base: &PublicBasePath) -> Self {
        Self {
            id: training.id,
            state: training.state,
            dataset: training.order.dataset,
            add: training.order.add,
            created_at: training.created_at,
            finished_at: training.finished_at,
            progress: training.progress,
            test_accuracy: training.last.map(|epoch| epoch.test_accuracy),
            problem: training.problem,
            links: TrainingLinks::new(training.id, base),
        }
    }
}
