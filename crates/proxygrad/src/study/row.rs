//! Run of a study: one row of `runs.csv`.

use std::str::FromStr;

use super::folder::Record;
use super::plan::types::Plan;
use super::readability::{self, Readability};
use crate::maximize::{Findings, GateSchedule, Point, Warning};
use crate::report::csv;

/// Key of a run, unique within a study.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunKey {
    /// Id of the model.
    pub model: String,
    /// Name of the method.
    pub method: String,
    /// Name of the layer.
    pub layer: String,
    /// The unit, as text.
    pub unit: String,
    /// Number of the start, from 0.
    pub repeat: u32,
    /// Name of the arm.
    pub arm: String,
}

/// One run of a study.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its key.
    pub key: RunKey,
    /// Seed of the request; the same request on its own gives the same PNG.
    pub seed: u64,
    /// Score of the delivered PNG.
    pub score: f32,
    /// Score of the start.
    pub initial: f32,
    /// Step of the best image.
    pub best_step: u32,
    /// Steps that the run made.
    pub steps: u32,
    /// Passes spent.
    pub passes: u32,
    /// Its share of the duration of its batch, in seconds.
    pub seconds: f32,
    /// Whether the score rose above its start.
    pub alive: bool,
    /// First step at which the score has risen 90 % of the way from the start to the best score of the run.
    pub step_90: u32,
    /// The same for 99 %.
    pub step_99: u32,
    /// The winning gate, if the run was a search.
    pub won_by: String,
    /// Names of the warnings, separated by spaces.
    pub warnings: String,
    /// Best score so far at [`COURSE`] evenly spaced points of the run, from its start to its end.
    pub course: Vec<f32>,
    /// Readability of the stimulus, if the study has judges.
    pub readability: Option<Readability>,
}

/// Points of [`Row::course`].
pub const COURSE: usize = 33;

/// Smallest rise that counts, relative to the initial score: rounding to 8 bits alone changes scores.
const RISE: f32 = 1e-3;

/// Header of `runs.csv`, without the columns of judges.
const HEAD: [&str; 19] = [
    "model",
    "method",
    "layer",
    "unit",
    "repeat",
    "arm",
    "seed",
    "score",
    "initial",
    "best_step",
    "steps",
    "passes",
    "seconds",
    "alive",
    "step_90",
    "step_99",
    "won_by",
    "warnings",
    "course",
];

impl Row {
    /// The row of a run with these findings, not judged yet.
    pub(super) fn new(key: RunKey, seed: u64, seconds: f32, found: &Findings) -> Self {
        let best = found.trajectory.iter().map(|point| point.score).fold(found.initial_score, f32::max);
        let reached = |share: f32| {
            let goal = found.initial_score + share * (best - found.initial_score);
            found.trajectory.iter().find(|point| point.score >= goal).map_or(0, |point| point.step)
        };
        let dead = found.warnings.iter().any(|warning| matches!(warning, Warning::DeadUnit | Warning::NoImprovement));
        Self {
            key,
            seed,
            score: found.score,
            initial: found.initial_score,
            best_step: found.best_step,
            steps: found.steps,
            passes: found.passes,
            seconds,
            alive: !dead && rises(found.initial_score, found.score),
            step_90: reached(0.9),
            step_99: reached(0.99),
            won_by: found.arms.iter().find(|arm| arm.won).map(|arm| short(&arm.gate)).unwrap_or_default(),
            warnings: found.warnings.iter().map(|&warning| name(warning)).collect::<Vec<_>>().join(" "),
            course: course(&found.trajectory, found.initial_score),
            readability: None,
        }
    }
}

impl Record for Row {
    type Plan = Plan;
    type Key = RunKey;
    /// Ids of the judges.
    type Columns = Vec<String>;

    fn head(plan: &Plan) -> String {
        head(plan.judges.iter().map(|judge| judge.id.as_str()))
    }

    fn columns(head: &str) -> Option<Vec<String>> {
        judges(head)
    }

    fn key(&self) -> RunKey {
        self.key.clone()
    }

