//! Maximizes units of the networks that a study has trained.

use std::collections::{BTreeSet, HashSet};

use sha2::{Digest, Sha256};

use super::plan::MaximaPlan;
use super::row::{MaximumKey, MaximumRow};
use crate::Invalid;
use crate::calibrate::Measurement;
use crate::engine::Engine;
use crate::maximize::MaximizeError;
use crate::network::{ImageStatistics, Model, NodeId, Preprocessing, Unit, onnx};
use crate::study::error::StudyError;
use crate::study::execute::{BatchProgress, Progress, run_batch};
use crate::study::folder::{Folder, OpenFolder};
use crate::study::training::row::{TrainingKey, TrainingRow};
use crate::study::training::runner::network_file;
use crate::train::Dataset;

/// The maxima of a study that are found so far.
pub(in crate::study::training) struct MaximaRunner<'a> {
    plan: &'a MaximaPlan,
    open: OpenFolder<MaximumRow>,
    done: HashSet<MaximumKey>,
    /// Runs all of whose maxima are found. Those of the last run of the table may be incomplete.
    complete: HashSet<TrainingKey>,
}

impl<'a> MaximaRunner<'a> {
    /// Starts or resumes the maxima of the study in a folder.
    ///
    /// # Errors
    /// If the folder holds other maxima, or lacks a network that was trained.
    pub(in crate::study::training) fn open(
        study: &OpenFolder<TrainingRow>,
        plan: &'a MaximaPlan,
    ) -> Result<Self, StudyError> {
        let rows = study.folder.read_rows::<MaximumRow>()?;
        let last = rows.last().map(|row| &row.key.run);
        let complete: HashSet<TrainingKey> =
            rows.iter().map(|row| &row.key.run).filter(|&run| Some(run) != last).cloned().collect();
        for row in study.rows.iter().filter(|row| !row.diverged && !complete.contains(&row.key)) {
            let file = study.folder.file(&network_file(&row.key));
            if !file.is_file() {
                let expected = "the networks of all runs, which a study keeps with --keep-networks, or if its plan asks \
                                for maxima from the start";
                return Err(Invalid::new("maxima", format!("{} is missing", file.display()), expected).into());
            }
        }
        let open = study.open::<MaximumRow>(plan)?;
        let done = open.rows.iter().map(|row| row.key.clone()).collect();
        Ok(Self { plan, open, done, complete })
    }

    /// Whether maxima of a run may be missing.
    pub(in crate::study::training) fn lacks(&self, run: &TrainingKey) -> bool {
        !self.complete.contains(run)
    }

    /// Finds the missing maxima of the network of a run. `progress` receives the share that is done and what is running;
    /// by returning false it stops the search, and what it found is lost. Returns whether all was found.
    ///
    /// # Errors
    /// If the network cannot be read or run, or the maxima cannot be written.
    pub(in crate::study::training) fn run(
        &mut self,
        run: &TrainingKey,
        preprocessing: Preprocessing,
        test: &Dataset,
        engine: &dyn Engine,
        memory: u64,
        progress: &mut dyn FnMut(f64, &str) -> bool,
    ) -> Result<bool, StudyError> {
        let model = load(&self.open.folder, run, preprocessing, test)?;
        let units = self.plan.units_of(&model, run.seed)?;
        let failed =
            |source| StudyError::Run { what: format!("{}, {}, seed {}", run.network, run.arm, run.seed), source };
        let parts = 1.0 + self.plan.gates.len() as f64;
        let natural = natural_maxima(&model, &units, test, engine, &mut |share| progress(share / parts, "test images"));
        let Some(natural) = natural.map_err(failed)? else { return Ok(false) };
        let mut rows = Vec::new();
        for (part, gate) in (1..).zip(&self.plan.gates) {
            let key = |unit: &Unit| MaximumKey { run: run.clone(), gate: gate.name.clone(), unit: unit.to_string() };
            let missing: Vec<usize> = (0..units.len()).filter(|&i| !self.done.contains(&key(&units[i]))).collect();
            if missing.is_empty() {
                continue;
            }
            let request = self.plan.request(gate, &model, &units)?;
            let names: Vec<String> = missing.iter().map(|&i| units[i].to_string()).collect();
            let wanted: Vec<(&str, u64)> =
                missing.iter().zip(&names).map(|(&i, name)| (&**name, MaximaPlan::start_seed(run.seed, i))).collect();
            let what = format!("{}, {}, maxima under {}, seed {}", run.network, run.arm, gate.name, run.seed);
            let mut callback =
                |at: Progress<'_>| progress((f64::from(part) + at.done / at.total as f64) / parts, &gate.name);
            let mut batch = BatchProgress::new(&mut callback, &what, 0, wanted.len());
            let found = run_batch(&model, &request, &wanted, engine, memory, &mut batch)?;
            let Some(found) = found else { return Ok(false) };
            rows.extend(missing.iter().zip(found).map(|(&i, outcome)| MaximumRow {
                key: key(&units[i]),
                natural: natural[i],
                initial: outcome.findings.initial_score,
                maximum: outcome.findings.score,
            }));
        }
        if !rows.is_empty() {
            self.open.add(&rows)?;
            self.done.extend(rows.into_iter().map(|row| row.key));
        }
        self.complete.insert(run.clone());
        Ok(true)
    }
}

/// The network of a run as a model.
fn load(folder: &Folder, run: &TrainingKey, preprocessing: Preprocessing, data: &Dataset) -> Result<Model, StudyError> {
    let path = folder.file(&network_file(run));
    let bytes = std::fs::read(&path).map_err(StudyError::file(&path))?;
    let imported = onnx::import(&bytes).map_err(|why| StudyError::broken(&path, why))?;
    Ok(Model {
        id: run.network.clone(),
        digest: hex::encode(Sha256::digest(&bytes)),
        network: imported.network.into(),
        preprocessing,
        classes: data.classes().to_vec(),
        calibration: None,
        statistics: ImageStatistics::default(),
    })
}

/// The largest value of every unit on the images; `None` if stopped.
fn natural_maxima(
    model: &Model,
    units: &[Unit],
    images: &Dataset,
    engine: &dyn Engine,
    progress: &mut dyn FnMut(f64) -> bool,
) -> Result<Option<Vec<f32>>, MaximizeError> {
    let layers: BTreeSet<NodeId> = units.iter().filter_map(|unit| model.network.find(&unit.layer)).collect();
    let layers: Vec<NodeId> = layers.into_iter().collect();
    let mut measurement = Measurement::new(engine, model, &layers, 0)?;
    let batch = measurement.batch();
    for first in (0..images.len()).step_by(batch) {
        if !progress(first as f64 / images.len() as f64) {
            return Ok(None);
        }
        let indices = first..images.len().min(first + batch);
        let inputs: Vec<Vec<f32>> = indices.map(|index| images.input(index, &model.preprocessing)).collect();
        measurement.add(&inputs)?;
    }
    let calibration = measurement.finish(Vec::new());
    let natural = |unit: &Unit| calibration.statistics(unit).map_or(f32::NAN, |statistics| statistics.max);
    Ok(Some(units.iter().map(natural).collect()))
}
