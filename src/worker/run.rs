//! Runs the jobs of one claim to their ends.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_all;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::batch::{BatchItem, batches};
use super::device_thread::{BatchError, BatchResult, DeviceThread};
use super::metrics;
use super::observer::Watch;
use super::report::{PendingReport, report_with_retry};
use super::running_job::RunningJob;
use super::sources::LoadModel;
use super::stop_signal::{StopReason, StopSignal};
use crate::jobs::{Claim, Failure, FailureCode, RunOutcome, Store};
use proxygrad::engine::Engine;
use proxygrad::maximize::{MaximizeError, Objective, Outcome, Pictures, Task, found_bytes, maximize_within};
use proxygrad::network::Model;
use proxygrad::study::StudyError;

/// How often it is looked at whether a step goes on for too long after its run was to end.
pub(super) const TICK: Duration = Duration::from_millis(200);

/// Wait before a job is tried again whose images the disk did not give.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// What a run needs of its device and its pool.
pub(super) struct RunContext {
    pub(super) device: String,
    pub(super) thread: Arc<DeviceThread>,
    pub(super) store: Store,
    pub(super) load: LoadModel,
    pub(super) max_batch: usize,
    pub(super) time_limit: Duration,
    /// Most bytes of memory that a run may take.
    pub(super) run_memory: u64,
    /// How long results are kept that cannot be stored.
    pub(super) patience: Duration,
    /// Ends runs within one step and requeues their jobs.
    pub(super) interrupt: CancellationToken,
}

/// The jobs of one claim while they run.
struct Run<'a> {
    context: &'a RunContext,
    jobs: Vec<PendingJob>,
}

struct PendingJob {
    job: Arc<RunningJob>,
    /// The images that the job brought.
    pictures: Pictures,
    outcomes: Vec<Option<Outcome>>,
    finished: bool,
}

impl RunContext {
    /// Runs jobs that were claimed together: same model, same settings.
    pub(super) async fn run(&self, claims: Vec<Claim>) {
        let running = |claim: Claim| PendingJob {
            outcomes: vec![None; claim.job.objectives.len()],
            job: Arc::new(RunningJob::new(claim, self.time_limit, self.interrupt.clone())),
            pictures: Pictures::default(),
            finished: false,
        };
        let mut run = Run { context: self, jobs: claims.into_iter().map(running).collect() };
        let Some(model) = run.load().await else { return };
        run.load_pictures().await;
        let jobs = run.jobs.iter().map(|running| {
            let job = &running.job.claim.job;
            (job.objectives.clone(), job.settings.copies())
        });
        let jobs: Vec<(Vec<Objective>, usize)> = jobs.collect();
        for batch in batches(&jobs, self.max_batch) {
            run.batch(&model, batch).await;
        }
        let problem = Failure::new(FailureCode::Internal, "the run ended without all stimuli");
        run.end_all(0..run.jobs.len(), &RunOutcome::Failed(problem)).await;
    }
}

