//! Runs a study on a device batch by batch; between two batches the device is free for jobs.

use std::sync::Arc;
use std::time::Instant;

use uuid::Uuid;

use super::device_thread::BatchError;
use super::long_run::StageEnd;
use super::metrics;
use super::run::{RunContext, failure, load, time_limit_exceeded};
use super::running_job::BETWEEN_EVENTS;
use super::stop_signal::{StopReason, StopSignal};
use crate::jobs::{Failure, FailureCode, RunOutcome, Store, StudyClaim, StudyProgress};
use proxygrad::network::Model;
use proxygrad::study::{Progress, RunOptions, StepResult, StudyError, StudyRunner, Summary, report, summary};

/// A claimed study between two of its batches.
pub(super) struct StudyRun {
    claim: StudyClaim,
    stage: Stage,
}

/// What is to be done next.
enum Stage {
    /// Open its folder.
    Claimed,
    /// Run its batches, one at a time.
    Runs(StudyRunner),
    /// Render the images that the report shows, one at a time.
    Exhibits(StudyRunner, Arc<Summary>),
}

impl StudyRun {
    pub(super) fn new(claim: StudyClaim) -> Self {
        Self { claim, stage: Stage::Claimed }
    }

    /// Whether its folder has been opened.
    pub(super) fn has_begun(&self) -> bool {
        !matches!(self.stage, Stage::Claimed)
    }

    /// Runs the next stage.
    pub(super) async fn advance(self, context: &RunContext) -> Result<Self, StageEnd<Self>> {
        let Self { claim, stage } = self;
        match context.next_stage(&claim, stage).await {
            Ok(stage) => Ok(Self { claim, stage }),
            Err(end) => Err(end.map(|stage| Self { claim, stage })),
        }
    }
}

impl RunContext {
    /// Runs a stage, and returns the next one or the reason why there is no next one.
    async fn next_stage(&self, claim: &StudyClaim, stage: Stage) -> Result<Stage, StageEnd<Stage>> {
        let (cancel_requested, shutdown) = (claim.cancel_requested.clone(), self.interrupt.clone());
        let stop_signal = Arc::new(StopSignal::new(cancel_requested, shutdown, self.time_limit));
        if let Some(reason) = stop_signal.reason() {
            return Err(self.study_outcome_of(reason).into());
        }
        let (runner, exhibits) = match stage {
            Stage::Claimed => return self.open(claim).await.map(Stage::Runs),
            Stage::Runs(runner) => (runner, None),
            Stage::Exhibits(runner, summary) => (runner, Some(summary)),
        };
        let before = runner.runs();
        let models = self.models(claim, &stop_signal).await?;
        let (runner, result) = self.run_stage(claim, runner, models, exhibits.clone(), &stop_signal).await?;
        let Some(result) = result else {
            return Err(StageEnd::Unwritable(match exhibits {
                None => Stage::Runs(runner),
                Some(summary) => Stage::Exhibits(runner, summary),
            }));
        };
        let done = runner.runs();
        if done > before {
            metrics::batch(done - before);
            metrics::study_runs(done - before);
            if let Err(error) = self.store.record_study_progress(claim.lease, done).await {
                // The folder has the same information.
                tracing::warn!(study.id = %claim.study.id, %error, "progress of a study could not be stored");
            }
        }
        let progress = StudyProgress { done: done as f64, total: claim.plan.runs(), now: None };
        self.store.publish_study_progress(claim.study.id, progress);
        match (result, exhibits) {
            (StepResult::Ran, None) => Ok(Stage::Runs(runner)),
            (StepResult::Ran, Some(summary)) => Ok(Stage::Exhibits(runner, summary)),
            (StepResult::Stopped, _) => {
                let reason = stop_signal.reason();
                Err(reason.map_or(RunOutcome::Requeued, |reason| self.study_outcome_of(reason)).into())
            }
            (StepResult::Complete, None) => {
                let folder = self.store.study_folder(claim.study.id);
                match self.blocking(claim, move || summary(&folder, None)).await? {
                    Some(summary) => Ok(Stage::Exhibits(runner, Arc::new(summary))),
                    None => Err(StageEnd::Unwritable(Stage::Runs(runner))),
                }
            }
            (StepResult::Complete, Some(summary)) => {
                let folder = self.store.study_folder(claim.study.id);
                let shown = Arc::clone(&summary);
                Err(match self.blocking(claim, move || report(&folder, &shown)).await? {
                    Some(()) => RunOutcome::completed().into(),
                    None => StageEnd::Unwritable(Stage::Exhibits(runner, summary)),
                })
            }
        }
    }

