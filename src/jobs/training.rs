//! Training: as stored and shown.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::job::Idempotency;
use super::run_state::{Failure, RunState};
use proxygrad::train::data::DataOptions;
use proxygrad::train::{Epoch, Recipe, Step};

/// One request for a training.
#[derive(Debug, Clone, PartialEq)]
pub struct Training {
    /// UUIDv7: later trainings have greater ids.
    pub id: Uuid,
    /// State of the training; the same states as of a job.
    pub state: RunState,
    /// What is trained, and how.
    pub order: TrainingOrder,
    /// When the training was accepted.
    pub created_at: OffsetDateTime,
    /// When it was last started; `None` while queued.
    pub started_at: Option<OffsetDateTime>,
    /// When it reached its terminal state.
    pub finished_at: Option<OffsetDateTime>,
    /// Whether a client canceled it; a running one stops within one step.
    pub cancel_requested: bool,
    /// Progress of the training.
    pub progress: TrainingProgress,
    /// Measurements of the last epoch; `None` before the first has ended.
    pub last: Option<Epoch>,
    /// Measurements of the epoch with the best test accuracy so far, the first of several.
    pub best: Option<Epoch>,
    /// Why it failed.
    pub problem: Option<Failure>,
}

/// What a training trains, and how: decided at its submission.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingOrder {
    /// Name of the dataset below the folder of datasets.
    pub dataset: String,
    /// How it is read.
    pub data: DataOptions,
    /// The settings, with all defaults filled in.
    pub recipe: Recipe,
    /// Id of the model that the trained network becomes, if any.
    pub add: Option<String>,
}

/// Progress of a training.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct TrainingProgress {
    /// Epochs done.
    #[schema(examples(3))]
    pub epochs_done: usize,
    /// Epochs of the recipe; fewer are done if early stopping ends the training.
    #[schema(minimum = 1, examples(10))]
    pub epochs: usize,
    /// The epoch running now; null unless the training is on a device.
    #[schema(required)]
    pub now: Option<EpochProgress>,
}

/// Progress of an epoch.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct EpochProgress {
    /// The epoch, counted from 1.
    #[schema(minimum = 1, examples(4))]
    pub epoch: usize,
    /// Steps done.
    #[schema(examples(120))]
    pub step: usize,
    /// Steps of an epoch.
    #[schema(examples(937))]
    pub steps: usize,
    /// Mean loss of these steps; null in JSON if not finite.
    #[schema(examples(0.412))]
    pub loss: f64,
    /// Share of the images of these steps that were classified correctly.
    #[schema(minimum = 0, maximum = 1, examples(0.861))]
    pub accuracy: f64,
}

impl From<Step> for EpochProgress {
    fn from(Step { epoch, step, steps, loss, accuracy, .. }: Step) -> Self {
        Self { epoch, step, steps, loss, accuracy }
    }
}

/// A validated submission of a training.
#[derive(Debug, Clone)]
pub struct NewTraining {
    /// What is trained, and how.
    pub order: TrainingOrder,
    /// Idempotency key, if the client sent one.
    pub idempotency: Option<Idempotency>,
}