impl Run<'_> {
    /// The model of all these jobs; nothing when no job is left to run.
    async fn load(&mut self) -> Option<Arc<Model>> {
        let (id, digest) = match self.jobs.first() {
            Some(first) => (first.job.claim.job.model.clone(), first.job.claim.job.model_digest.clone()),
            None => return None,
        };
        let loaded = load(&self.context.load, id, digest);
        match self.unless_all_end(loaded).await? {
            Ok(model) => return Some(model),
            Err(problem) => self.end_all(0..self.jobs.len(), &RunOutcome::Failed(problem)).await,
        }
        None
    }

    /// Reads the images that the jobs brought; a job whose images are damaged fails.
    async fn load_pictures(&mut self) {
        for job in 0..self.jobs.len() {
            let id = self.jobs[job].job.claim.job.id;
            match self.context.store.pictures(id).await {
                Ok(pictures) => self.jobs[job].pictures = pictures,
                Err(error) => {
                    tracing::error!(job.id = %id, %error, "the images of a job cannot be read");
                    let end = if error.fault().is_some() {
                        // Another try may succeed, a little later.
                        tokio::time::sleep(READ_AGAIN).await;
                        RunOutcome::Requeued
                    } else {
                        RunOutcome::Failed(Failure::new(FailureCode::Internal, "the job's images cannot be read"))
                    };
                    self.end_all([job], &end).await;
                }
            }
        }
    }

    /// Runs a batch; should it fail with several jobs in it, runs each of them again alone.
    async fn batch(&mut self, model: &Arc<Model>, mut batch: Vec<BatchItem>) {
        self.finish_stopped().await;
        batch.retain(|item| !self.jobs[item.job].finished);
        if batch.is_empty() {
            return;
        }
        let Some(result) = self.attempt(model, &batch).await else { return };
        let several = batch.iter().any(|item| item.job != batch[0].job);
        let Err(error) = result else { return self.collect(&batch, result).await };
        if !several || !self.device_works().await {
            return self.collect(&batch, Err(error)).await;
        }
        tracing::warn!(device = self.context.device, %error, stimuli = batch.len(), "batch failed; its jobs run alone");
        for alone in batch.chunk_by(|a, b| a.job == b.job) {
            self.finish_stopped().await;
            if self.jobs[alone[0].job].finished {
                continue;
            }
            match self.attempt(model, alone).await {
                Some(result) => self.collect(alone, result).await,
                None => return,
            }
        }
    }

    /// Whether the device's engine is open, or could be opened again.
    async fn device_works(&self) -> bool {
        self.context.thread.works().await
    }

    /// Runs a batch on the device; nothing when the pool stops and the device does not.
    async fn attempt(&mut self, model: &Arc<Model>, batch: &[BatchItem]) -> Option<BatchResult> {
        let Some(first) = batch.first() else { return Some(Ok(Vec::new())) };
        metrics::batch(batch.len());
        let task = |item: &BatchItem| {
            let running = &self.jobs[item.job];
            let job = &running.job.claim.job;
            let objective = job.objectives[item.stimulus].clone();
            // Groups of one job have numbers of their own: no job has this many stimuli.
            let group = ((item.job as u64) << 32) + (item.stimulus / job.settings.copies()) as u64;
            let pictures = running.pictures.clone();
            Task { objective, seed: job.seed, stream: item.stimulus as u64, group, pictures }
        };
        let watched = batch.iter().map(|item| (Arc::clone(&self.jobs[item.job].job), item.stimulus));
        let (model, tasks) = (Arc::clone(model), batch.iter().map(task).collect::<Vec<Task>>());
        let settings = self.jobs[first.job].job.claim.job.settings.clone();
        let mut watch = Watch::new(self.context.store.clone(), watched);
        // What the other batches of these jobs found, or will find, is in memory until their jobs end.
        let all: usize = self.jobs.iter().map(|running| running.outcomes.len()).sum();
        let others = found_bytes(&settings, model.network.input_shape()[0], all.saturating_sub(batch.len()));
        let allowed = self.context.run_memory.saturating_sub(others);
        let run =
            move |engine: &dyn Engine| Ok(maximize_within(engine, &model, &tasks, &settings, allowed, &mut watch)?);
        let mut result = self.context.thread.run(run);
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                result = &mut result => return Some(result.unwrap_or(Err(BatchError::Gone))),
                _ = tick.tick() => {}
            }
            self.finish_overdue().await;
            if self.context.interrupt.is_cancelled() && self.jobs.iter().all(|running| running.finished) {
                return None;
            }
        }
    }

    /// Takes a batch's outcomes to their jobs, and ends those that are complete.
    async fn collect(&mut self, batch: &[BatchItem], result: BatchResult) {
        match result {
            Ok(outcomes) => {
                for (item, outcome) in batch.iter().zip(outcomes) {
                    if let Some(place) = self.jobs[item.job].outcomes.get_mut(item.stimulus) {
                        *place = outcome;
                    }
                }
            }
            Err(error) => {
                metrics::engine_failed(&self.context.device);
                // A device that is gone is not the job's fault: another one, or this one later, may run it.
                let works = self.device_works().await;
                let jobs: Vec<usize> = batch.chunk_by(|a, b| a.job == b.job).map(|items| items[0].job).collect();
                tracing::error!(device = self.context.device, %error, jobs = jobs.len(), "batch failed");
                let alone = self.jobs.iter().filter(|running| !running.finished).count() <= 1;
                let end = if works { RunOutcome::Failed(problem(&error)) } else { RunOutcome::Interrupted { alone } };
                self.end_all(jobs, &end).await;
            }
        }
        let mut found = Vec::new();
        for running in &mut self.jobs {
            if !running.finished && running.outcomes.iter().all(Option::is_some) {
                running.finished = true;
                let outcomes = std::mem::take(&mut running.outcomes).into_iter().flatten().collect();
                found.push(PendingReport::with_stimuli(&running.job.claim, outcomes));
            }
        }
        self.report_with_retry(found).await;
        self.finish_stopped().await;
    }

    /// Waits for `work`, unless every job ends before.
    async fn unless_all_end<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(work);
        loop {
            let waiting: Vec<Arc<RunningJob>> =
                self.jobs.iter().filter(|running| !running.finished).map(|running| Arc::clone(&running.job)).collect();
            if waiting.is_empty() {
                return None;
            }
            let falls = waiting.iter().map(|job| Box::pin(job.stop_signal.triggered()));
            tokio::select! {
                done = &mut work => return Some(done),
                _ = select_all(falls) => {}
            }
            self.finish_stopped().await;
        }
    }

    /// Ends every job that has a reason.
    async fn finish_stopped(&mut self) {
        self.finish_where(|_| true).await;
    }

    /// Ends every job whose last step does not end.
    async fn finish_overdue(&mut self) {
        self.finish_where(StopSignal::overdue).await;
    }

    async fn finish_where(&mut self, due: impl Fn(&StopSignal) -> bool) {
        let mut judged = Vec::new();
        for job in 0..self.jobs.len() {
            let stop_signal = &self.jobs[job].job.stop_signal;
            if let Some(reason) = stop_signal.reason().filter(|_| due(stop_signal)) {
                let end = self.outcome_of(reason);
                judged.extend(self.ended(job, end));
            }
        }
        self.report_with_retry(judged).await;
    }

    fn outcome_of(&self, reason: StopReason) -> RunOutcome {
        match reason {
            StopReason::Canceled => RunOutcome::Canceled,
            StopReason::Stopped => RunOutcome::Requeued,
            StopReason::TimeLimit => RunOutcome::Failed(too_long("the job", self.context.time_limit)),
        }
    }

    /// Ends jobs, each once.
    async fn end_all(&mut self, jobs: impl IntoIterator<Item = usize>, end: &RunOutcome) {
        let ended = jobs.into_iter().filter_map(|job| self.ended(job, end.clone())).collect();
        self.report_with_retry(ended).await;
    }

    /// The end of a job, unless it has one.
    fn ended(&mut self, job: usize, end: RunOutcome) -> Option<PendingReport> {
        let running = &mut self.jobs[job];
        if std::mem::replace(&mut running.finished, true) {
            return None;
        }
        running.outcomes = Vec::new();
        let claim = &running.job.claim;
        Some(PendingReport::with_outcome(claim.lease, &claim.cancel_requested, end))
    }

    async fn report_with_retry(&self, ended: Vec<PendingReport>) {
        if !ended.is_empty() {
            report_with_retry(&self.context.store, ended, &self.context.interrupt, self.context.patience).await;
        }
    }
}

