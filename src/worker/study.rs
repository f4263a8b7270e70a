//! Runs a study on a device, one batch after another; between two batches the device is free for jobs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::claimed::BETWEEN_EVENTS;
use super::lane::BatchError;
use super::metrics;
use super::run::{Bench, TICK, load, problem, too_long};
use super::settle::{Ended, settle};
use super::verdict::{Trial, Verdict};
use crate::jobs::{JobProblem, Lease, ProblemCode, RunEnd, Store, StudyClaim, StudyProgress};
use proxygrad::engine::Engine;
use proxygrad::network::Model;
use proxygrad::study::{Manner, Performance, Progress, StudyError, Summary, Turn, report, summary};

/// Wait before files are written again that could not be written.
const WRITE_AGAIN: Duration = Duration::from_secs(1);

/// A claimed study between two of its batches.
pub(super) struct Ongoing {
    claim: StudyClaim,
    stage: Stage,
    /// Since when its files cannot be written.
    unwritable: Option<Instant>,
    /// Whether it stands in the store that it waits for jobs.
    waits: bool,
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

/// Why a piece of a study was not done.
enum Stop {
    /// The study ends, or its run does.
    Ended(RunEnd),
    /// Its files cannot be written now; this is to be tried again.
    Unwritable(Box<Stage>),
}

impl Stop {
    fn unwritable(stage: Stage) -> Self {
        Self::Unwritable(Box::new(stage))
    }
}

impl From<RunEnd> for Stop {
    fn from(end: RunEnd) -> Self {
        Self::Ended(end)
    }
}

impl Ongoing {
    pub(super) fn new(claim: StudyClaim) -> Self {
        Self { claim, stage: Stage::Claimed, unwritable: None, waits: false }
    }

    /// Its end in case that a piece of it breaks down.
    pub(super) fn interrupted(&self) -> Ended {
        Ended::known(self.claim.lease, &self.claim.canceled, RunEnd::Interrupted { beside: false })
    }

    /// Jobs were claimed that run first.
    pub(super) fn waits(&mut self) {
        self.waits = true;
    }

    /// What its end must be reported under.
    pub(super) fn lease(&self) -> Lease {
        self.claim.lease
    }

    /// Whether it has results that could not be written yet.
    pub(super) fn is_unwritten(&self) -> bool {
        self.unwritable.is_some() && !matches!(self.stage, Stage::Claimed)
    }

    /// Waits until somebody asks it to stop.
    pub(super) async fn canceled(&self) {
        self.claim.canceled.cancelled().await;
    }
}

impl Bench {
    /// Does the next piece of a study; nothing when the study has ended. A piece whose files cannot be written is tried
    /// again, with what was computed for it, and only after a while the study goes back into the queue.
    pub(super) async fn further(&self, mut ongoing: Ongoing) -> Option<Ongoing> {
        if ongoing.waits {
            if let Err(error) = self.store.study_goes_on(ongoing.claim.lease).await {
                tracing::warn!(study.id = %ongoing.claim.study.id, %error, "a study cannot go on yet");
                self.pause(&ongoing.claim).await;
                return Some(ongoing);
            }
            ongoing.waits = false;
        }
        let Ongoing { claim, stage, unwritable, .. } = ongoing;
        let end = match self.piece(&claim, stage).await {
            Ok(stage) => return Some(Ongoing { claim, stage, unwritable: None, waits: false }),
            Err(Stop::Ended(end)) => end,
            Err(Stop::Unwritable(stage)) => {
                let since = unwritable.unwrap_or_else(Instant::now);
                if since.elapsed() < self.patience {
                    self.pause(&claim).await;
                    return Some(Ongoing { claim, stage: *stage, unwritable: Some(since), waits: false });
                }
                tracing::error!(study.id = %claim.study.id, "a study could not be written for too long; it is queued again");
                RunEnd::Requeued
            }
        };
        settle(&self.store, vec![Ended::known(claim.lease, &claim.canceled, end)], &self.stop, self.patience).await;
        None
    }

    /// Waits before files are written again.
    async fn pause(&self, claim: &StudyClaim) {
        tokio::select! {
            () = tokio::time::sleep(WRITE_AGAIN) => {}
            () = claim.canceled.cancelled() => {}
            () = self.stop.cancelled() => {}
        }
    }

    /// Puts a study back into the queue that this pool does not go on with.
    pub(super) async fn lay_down(&self, ongoing: Ongoing) {
        let Ongoing { claim, stage, .. } = ongoing;
        // Its folder is free again before somebody else may claim it.
        drop(stage);
        let ended = Ended::known(claim.lease, &claim.canceled, RunEnd::Requeued);
        settle(&self.store, vec![ended], &self.stop, self.patience).await;
    }

