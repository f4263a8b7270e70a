//! Toy functions with a known optimum: how many starts reach it.

mod networks;

use std::collections::BTreeMap;

use serde::Serialize;

use super::error::StudyError;
use super::execute::{BatchProgress, Progress, ProgressCallback, run_batch};
use super::folder::Folder;
use super::plan::requests::planned_request;
use super::plan::types::{Bounds, Plan, PlannedSettings, Toys};
use super::runner::RunOptions;
use super::variant::{Fields, Variant, merged};
use crate::Invalid;
use crate::engine::Engine;
use crate::maximize::MaximizeError;
use crate::report::csv;
use networks::{Kind, OUTPUT, Toy};

/// A start counts as having reached the optimum at this share of it.
pub const REACHED: f32 = 0.99;

/// One start of a toy.
#[derive(Debug, Clone, PartialEq)]
pub struct ToyRow {
    /// The kind of toy.
    pub toy: String,
    /// Number of the network, from 0.
    pub network: u32,
    /// Name of the arm.
    pub arm: String,
    /// Number of the start, from 0.
    pub start: u32,
    /// Score of the delivered image.
    pub score: f32,
    /// The highest value of any 8-bit image.
    pub optimum: f32,
    /// Passes spent.
    pub passes: u32,
}

/// Results of a kind of toy under an arm.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ToySummary {
    /// The kind of toy.
    pub toy: String,
    /// Name of the arm.
    pub arm: String,
    /// Number of starts.
    pub starts: usize,
    /// Share of starts that reach [`REACHED`] of the optimum.
    pub reached: f64,
    /// Share of starts whose score stays at 0 or below.
    pub dead: f64,
    /// Mean share of the optimum.
    pub mean_share: f64,
    /// Mean number of passes.
    pub passes: f64,
}

const HEAD: [&str; 7] = ["toy", "network", "arm", "start", "score", "optimum", "passes"];
const FILE: &str = "toys.csv";

/// Checks that every arm is a valid request for a toy.
///
/// # Errors
/// Names the invalid field.
pub(super) fn check(toys: &Toys, base: &Fields) -> Result<(), Invalid> {
    for (field, value) in [("networks", toys.networks), ("starts", toys.starts), ("steps", toys.steps)] {
        if value == 0 {
            return Err(Invalid::new(format!("toys.{field}"), value, "a whole number of at least 1"));
        }
    }
    let engine = crate::engine::Cpu::new(&crate::engine::CpuSettings::default());
    let toy = engine.and_then(|engine| Kind::MeanRelu.toy(0, 0, &engine));
    let toy = toy.map_err(|error| Invalid::new("toys", error, "a toy that runs"))?;
    toys.arms.iter().try_for_each(|arm| settings(toys, base, arm, Kind::MeanRelu, &toy).map(|_| ()))
}

fn settings(toys: &Toys, base: &Fields, arm: &Variant, kind: Kind, toy: &Toy) -> Result<PlannedSettings, Invalid> {
    let request = merged(&[&kind.request(), base, &arm.request]);
    let limits = Bounds::default().request;
    let planned = planned_request(&toy.model, request, toys.steps, &[format!("{OUTPUT}:0")], &limits);
    let (request, settings) = planned.map_err(|error| error.within(&format!("{} for toys", arm.name)))?;
    let (model, method, arm) = (toy.model.id.clone(), String::new(), arm.name.clone());
    Ok(PlannedSettings { model, method, arm, request, settings })
}

/// Whether the folder has results of the toys.
///
/// # Errors
/// If the file cannot be read.
pub(super) fn is_done(folder: &Folder) -> Result<bool, StudyError> {
    Ok(rows(folder)?.is_some())
}

