//! Runs a study on a device, one batch after another; between two batches the device is free for jobs.

use std::sync::Arc;
use std::time::Instant;

use super::claimed::BETWEEN_EVENTS;
use super::lane::BatchError;
use super::metrics;
use super::run::{Bench, TICK, load, problem, too_long};
use super::settle::{End, Ended, settle};
use super::verdict::{Trial, Verdict};
use crate::engine::Engine;
use crate::jobs::{JobProblem, Lease, ProblemCode, Store, StudyClaim, StudyProgress};
use crate::network::Model;
use crate::study::{Manner, Performance, Progress, StudyError, Summary, Turn, report, summary};

/// A claimed study between two of its batches.
pub(super) struct Ongoing {
    claim: StudyClaim,
    stage: Stage,
}

/// What is to be done next.
enum Stage {
    /// Its folder is to be opened.
    Claimed,
    /// Its runs, one batch at a time.
    Runs(Performance),
    /// Images that the report shows, one at a time.
    Images(Performance, Arc<Summary>),
}

impl Ongoing {
    pub(super) fn new(claim: StudyClaim) -> Self {
        Self { claim, stage: Stage::Claimed }
    }

    /// What its end must be reported under.
    pub(super) fn lease(&self) -> Lease {
        self.claim.lease
    }

    /// Waits until somebody asks it to stop.
    pub(super) async fn canceled(&self) {
        self.claim.canceled.cancelled().await;
    }
}

impl Bench {
    /// Does the next piece of a study; nothing when the study has ended.
    pub(super) async fn further(&self, Ongoing { claim, stage }: Ongoing) -> Option<Ongoing> {
        match self.piece(&claim, stage).await {
            Ok(stage) => Some(Ongoing { claim, stage }),
            Err(end) => {
                settle(&self.store, Ended::Study(claim.lease), end, &self.stop).await;
                None
            }
        }
    }

    /// Puts a study back into the queue that this pool does not go on with.
    pub(super) async fn lay_down(&self, ongoing: Ongoing) {
        let lease = ongoing.lease();
        drop(ongoing);
        settle(&self.store, Ended::Study(lease), End::Requeued, &self.stop).await;
    }

    /// The next piece, and what follows it or how the study ends.
    async fn piece(&self, claim: &StudyClaim, stage: Stage) -> Result<Stage, End> {
        let trial = Arc::new(Trial::new(claim.canceled.clone(), self.stop.clone(), self.time_limit));
        if let Some(verdict) = trial.verdict() {
            return Err(self.sentenced(verdict));
        }
        let (performance, found) = match stage {
            Stage::Claimed => return self.open(claim).await.map(Stage::Runs),
            Stage::Runs(performance) => (performance, None),
            Stage::Images(performance, found) => (performance, Some(found)),
        };
        let before = performance.runs();
        let models = self.models(claim, &trial).await?;
        let (performance, turn) = self.turn(claim, performance, models, found.clone(), &trial).await?;
        let done = performance.runs();
        if done > before {
            metrics::batch(done - before);
            metrics::study_runs(done - before);
            if let Err(error) = self.store.study_advanced(claim.lease, done).await {
                // The folder knows, too.
                tracing::warn!(study.id = %claim.study.id, %error, "the progress of a study could not be stored");
            }
        }
        let progress = StudyProgress { done: done as f64, total: claim.plan.runs(), now: None };
        self.store.tell_study(claim.study.id, progress);
        match (turn, found) {
            (Turn::Ran, None) => Ok(Stage::Runs(performance)),
            (Turn::Ran, Some(found)) => Ok(Stage::Images(performance, found)),
            (Turn::Stopped, _) => Err(trial.verdict().map_or(End::Requeued, |verdict| self.sentenced(verdict))),
            (Turn::Complete, None) => {
                let folder = self.store.study_folder(claim.study.id);
                let found = self.aside(claim, move || summary(&folder, None)).await?;
                Ok(Stage::Images(performance, Arc::new(found)))
            }
            (Turn::Complete, Some(found)) => {
                let folder = self.store.study_folder(claim.study.id);
                self.aside(claim, move || report(&folder, &found)).await?;
                Err(End::Succeeded(Vec::new()))
            }
        }
    }

