//! Runs the jobs of one claim, and reports an outcome for each.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_all;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::batch::{Batch, BatchItem, batches};
use super::device_thread::{BatchError, BatchResult, DeviceThread};
use super::job_progress::JobProgress;
use super::metrics;
use super::report::{PendingReport, report_with_retry};
use super::running_job::RunningJob;
use super::sources::{LoadModel, TrainingSources};
use super::stop_signal::{StopReason, StopSignal};
use crate::jobs::{Claim, Failure, FailureCode, RunOutcome, Store};
use proxygrad::engine::{Engine, EngineError};
use proxygrad::judge::JudgeError;
use proxygrad::maximize::{MaximizeError, Objective, Outcome, ReferenceImages, Task, maximize_judged, outcome_bytes};
use proxygrad::network::Model;
use proxygrad::study::StudyError;
use proxygrad::train::TrainError;

/// How often to check whether a run that was asked to stop is overdue.
pub(super) const TICK: Duration = Duration::from_millis(200);

/// Wait before a job is requeued whose images could not be read from the disk.
const READ_RETRY_WAIT: Duration = Duration::from_secs(1);

/// Run context: the device, the store and the limits that a run needs.
#[derive(Clone)]
pub(super) struct RunContext {
    pub(super) device: String,
    pub(super) thread: Arc<DeviceThread>,
    pub(super) store: Store,
    pub(super) load: LoadModel,
    /// What trainings need.
    pub(super) trainings: Option<TrainingSources>,
    /// Limit of the steps of a training.
    pub(super) max_training_steps: u64,
    pub(super) max_batch: usize,
    pub(super) time_limit: Duration,
    /// Memory limit of a run in bytes.
    pub(super) run_memory: u64,
    /// How long a result is kept that cannot be stored.
    pub(super) patience: Duration,
    /// When canceled, runs end within one step and their jobs are requeued.
    pub(super) interrupt: CancellationToken,
}

/// The jobs of one claim while they run.
struct Run<'a> {
    context: &'a RunContext,
    jobs: Vec<PendingJob>,
    /// The judges of their settings.
    judges: Vec<Arc<Model>>,
}

struct PendingJob {
    job: Arc<RunningJob>,
    /// The client images of the job.
    reference_images: ReferenceImages,
    outcomes: Vec<Option<Outcome>>,
    finished: bool,
}

impl RunContext {
    /// Runs jobs that were claimed together, with the same model and settings.
    pub(super) async fn run(&self, claims: Vec<Claim>) {
        let running = |claim: Claim| PendingJob {
            outcomes: vec![None; claim.job.planned().count()],
            job: Arc::new(RunningJob::new(claim, self.time_limit, self.interrupt.clone())),
            reference_images: ReferenceImages::default(),
            finished: false,
        };
        let mut run = Run { context: self, jobs: claims.into_iter().map(running).collect(), judges: Vec::new() };
        let Some(model) = run.load().await else { return };
        run.load_images().await;
        let jobs = run.jobs.iter().map(|running| {
            let job = &running.job.claim.job;
            (job.objectives.clone(), job.settings.copies())
        });
        let jobs: Vec<(Vec<Objective>, usize)> = jobs.collect();
        let presets = run.jobs.first().map_or(0, |running| running.job.claim.job.all_settings().count());
        for preset in 0..presets {
            for items in batches(&jobs, self.max_batch) {
                run.batch(&model, Batch { preset, items }).await;
            }
        }
        let problem = Failure::new(FailureCode::Internal, "the run ended without all stimuli");
        run.finish_all(0..run.jobs.len(), &RunOutcome::Failed(problem)).await;
    }
}

