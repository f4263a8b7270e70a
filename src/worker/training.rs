//! Runs a training on a device, some steps at a time; in between the device is free for jobs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proxygrad::engine::{Engine, EngineError};
use proxygrad::network::Model;
use proxygrad::network::catalog::ModelError;
use proxygrad::train::data::{self, DataOptions};
use proxygrad::train::{MODEL_FILE, Splits, Step, TrainError, Training, TrainingLimits};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::device_thread::BatchError;
use super::metrics;
use super::report::{PendingReport, report_with_retry};
use super::run::{RunContext, TICK, failure, load};
use super::running_job::BETWEEN_EVENTS;
use super::stop_signal::{StopReason, StopSignal};
use crate::jobs::{EpochProgress, Failure, FailureCode, Lease, RunOutcome, Store, TrainingClaim, TrainingProgress};

/// Longest time on the device before it looks for jobs again. A job that arrives earlier ends the steps at once.
const SLICE: Duration = Duration::from_secs(1);
/// Time between two checkpoints within an epoch, which bounds what a crash costs.
const BETWEEN_CHECKPOINTS: Duration = Duration::from_secs(60);
/// Wait before retrying to write files.
const WRITE_RETRY_WAIT: Duration = Duration::from_secs(1);

/// A claimed training between two of its stages.
pub(super) struct RunningTraining {
    claim: TrainingClaim,
    stage: Stage,
    /// Since when its files cannot be written.
    unwritable_since: Option<Instant>,
    /// Whether the store has recorded it as paused for jobs.
    paused: bool,
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

/// Why a stage has no next one.
enum StageEnd {
    /// The run of the training is over.
    Outcome(RunOutcome),
    /// Files cannot be written now; this stage is to be retried.
    Unwritable(Stage),
}

impl From<RunOutcome> for StageEnd {
    fn from(outcome: RunOutcome) -> Self {
        Self::Outcome(outcome)
    }
}

impl RunningTraining {
    pub(super) fn new(claim: TrainingClaim) -> Self {
        let (stage, checkpoint_at) = (Stage::Claimed, Instant::now());
        Self { claim, stage, unwritable_since: None, paused: false, checkpoint_at }
    }

    /// The report in case that one of its stages panics.
    pub(super) fn interrupted(&self) -> PendingReport {
        let outcome = RunOutcome::Interrupted { alone: true };
        PendingReport::with_outcome(self.claim.lease, &self.claim.cancel_requested, outcome)
    }

    /// Pauses it for jobs that run first.
    pub(super) fn pause(&mut self) {
        self.paused = true;
    }

    /// Required to report its outcome.
    pub(super) fn lease(&self) -> Lease {
        self.claim.lease
    }

    /// Whether it has results that could not be written yet.
    pub(super) fn has_unwritten_results(&self) -> bool {
        self.unwritable_since.is_some() && !matches!(self.stage, Stage::Claimed)
    }

    /// Canceled when a client cancels it.
    pub(super) fn cancel_requested(&self) -> CancellationToken {
        self.claim.cancel_requested.clone()
    }
}

impl RunContext {
    /// Runs the next stage of a training. Returns `None` if it has ended. A stage whose files cannot be written is
    /// retried with its results; after some time the training is requeued.
    pub(super) async fn advance_training(&self, mut training: RunningTraining) -> Option<RunningTraining> {
        if training.paused {
            if let Err(error) = self.store.resumed(training.claim.lease).await {
                tracing::warn!(id = %training.claim.training.id, %error, "training could not resume; retrying");
                self.wait_before_training(&training.claim).await;
                return Some(training);
            }
            training.paused = false;
        }
        let RunningTraining { claim, stage, unwritable_since, mut checkpoint_at, .. } = training;
        let outcome = match self.next_training_stage(&claim, stage, &mut checkpoint_at).await {
            Ok(stage) => {
                return Some(RunningTraining { claim, stage, unwritable_since: None, paused: false, checkpoint_at });
            }
            Err(StageEnd::Outcome(outcome)) => outcome,
            Err(StageEnd::Unwritable(stage)) => {
                let since = unwritable_since.unwrap_or_else(Instant::now);
                if since.elapsed() < self.patience {
                    self.wait_before_training(&claim).await;
                    let unwritable_since = Some(since);
                    return Some(RunningTraining { claim, stage, unwritable_since, paused: false, checkpoint_at });
                }
                let (id, waited_s) = (claim.training.id, since.elapsed().as_secs());
                tracing::error!(training.id = %id, waited_s, "files of a training could not be written; requeued");
                RunOutcome::Requeued
            }
        };
        self.report_training(&claim, outcome).await;
        None
    }