    /// Opens the study's folder.
    async fn open(&self, claim: &StudyClaim) -> Result<Performance, End> {
        if let Err(why) = claim.plan.fits(&self.device) {
            return Err(End::Failed(JobProblem::new(ProblemCode::Engine, why)));
        }
        let (folder, plan) = (self.store.study_folder(claim.study.id), claim.plan.clone());
        let (batch, images) = (self.max_batch, Some(claim.study.images));
        let manner = Manner { batch, images, memory: self.run_memory };
        self.aside(claim, move || Performance::open(&folder, plan, manner)).await
    }

    /// The models of the study, as they were planned with.
    async fn models(&self, claim: &StudyClaim, trial: &Trial) -> Result<Vec<Arc<Model>>, End> {
        let mut models = Vec::with_capacity(claim.plan.models.len());
        for model in &claim.plan.models {
            let loaded = load(&self.load, model.id.clone(), model.digest.clone());
            models.push(tokio::select! {
                loaded = loaded => loaded.map_err(End::Failed)?,
                () = trial.verdict_falls() => {
                    return Err(trial.verdict().map_or(End::Requeued, |verdict| self.sentenced(verdict)));
                }
            });
        }
        Ok(models)
    }

    /// Runs a batch, or makes an image of the report, on the device.
    async fn turn(
        &self,
        claim: &StudyClaim,
        mut performance: Performance,
        models: Vec<Arc<Model>>,
        summary: Option<Arc<Summary>>,
        trial: &Arc<Trial>,
    ) -> Result<(Performance, Turn), End> {
        let mut watch = Watch::new(self.store.clone(), claim, Arc::clone(trial));
        let mut result = self.lane.run(move |engine: &dyn Engine| {
            let mut watch = |progress: Progress<'_>| watch.goes_on(&progress);
            let turn = match summary {
                None => performance.advance(&models, engine, &mut watch),
                Some(summary) => performance.exhibit(&models, engine, &summary, &mut watch),
            };
            Ok((performance, turn?))
        });
        let mut tick = tokio::time::interval(TICK);
        let result = loop {
            tokio::select! {
                result = &mut result => break result.unwrap_or(Err(BatchError::Gone)),
                _ = tick.tick() => {}
            }
            if let (true, Some(verdict)) = (trial.overdue(), trial.verdict()) {
                return Err(self.sentenced(verdict));
            }
        };
        match result {
            Ok(done) => Ok(done),
            Err(error) => {
                metrics::engine_failed(&self.device);
                tracing::error!(device = self.device, study.id = %claim.study.id, %error, "batch of a study failed");
                // A device that is gone is not the study's fault: another one, or this one later, may run it.
                Err(if self.lane.works().await { End::Failed(problem(&error)) } else { End::Interrupted })
            }
        }
    }

    /// Works on the study's files, away from the tasks that answer clients.
    async fn aside<T: Send + 'static>(
        &self,
        claim: &StudyClaim,
        work: impl FnOnce() -> Result<T, StudyError> + Send + 'static,
    ) -> Result<T, End> {
        let failed = match tokio::task::spawn_blocking(work).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => BatchError::from(error),
            Err(error) => BatchError::Panic(error.to_string()),
        };
        tracing::error!(study.id = %claim.study.id, error = %failed, "the files of a study cannot be used");
        match failed {
            // A batch of an earlier run, whose end was not waited for, still goes on there.
            BatchError::Study(StudyError::Busy(_)) => Err(End::Interrupted),
            error => Err(End::Failed(problem(&error))),
        }
    }

    fn sentenced(&self, verdict: Verdict) -> End {
        match verdict {
            Verdict::Canceled => End::Canceled,
            Verdict::Stopped => End::Requeued,
            Verdict::TimeLimit => End::Failed(too_long("a batch of the study", self.time_limit)),
        }
    }
}

/// Tells how far a study is, and stops its batch when it has a verdict.
struct Watch {
    store: Store,
    study: uuid::Uuid,
    trial: Arc<Trial>,
    told: Option<Instant>,
}

impl Watch {
    fn new(store: Store, claim: &StudyClaim, trial: Arc<Trial>) -> Self {
        Self { store, study: claim.study.id, trial, told: None }
    }

    fn goes_on(&mut self, progress: &Progress<'_>) -> bool {
        if self.told.is_none_or(|told| told.elapsed() >= BETWEEN_EVENTS) {
            self.told = Some(Instant::now());
            let Progress { done, total, now } = *progress;
            self.store.tell_study(self.study, StudyProgress { done, total, now: Some(now.into()) });
        }
        self.trial.verdict().is_none()
    }
}
