//! Runs a training on a device, some steps at a time; in between the device is free for jobs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proxygrad::engine::EngineError;
use proxygrad::network::Model;
use proxygrad::network::catalog::ModelError;
use proxygrad::train::data::{self, DataOptions};
use proxygrad::train::{MODEL_FILE, Splits, Step, TrainError, Training, TrainingLimits};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::device_thread::BatchError;
use super::long_run::StageEnd;
use super::metrics;
use super::run::{RunContext, failure, load};
use super::running_job::BETWEEN_EVENTS;
use super::stop_signal::{StopReason, StopSignal};
use crate::jobs::{EpochProgress, Failure, FailureCode, RunOutcome, Store, TrainingClaim, TrainingProgress};

/// Longest time on the device before it looks for jobs again. A job that arrives earlier ends the steps at once.
const SLICE: Duration = Duration::from_secs(1);
/// Time between two checkpoints within an epoch, which bounds what a crash costs.
const BETWEEN_CHECKPOINTS: Duration = Duration::from_secs(60);

/// A claimed training between two of its stages.
pub(super) struct TrainingRun {
    claim: TrainingClaim,
    stage: Stage,
    /// When its last checkpoint was written.
    checkpoint_at: Instant,
}

/// What is to be done next.
enum Stage {
    /// Read the dataset and the checkpoint.
    Claimed,
    /// Train.
    Steps(Box<Training>),
    /// Store the trained network.
    Trained(Box<Training>),
}

impl TrainingRun {
    pub(super) fn new(claim: TrainingClaim) -> Self {
        Self { claim, stage: Stage::Claimed, checkpoint_at: Instant::now() }
    }

    /// Whether its dataset and checkpoint have been read.
    pub(super) fn has_begun(&self) -> bool {
        !matches!(self.stage, Stage::Claimed)
    }

    /// Runs the next stage.
    pub(super) async fn advance(self, context: &RunContext) -> Result<Self, StageEnd<Self>> {
        let Self { claim, stage, mut checkpoint_at } = self;
        match context.next_training_stage(&claim, stage, &mut checkpoint_at).await {
            Ok(stage) => Ok(Self { claim, stage, checkpoint_at }),
            Err(end) => Err(end.map(|stage| Self { claim, stage, checkpoint_at })),
        }
    }

    /// Writes a checkpoint of its last step, unless it was canceled.
    pub(super) async fn put_aside(self, context: &RunContext) {
        if let (Stage::Steps(training), false) = (self.stage, self.claim.cancel_requested.is_cancelled()) {
            context.checkpoint(&self.claim, training).await;
        }
    }
}

