//! Runs a study on a device, one batch after another; between two batches the device is free for jobs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::device_thread::BatchError;
use super::metrics;
use super::report::{PendingReport, report_with_retry};
use super::run::{RunContext, TICK, load, problem, too_long};
use super::running_job::BETWEEN_EVENTS;
use super::stop_signal::{StopReason, StopSignal};
use crate::jobs::{Failure, FailureCode, Lease, RunOutcome, Store, StudyClaim, StudyProgress};
use proxygrad::engine::Engine;
use proxygrad::network::Model;
use proxygrad::study::{Progress, RunOptions, StepResult, StudyError, StudyRunner, Summary, report, summary};

/// Wait before files are written again that could not be written.
const WRITE_AGAIN: Duration = Duration::from_secs(1);

/// A claimed study between two of its batches.
pub(super) struct RunningStudy {
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
    Runs(StudyRunner),
    /// Images that the report shows, one at a time.
    Images(StudyRunner, Arc<Summary>),
}

/// Why a next_stage of a study was not done.
enum Stop {
    /// The study ends, or its run does.
    PendingReport(RunOutcome),
    /// Its files cannot be written now; this is to be tried again.
    Unwritable(Box<Stage>),
}

impl Stop {
    fn check_writable(stage: Stage) -> Self {
        Self::Unwritable(Box::new(stage))
    }
}

impl From<RunOutcome> for Stop {
    fn from(end: RunOutcome) -> Self {
        Self::PendingReport(end)
    }
}

impl RunningStudy {
    pub(super) fn new(claim: StudyClaim) -> Self {
        Self { claim, stage: Stage::Claimed, unwritable: None, waits: false }
    }

    /// Its end in case that a next_stage of it breaks down.
    pub(super) fn interrupted(&self) -> PendingReport {
        PendingReport::with_outcome(
            self.claim.lease,
            &self.claim.cancel_requested,
            RunOutcome::Interrupted { alone: true },
        )
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
        self.claim.cancel_requested.cancelled().await;
    }
}

impl RunContext {
    /// Does the next next_stage of a study; nothing when the study has ended. A next_stage whose files cannot be written is tried
    /// again, with what was computed for it, and only after a while the study goes back into the queue.
    pub(super) async fn advance(&self, mut ongoing: RunningStudy) -> Option<RunningStudy> {
        if ongoing.waits {
            if let Err(error) = self.store.study_resumed(ongoing.claim.lease).await {
                tracing::warn!(study.id = %ongoing.claim.study.id, %error, "a study cannot go on yet");
                self.pause(&ongoing.claim).await;
                return Some(ongoing);
            }
            ongoing.waits = false;
        }
        let RunningStudy { claim, stage, unwritable, .. } = ongoing;
        let end = match self.next_stage(&claim, stage).await {
            Ok(stage) => return Some(RunningStudy { claim, stage, unwritable: None, waits: false }),
            Err(Stop::PendingReport(end)) => end,
            Err(Stop::Unwritable(stage)) => {
                let since = unwritable.unwrap_or_else(Instant::now);
                if since.elapsed() < self.patience {
                    self.pause(&claim).await;
                    return Some(RunningStudy { claim, stage: *stage, unwritable: Some(since), waits: false });
                }
                tracing::error!(study.id = %claim.study.id, "a study could not be written for too long; it is queued again");
                RunOutcome::Requeued
            }
        };
        report_with_retry(
            &self.store,
            vec![PendingReport::with_outcome(claim.lease, &claim.cancel_requested, end)],
            &self.interrupt,
            self.patience,
        )
        .await;
        None
    }

    /// Waits before files are written again.
    async fn pause(&self, claim: &StudyClaim) {
        tokio::select! {
            () = tokio::time::sleep(WRITE_AGAIN) => {}
            () = claim.cancel_requested.cancelled() => {}
            () = self.interrupt.cancelled() => {}
        }
    }

