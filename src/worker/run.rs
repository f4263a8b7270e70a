//! Runs the jobs of one claim to their ends.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_all;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::batch::{Slot, batches};
use super::claimed::Claimed;
use super::lane::{BatchError, BatchResult, Lane};
use super::metrics;
use super::observer::Watch;
use super::settle::{Ended, settle};
use super::sources::LoadModel;
use super::verdict::{Trial, Verdict};
use crate::jobs::{Claim, JobProblem, ProblemCode, RunEnd, Store};
use proxygrad::engine::Engine;
use proxygrad::maximize::{MaximizeError, Objective, Outcome, Pictures, Task, found_bytes, maximize_within};
use proxygrad::network::Model;
use proxygrad::study::StudyError;

/// How often it is looked at whether a step goes on for too long after its run was to end.
pub(super) const TICK: Duration = Duration::from_millis(200);

/// Wait before a job is tried again whose images the disk did not give.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// What a run needs of its device and its pool.
pub(super) struct Bench {
    pub(super) device: String,
    pub(super) lane: Arc<Lane>,
    pub(super) store: Store,
    pub(super) load: LoadModel,
    pub(super) max_batch: usize,
    pub(super) time_limit: Duration,
    /// Most bytes of memory that a run may take.
    pub(super) run_memory: u64,
    /// How long results are kept that cannot be stored.
    pub(super) patience: Duration,
    /// Ends runs within one step and requeues their jobs.
    pub(super) stop: CancellationToken,
}

/// The jobs of one claim while they run.
struct Run<'a> {
    bench: &'a Bench,
    jobs: Vec<Running>,
}

struct Running {
    job: Arc<Claimed>,
    /// The images that the job brought.
    pictures: Pictures,
    outcomes: Vec<Option<Outcome>>,
    settled: bool,
}

impl Bench {
    /// Runs jobs that were claimed together: same model, same settings.
    pub(super) async fn run(&self, claims: Vec<Claim>) {
        let running = |claim: Claim| Running {
            outcomes: vec![None; claim.job.objectives.len()],
            job: Arc::new(Claimed::new(claim, self.time_limit, self.stop.clone())),
            pictures: Pictures::default(),
            settled: false,
        };
        let mut run = Run { bench: self, jobs: claims.into_iter().map(running).collect() };
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
        let problem = JobProblem::new(ProblemCode::Internal, "the run ended without all stimuli");
        run.end_all(0..run.jobs.len(), &RunEnd::Failed(problem)).await;
    }
}

