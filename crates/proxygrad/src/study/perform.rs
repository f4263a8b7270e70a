//! Runs what a plan asks for and the folder does not have yet, one batch after another.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use super::error::StudyError;
use super::folder::{Folder, Open, image_path};
use super::plan::{Bounds, Plan, PlannedLayer, PlannedModel, PlannedSettings, request_for};
use super::row::{Row, RunKey};
use super::summary::{Summary, Table};
use super::toy;
use super::variant::Variant;
use crate::Invalid;
use crate::engine::Engine;
use crate::maximize::{Objective, Observer, Outcome, Point, Task, maximize, parts};
use crate::network::Model;

/// How a study is run; none of this changes its scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manner {
    /// Most stimuli of one batch.
    pub batch: usize,
    /// Units of each layer, from the first one drawn, whose images of the first start are kept; `None` keeps all images.
    pub images: Option<usize>,
    /// Most bytes of memory that a run may take: batches are made no larger than fit.
    pub memory: u64,
}

/// How far a study is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress<'a> {
    /// Runs done, and the part of those that run now.
    pub done: f64,
    /// Runs of the plan.
    pub total: usize,
    /// What runs now.
    pub now: &'a str,
}

/// Told how far the study is; `false` stops it, and what runs then is lost.
pub type Watch<'a> = dyn FnMut(Progress<'_>) -> bool + 'a;

/// One batch of runs: units of one layer under one arm.
struct Batch<'a> {
    model: &'a PlannedModel,
    method: &'a Variant,
    layer: &'a PlannedLayer,
    /// Indices of the units in the layer.
    units: std::ops::Range<usize>,
    /// Index, among all units of the model, of the layer's first one.
    first: usize,
    repeat: u32,
    arm: &'a Variant,
}

/// Runs everything that is missing; gives whether the study is complete.
///
/// # Errors
/// When the folder holds another study, or a run fails.
pub fn perform(
    folder: &Folder,
    plan: &Plan,
    models: &[Arc<Model>],
    engine: &dyn Engine,
    manner: &Manner,
    watch: &mut Watch<'_>,
) -> Result<bool, StudyError> {
    let mut performance = Performance::open(folder, plan.clone(), *manner)?;
    loop {
        match performance.advance(models, engine, watch)? {
            Turn::Ran => {}
            Turn::Stopped => return Ok(false),
            Turn::Complete => return Ok(true),
        }
    }
}

/// A study that is being run: nobody else works in its folder as long as this lives.
///
/// The runs are ordered by start, model, method, units and arm, so that a study that was stopped compares all arms on
/// the same units. A stopped study goes on where it stopped.
#[derive(Debug)]
pub struct Performance {
    open: Open,
    plan: Plan,
    manner: Manner,
    done: HashSet<RunKey>,
    /// The batches before this one are done.
    next: usize,
    /// Images that could not be made again.
    lost: HashSet<RunKey>,
    /// What was computed and is not written yet.
    unsaved: Option<Unsaved>,
}

/// Results between their computation and the disk.
#[derive(Debug, Default)]
struct Unsaved {
    /// Names, from the study's folder, and contents.
    files: Vec<(String, Vec<u8>)>,
    rows: Vec<Row>,
}

/// What became of a further piece of a study.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It was run; there may be more.
    Ran,
    /// The watch stopped it; it runs again.
    Stopped,
    /// Nothing was left to run.
    Complete,
}

impl Performance {
    /// Begins or continues the study of a plan in a folder.
    ///
    /// # Errors
    /// When the folder holds another study, somebody else works there, or it cannot be written.
    pub fn open(folder: &Folder, plan: Plan, manner: Manner) -> Result<Self, StudyError> {
        let open = folder.open(&plan)?;
        let done = open.rows.iter().map(|row| row.key.clone()).collect();
        Ok(Self { open, plan, manner, done, next: 0, lost: HashSet::new(), unsaved: None })
    }

    /// What is run.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Number of runs done.
    pub fn runs(&self) -> usize {
        self.open.rows.len()
    }

    /// Runs the next batch of which something is missing; the toys, if there are any, before all batches. What an earlier
    /// call computed and could not write is written first.
    ///
    /// # Errors
    /// When a run fails; the batch is missing then. When a result cannot be written; it is kept, and written by the next
    /// call.
    pub fn advance(
        &mut self,
        models: &[Arc<Model>],
        engine: &dyn Engine,
        watch: &mut Watch<'_>,
    ) -> Result<Turn, StudyError> {
        if self.save()? {
            return Ok(Turn::Ran);
        }
        if let Some(toys) = &self.plan.toys
            && !toy::done(&self.open.folder)?
        {
            let made = toy::perform(toys, &self.plan, engine, &self.manner, watch)?;
            let Some(file) = made else { return Ok(Turn::Stopped) };
            self.unsaved = Some(Unsaved { files: vec![file], ..Unsaved::default() });
            self.save()?;
        }
        let Self { open, plan, manner, done, next, .. } = self;
        for batch in batches(plan, manner.batch.max(1)).into_iter().skip(*next) {
            let missing: Vec<usize> = batch.units.clone().filter(|&unit| !done.contains(&batch.key(unit))).collect();
            if missing.is_empty() {
                *next += 1;
                continue;
            }
            let model = models.iter().find(|model| model.id == batch.model.id && model.digest == batch.model.digest);
            let model =
                model.ok_or_else(|| Invalid::new("models", &batch.model.id, "the model that was planned with"))?;
            let made = run(open.rows.len(), plan, &batch, &missing, model, engine, manner, watch)?;
            let Some(made) = made else { return Ok(Turn::Stopped) };
            self.unsaved = Some(made);
            self.save()?;
            return Ok(Turn::Ran);
        }
        Ok(Turn::Complete)
    }