    /// Puts a study back into the queue that this pool does not go on with.
    pub(super) async fn requeue_study(&self, ongoing: RunningStudy) {
        let RunningStudy { claim, stage, .. } = ongoing;
        // Its folder is free again before somebody else may claim it.
        drop(stage);
        let ended = PendingReport::with_outcome(claim.lease, &claim.cancel_requested, RunOutcome::Requeued);
        report_with_retry(&self.store, vec![ended], &self.interrupt, self.patience).await;
    }

    /// The next next_stage, and what follows it or how the study ends.
    async fn next_stage(&self, claim: &StudyClaim, stage: Stage) -> Result<Stage, Stop> {
        let stop_signal =
            Arc::new(StopSignal::new(claim.cancel_requested.clone(), self.interrupt.clone(), self.time_limit));
        if let Some(reason) = stop_signal.reason() {
            return Err(self.outcome_of(reason).into());
        }
        let (runner, found) = match stage {
            Stage::Claimed => return self.open(claim).await.map(Stage::Runs),
            Stage::Runs(runner) => (runner, None),
            Stage::Images(runner, found) => (runner, Some(found)),
        };
        let before = runner.runs();
        let models = self.models(claim, &stop_signal).await?;
        let (runner, turn) = self.turn(claim, runner, models, found.clone(), &stop_signal).await?;
        let Some(turn) = turn else {
            return Err(Stop::check_writable(match found {
                None => Stage::Runs(runner),
                Some(found) => Stage::Images(runner, found),
            }));
        };
        let done = runner.runs();
        if done > before {
            metrics::batch(done - before);
            metrics::study_runs(done - before);
            if let Err(error) = self.store.record_study_progress(claim.lease, done).await {
                // The folder knows, too.
                tracing::warn!(study.id = %claim.study.id, %error, "the progress of a study could not be stored");
            }
        }
        let progress = StudyProgress { done: done as f64, total: claim.plan.runs(), now: None };
        self.store.publish_study_progress(claim.study.id, progress);
        match (turn, found) {
            (StepResult::Ran, None) => Ok(Stage::Runs(runner)),
            (StepResult::Ran, Some(found)) => Ok(Stage::Images(runner, found)),
            (StepResult::Stopped, _) => {
                Err(stop_signal.reason().map_or(RunOutcome::Requeued, |reason| self.outcome_of(reason)).into())
            }
            (StepResult::Complete, None) => {
                let folder = self.store.study_folder(claim.study.id);
                match self.blocking(claim, move || summary(&folder, None)).await? {
                    Some(found) => Ok(Stage::Images(runner, Arc::new(found))),
                    None => Err(Stop::check_writable(Stage::Runs(runner))),
                }
            }
            (StepResult::Complete, Some(found)) => {
                let folder = self.store.study_folder(claim.study.id);
                let shown = Arc::clone(&found);
                Err(match self.blocking(claim, move || report(&folder, &shown)).await? {
                    Some(()) => RunOutcome::Succeeded { stimuli: Vec::new(), steps: 0 }.into(),
                    None => Stop::check_writable(Stage::Images(runner, found)),
                })
            }
        }
    }

    /// Opens the study's folder.
    async fn open(&self, claim: &StudyClaim) -> Result<StudyRunner, Stop> {
        if let Err(why) = claim.plan.fits(&self.device) {
            return Err(RunOutcome::Failed(Failure::new(FailureCode::Engine, why)).into());
        }
        let (folder, plan) = (self.store.study_folder(claim.study.id), claim.plan.clone());
        let (batch, images) = (self.max_batch, Some(claim.study.images));
        let options = RunOptions { batch, images, memory: self.run_memory };
        let opened = self.blocking(claim, move || StudyRunner::open(&folder, plan, options)).await?;
        opened.ok_or(Stop::check_writable(Stage::Claimed))
    }

