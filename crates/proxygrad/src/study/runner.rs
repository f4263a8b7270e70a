//! Study runner: runs what a plan asks for and its folder lacks, batch by batch.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use super::error::StudyError;
use super::execute::{BatchProgress, ProgressCallback, run_batch};
use super::folder::{Folder, OpenFolder, image_path};
use super::judging;
use super::plan::types::{Plan, PlannedLayer, PlannedModel, PlannedSettings};
use super::row::{Row, RunKey};
use super::summary::{Comparison, Summary};
use super::toy;
use super::variant::Variant;
use crate::Invalid;
use crate::engine::Engine;
use crate::judge::Panel;
use crate::maximize::Outcome;
use crate::network::Model;

/// Options of running a study; none of them changes a score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunOptions {
    /// Largest number of stimuli in a batch.
    pub batch: usize,
    /// Number of units per layer, in the order drawn, whose images of the first start are kept; `None` keeps all
    /// images.
    pub images: Option<usize>,
    /// Memory limit of a run in bytes; batches are cut to fit.
    pub memory: u64,
}

/// One batch of runs: units of one layer under one arm.
struct Batch<'a> {
    model: &'a PlannedModel,
    method: &'a Variant,
    layer: &'a PlannedLayer,
    /// Indices of the units in the layer.
    units: std::ops::Range<usize>,
    /// Index of the layer's first unit among all units of the model.
    first: usize,
    repeat: u32,
    arm: &'a Variant,
}

/// Runs everything that is missing. Returns whether the study is complete.
///
/// # Errors
/// If the folder holds another study, or a run fails.
pub fn run(
    folder: &Folder,
    plan: &Plan,
    models: &[Arc<Model>],
    engine: &dyn Engine,
    options: &RunOptions,
    callback: &mut ProgressCallback<'_>,
) -> Result<bool, StudyError> {
    let mut runner = StudyRunner::open(folder, plan.clone(), *options)?;
    loop {
        match runner.advance(models, engine, callback)? {
            StepResult::Ran => {}
            StepResult::Stopped => return Ok(false),
            StepResult::Complete => return Ok(true),
        }
    }
}

/// A study that is being run. It holds the lock of its folder.
///
/// Runs are ordered by start, model, method, units and arm, so that a study that was stopped compares all arms on the
/// same units. A stopped study resumes where it stopped.
#[derive(Debug)]
pub struct StudyRunner {
    open: OpenFolder<Row>,
    plan: Plan,
    options: RunOptions,
    done: HashSet<RunKey>,
    /// Index of the first batch that may be incomplete.
    next: usize,
    /// Images that could not be reproduced.
    irreproducible: HashSet<RunKey>,
    /// Results that are computed and not written yet.
    unsaved: Option<Unsaved>,
    /// The judges, once they were needed.
    panel: Option<Panel>,
}

/// Results that are not on the disk yet.
#[derive(Debug, Default)]
struct Unsaved {
    /// Names, relative to the study's folder, and contents.
    files: Vec<(String, Vec<u8>)>,
    rows: Vec<Row>,
}

/// Result of one step of a study.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepResult {
    /// The step was done; there may be more.
    Ran,
    /// The callback stopped it; the step will be repeated.
    Stopped,
    /// Nothing was left to run.
    Complete,
}

impl StudyRunner {
    /// Starts or resumes the study of a plan in a folder.
    ///
    /// # Errors
    /// If the folder holds another study, is locked by another process, or cannot be written.
    pub fn open(folder: &Folder, plan: Plan, options: RunOptions) -> Result<Self, StudyError> {
        let open = folder.open::<Row>(&plan)?;
        let done = open.rows.iter().map(|row| row.key.clone()).collect();
        Ok(Self { open, plan, options, done, next: 0, irreproducible: HashSet::new(), unsaved: None, panel: None })
    }

    /// The plan that is run.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Number of runs done.
    pub fn runs(&self) -> usize {
        self.open.rows.len()
    }

