//! Runs a study of training.

use std::collections::HashMap;
use std::time::Instant;

use super::maxima::{MaximaPlan, MaximaRunner};
use super::plan::TrainingPlan;
use super::row::{TrainingKey, TrainingRow};
use super::starts::{StartModels, model_of};
use crate::Invalid;
use crate::engine::Engine;
use crate::network::onnx;
use crate::study::error::StudyError;
use crate::study::execute::{Progress, ProgressCallback};
use crate::study::folder::{Folder, escape_name};
use crate::train::{Splits, TrainError, Training, TrainingLimits, starting_network};

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

/// What a study does besides training.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingOptions {
    /// Whether the trained networks are kept as `networks/DATA/NETWORK/ARM-SEED.onnx`. They are if there are `maxima`.
    pub keep_networks: bool,
    /// What is maximized in the trained networks; also in those of runs that are done, if they were kept.
    pub maxima: Option<MaximaPlan>,
    /// Memory limit of maximization in bytes; batches are cut to fit.
    pub memory: u64,
}

impl Default for TrainingOptions {
    /// Only rows are kept.
    fn default() -> Self {
        Self { keep_networks: false, maxima: None, memory: u64::MAX }
    }
}

/// Runs what a folder lacks of a plan. An interrupted run goes on from its last epoch. Returns whether all is done:
/// `progress` stops the study by returning `false`. `models` are those that recipes start from.
///
/// # Errors
/// When the folder holds another plan, lacks a network that is to be maximized or cannot be written, or a run fails.
pub fn train_study(
    folder: &Folder,
    plan: &TrainingPlan,
    data: &[StudyData],
    models: &StartModels,
    engine: &dyn Engine,
    options: &TrainingOptions,
    progress: &mut ProgressCallback<'_>,
) -> Result<bool, StudyError> {
    let mut open = folder.open::<TrainingRow>(plan)?;
    let mut maxima = options.maxima.as_ref().map(|plan| MaximaRunner::open(&open, plan)).transpose()?;
    let trainer = engine.training().ok_or_else(|| Invalid::new("device", &plan.device, "a device that trains"))?;
    let keep_networks = options.keep_networks || maxima.is_some();
    let mut diverged: HashMap<TrainingKey, bool> =
        open.rows.iter().map(|row| (row.key.clone(), row.diverged)).collect();
    let used: Vec<(&str, Splits)> = data.iter().map(|data| (&*data.name, data.used(plan.test_limit))).collect();
    let total = plan.run_count();
    // Of a run: its training, then its maxima.
    let training_share = if maxima.is_some() { 0.5 } else { 1.0 };
    for (before, key) in plan.runs().enumerate() {
        let Some((_, splits)) = used.iter().find(|(name, _)| *name == key.data) else { continue };
        let Some(recipe) = plan.recipe(&key) else { continue };
        let start = model_of(&recipe, models);
        let now = format!("{}, {}, {}, seed {}", key.data, key.network, key.arm, key.seed);
        let failed = |error| StudyError::Train { what: now.clone(), source: Box::new(error) };
        if !diverged.contains_key(&key) {
            let mut report = |share: f64| {
                let done = before as f64 + training_share * share;
                progress(Progress { done, total, now: &now })
            };
            let training = Training::within(recipe.clone(), splits.clone(), start, trainer, &TrainingLimits::NONE);
            let checkpoint = folder.file(&format!("{RUNNING}/{}", file_name(&key)));
            let training = training.and_then(|training| training.in_folder(&checkpoint)).map_err(failed)?;
            let trained = train(folder, training, &key, keep_networks, &mut report);
            let Some(row) = trained.map_err(failed)? else { return Ok(false) };
            diverged.insert(key.clone(), row.diverged);
            open.add(&[row])?;
            let running = folder.file(RUNNING);
            std::fs::remove_dir_all(&running).map_err(StudyError::file(&running))?;
        }
        let Some(maxima) = maxima.as_mut().filter(|maxima| maxima.lacks(&key) && !diverged[&key]) else { continue };
        let (_, preprocessing) = starting_network(&recipe, splits.clone(), start).map_err(failed)?;
        let mut report = |share: f64, what: &str| {
            let done = before as f64 + training_share + (1.0 - training_share) * share;
            progress(Progress { done, total, now: &format!("{now}, maxima: {what}") })
        };
        if !maxima.run(&key, preprocessing, &splits.test, engine, options.memory, &mut report)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Path of a run's network, relative to the folder of the study.
pub(super) fn network_file(key: &TrainingKey) -> String {
    format!("networks/{}.onnx", file_name(key))
}

fn file_name(key: &TrainingKey) -> String {
    let [data, network, arm] = [&key.data, &key.network, &key.arm].map(|name| escape_name(name));
    format!("{data}/{network}/{arm}-{}", key.seed)
}

/// Trains one network; `None` if stopped.
fn train(
    folder: &Folder,
    mut training: Training,
    key: &TrainingKey,
    keep_network: bool,
    progress: &mut dyn FnMut(f64) -> bool,
) -> Result<Option<TrainingRow>, TrainError> {
    let (started, epochs) = (Instant::now(), training.recipe().epochs as f64);
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
    if keep_network && finished {
        let path = folder.file(&network_file(key));
        let failed = |why: String| TrainError::Checkpoint { path: path.clone(), why };
        let file = onnx::export(&training.freeze()?).map_err(|why| failed(why.to_string()))?;
        crate::file::replace(&path, &file).map_err(|why| failed(why.to_string()))?;
    }
    let seconds = started.elapsed().as_secs_f64();
    Ok(Some(TrainingRow::new(key.clone(), training.epochs(), train_accuracy, seconds)))
}