impl Run<'_> {
    /// Loads the model of these jobs, and their judges; `None` if no job is left to run.
    async fn load(&mut self) -> Option<Arc<Model>> {
        let job = &self.jobs.first()?.job.claim.job;
        let (id, digest) = (job.model.clone(), job.model_digest.clone());
        let judges = job.settings.judges.clone();
        let model = self.load_one(id, digest).await?;
        for judge in judges {
            let judge = self.load_one(judge.id, judge.digest).await?;
            self.judges.push(judge);
        }
        Some(model)
    }

    /// Loads a model; `None` if no job is left to run.
    async fn load_one(&mut self, id: String, digest: String) -> Option<Arc<Model>> {
        let loaded = load(&self.context.load, id, digest);
        match self.unless_all_end(loaded).await? {
            Ok(model) => return Some(model),
            Err(problem) => self.finish_all(0..self.jobs.len(), &RunOutcome::Failed(problem)).await,
        }
        None
    }

    /// Reads the client images of the jobs; a job whose images are damaged fails.
    async fn load_images(&mut self) {
        for job in 0..self.jobs.len() {
            let id = self.jobs[job].job.claim.job.id;
            match self.context.store.reference_images(id).await {
                Ok(reference_images) => self.jobs[job].reference_images = reference_images,
                Err(error) => {
                    tracing::error!(job.id = %id, %error, "client images of a job could not be read");
                    let outcome = if error.fault().is_some() {
                        // The fault may be temporary: wait, then let the job be claimed again.
                        tokio::time::sleep(READ_RETRY_WAIT).await;
                        RunOutcome::Requeued
                    } else {
                        RunOutcome::Failed(Failure::new(FailureCode::Internal, "the job's images could not be read"))
                    };
                    self.finish_all([job], &outcome).await;
                }
            }
        }
    }

    /// Runs a batch. If it fails and has several jobs, repeats each of them alone.
    async fn batch(&mut self, model: &Arc<Model>, mut batch: Batch) {
        self.finish_stopped().await;
        batch.items.retain(|item| !self.jobs[item.job].finished);
        if batch.items.is_empty() {
            return;
        }
        let Some(result) = self.attempt(model, &batch).await else { return };
        let several = batch.by_job().count() > 1;
        let Err(error) = result else { return self.collect(&batch, result).await };
        if !several || !self.device_is_usable().await {
            return self.collect(&batch, Err(error)).await;
        }
        let (device, stimuli) = (&self.context.device, batch.items.len());
        tracing::warn!(device, %error, stimuli, "batch failed; repeating each of its jobs alone");
        for alone in batch.by_job() {
            self.finish_stopped().await;
            if alone.items.iter().all(|item| self.jobs[item.job].finished) {
                continue;
            }
            match self.attempt(model, &alone).await {
                Some(result) => self.collect(&alone, result).await,
                None => return,
            }
        }
    }

    /// Whether the engine of the device is open, or could be reopened.
    async fn device_is_usable(&self) -> bool {
        self.context.thread.is_usable().await
    }

    /// Runs a batch on the device; `None` if the pool shuts down while the device does not respond.
    async fn attempt(&mut self, model: &Arc<Model>, batch: &Batch) -> Option<BatchResult> {
        let Batch { preset, items } = batch;
        let Some(first) = items.first() else { return Some(Ok(Vec::new())) };
        let all_settings = || self.jobs[first.job].job.claim.job.all_settings();
        let Some(settings) = all_settings().nth(*preset).cloned() else { return Some(Ok(Vec::new())) };
        metrics::batch(items.len());
        let task = |item: &BatchItem| {
            let running = &self.jobs[item.job];
            let job = &running.job.claim.job;
            let (objective, images) = (job.objectives[item.stimulus].clone(), running.reference_images.clone());
            // The same for every preset, so that each stimulus is that of a job with its preset alone.
            Task::new(objective, job.seed, item.stimulus as u64, job.settings.copies(), images).of_request(item.job)
        };
        let watched = items.iter().map(|item| (Arc::clone(&self.jobs[item.job].job), self.place(*preset, item)));
        let (model, tasks) = (Arc::clone(model), items.iter().map(task).collect::<Vec<Task>>());
        let judges = self.judges.clone();
        let mut progress = JobProgress::new(self.context.store.clone(), watched);
        // Outcomes of the other batches of these jobs stay in memory until the jobs end.
        let objectives: usize = self.jobs.iter().map(|running| running.job.claim.job.objectives.len()).sum();
        let others = all_settings().enumerate().map(|(i, settings)| {
            let stimuli = if i == *preset { objectives.saturating_sub(items.len()) } else { objectives };
            outcome_bytes(settings, model.network.input_shape()[0], stimuli)
        });
        let others = others.fold(0, u64::saturating_add);
        let allowed = self.context.run_memory.saturating_sub(others);
        let run = move |engine: &dyn Engine| {
            Ok(maximize_judged(engine, &model, &judges, &tasks, &settings, allowed, &mut progress)?)
        };
        let mut result = self.context.thread.run(run);
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                result = &mut result => return Some(result.unwrap_or(Err(BatchError::ThreadGone))),
                _ = tick.tick() => {}
            }
            self.finish_overdue().await;
            if self.context.interrupt.is_cancelled() && self.jobs.iter().all(|running| running.finished) {
                return None;
            }
        }
    }

    /// Index of a stimulus under the preset with this index in its job.
    fn place(&self, preset: usize, item: &BatchItem) -> usize {
        preset * self.jobs[item.job].job.claim.job.objectives.len() + item.stimulus
    }

    /// Assigns the outcomes of a batch to their jobs, and finishes complete jobs.
    async fn collect(&mut self, batch: &Batch, result: BatchResult) {
        match result {
            Ok(outcomes) => {
                for (item, outcome) in batch.items.iter().zip(outcomes) {
                    let place = self.place(batch.preset, item);
                    if let Some(place) = self.jobs[item.job].outcomes.get_mut(place) {
                        *place = outcome;
                    }
                }
            }
            Err(error) => {
                metrics::engine_failed(&self.context.device);
                // A failed device is not the fault of the job: another one, or this one later, may run it.
                let usable = self.device_is_usable().await;
                let jobs: Vec<usize> = batch.by_job().map(|batch| batch.items[0].job).collect();
                tracing::error!(device = self.context.device, %error, jobs = jobs.len(), "batch failed");
                let alone = self.jobs.iter().filter(|running| !running.finished).count() <= 1;
                let outcome =
                    if usable { RunOutcome::Failed(failure(&error)) } else { RunOutcome::Interrupted { alone } };
                self.finish_all(jobs, &outcome).await;
            }
        }
        let mut complete = Vec::new();
        for running in &mut self.jobs {
            if !running.finished && running.outcomes.iter().all(Option::is_some) {
                running.finished = true;
                let outcomes = std::mem::take(&mut running.outcomes).into_iter().flatten().collect();
                complete.push(PendingReport::with_stimuli(&running.job.claim, outcomes));
            }
        }
        self.report(complete).await;
        self.finish_stopped().await;
    }

    /// Waits for `work`; `None` if every job stops first.
    async fn unless_all_end<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(work);
        loop {
            let waiting: Vec<Arc<RunningJob>> =
                self.jobs.iter().filter(|running| !running.finished).map(|running| Arc::clone(&running.job)).collect();
            if waiting.is_empty() {
                return None;
            }
            let triggered = waiting.iter().map(|job| Box::pin(job.stop_signal.triggered()));
            tokio::select! {
                done = &mut work => return Some(done),
                _ = select_all(triggered) => {}
            }
            self.finish_stopped().await;
        }
    }

    /// Finishes every job whose stop signal has triggered.
    async fn finish_stopped(&mut self) {
        self.finish_where(|_| true).await;
    }

    /// Finishes every job that is overdue.
    async fn finish_overdue(&mut self) {
        self.finish_where(StopSignal::is_overdue).await;
    }

    async fn finish_where(&mut self, due: impl Fn(&StopSignal) -> bool) {
        let mut reports = Vec::new();
        for job in 0..self.jobs.len() {
            let stop_signal = &self.jobs[job].job.stop_signal;
            if let Some(reason) = stop_signal.reason().filter(|_| due(stop_signal)) {
                let outcome = self.outcome_of(reason);
                reports.extend(self.finish(job, outcome));
            }
        }
        self.report(reports).await;
    }

    fn outcome_of(&self, reason: StopReason) -> RunOutcome {
        match reason {
            StopReason::Canceled => RunOutcome::Canceled,
            StopReason::Shutdown => RunOutcome::Requeued,
            StopReason::TimeLimit => RunOutcome::Failed(time_limit_exceeded("the job", self.context.time_limit)),
        }
    }

    /// Finishes jobs that are not finished yet.
    async fn finish_all(&mut self, jobs: impl IntoIterator<Item = usize>, outcome: &RunOutcome) {
        let reports = jobs.into_iter().filter_map(|job| self.finish(job, outcome.clone())).collect();
        self.report(reports).await;
    }

    /// The report of a job; `None` if it is finished already.
    fn finish(&mut self, job: usize, outcome: RunOutcome) -> Option<PendingReport> {
        let running = &mut self.jobs[job];
        if std::mem::replace(&mut running.finished, true) {
            return None;
        }
        running.outcomes = Vec::new();
        let claim = &running.job.claim;
        Some(PendingReport::with_outcome(claim.lease, &claim.cancel_requested, outcome))
    }

    async fn report(&self, reports: Vec<PendingReport>) {
        if !reports.is_empty() {
            report_with_retry(&self.context.store, reports, &self.context.interrupt, self.context.patience).await;
        }
    }
}