/// Loads the model that was asked for, by its id and digest, on a thread of its own: a download that nobody waits for any
/// more keeps nothing from ending.
pub(super) async fn load(load: &LoadModel, id: String, digest: String) -> Result<Arc<Model>, Failure> {
    let (reply, loaded) = oneshot::channel();
    let (load, name) = (Arc::clone(load), id.clone());
    let thread = std::thread::Builder::new().name("load-model".into());
    // Should there be no thread, the reply is dropped, and the receiver says so.
    let _ = thread.spawn(move || reply.send(load(&name)).map_err(drop));
    let why = match loaded.await {
        Ok(Ok(model)) if model.digest == digest => return Ok(model),
        Ok(Ok(model)) => {
            format!("model {id} is no longer the one that was asked for: its digest is {}, not {digest}", model.digest)
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("loading model {id} broke down"),
    };
    Err(Failure::new(FailureCode::Model, why))
}

/// What a failed batch means for its job or study.
pub(super) fn problem(error: &BatchError) -> Failure {
    let fault = || Failure::new(FailureCode::Internal, "a fault of the service ended the run; its log says more");
    let error = match error {
        BatchError::Maximize(error) | BatchError::Study(StudyError::Run { source: error, .. }) => error,
        BatchError::Study(_) | BatchError::Panic(_) | BatchError::Gone => return fault(),
    };
    match error {
        MaximizeError::Layer(_) | MaximizeError::Channels(_) => Failure::new(FailureCode::Model, error.to_string()),
        MaximizeError::Memory { .. } => Failure::new(FailureCode::Engine, error.to_string()),
        // Below its first line the tensor library may tell a backtrace.
        MaximizeError::Engine(error) => {
            let text = error.to_string();
            Failure::new(FailureCode::Engine, text.lines().next().unwrap_or("the engine failed"))
        }
        MaximizeError::Png(_) | MaximizeError::Animation(_) | MaximizeError::Picture(_) => fault(),
    }
}

/// How a run ends that ran too long.
pub(super) fn too_long(what: &str, limit: Duration) -> Failure {
    Failure::new(FailureCode::TimeLimit, format!("{what} ran longer than {} s", limit.as_secs_f64()))
}
