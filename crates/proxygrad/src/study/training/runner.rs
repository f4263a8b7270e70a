//! Runs a study of training.

use std::collections::HashSet;
use std::time::Instant;

use super::plan::TrainingPlan;
use super::row::{TrainingKey, TrainingRow};
use crate::engine::TrainingEngine;
use crate::network::onnx;
use crate::study::error::StudyError;
use crate::study::execute::{Progress, ProgressCallback};
use crate::study::folder::{Folder, escape_name};
use crate::train::{Splits, TrainError, Training};

/// Folder of the checkpoint of the run that is under way.
const RUNNING: &str = "running";

/// A dataset with its name.
#[derive(Debug, Clone)]
pub struct StudyData {
    /// Name in tables and files.
    pub name: String,
    /// Its images.
    pub splits: Splits,
}

impl StudyData {
    /// The images that runs use: all training images, and as many test images, the same for all runs.
    pub(super) fn used(&self, test_limit: Option<usize>) -> Splits {
        let mut splits = self.splits.clone();
        if let Some(limit) = test_limit {
            splits.test = splits.test.sample(limit, 0);
        }
        splits
    }
}

/// What is kept of a run besides its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TrainingOptions {
    /// Whether the trained networks are kept as `networks/DATA/NETWORK/ARM-SEED.onnx`.
    pub keep_networks: bool,
}

/// Runs what a folder lacks of a plan. An interrupted run goes on from its last epoch. Returns whether all is done:
/// `progress` stops the study by returning `false`.
///
/// # Errors
/// When the folder holds another plan or cannot be written, or a run fails.
pub fn train_study(
    folder: &Folder,
    plan: &TrainingPlan,
    data: &[StudyData],
    engine: &dyn TrainingEngine,
    options: TrainingOptions,
    progress: &mut ProgressCallback<'_>,
) -> Result<bool, StudyError> {
    let mut open = folder.open::<TrainingRow>(plan)?;
    let done: HashSet<TrainingKey> = open.rows.iter().map(|row| row.key.clone()).collect();
    let used: Vec<(&str, Splits)> = data.iter().map(|data| (&*data.name, data.used(plan.test_limit))).collect();
    let total = plan.run_count();
    for key in plan.runs().filter(|key| !done.contains(key)) {
        let Some((_, splits)) = used.iter().find(|(name, _)| *name == key.data) else { continue };
        let now = format!("{}, {}, {}, seed {}", key.data, key.network, key.arm, key.seed);
        let before = open.rows.len();
        let mut report = |share: f64| progress(Progress { done: before as f64 + share, total, now: &now });
        let failed = |error| StudyError::Train { what: now.clone(), source: Box::new(error) };
        match train(folder, plan, &key, splits, engine, options, &mut report) {
            Ok(Some(row)) => open.add(&[row])?,
            Ok(None) => return Ok(false),
            Err(error) => return Err(failed(error)),
        }
        let running = folder.file(RUNNING);
        std::fs::remove_dir_all(&running).map_err(StudyError::file(&running))?;
    }
    Ok(true)
}

/// Trains one network; `None` if stopped.
fn train(
    folder: &Folder,
    plan: &TrainingPlan,
    key: &TrainingKey,
    splits: &Splits,
    engine: &dyn TrainingEngine,
    options: TrainingOptions,
    progress: &mut dyn FnMut(f64) -> bool,
) -> Result<Option<TrainingRow>, TrainError> {
    let Some(recipe) = plan.recipe(key) else { return Ok(None) };
    let (started, epochs) = (Instant::now(), recipe.epochs as f64);
    let [data, network, arm] = [&key.data, &key.network, &key.arm].map(|name| escape_name(name));
    let name = format!("{data}/{network}/{arm}-{}", key.seed);
    let checkpoint = folder.file(&format!("{RUNNING}/{name}"));
    let mut training = Training::new(recipe, splits.clone(), engine)?.in_folder(&checkpoint)?;
    let mut stopped = false;
    let finished = loop {
        let step = training.epoch(&mut |step| {
            let share = (step.epoch as f64 - 1.0 + step.step as f64 / step.steps as f64) / epochs;
            stopped = !progress(share);
            stopped
        });
        match step {
            Ok(Some(_)) => {}
            Ok(None) if stopped => return Ok(None),
            Ok(None) => break true,
            Err(TrainError::Diverged { .. }) => break false,
            Err(error) => return Err(error),
        }
    };
    let train_accuracy = if finished { Some(training.train_accuracy()?) } else { None };
    if options.keep_networks && finished {
        let path = folder.file(&format!("networks/{name}.onnx"));
        let failed = |why: String| TrainError::Checkpoint { path: path.clone(), why };
        let file = onnx::export(&training.freeze()?).map_err(|why| failed(why.to_string()))?;
        crate::file::replace(&path, &file).map_err(|why| failed(why.to_string()))?;
    }
    let seconds = started.elapsed().as_secs_f64();
    Ok(Some(TrainingRow::new(key.clone(), training.epochs(), train_accuracy, seconds)))
}