    /// Writes what was computed; whether there was anything. After an error it is still there to be written.
    fn save(&mut self) -> Result<bool, StudyError> {
        let Some(unsaved) = &mut self.unsaved else { return Ok(false) };
        while let Some((name, contents)) = unsaved.files.last() {
            self.open.folder.write(name, contents)?;
            unsaved.files.pop();
        }
        // Images come before the lines that tell of them.
        if !unsaved.rows.is_empty() {
            self.open.add(&unsaved.rows)?;
            self.done.extend(unsaved.rows.iter().map(|row| row.key.clone()));
        }
        self.unsaved = None;
        Ok(true)
    }

    /// Makes again, from its first start, one run that the report shows and whose image is not there; a seed gives the
    /// same image twice. Where it gives another score, as on another device than the runs', the report goes without.
    ///
    /// # Errors
    /// When the run fails, or its image cannot be written; that is kept, and written by the next call.
    pub fn exhibit(
        &mut self,
        models: &[Arc<Model>],
        engine: &dyn Engine,
        summary: &Summary,
        watch: &mut Watch<'_>,
    ) -> Result<Turn, StudyError> {
        if self.save()? {
            return Ok(Turn::Ran);
        }
        let Some((table, run, model)) = self.unseen(summary, models) else { return Ok(Turn::Complete) };
        let what = format!("{} {} {}, {} for its image", model.id, run.key.unit, table.method, run.key.arm);
        let settings = self.plan.settings_of(&model.id, &table.method, &run.key.arm);
        let settings = settings.ok_or_else(|| Invalid::new("settings", &what, "an entry for every arm"))?;
        let (done, total) = (self.runs(), self.plan.runs());
        let mut watcher = Watcher { done, total, ..Watcher::new(watch, &what) };
        let made = make(model, settings, &[(&run.key.unit, run.seed)], engine, self.manner.memory, &mut watcher)?;
        let Some((outcome, _)) = made.as_ref().and_then(|made| made.first()) else { return Ok(Turn::Stopped) };
        if (outcome.findings.score - run.score).abs() > 1e-3 * run.score.abs() {
            tracing::warn!(run = what, now = outcome.findings.score, then = run.score, "the report lacks an image");
            self.lost.insert(run.key.clone());
        } else {
            let files = vec![(image_path(&run.key), outcome.png.clone())];
            self.unsaved = Some(Unsaved { files, ..Unsaved::default() });
            self.save()?;
        }
        Ok(Turn::Ran)
    }