    fn to_line(&self) -> String {
        let key = &self.key;
        let course: Vec<String> = self.course.iter().map(|score| format!("{score:.4e}")).collect();
        let readability = self.readability.as_ref().map(Readability::cells).unwrap_or_default();
        let cells = [
            &key.model,
            &key.method,
            &key.layer,
            &key.unit,
            &key.repeat.to_string(),
            &key.arm,
            &self.seed.to_string(),
            &self.score.to_string(),
            &self.initial.to_string(),
            &self.best_step.to_string(),
            &self.steps.to_string(),
            &self.passes.to_string(),
            &format!("{:.4}", self.seconds),
            &self.alive.to_string(),
            &self.step_90.to_string(),
            &self.step_99.to_string(),
            &self.won_by,
            &self.warnings,
            &course.join(" "),
        ];
        csv::line(cells.into_iter().map(String::as_str).chain(readability.iter().map(String::as_str)))
    }

    fn from_line(line: &str, judges: &Vec<String>) -> Result<Self, String> {
        let mut cells = csv::cells(line)?;
        let judged = cells.split_off(HEAD.len().min(cells.len()));
        let readability = match judges.is_empty() && judged.is_empty() {
            true => None,
            false => Some(Readability::read(judges, &judged)?),
        };
        let cells: [String; HEAD.len()] =
            cells.try_into().map_err(|cells: Vec<String>| format!("{} cells, not {}", cells.len(), HEAD.len()))?;
        let [model, method, layer, unit, repeat, arm, rest @ ..] = cells;
        let [
            seed,
            score,
            initial,
            best_step,
            steps,
            passes,
            seconds,
            alive,
            step_90,
            step_99,
            won_by,
            warnings,
            course,
        ] = rest;
        let course = course.split_whitespace().map(|score| read("course", score)).collect::<Result<Vec<f32>, _>>()?;
        Ok(Self {
            key: RunKey { model, method, layer, unit, repeat: read("repeat", &repeat)?, arm },
            seed: read("seed", &seed)?,
            score: read("score", &score)?,
            initial: read("initial", &initial)?,
            best_step: read("best_step", &best_step)?,
            steps: read("steps", &steps)?,
            passes: read("passes", &passes)?,
            seconds: read("seconds", &seconds)?,
            alive: read("alive", &alive)?,
            step_90: read("step_90", &step_90)?,
            step_99: read("step_99", &step_99)?,
            won_by,
            warnings,
            course,
            readability,
        })
    }
}

/// The first line of `runs.csv` of a study with these judges, with a line feed.
fn head<'a>(judges: impl IntoIterator<Item = &'a str>) -> String {
    let columns = readability::head(judges);
    csv::line(HEAD.into_iter().chain(columns.iter().map(String::as_str)))
}

/// The judges of a study whose `runs.csv` has this first line, without its line feed; `None` if it is no such line.
fn judges(head: &str) -> Option<Vec<String>> {
    let mut cells = csv::cells(head).ok()?;
    let columns = cells.split_off(HEAD.len().min(cells.len()));
    if cells == HEAD { readability::judges(&columns) } else { None }
}

/// Whether a score is above that of the start.
pub(super) fn rises(initial: f32, score: f32) -> bool {
    score - initial > RISE * initial.abs()
}

/// Parses a cell.
pub(super) fn read<T: FromStr>(column: &str, cell: &str) -> Result<T, String> {
    cell.parse().map_err(|_| format!("{column}: {cell} is not valid"))
}

/// Short name of a gate: its kind, and its slope if it has one.
fn short(gate: &GateSchedule) -> String {
    let kind = match serde_json::to_value(gate.kind) {
        Ok(serde_json::Value::String(kind)) => kind,
        _ => format!("{:?}", gate.kind),
    };
    match (gate.slope, gate.anneal > 0.0) {
        (Some(slope), true) => format!("{kind} {slope} annealed"),
        (Some(slope), false) => format!("{kind} {slope}"),
        (None, _) => kind,
    }
}

/// Name of a warning in JSON.
fn name(warning: Warning) -> String {
    match serde_json::to_value(warning) {
        Ok(serde_json::Value::String(name)) => name,
        _ => format!("{warning:?}"),
    }
}