impl Run<'_> {
    /// The model of all these jobs; nothing when no job is left to run.
    async fn load(&mut self) -> Option<Arc<Model>> {
        let (id, digest) = match self.jobs.first() {
            Some(first) => (first.job.claim.job.model.clone(), first.job.claim.job.model_digest.clone()),
            None => return None,
        };
        let loaded = load(&self.bench.load, id, digest);
        match self.unless_all_end(loaded).await? {
            Ok(model) => return Some(model),
            Err(problem) => self.end_all(0..self.jobs.len(), &RunEnd::Failed(problem)).await,
        }
        None
    }

    /// Reads the images that the jobs brought; a job whose images are damaged fails.
    async fn load_pictures(&mut self) {
        for job in 0..self.jobs.len() {
            let id = self.jobs[job].job.claim.job.id;
            match self.bench.store.pictures(id).await {
                Ok(pictures) => self.jobs[job].pictures = pictures,
                Err(error) => {
                    tracing::error!(job.id = %id, %error, "the images of a job cannot be read");
                    let end = if error.fault().is_some() {
                        // Another try may succeed, a little later.
                        tokio::time::sleep(READ_AGAIN).await;
                        RunEnd::Requeued
                    } else {
                        RunEnd::Failed(JobProblem::new(ProblemCode::Internal, "the job's images cannot be read"))
                    };
                    self.end_all([job], &end).await;
                }
            }
        }
    }

    /// Runs a batch; should it fail with several jobs in it, runs each of them again alone.
    async fn batch(&mut self, model: &Arc<Model>, mut batch: Vec<Slot>) {
        self.settle_verdicts().await;
        batch.retain(|slot| !self.jobs[slot.job].settled);
        if batch.is_empty() {
            return;
        }
        let Some(result) = self.attempt(model, &batch).await else { return };
        let several = batch.iter().any(|slot| slot.job != batch[0].job);
        let Err(error) = result else { return self.collect(&batch, result).await };
        if !several || !self.device_works().await {
            return self.collect(&batch, Err(error)).await;
        }
        tracing::warn!(device = self.bench.device, %error, stimuli = batch.len(), "batch failed; its jobs run alone");
        for alone in batch.chunk_by(|a, b| a.job == b.job) {
            self.settle_verdicts().await;
            if self.jobs[alone[0].job].settled {
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
        self.bench.lane.works().await
    }

    /// Runs a batch on the device; nothing when the pool stops and the device does not.
    async fn attempt(&mut self, model: &Arc<Model>, batch: &[Slot]) -> Option<BatchResult> {
        let Some(first) = batch.first() else { return Some(Ok(Vec::new())) };
        metrics::batch(batch.len());
        let task = |slot: &Slot| {
            let running = &self.jobs[slot.job];
            let job = &running.job.claim.job;
            let objective = job.objectives[slot.stimulus].clone();
            // Groups of one job have numbers of their own: no job has this many stimuli.
            let group = ((slot.job as u64) << 32) + (slot.stimulus / job.settings.copies()) as u64;
            let pictures = running.pictures.clone();
            Task { objective, seed: job.seed, stream: slot.stimulus as u64, group, pictures }
        };
        let watched = batch.iter().map(|slot| (Arc::clone(&self.jobs[slot.job].job), slot.stimulus));
        let (model, tasks) = (Arc::clone(model), batch.iter().map(task).collect::<Vec<Task>>());
        let settings = self.jobs[first.job].job.claim.job.settings.clone();
        let mut watch = Watch::new(self.bench.store.clone(), watched);
        // What the other batches of these jobs found, or will find, is in memory until their jobs end.
        let all: usize = self.jobs.iter().map(|running| running.outcomes.len()).sum();
        let others = found_bytes(&settings, model.network.input_shape()[0], all.saturating_sub(batch.len()));
        let allowed = self.bench.run_memory.saturating_sub(others);
        let run =
            move |engine: &dyn Engine| Ok(maximize_within(engine, &model, &tasks, &settings, allowed, &mut watch)?);
        let mut result = self.bench.lane.run(run);
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                result = &mut result => return Some(result.unwrap_or(Err(BatchError::Gone))),
                _ = tick.tick() => {}
            }
            self.settle_overdue().await;
            if self.bench.stop.is_cancelled() && self.jobs.iter().all(|running| running.settled) {
                return None;
            }
        }
    }

    /// Takes a batch's outcomes to their jobs, and ends those that are complete.
    async fn collect(&mut self, batch: &[Slot], result: BatchResult) {
        match result {
            Ok(outcomes) => {
                for (slot, outcome) in batch.iter().zip(outcomes) {
                    if let Some(place) = self.jobs[slot.job].outcomes.get_mut(slot.stimulus) {
                        *place = outcome;
                    }
                }
            }
            Err(error) => {
                metrics::engine_failed(&self.bench.device);
                // A device that is gone is not the job's fault: another one, or this one later, may run it.
                let works = self.device_works().await;
                let jobs: Vec<usize> = batch.chunk_by(|a, b| a.job == b.job).map(|slots| slots[0].job).collect();
                tracing::error!(device = self.bench.device, %error, jobs = jobs.len(), "batch failed");
                let beside = self.jobs.iter().filter(|running| !running.settled).count() > 1;
                let end = if works { RunEnd::Failed(problem(&error)) } else { RunEnd::Interrupted { beside } };
                self.end_all(jobs, &end).await;
            }
        }
        let mut found = Vec::new();
        for running in &mut self.jobs {
            if !running.settled && running.outcomes.iter().all(Option::is_some) {
                running.settled = true;
                let outcomes = std::mem::take(&mut running.outcomes).into_iter().flatten().collect();
                found.push(Ended::found(&running.job.claim, outcomes));
            }
        }
        self.settle(found).await;
        self.settle_verdicts().await;
    }

    /// Waits for `work`, unless every job ends before.
    async fn unless_all_end<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(work);
        loop {
            let waiting: Vec<Arc<Claimed>> =
                self.jobs.iter().filter(|running| !running.settled).map(|running| Arc::clone(&running.job)).collect();
            if waiting.is_empty() {
                return None;
            }
            let falls = waiting.iter().map(|job| Box::pin(job.trial.verdict_falls()));
            tokio::select! {
                done = &mut work => return Some(done),
                _ = select_all(falls) => {}
            }
            self.settle_verdicts().await;
        }
    }

    /// Ends every job that has a verdict.
    async fn settle_verdicts(&mut self) {
        self.settle_judged(|_| true).await;
    }

    /// Ends every job whose last step does not end.
    async fn settle_overdue(&mut self) {
        self.settle_judged(Trial::overdue).await;
    }

    async fn settle_judged(&mut self, due: impl Fn(&Trial) -> bool) {
        let mut judged = Vec::new();
        for job in 0..self.jobs.len() {
            let trial = &self.jobs[job].job.trial;
            if let Some(verdict) = trial.verdict().filter(|_| due(trial)) {
                let end = self.sentence(verdict);
                judged.extend(self.ended(job, end));
            }
        }
        self.settle(judged).await;
    }

    fn sentence(&self, verdict: Verdict) -> RunEnd {
        match verdict {
            Verdict::Canceled => RunEnd::Canceled,
            Verdict::Stopped => RunEnd::Requeued,
            Verdict::TimeLimit => RunEnd::Failed(too_long("the job", self.bench.time_limit)),
        }
    }

    /// Ends jobs, each once.
    async fn end_all(&mut self, jobs: impl IntoIterator<Item = usize>, end: &RunEnd) {
        let ended = jobs.into_iter().filter_map(|job| self.ended(job, end.clone())).collect();
        self.settle(ended).await;
    }

    /// The end of a job, unless it has one.
    fn ended(&mut self, job: usize, end: RunEnd) -> Option<Ended> {
        let running = &mut self.jobs[job];
        if std::mem::replace(&mut running.settled, true) {
            return None;
        }
        running.outcomes = Vec::new();
        let claim = &running.job.claim;
        Some(Ended::known(claim.lease, &claim.canceled, end))
    }

    async fn settle(&self, ended: Vec<Ended>) {
        if !ended.is_empty() {
            settle(&self.bench.store, ended, &self.bench.stop, self.bench.patience).await;
        }
    }
}