    /// Opens the folder of a study.
    async fn open(&self, claim: &StudyClaim) -> Result<StudyRunner, StageEnd<Stage>> {
        if let Err(why) = claim.plan.fits(&self.device) {
            return Err(RunOutcome::Failed(Failure::new(FailureCode::Engine, why)).into());
        }
        let (folder, plan) = (self.store.study_folder(claim.study.id), claim.plan.clone());
        let (batch, images) = (self.max_batch, Some(claim.study.images));
        let options = RunOptions { batch, images, memory: self.run_memory };
        let opened = self.blocking(claim, move || StudyRunner::open(&folder, plan, options)).await?;
        opened.ok_or(StageEnd::Unwritable(Stage::Claimed))
    }

    /// Loads the models and judges of a study, with the weights that it was planned with.
    async fn models(&self, claim: &StudyClaim, stop_signal: &StopSignal) -> Result<Vec<Arc<Model>>, RunOutcome> {
        let compared = claim.plan.models.iter().map(|model| (&model.id, &model.digest));
        let judges = claim.plan.judges.iter().map(|judge| (&judge.id, &judge.digest));
        let mut models = Vec::new();
        for (id, digest) in compared.chain(judges) {
            let loaded = load(&self.load, id.clone(), digest.clone());
            models.push(tokio::select! {
                loaded = loaded => loaded.map_err(RunOutcome::Failed)?,
                () = stop_signal.triggered() => {
                    let reason = stop_signal.reason();
                    return Err(reason.map_or(RunOutcome::Requeued, |reason| self.study_outcome_of(reason)));
                }
            });
        }
        Ok(models)
    }

    /// Runs a batch, or renders an image of the report if there is a summary, on the device. Returns no result if it
    /// could not be written now.
    async fn run_stage(
        &self,
        claim: &StudyClaim,
        mut runner: StudyRunner,
        models: Vec<Arc<Model>>,
        summary: Option<Arc<Summary>>,
        stop_signal: &Arc<StopSignal>,
    ) -> Result<(StudyRunner, Option<StepResult>), RunOutcome> {
        let id = claim.study.id;
        let mut publisher = ProgressPublisher::new(self.store.clone(), id, Arc::clone(stop_signal));
        let stopped = |reason| self.study_outcome_of(reason);
        let ran = self.on_device(claim.lease, stop_signal, stopped, move |engine| {
            let mut callback = |progress: Progress<'_>| publisher.on_progress(&progress);
            let result = match summary {
                None => runner.advance(&models, engine, &mut callback),
                Some(summary) => runner.render_exhibits(&models, engine, &summary, &mut callback),
            };
            match result {
                Ok(result) => Ok((runner, Some(result))),
                Err(error) if error.is_unwritable() => {
                    tracing::error!(study.id = %id, %error, "results of a study could not be written; kept in memory");
                    Ok((runner, None))
                }
                Err(error) => Err(error.into()),
            }
        });
        ran.await
    }

    /// Works on the files of a study on a blocking thread. Returns `None` if they cannot be written now.
    async fn blocking<T: Send + 'static>(
        &self,
        claim: &StudyClaim,
        work: impl FnOnce() -> Result<T, StudyError> + Send + 'static,
    ) -> Result<Option<T>, RunOutcome> {
        let error = match tokio::task::spawn_blocking(work).await {
            Ok(Ok(done)) => return Ok(Some(done)),
            // Busy: an overdue batch of an earlier run still holds the folder.
            Ok(Err(error)) if error.is_unwritable() || matches!(error, StudyError::Busy(_)) => {
                tracing::error!(study.id = %claim.study.id, %error, "files of a study cannot be written now; retrying");
                return Ok(None);
            }
            Ok(Err(error)) => BatchError::from(error),
            Err(error) => BatchError::Panic(error.to_string()),
        };
        tracing::error!(study.id = %claim.study.id, %error, "files of a study cannot be used; the study fails");
        Err(RunOutcome::Failed(failure(&error)))
    }

    fn study_outcome_of(&self, reason: StopReason) -> RunOutcome {
        match reason {
            StopReason::Canceled => RunOutcome::Canceled,
            StopReason::Shutdown => RunOutcome::Requeued,
            StopReason::TimeLimit => RunOutcome::Failed(time_limit_exceeded("a batch of the study", self.time_limit)),
        }
    }
}

/// Publishes the progress of a study at a limited rate, and stops its batch when the stop signal triggers.
struct ProgressPublisher {
    store: Store,
    study: Uuid,
    stop_signal: Arc<StopSignal>,
    published: Option<Instant>,
}

impl ProgressPublisher {
    fn new(store: Store, study: Uuid, stop_signal: Arc<StopSignal>) -> Self {
        Self { store, study, stop_signal, published: None }
    }

    /// Returns whether the batch may continue.
    fn on_progress(&mut self, progress: &Progress<'_>) -> bool {
        if self.published.is_none_or(|at| at.elapsed() >= BETWEEN_EVENTS) {
            self.published = Some(Instant::now());
            let Progress { done, total, now } = *progress;
            self.store.publish_study_progress(self.study, StudyProgress { done, total, now: Some(now.into()) });
        }
        self.stop_signal.reason().is_none()
    }
}