    /// The first run that the report shows and whose image is not there, among those of these models.
    fn unseen<'a>(&self, summary: &'a Summary, models: &'a [Arc<Model>]) -> Option<(&'a Table, &'a Row, &'a Model)> {
        summary.tables.iter().find_map(|table| {
            let model = models.iter().find(|model| model.id == table.model)?;
            let units = table.losses(&self.plan.arms, &summary.view).into_iter();
            let mut runs = units.flat_map(|(unit, _)| &unit.arms).filter_map(|arm| arm.runs.first());
            let missing =
                |run: &&Row| !self.lost.contains(&run.key) && !self.open.folder.file(&image_path(&run.key)).exists();
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

/// Runs these units of a batch, after so many runs of the plan are done; `None` when it was stopped.
#[expect(clippy::too_many_arguments)]
fn run(
    done: usize,
    plan: &Plan,
    batch: &Batch<'_>,
    units: &[usize],
    model: &Model,
    engine: &dyn Engine,
    manner: &Manner,
    watch: &mut Watch<'_>,
) -> Result<Option<Unsaved>, StudyError> {
    let (arm, method) = (&batch.arm.name, &batch.method.name);
    let what = format!("{} {} {method}, {arm}, start {}", model.id, batch.layer.name, batch.repeat + 1);
    let settings = plan.settings_of(&model.id, method, arm);
    let settings = settings.ok_or_else(|| Invalid::new("settings", &what, "an entry for every arm"))?;
    let seed = |unit: usize| plan.request_seed(batch.repeat, batch.first + unit);
    let wanted: Vec<(&str, u64)> = units.iter().map(|&unit| (&*batch.layer.units[unit], seed(unit))).collect();
    let total = plan.runs();
    let mut watcher =
        Watcher { watch, done, total, running: wanted.len(), share: 0.0, steps: 1, what: &what, on: true };
    let started = Instant::now();
    let Some(made) = make(model, settings, &wanted, engine, manner.memory, &mut watcher)? else { return Ok(None) };
    let seconds = started.elapsed().as_secs_f32() / units.len() as f32;
    let mut unsaved = Unsaved::default();
    for ((&unit, (_, seed)), (outcome, steps)) in units.iter().zip(wanted).zip(made) {
        let key = batch.key(unit);
        if manner.images.is_none_or(|images| batch.repeat == 0 && unit < images) {
            unsaved.files.push((image_path(&key), outcome.png));
        }
        unsaved.rows.push(Row::new(key, seed, steps, seconds, &outcome.findings));
    }
    Ok(Some(unsaved))
}

/// Makes stimuli for units with these seeds, and tells the steps of each run; `None` when it was stopped.
///
/// Each is what the same request for that unit alone would give; they run in as few batches as fit into `memory` bytes.
pub(super) fn make(
    model: &Model,
    settings: &PlannedSettings,
    units: &[(&str, u64)],
    engine: &dyn Engine,
    memory: u64,
    watcher: &mut Watcher<'_, '_>,
) -> Result<Option<Vec<(Outcome, u32)>>, StudyError> {
    let objectives = units.iter().map(|(unit, _)| unit.parse()).collect::<Result<Vec<Objective>, Invalid>>()?;
    let resolved =
        request_for(&model.id, &settings.request, objectives, 0)?.resolve(model, &Bounds::default().request)?;
    // Each as if it were the only one of its request.
    let alone = |(group, (task, &(_, seed)))| Task { seed, stream: 0, group, ..task };
    let tasks: Vec<Task> = (0..).zip(resolved.tasks().into_iter().zip(units)).map(alone).collect();
    let (settings, what) = (&resolved.settings, watcher.what);
    let failed = |source| StudyError::Run { what: what.to_owned(), source };
    watcher.steps = settings.steps;
    let mut made = Vec::with_capacity(tasks.len());
    for part in parts(&engine.memory_model(), model, &tasks, settings, memory).map_err(failed)? {
        (watcher.running, watcher.share) = (part.len(), 0.0);
        let outcomes = maximize(engine, model, &tasks[part], settings, watcher).map_err(failed)?;
        watcher.done += outcomes.len();
        for outcome in outcomes {
            let Some(outcome) = outcome else { return Ok(None) };
            made.push((outcome, settings.steps));
        }
    }
    Ok(Some(made))
}

/// Makes again, from its first start, every unit that the report shows and whose images are not there; a seed gives the same
/// image twice. Gives whether it came to its end. Each runs within `memory` bytes.
///
/// # Errors
/// When a run fails.
pub fn exhibit(
    folder: &Folder,
    plan: &Plan,
    models: &[Arc<Model>],
    engine: &dyn Engine,
    memory: u64,
    summary: &Summary,
    watch: &mut Watch<'_>,
) -> Result<bool, StudyError> {
    let manner = Manner { batch: 1, images: None, memory };
    let mut performance = Performance::open(folder, plan.clone(), manner)?;
    loop {
        match performance.exhibit(models, engine, summary, watch)? {
            Turn::Ran => {}
            Turn::Stopped => return Ok(false),
            Turn::Complete => return Ok(true),
        }
    }
}

/// Passes on how far a batch is, and drops it when it is to stop.
pub(super) struct Watcher<'a, 'b> {
    pub(super) watch: &'a mut Watch<'b>,
    /// Runs done before this batch, of how many.
    pub(super) done: usize,
    pub(super) total: usize,
    /// Stimuli of this batch, and the share of their steps that is done.
    pub(super) running: usize,
    pub(super) share: f64,
    pub(super) steps: u32,
    pub(super) what: &'a str,
    pub(super) on: bool,
}

impl<'a, 'b> Watcher<'a, 'b> {
    /// Before any run of the plan.
    pub(super) fn new(watch: &'a mut Watch<'b>, what: &'a str) -> Self {
        Self { watch, done: 0, total: 0, running: 0, share: 0.0, steps: 1, what, on: true }
    }
}

impl Observer for Watcher<'_, '_> {
    fn keep(&mut self, stimulus: usize) -> bool {
        if stimulus == 0 && self.on {
            let done = self.done as f64 + self.share * self.running as f64;
            self.on = (self.watch)(Progress { done, total: self.total, now: self.what });
        }
        self.on
    }

    fn wants(&mut self, stimulus: usize) -> bool {
        self.keep(stimulus)
    }

    fn scored(&mut self, stimulus: usize, point: Point) {
        if stimulus == 0 {
            self.share = (f64::from(point.step) / f64::from(self.steps.max(1))).min(1.0);
        }
    }
}