    /// Requeues a training that this device does not continue, with a checkpoint of its last step.
    pub(super) async fn requeue_training(&self, training: RunningTraining) {
        let RunningTraining { claim, stage, .. } = training;
        if let (Stage::Steps(training), false) = (stage, claim.cancel_requested.is_cancelled()) {
            self.checkpoint(&claim, training).await;
        }
        self.report_training(&claim, RunOutcome::Requeued).await;
    }

    /// Writes a checkpoint. A failure costs the steps since the one before, and nothing else.
    async fn checkpoint(&self, claim: &TrainingClaim, training: Box<Training>) {
        let id = claim.training.id;
        let written = tokio::task::spawn_blocking(move || training.checkpoint()).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(training.id = %id, %error, "checkpoint could not be written; its last steps repeat");
        }
    }

    async fn wait_before_training(&self, claim: &TrainingClaim) {
        tokio::select! {
            () = tokio::time::sleep(WRITE_RETRY_WAIT) => {}
            () = claim.cancel_requested.cancelled() => {}
            () = self.interrupt.cancelled() => {}
        }
    }

    async fn report_training(&self, claim: &TrainingClaim, outcome: RunOutcome) {
        let report = PendingReport::with_outcome(claim.lease, &claim.cancel_requested, outcome);
        report_with_retry(&self.store, vec![report], &self.interrupt, self.patience).await;
    }

    /// Runs a stage, and returns the next one or the reason why there is no next one.
    async fn next_training_stage(
        &self,
        claim: &TrainingClaim,
        stage: Stage,
        checkpoint_at: &mut Instant,
    ) -> Result<Stage, StageEnd> {
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
    async fn begin(&self, claim: &TrainingClaim, stop_signal: &Arc<StopSignal>) -> Result<Stage, StageEnd> {
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
        let opened = self.on_device(claim, stop_signal, move |engine| {
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
    ) -> Result<Stage, StageEnd> {
        let mut slice = Slice::new(self.store.clone(), claim, Arc::clone(stop_signal));
        let due = checkpoint_at.elapsed() >= BETWEEN_CHECKPOINTS;
        let ran = self.on_device(claim, stop_signal, move |_| {
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
    async fn store_network(&self, claim: &TrainingClaim, training: Box<Training>) -> Result<Stage, StageEnd> {
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

    /// Runs work on the device thread. When it is asked to stop, it may take some time; then its outcome is reported
    /// without it.
    async fn on_device<T: Send + 'static>(
        &self,
        claim: &TrainingClaim,
        stop_signal: &Arc<StopSignal>,
        work: impl FnOnce(&dyn Engine) -> Result<T, BatchError> + Send + 'static,
    ) -> Result<T, StageEnd> {
        let mut result = self.thread.run(work);
        let mut tick = tokio::time::interval(TICK);
        let result = loop {
            tokio::select! {
                result = &mut result => break result.unwrap_or(Err(BatchError::ThreadGone)),
                _ = tick.tick() => {}
            }
            if let (true, Some(reason)) = (stop_signal.is_overdue(), stop_signal.reason()) {
                return Err(training_outcome_of(reason).into());
            }
        };
        match result {
            Ok(done) => Ok(done),
            Err(error) => {
                let id = claim.training.id;
                tracing::error!(device = self.device, training.id = %id, %error, "training failed");
                if matches!(
                    error,
                    BatchError::Train(TrainError::Engine(_)) | BatchError::Panic(_) | BatchError::ThreadGone
                ) {
                    metrics::engine_failed(&self.device);
                }
                // A failed device is not the fault of the training: another one, or this one later, may run it.
                Err(StageEnd::from(if self.thread.is_usable().await {
                    RunOutcome::Failed(failure(&error))
                } else {
                    RunOutcome::Interrupted { alone: true }
                }))
            }
        }
    }
}

/// The end of a stage whose files cannot be written now.
fn unwritable(claim: &TrainingClaim, error: &dyn std::fmt::Display, stage: Stage) -> StageEnd {
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