/// Runs the toys. Returns the name and content of the file of their results; `None` if stopped.
pub(super) fn run(
    toys: &Toys,
    plan: &Plan,
    engine: &dyn Engine,
    options: &RunOptions,
    callback: &mut ProgressCallback<'_>,
) -> Result<Option<(String, Vec<u8>)>, StudyError> {
    let (base, seed) = (&plan.base, plan.seed);
    let unit = format!("{OUTPUT}:0");
    let mut text = csv::line(HEAD);
    for kind in Kind::ALL {
        let networks = if kind == Kind::MeanRelu { 1 } else { toys.networks };
        for n in 0..networks {
            let toy = kind.toy(seed, n, engine);
            let toy =
                toy.map_err(|error| StudyError::Run { what: kind.name(), source: MaximizeError::Engine(error) })?;
            for arm in &toys.arms {
                let what = format!("toy {}, {}", toy.model.id, arm.name);
                if !callback(Progress { done: 0.0, total: 0, now: &what }) {
                    return Ok(None);
                }
                let settings = settings(toys, base, arm, kind, &toy)?;
                let starts: Vec<(&str, u64)> =
                    (0..toys.starts).map(|start| (&*unit, seed + u64::from(start))).collect();
                for (batch, starts) in starts.chunks(64).enumerate() {
                    let mut progress = BatchProgress::new(callback, &what, 0, 0);
                    let Some(outcomes) =
                        run_batch(&toy.model, &settings.request, starts, engine, options.memory, &mut progress)?
                    else {
                        return Ok(None);
                    };
                    for (start, outcome) in outcomes.iter().enumerate() {
                        text += &csv::line([
                            kind.name(),
                            n.to_string(),
                            arm.name.clone(),
                            (64 * batch + start).to_string(),
                            outcome.findings.score.to_string(),
                            toy.optimum.to_string(),
                            outcome.findings.passes.to_string(),
                        ]);
                    }
                }
            }
        }
    }
    Ok(Some((FILE.to_owned(), text.into_bytes())))
}

/// Results of the toys, if the folder has them.
///
/// # Errors
/// If the file cannot be read.
pub(super) fn rows(folder: &Folder) -> Result<Option<Vec<ToyRow>>, StudyError> {
    let path = folder.file(FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StudyError::file(&path)(error)),
    };
    let row = |line: &str| -> Option<ToyRow> {
        let [toy, network, arm, start, score, optimum, passes] = csv::cells(line).ok()?.try_into().ok()?;
        let (network, start, passes) = (network.parse().ok()?, start.parse().ok()?, passes.parse().ok()?);
        Some(ToyRow { toy, network, arm, start, score: score.parse().ok()?, optimum: optimum.parse().ok()?, passes })
    };
    let rows = text.lines().skip(1).map(|line| row(line).ok_or_else(|| StudyError::broken(&path, line)));
    rows.collect::<Result<Vec<ToyRow>, StudyError>>().map(Some)
}

/// Summarizes the results by kind and arm, in the order of the rows.
pub(super) fn summarize(rows: &[ToyRow]) -> Vec<ToySummary> {
    let mut order: Vec<(&str, &str)> = Vec::new();
    let mut groups: BTreeMap<(&str, &str), Vec<&ToyRow>> = BTreeMap::new();
    for row in rows {
        let group = groups.entry((&row.toy, &row.arm)).or_insert_with(|| {
            order.push((&row.toy, &row.arm));
            Vec::new()
        });
        group.push(row);
    }
    let summary = |&(toy, arm): &(&str, &str)| {
        let group = &groups[&(toy, arm)];
        let mean =
            |value: &dyn Fn(&ToyRow) -> f64| group.iter().map(|row| value(row)).sum::<f64>() / group.len() as f64;
        ToySummary {
            toy: toy.to_owned(),
            arm: arm.to_owned(),
            starts: group.len(),
            reached: mean(&|row| f64::from(u8::from(row.score >= REACHED * row.optimum))),
            dead: mean(&|row| f64::from(u8::from(row.score <= 0.0))),
            mean_share: mean(&|row| f64::from(row.score / row.optimum)),
            passes: mean(&|row| row.passes.into()),
        }
    };
    order.iter().map(summary).collect()
}

/// Name and description of each kind of toy.
pub(super) fn descriptions() -> Vec<(String, &'static str)> {
    let description = |kind: Kind| match kind {
        Kind::MeanRelu => "the mean of ReLU(x) over 15x15 pixels; the optimum has all pixels white",
        Kind::Convex(1) => {
            "one hidden layer on 2x3 pixels, convex; the optimum is the best of the 64 corners of the box"
        }
        Kind::Convex(_) => {
            "two hidden layers on 2x3 pixels, convex; the optimum is the best of the 64 corners of the box"
        }
        Kind::Plane(1) => {
            "one hidden layer on 2 pixels, then a ReLU that is 0 on four fifths of the images; the optimum is the \
             best of all 65536 images"
        }
        Kind::Plane(_) => {
            "two hidden layers on 2 pixels, then a ReLU that is 0 on four fifths of the images; the optimum is the \
             best of all 65536 images"
        }
    };
    Kind::ALL.into_iter().map(|kind| (kind.name(), description(kind))).collect()
}