    /// Runs the next incomplete batch; toy functions come before all batches. `models` are those of the plan and its
    /// judges. Results that an earlier call computed and
    /// could not write are written first.
    ///
    /// # Errors
    /// If a run fails, in which case its batch stays missing; or if a result cannot be written, in which case it is
    /// kept and written by the next call.
    pub fn advance(
        &mut self,
        models: &[Arc<Model>],
        engine: &dyn Engine,
        callback: &mut ProgressCallback<'_>,
    ) -> Result<StepResult, StudyError> {
        if self.save()? {
            return Ok(StepResult::Ran);
        }
        if let Some(toys) = &self.plan.toys
            && !toy::is_done(&self.open.folder)?
        {
            let file = toy::run(toys, &self.plan, engine, &self.options, callback)?;
            let Some(file) = file else { return Ok(StepResult::Stopped) };
            self.unsaved = Some(Unsaved { files: vec![file], ..Unsaved::default() });
            self.save()?;
        }
        let batches = batches(&self.plan, self.options.batch.max(1));
        let missing = |batch: &Batch<'_>| -> Vec<usize> {
            batch.units.clone().filter(|&unit| !self.done.contains(&batch.key(unit))).collect()
        };
        let next = batches.iter().enumerate().skip(self.next).find_map(|(index, batch)| {
            let missing = missing(batch);
            (!missing.is_empty()).then_some((index, batch, missing))
        });
        let Some((index, batch, missing)) = next else {
            self.next = batches.len();
            return Ok(StepResult::Complete);
        };
        self.next = index;
        let mut panel = match self.panel.take() {
            None if !self.plan.judges.is_empty() => Some(judging::panel(&self.plan, models)?),
            panel => panel,
        };
        let results = self.run_units(batch, &missing, models, engine, panel.as_mut(), callback);
        self.panel = panel;
        let Some(results) = results? else { return Ok(StepResult::Stopped) };
        self.unsaved = Some(results);
        self.save()?;
        Ok(StepResult::Ran)
    }

    /// Runs these units of a batch, and shows their stimuli to the judges; `None` if stopped.
    fn run_units(
        &self,
        batch: &Batch<'_>,
        units: &[usize],
        models: &[Arc<Model>],
        engine: &dyn Engine,
        panel: Option<&mut Panel>,
        callback: &mut ProgressCallback<'_>,
    ) -> Result<Option<Unsaved>, StudyError> {
        let model = models.iter().find(|model| model.id == batch.model.id && model.digest == batch.model.digest);
        let model = model.ok_or_else(|| Invalid::new("models", &batch.model.id, "the model that was planned with"))?;
        let (arm, method) = (&batch.arm.name, &batch.method.name);
        let what = format!("{} {} {method}, {arm}, start {}", model.id, batch.layer.name, batch.repeat + 1);
        let settings = self.settings_of(&model.id, method, arm, &what)?;
        let seed = |unit: usize| self.plan.request_seed(batch.repeat, batch.first + unit);
        let wanted: Vec<(&str, u64)> = units.iter().map(|&unit| (&*batch.layer.units[unit], seed(unit))).collect();
        let (done, total) = (self.runs(), self.plan.runs());
        let mut progress = BatchProgress::new(callback, &what, done, total);
        let started = Instant::now();
        let outcomes = run_batch(model, &settings.request, &wanted, engine, self.options.memory, &mut progress)?;
        let Some(outcomes) = outcomes else { return Ok(None) };
        let seconds = started.elapsed().as_secs_f32() / units.len() as f32;
        let mut readability = vec![None; units.len()];
        if let Some(panel) = panel {
            let stimuli: Vec<(&str, &Outcome)> =
                wanted.iter().zip(&outcomes).map(|((unit, _), outcome)| (*unit, outcome)).collect();
            let judged = judging::judge(panel, model, &stimuli, engine, self.options.memory, &what, &mut progress)?;
            let Some(judged) = judged else { return Ok(None) };
            readability = judged.into_iter().map(Some).collect();
        }
        let mut unsaved = Unsaved::default();
        let outcomes = outcomes.into_iter().zip(readability);
        for ((&unit, (_, seed)), (outcome, readability)) in units.iter().zip(wanted).zip(outcomes) {
            let key = batch.key(unit);
            if self.options.images.is_none_or(|images| batch.repeat == 0 && unit < images) {
                unsaved.files.push((image_path(&key), outcome.png));
            }
            unsaved.rows.push(Row { readability, ..Row::new(key, seed, seconds, &outcome.findings) });
        }
        Ok(Some(unsaved))
    }

    fn settings_of(&self, model: &str, method: &str, arm: &str, what: &str) -> Result<&PlannedSettings, Invalid> {
        let settings = self.plan.settings_of(model, method, arm);
        settings.ok_or_else(|| Invalid::new("settings", what, "an entry for every arm"))
    }

    /// Writes unsaved results. Returns whether there were any; after an error they are still there.
    fn save(&mut self) -> Result<bool, StudyError> {
        let Some(unsaved) = &mut self.unsaved else { return Ok(false) };
        while let Some((name, contents)) = unsaved.files.last() {
            self.open.folder.write(name, contents)?;
            unsaved.files.pop();
        }
        // Images come before the rows that refer to them.
        if !unsaved.rows.is_empty() {
            self.open.add(&unsaved.rows)?;
            self.done.extend(unsaved.rows.iter().map(|row| row.key.clone()));
        }
        self.unsaved = None;
        Ok(true)
    }

    /// Repeats one run, from its first start, whose image the report shows and the folder lacks; the same seed gives
    /// the same image. If the score differs, as it may on another device, the report does without the image.
    ///
    /// # Errors
    /// If the run fails; or if its image cannot be written, in which case it is kept and written by the next call.
    pub fn render_exhibits(
        &mut self,
        models: &[Arc<Model>],
        engine: &dyn Engine,
        summary: &Summary,
        callback: &mut ProgressCallback<'_>,
    ) -> Result<StepResult, StudyError> {
        if self.save()? {
            return Ok(StepResult::Ran);
        }
        let Some((table, run, model)) = self.next_exhibit(summary, models) else { return Ok(StepResult::Complete) };
        let what = format!("{} {} {}, {} for its image", model.id, run.key.unit, table.method, run.key.arm);
        let settings = self.settings_of(&model.id, &table.method, &run.key.arm, &what)?;
        let (done, total) = (self.runs(), self.plan.runs());
        let mut progress = BatchProgress::new(callback, &what, done, total);
        let units = [(&*run.key.unit, run.seed)];
        let outcomes = run_batch(model, &settings.request, &units, engine, self.options.memory, &mut progress)?;
        let Some(outcome) = outcomes.as_ref().and_then(|outcomes| outcomes.first()) else {
            return Ok(StepResult::Stopped);
        };
        if (outcome.findings.score - run.score).abs() > 1e-3 * run.score.abs() {
            let (score, recorded) = (outcome.findings.score, run.score);
            tracing::warn!(run = what, score, recorded, "image of a run left out of the report: the score differs");
            self.irreproducible.insert(run.key.clone());
        } else {
            let files = vec![(image_path(&run.key), outcome.png.clone())];
            self.unsaved = Some(Unsaved { files, ..Unsaved::default() });
            self.save()?;
        }
        Ok(StepResult::Ran)
    }

    /// The first run of these models whose image the report shows and the folder lacks.
    fn next_exhibit<'a>(
        &self,
        summary: &'a Summary,
        models: &'a [Arc<Model>],
    ) -> Option<(&'a Comparison, &'a Row, &'a Model)> {
        summary.tables.iter().find_map(|table| {
            let model = models.iter().find(|model| model.id == table.model)?;
            let units = table.losses(&self.plan.arms, &summary.options).into_iter();
            let mut runs = units.flat_map(|(unit, _)| &unit.arms).filter_map(|arm| arm.runs.first());
            let missing = |run: &&Row| {
                !self.irreproducible.contains(&run.key) && !self.open.folder.file(&image_path(&run.key)).exists()
            };
            let run = runs.find(missing)?;
            Some((table, run, &**model))
        })
    }
}