/// Best score so far at [`COURSE`] evenly spaced points up to the last step of the trajectory.
fn course(trajectory: &[Point], initial: f32) -> Vec<f32> {
    let last = trajectory.iter().map(|point| point.step).max().unwrap_or(0);
    let mut points = trajectory.iter().peekable();
    let mut best = initial;
    let at = |i: usize| f64::from(last) * i as f64 / (COURSE - 1) as f64;
    let mut step = |until: f64| {
        while let Some(point) = points.next_if(|point| f64::from(point.step) <= until) {
            best = best.max(point.score);
        }
        best
    };
    (0..COURSE).map(|i| step(at(i))).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn found(scores: &[f32], delivered: f32) -> Findings {
        let trajectory: Vec<Point> = (0..).zip(scores).map(|(step, &score)| Point { step, score }).collect();
        Findings {
            score: delivered,
            initial_score: scores[0],
            final_score: *scores.last().unwrap(),
            steps: scores.len() as u32 - 1,
            best_step: 0,
            trajectory,
            passes: 9,
            arms: Vec::new(),
            warnings: Vec::new(),
            diagnostics: None,
        }
    }

    fn key() -> RunKey {
        let [model, method, layer, unit, arm] = ["m", "pixel", "a/b", "a/b:3@center", "slope:0.1"].map(str::to_owned);
        RunKey { model, method, layer, unit, repeat: 2, arm }
    }

    #[test]
    fn a_line_keeps_a_row() {
        let mut outcome = found(&[-0.25, 1.0, 3.0e-7, 123_456.7], 123_001.3);
        outcome.warnings = vec![Warning::SoftmaxTarget, Warning::SaturatedPixels];
        let row = Row::new(key(), 77, 0.5, &outcome);
        let line = row.to_line();
        let read = Row::from_line(line.strip_suffix('\n').unwrap(), &Vec::new()).unwrap();
        assert_eq!(Row { course: Vec::new(), ..read.clone() }, Row { course: Vec::new(), ..row.clone() });
        assert_eq!(read.warnings, "softmax-target saturated-pixels");
        let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-4 * b.abs();
        assert!(read.course.len() == COURSE && read.course.iter().zip(&row.course).all(close));
        assert!(Row::from_line("m,pixel", &Vec::new()).unwrap_err().contains("2 cells"));
        assert!(Row::from_line(&line.trim().replace(",77,", ",x,"), &Vec::new()).unwrap_err().starts_with("seed: x"));
    }

    #[test]
    fn the_head_tells_the_judges() {
        for names in [vec![], vec!["a".to_owned(), "b".to_owned()]] {
            let head = head(names.iter().map(String::as_str));
            assert_eq!(judges(head.trim_end()), Some(names));
        }
        assert_eq!((judges("model,method"), judges(&format!("{},x", HEAD.join(",")))), (None, None));
    }

    #[test]
    fn steps_are_counted_to_shares_of_the_way() {
        let row = Row::new(key(), 0, 0.0, &found(&[-10.0, 0.0, 8.5, 9.9, 10.0], 10.0));
        assert_eq!((row.step_90, row.step_99, row.alive), (2, 3, true));
        assert_eq!((row.course[0], row.course[8], row.course[31], row.course[32]), (-10.0, 0.0, 9.9, 10.0));
    }

    #[test]
    fn a_run_whose_score_does_not_rise_is_dead() {
        assert!(!Row::new(key(), 0, 0.0, &found(&[0.0, 0.0, 0.0], 0.0)).alive);
        assert!(Row::new(key(), 0, 0.0, &found(&[0.0, 0.0, 0.1], 0.1)).alive);
        assert!(!Row::new(key(), 0, 0.0, &found(&[5.0, 4.0, 3.0], 5.001)).alive, "only rounded");
        assert!(Row::new(key(), 0, 0.0, &found(&[-5.0, -4.0], -4.0)).alive);
        for warning in [Warning::DeadUnit, Warning::NoImprovement] {
            let warned = Findings { warnings: vec![warning], ..found(&[0.0, 1.0], 1.0) };
            assert!(!Row::new(key(), 0, 0.0, &warned).alive, "{warning:?}");
        }
    }
}