/// Loads the model that was asked for, by its id and digest, on a thread of its own: a download that nobody waits for any
/// more keeps nothing from ending.
pub(super) async fn load(load: &LoadModel, id: String, digest: String) -> Result<Arc<Model>, JobProblem> {
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
    Err(JobProblem::new(ProblemCode::Model, why))
}

/// What a failed batch means for its job or study.
pub(super) fn problem(error: &BatchError) -> JobProblem {
    let fault = || JobProblem::new(ProblemCode::Internal, "a fault of the service ended the run; its log says more");
    let error = match error {
        BatchError::Maximize(error) | BatchError::Study(StudyError::Run { source: error, .. }) => error,
        BatchError::Study(_) | BatchError::Panic(_) | BatchError::Gone => return fault(),
    };
    match error {
        MaximizeError::Layer(_) | MaximizeError::Channels(_) => JobProblem::new(ProblemCode::Model, error.to_string()),
        MaximizeError::Memory { .. } => JobProblem::new(ProblemCode::Engine, error.to_string()),
        // Below its first line the tensor library may tell a backtrace.
        MaximizeError::Engine(error) => {
            let text = error.to_string();
            JobProblem::new(ProblemCode::Engine, text.lines().next().unwrap_or("the engine failed"))
        }
        MaximizeError::Png(_) | MaximizeError::Animation(_) | MaximizeError::Picture(_) => fault(),
    }
}

/// How a run ends that ran too long.
pub(super) fn too_long(what: &str, limit: Duration) -> JobProblem {
    JobProblem::new(ProblemCode::TimeLimit, format!("{what} ran longer than {} s", limit.as_secs_f64()))
}