impl RunContext {
    /// Writes a checkpoint. A failure costs the steps since the one before, and nothing else.
    async fn checkpoint(&self, claim: &TrainingClaim, training: Box<Training>) {
        let id = claim.training.id;
        let written = tokio::task::spawn_blocking(move || training.checkpoint()).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(training.id = %id, %error, "checkpoint could not be written; its last steps repeat");
        }
    }

    /// Runs a stage, and returns the next one or the reason why there is no next one.
    async fn next_training_stage(
        &self,
        claim: &TrainingClaim,
        stage: Stage,
        checkpoint_at: &mut Instant,
    ) -> Result<Stage, StageEnd<Stage>> {
        let (cancel_requested, shutdown) = (claim.cancel_requested.clone(), self.interrupt.clone());
        let stop_signal = Arc::new(StopSignal::new(cancel_requested, shutdown, Duration::MAX));
        if let Some(reason) = stop_signal.reason() {
            if let (Stage::Steps(training), StopReason::Shutdown) = (stage, reason) {
                self.checkpoint(claim, training).await;
            }
            return Err(training_outcome_of(reason).into());
        }
        match stage {
            Stage::Claimed => self.begin(claim, &stop_signal).await,
            Stage::Steps(training) => self.train(claim, training, &stop_signal, checkpoint_at).await,
            Stage::Trained(training) => self.store_network(claim, training).await,
        }
    }

    /// Reads the dataset, loads the model that the training starts from, and resumes from the last checkpoint.
    async fn begin(&self, claim: &TrainingClaim, stop_signal: &Arc<StopSignal>) -> Result<Stage, StageEnd<Stage>> {
        let order = &claim.training.order;
        let stopped = || stop_signal.reason().map_or(RunOutcome::Requeued, training_outcome_of);
        let model = match &order.recipe.start {
            Some(start) => tokio::select! {
                loaded = load(&self.load, start.model.clone(), start.digest.clone()) => {
                    Some(loaded.map_err(RunOutcome::Failed)?)
                }
                () = stop_signal.triggered() => return Err(stopped().into()),
            },
            None => None,
        };
        let splits = tokio::select! {
            splits = self.dataset(order.dataset.clone(), order.data.clone()) => splits.map_err(RunOutcome::Failed)?,
            () = stop_signal.triggered() => return Err(stopped().into()),
        };
        let limits = TrainingLimits { memory: self.run_memory, steps: self.max_training_steps };
        let (recipe, folder) = (order.recipe.clone(), self.store.training_folder(claim.training.id));
        let opened = self.on_device(claim.lease, stop_signal, training_outcome_of, move |engine| {
            let no_training = || EngineError::Mismatch("this device cannot train".into());
            let trains = engine.training().ok_or_else(no_training).map_err(TrainError::from)?;
            let model: Option<&Model> = model.as_deref();
            let training = Training::within(recipe, splits, model, trains, &limits)?.in_folder(&folder);
            match training {
                Err(error @ TrainError::Write { .. }) => Ok(Err(error)),
                training => Ok(Ok(training?)),
            }
        });
        match opened.await? {
            Ok(training) => {
                self.publish_between(claim, &training);
                Ok(Stage::Steps(Box::new(training)))
            }
            Err(error) => Err(unwritable(claim, &error, Stage::Claimed)),
        }
    }

    /// Reads a dataset on a blocking thread.
    async fn dataset(&self, name: String, options: DataOptions) -> Result<Splits, Failure> {
        let failed = |why: String| Failure::new(FailureCode::Dataset, why);
        let Some(root) = self.trainings.as_ref().map(|trainings| trainings.datasets.clone()) else {
            return Err(failed("this server has no folder of datasets any more".into()));
        };
        let most_bytes = usize::try_from(self.run_memory).unwrap_or(usize::MAX).min(options.most_bytes);
        let read = tokio::task::spawn_blocking(move || {
            let path = root.find(&name).map_err(|invalid| invalid.to_string())?;
            let read = root.check_links(&path).and_then(|()| data::load(&path, &DataOptions { most_bytes, ..options }));
            read.map_err(|error| format!("{}: {}", root.relative(&error.path).display(), error.why))
        });
        match read.await {
            Ok(read) => read.map_err(failed),
            Err(error) => Err(failure(&BatchError::Panic(error.to_string()))),
        }
    }

    /// Trains for some time, or until an epoch has ended.
    async fn train(
        &self,
        claim: &TrainingClaim,
        mut training: Box<Training>,
        stop_signal: &Arc<StopSignal>,
        checkpoint_at: &mut Instant,
    ) -> Result<Stage, StageEnd<Stage>> {
        let mut slice = Slice::new(self.store.clone(), claim, Arc::clone(stop_signal));
        let due = checkpoint_at.elapsed() >= BETWEEN_CHECKPOINTS;
        let ran = self.on_device(claim.lease, stop_signal, training_outcome_of, move |_| {
            let epoch = match training.epoch(&mut |step| slice.on_step(step)) {
                Ok(epoch) => Ok(epoch.cloned()),
                Err(error @ TrainError::Write { .. }) => Err(error),
                Err(error) => return Err(error.into()),
            };
            if due
                && matches!(epoch, Ok(None))
                && let Err(error) = training.checkpoint()
            {
                tracing::warn!(%error, "checkpoint could not be written");
            }
            Ok((training, epoch))
        });
        let (training, epoch) = ran.await?;
        if due {
            *checkpoint_at = Instant::now();
        }
        match epoch {
            Err(error) => return Err(unwritable(claim, &error, Stage::Steps(training))),
            Ok(Some(epoch)) => {
                *checkpoint_at = Instant::now();
                let best = training.best().unwrap_or(&epoch).clone();
                if let Err(error) = self.store.record_epoch(claim.lease, epoch.clone(), best).await {
                    // The checkpoint has the same information.
                    tracing::warn!(training.id = %claim.training.id, %error, "an epoch could not be recorded");
                }
                self.store.publish_epoch(claim.training.id, epoch);
                self.publish_between(claim, &training);
            }
            Ok(None) => {}
        }
        Ok(if training.is_finished() { Stage::Trained(training) } else { Stage::Steps(training) })
    }

    /// Publishes the progress between two epochs.
    fn publish_between(&self, claim: &TrainingClaim, training: &Training) {
        let (epochs_done, epochs) = (training.epochs().len(), training.recipe().epochs);
        self.store.publish_training_progress(claim.training.id, TrainingProgress { epochs_done, epochs, now: None });
    }

    /// Writes the trained network, and adds it to the models.
    async fn store_network(&self, claim: &TrainingClaim, training: Box<Training>) -> Result<Stage, StageEnd<Stage>> {
        let add =
            claim.training.order.add.clone().zip(self.trainings.as_ref().map(|trainings| Arc::clone(&trainings.add)));
        let (folder, known) = (self.store.training_folder(claim.training.id), Arc::clone(&self.load));
        // A crash may have lost the record of the last epoch, which the checkpoint has.
        let epochs = training.epochs().last().cloned().zip(training.best().cloned());
        if let Some((last, best)) = epochs
            && let Err(error) = self.store.record_epoch(claim.lease, last, best).await
        {
            tracing::warn!(training.id = %claim.training.id, %error, "the last epoch could not be recorded");
        }
        let stored = tokio::task::spawn_blocking(move || {
            let options = match training.export(&folder) {
                Ok(options) => options,
                Err(error @ TrainError::Write { .. }) => return Ok(Some((training, error.to_string()))),
                Err(error) => return Err(failure(&error.into())),
            };
            let Some((id, add)) = add else { return Ok(None) };
            let file = folder.join(MODEL_FILE);
            let Err(error) = add(&file, proxygrad::network::catalog::AddOptions { id: Some(id.clone()), ..options })
            else {
                return Ok(None);
            };
            if matches!(error.downcast_ref(), Some(ModelError::Folder { .. })) {
                return Ok(Some((training, error.to_string())));
            }
            // A crash may have come between adding it and recording the end.
            let digest = std::fs::read(&file).map(|bytes| hex::encode(Sha256::digest(bytes)));
            match (known(&id), digest) {
                (Ok(model), Ok(digest)) if model.digest == digest => Ok(None),
                _ => {
                    let why = format!("the network is trained, but cannot be added as model {id}: {error}");
                    Err(Failure::new(FailureCode::Model, why))
                }
            }
        });
        match stored.await {
            Ok(Ok(None)) => Err(RunOutcome::completed().into()),
            Ok(Ok(Some((training, error)))) => Err(unwritable(claim, &error, Stage::Trained(training))),
            Ok(Err(failure)) => Err(RunOutcome::Failed(failure).into()),
            Err(error) => Err(RunOutcome::Failed(failure(&BatchError::Panic(error.to_string()))).into()),
        }
    }
}