/// All batches of a plan, in the order in which they run.
fn batches(plan: &Plan, size: usize) -> Vec<Batch<'_>> {
    let mut batches = Vec::new();
    for repeat in 0..plan.repeats {
        for model in &plan.models {
            for method in &plan.methods {
                let longest = model.layers.iter().map(|layer| layer.units.len()).max().unwrap_or(0);
                for from in (0..longest).step_by(size) {
                    let mut first = 0;
                    for layer in &model.layers {
                        let units = from..(from + size).min(layer.units.len());
                        for arm in plan.arms.iter().filter(|_| !units.is_empty()) {
                            batches.push(Batch { model, method, layer, units: units.clone(), first, repeat, arm });
                        }
                        first += layer.units.len();
                    }
                }
            }
        }
    }
    batches
}

impl Batch<'_> {
    fn key(&self, unit: usize) -> RunKey {
        RunKey {
            model: self.model.id.clone(),
            method: self.method.name.clone(),
            layer: self.layer.name.clone(),
            unit: self.layer.units[unit].clone(),
            repeat: self.repeat,
            arm: self.arm.name.clone(),
        }
    }
}

/// Repeats, from its first start, every run whose image the report shows and the folder lacks. Returns `false` if
/// stopped. Each runs within `memory` bytes.
///
/// # Errors
/// If a run fails.
pub fn render_exhibits(
    folder: &Folder,
    plan: &Plan,
    models: &[Arc<Model>],
    engine: &dyn Engine,
    memory: u64,
    summary: &Summary,
    callback: &mut ProgressCallback<'_>,
) -> Result<bool, StudyError> {
    let options = RunOptions { batch: 1, images: None, memory };
    let mut runner = StudyRunner::open(folder, plan.clone(), options)?;
    loop {
        match runner.render_exhibits(models, engine, summary, callback)? {
            StepResult::Ran => {}
            StepResult::Stopped => return Ok(false),
            StepResult::Complete => return Ok(true),
        }
    }
}