    /// The models of the study, as they were planned with.
    async fn models(&self, claim: &StudyClaim, stop_signal: &StopSignal) -> Result<Vec<Arc<Model>>, RunOutcome> {
        let mut models = Vec::with_capacity(claim.plan.models.len());
        for model in &claim.plan.models {
            let loaded = load(&self.load, model.id.clone(), model.digest.clone());
            models.push(tokio::select! {
                loaded = loaded => loaded.map_err(RunOutcome::Failed)?,
                () = stop_signal.triggered() => {
                    return Err(stop_signal.reason().map_or(RunOutcome::Requeued, |reason| self.outcome_of(reason)));
                }
            });
        }
        Ok(models)
    }

    /// Runs a batch, or makes an image of the report, on the device; no turn when what came of it cannot be written now.
    async fn turn(
        &self,
        claim: &StudyClaim,
        mut runner: StudyRunner,
        models: Vec<Arc<Model>>,
        summary: Option<Arc<Summary>>,
        stop_signal: &Arc<StopSignal>,
    ) -> Result<(StudyRunner, Option<StepResult>), RunOutcome> {
        let mut watch = Watch::new(self.store.clone(), claim, Arc::clone(stop_signal));
        let mut result = self.thread.run(move |engine: &dyn Engine| {
            let mut watch = |progress: Progress<'_>| watch.goes_on(&progress);
            let turn = match summary {
                None => runner.advance(&models, engine, &mut watch),
                Some(summary) => runner.render_exhibits(&models, engine, &summary, &mut watch),
            };
            match turn {
                Ok(turn) => Ok((runner, Some(turn))),
                Err(error) if error.is_unwritable() => {
                    tracing::error!(%error, "the runs of a study cannot be written; they are kept");
                    Ok((runner, None))
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
            if let (true, Some(reason)) = (stop_signal.overdue(), stop_signal.reason()) {
                return Err(self.outcome_of(reason));
            }
        };
        match result {
            Ok(done) => Ok(done),
            Err(error) => {
                metrics::engine_failed(&self.device);
                tracing::error!(device = self.device, study.id = %claim.study.id, %error, "batch of a study failed");
                // A device that is gone is not the study's fault: another one, or this one later, may run it.
                Err(if self.thread.works().await {
                    RunOutcome::Failed(problem(&error))
                } else {
                    RunOutcome::Interrupted { alone: true }
                })
            }
        }
    }

    /// Works on the study's files, away from the tasks that answer clients; nothing when they cannot be written now.
    async fn blocking<T: Send + 'static>(
        &self,
        claim: &StudyClaim,
        work: impl FnOnce() -> Result<T, StudyError> + Send + 'static,
    ) -> Result<Option<T>, RunOutcome> {
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
        Err(RunOutcome::Failed(problem(&failed)))
    }

    fn outcome_of(&self, reason: StopReason) -> RunOutcome {
        match reason {
            StopReason::Canceled => RunOutcome::Canceled,
            StopReason::Stopped => RunOutcome::Requeued,
            StopReason::TimeLimit => RunOutcome::Failed(too_long("a batch of the study", self.time_limit)),
        }
    }
}

/// Tells how far a study is, and stops its batch when it has a reason.
struct Watch {
    store: Store,
    study: uuid::Uuid,
    stop_signal: Arc<StopSignal>,
    told: Option<Instant>,
}

impl Watch {
    fn new(store: Store, claim: &StudyClaim, stop_signal: Arc<StopSignal>) -> Self {
        Self { store, study: claim.study.id, stop_signal, told: None }
    }

    fn goes_on(&mut self, progress: &Progress<'_>) -> bool {
        if self.told.is_none_or(|told| told.elapsed() >= BETWEEN_EVENTS) {
            self.told = Some(Instant::now());
            let Progress { done, total, now } = *progress;
            self.store.publish_study_progress(self.study, StudyProgress { done, total, now: Some(now.into()) });
        }
        self.stop_signal.reason().is_none()
    }
}