/// The end of a stage whose files cannot be written now.
fn unwritable(claim: &TrainingClaim, error: &dyn std::fmt::Display, stage: Stage) -> StageEnd<Stage> {
    tracing::error!(training.id = %claim.training.id, %error, "files of a training cannot be written now; retrying");
    StageEnd::Unwritable(stage)
}

fn training_outcome_of(reason: StopReason) -> RunOutcome {
    match reason {
        StopReason::Canceled => RunOutcome::Canceled,
        // Trainings have no time limit.
        StopReason::Shutdown | StopReason::TimeLimit => RunOutcome::Requeued,
    }
}

/// Some steps on the device: ends them when a job arrives, when their time is up or when the stop signal triggers, and
/// publishes progress at a limited rate.
struct Slice {
    store: Store,
    training: uuid::Uuid,
    epochs: usize,
    stop_signal: Arc<StopSignal>,
    arrivals: watch::Receiver<()>,
    until: Instant,
    published: Option<Instant>,
}

impl Slice {
    fn new(store: Store, claim: &TrainingClaim, stop_signal: Arc<StopSignal>) -> Self {
        let mut arrivals = store.arrivals();
        arrivals.mark_unchanged();
        let (training, epochs) = (claim.training.id, claim.training.order.recipe.epochs);
        Self { store, training, epochs, stop_signal, arrivals, until: Instant::now() + SLICE, published: None }
    }

    /// Returns whether the steps end here.
    fn on_step(&mut self, step: Step) -> bool {
        if step.tested == 0 {
            metrics::training_steps().increment(1);
        }
        if self.published.is_none_or(|at| at.elapsed() >= BETWEEN_EVENTS) {
            self.published = Some(Instant::now());
            let (epochs_done, epochs) = (step.epoch - 1, self.epochs);
            let now = Some(EpochProgress::from(step));
            self.store.publish_training_progress(self.training, TrainingProgress { epochs_done, epochs, now });
        }
        // An error means that the store is closed.
        let arrived = self.arrivals.has_changed().unwrap_or(true);
        arrived || Instant::now() >= self.until || self.stop_signal.reason().is_some()
    }
}