    /// The next piece, and what follows it or how the study ends.
    async fn piece(&self, claim: &StudyClaim, stage: Stage) -> Result<Stage, Stop> {
        let trial = Arc::new(Trial::new(claim.canceled.clone(), self.stop.clone(), self.time_limit));
        if let Some(verdict) = trial.verdict() {
            return Err(self.sentenced(verdict).into());
        }
        let (performance, found) = match stage {
            Stage::Claimed => return self.open(claim).await.map(Stage::Runs),
            Stage::Runs(performance) => (performance, None),
            Stage::Images(performance, found) => (performance, Some(found)),
        };
        let before = performance.runs();
        let models = self.models(claim, &trial).await?;
        let (performance, turn) = self.turn(claim, performance, models, found.clone(), &trial).await?;
        let Some(turn) = turn else {
            return Err(Stop::unwritable(match found {
                None => Stage::Runs(performance),
                Some(found) => Stage::Images(performance, found),
            }));
        };
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
            (Turn::Stopped, _) => {
                Err(trial.verdict().map_or(RunEnd::Requeued, |verdict| self.sentenced(verdict)).into())
            }
            (Turn::Complete, None) => {
                let folder = self.store.study_folder(claim.study.id);
                match self.aside(claim, move || summary(&folder, None)).await? {
                    Some(found) => Ok(Stage::Images(performance, Arc::new(found))),
                    None => Err(Stop::unwritable(Stage::Runs(performance))),
                }
            }
            (Turn::Complete, Some(found)) => {
                let folder = self.store.study_folder(claim.study.id);
                let shown = Arc::clone(&found);
                Err(match self.aside(claim, move || report(&folder, &shown)).await? {
                    Some(()) => RunEnd::Succeeded { stimuli: Vec::new(), steps: 0 }.into(),
                    None => Stop::unwritable(Stage::Images(performance, found)),
                })
            }
        }
    }

    /// Opens the study's folder.
    async fn open(&self, claim: &StudyClaim) -> Result<Performance, Stop> {
        if let Err(why) = claim.plan.fits(&self.device) {
            return Err(RunEnd::Failed(JobProblem::new(ProblemCode::Engine, why)).into());
        }
        let (folder, plan) = (self.store.study_folder(claim.study.id), claim.plan.clone());
        let (batch, images) = (self.max_batch, Some(claim.study.images));
        let manner = Manner { batch, images, memory: self.run_memory };
        let opened = self.aside(claim, move || Performance::open(&folder, plan, manner)).await?;
        opened.ok_or(Stop::unwritable(Stage::Claimed))
    }

    /// The models of the study, as they were planned with.
    async fn models(&self, claim: &StudyClaim, trial: &Trial) -> Result<Vec<Arc<Model>>, RunEnd> {
        let mut models = Vec::with_capacity(claim.plan.models.len());
        for model in &claim.plan.models {
            let loaded = load(&self.load, model.id.clone(), model.digest.clone());
            models.push(tokio::select! {
                loaded = loaded => loaded.map_err(RunEnd::Failed)?,
                () = trial.verdict_falls() => {
                    return Err(trial.verdict().map_or(RunEnd::Requeued, |verdict| self.sentenced(verdict)));
                }
            });
        }
        Ok(models)
    }

    /// Runs a batch, or makes an image of the report, on the device; no turn when what came of it cannot be written now.
    async fn turn(
        &self,
        claim: &StudyClaim,
        mut performance: Performance,
        models: Vec<Arc<Model>>,
        summary: Option<Arc<Summary>>,
        trial: &Arc<Trial>,
    ) -> Result<(Performance, Option<Turn>), RunEnd> {
        let mut watch = Watch::new(self.store.clone(), claim, Arc::clone(trial));
        let mut result = self.lane.run(move |engine: &dyn Engine| {
            let mut watch = |progress: Progress<'_>| watch.goes_on(&progress);
            let turn = match summary {
                None => performance.advance(&models, engine, &mut watch),
                Some(summary) => performance.exhibit(&models, engine, &summary, &mut watch),
            };
            match turn {
                Ok(turn) => Ok((performance, Some(turn))),
                Err(error) if error.is_unwritable() => {
                    tracing::error!(%error, "the runs of a study cannot be written; they are kept");
                    Ok((performance, None))
                }
                Err(error) => Err(error.into()),
            }
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
                Err(if self.lane.works().await {
                    RunEnd::Failed(problem(&error))
                } else {
                    RunEnd::Interrupted { beside: false }
                })
            }
        }
    }

    /// Works on the study's files, away from the tasks that answer clients; nothing when they cannot be written now.
    async fn aside<T: Send + 'static>(
        &self,
        claim: &StudyClaim,
        work: impl FnOnce() -> Result<T, StudyError> + Send + 'static,
    ) -> Result<Option<T>, RunEnd> {
        let failed = match tokio::task::spawn_blocking(work).await {
            Ok(Ok(done)) => return Ok(Some(done)),
            // Busy: a batch of an earlier run, whose end was not waited for, still goes on there.
            Ok(Err(error)) if error.is_unwritable() || matches!(error, StudyError::Busy(_)) => {
                tracing::error!(study.id = %claim.study.id, %error, "the files of a study cannot be written now");
                return Ok(None);
            }
            Ok(Err(error)) => BatchError::from(error),
            Err(error) => BatchError::Panic(error.to_string()),
        };
        tracing::error!(study.id = %claim.study.id, error = %failed, "the files of a study cannot be used");
        Err(RunEnd::Failed(problem(&failed)))
    }

    fn sentenced(&self, verdict: Verdict) -> RunEnd {
        match verdict {
            Verdict::Canceled => RunEnd::Canceled,
            Verdict::Stopped => RunEnd::Requeued,
            Verdict::TimeLimit => RunEnd::Failed(too_long("a batch of the study", self.time_limit)),
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