/// Loads the model with this id and checks its digest. Runs on a separate thread, so that an abandoned download does
/// not delay a shutdown.
pub(super) async fn load(load: &LoadModel, id: String, digest: String) -> Result<Arc<Model>, Failure> {
    let (reply, loaded) = oneshot::channel();
    let (load, name) = (Arc::clone(load), id.clone());
    let thread = std::thread::Builder::new().name("load-model".into());
    // If no thread can be started, the reply is dropped, and the receiver returns an error.
    let _ = thread.spawn(move || reply.send(load(&name)).map_err(drop));
    let why = match loaded.await {
        Ok(Ok(model)) if model.digest == digest => return Ok(model),
        Ok(Ok(model)) => {
            format!("the weights of model {id} have changed: their digest is {}, not {digest}", model.digest)
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("model {id} could not be loaded because of an internal error"),
    };
    Err(Failure::new(FailureCode::Model, why))
}

/// Failure of the job or study whose batch failed.
pub(super) fn failure(error: &BatchError) -> Failure {
    let internal =
        || Failure::new(FailureCode::Internal, "an internal error of the service ended the run; see its log");
    let error = match error {
        BatchError::Maximize(error) | BatchError::Study(StudyError::Run { source: error, .. }) => error,
        BatchError::Train(error) => return training_failure(error),
        BatchError::Study(_) | BatchError::Panic(_) | BatchError::ThreadGone => return internal(),
    };
    match error {
        MaximizeError::Layer(_) | MaximizeError::Channels(_) => Failure::new(FailureCode::Model, error.to_string()),
        MaximizeError::Memory { .. } => Failure::new(FailureCode::Engine, error.to_string()),
        MaximizeError::Engine(error) => engine_failure(error),
        MaximizeError::Judge(error) => match **error {
            JudgeError::Memory { .. } => Failure::new(FailureCode::Engine, error.to_string()),
            JudgeError::Natural { .. } | JudgeError::Invalid(_) => Failure::new(FailureCode::Model, error.to_string()),
            _ => internal(),
        },
        MaximizeError::Png(_) | MaximizeError::Animation(_) | MaximizeError::ReferenceImage(_) => internal(),
    }
}

fn engine_failure(error: &EngineError) -> Failure {
    // The tensor library may append a backtrace after the first line.
    let text = error.to_string();
    Failure::new(FailureCode::Engine, text.lines().next().unwrap_or("the engine failed"))
}

fn training_failure(error: &TrainError) -> Failure {
    match error {
        TrainError::Engine(error) => engine_failure(error),
        TrainError::Diverged { .. } => Failure::new(FailureCode::Diverged, error.to_string()),
        TrainError::Invalid(_) | TrainError::Data(_) | TrainError::Graph(_) | TrainError::TooLarge { .. } => {
            Failure::new(FailureCode::Dataset, error.to_string())
        }
        TrainError::OtherRun { what, .. } => {
            let why = format!("its checkpoint belongs to a training {what}: the dataset has changed since it began");
            Failure::new(FailureCode::Dataset, why)
        }
        _ => Failure::new(FailureCode::Internal, "a file of the training cannot be used; see the log of the service"),
    }
}

/// Failure of a run that exceeded its time limit.
pub(super) fn time_limit_exceeded(what: &str, limit: Duration) -> Failure {
    Failure::new(FailureCode::TimeLimit, format!("{what} ran longer than {} s", limit.as_secs_f64()))
}
