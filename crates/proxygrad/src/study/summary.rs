//! What the runs of a study come to.
//!
//! A unit's score under an arm is its mean over the starts; medians, intervals and tests are over units, so that the
//! starts of one unit do not count as if they were independent. Only starts that have been run under every arm count.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde::Serialize;

use super::error::StudyError;
use super::json::pretty;
use super::plan::Plan;
use super::row::{COURSE, Row};
use super::statistics::{mean, median, median_interval, quantile, signed_rank};
use super::toy::{self, ToyRow, ToySummary};
use super::variant::Variant;
use crate::Invalid;

/// From which side the runs are looked at; none of this needs new runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ComparisonOptions {
    /// The arm that all others are measured against.
    pub against: String,
    /// The arm that is measured against the best of its rivals.
    pub focus: String,
    /// Those rivals.
    pub rivals: Vec<String>,
    /// Two scores tie when they differ by at most this share of the larger one.
    pub tie: f64,
    /// Resamples of a bootstrap interval.
    pub resamples: usize,
}

impl ComparisonOptions {
    /// The usual options of these arms: against `plain` (or the first), with `auto` (or the last) in focus, and all
    /// others as its rivals.
    pub fn of(arms: &[Variant]) -> Self {
        let named = |name: &str| arms.iter().find(|arm| arm.name == name).map(|arm| arm.name.clone());
        let against = named("plain").or_else(|| arms.first().map(|arm| arm.name.clone())).unwrap_or_default();
        let focus = named("auto").or_else(|| arms.last().map(|arm| arm.name.clone())).unwrap_or_default();
        let rivals = Self::rivals_of(arms, &against, &focus);
        Self { against, focus, rivals, tie: 1e-3, resamples: 2000 }
    }

    /// All arms but these two; the reference where nothing else is left; nothing where the two are one.
    pub fn rivals_of(arms: &[Variant], against: &str, focus: &str) -> Vec<String> {
        let others = arms.iter().map(|arm| arm.name.clone()).filter(|name| name != focus && name != against);
        let others: Vec<String> = others.collect();
        if others.is_empty() && focus != against { vec![against.to_owned()] } else { others }
    }

    /// Whether two scores count as the same.
    fn ties(&self, a: f64, b: f64) -> bool {
        (a - b).abs() <= self.tie * a.abs().max(b.abs())
    }

    /// Checks that the arms are there.
    ///
    /// # Errors
    /// Names the one that is not.
    pub fn check(&self, arms: &[Variant]) -> Result<(), Invalid> {
        let fields = [("against", &self.against), ("focus", &self.focus)];
        for (field, name) in fields.into_iter().chain(self.rivals.iter().map(|name| ("rivals", name))) {
            if !arms.iter().any(|arm| arm.name == *name) {
                let names: Vec<&str> = arms.iter().map(|arm| arm.name.as_str()).collect();
                return Err(Invalid::new(field, name, format!("an arm of the study: {}", names.join(", "))));
            }
        }
        if self.rivals.contains(&self.focus) {
            return Err(Invalid::new("rivals", &self.focus, "arms other than the one in focus"));
        }
        Ok(())
    }
}

/// What the runs of a study come to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// From which side they are looked at.
    #[serde(rename = "view")]
    pub options: ComparisonOptions,
    /// Runs that the plan asks for.
    pub planned: usize,
    /// Runs that have been made.
    pub made: usize,
    /// Runs that do not count, because the same start has not been run under every arm yet.
    pub left_out: usize,
    /// One per model and method that has runs.
    pub tables: Vec<Table>,
    /// How the toy functions do, if there are any.
    pub toys: Vec<ToySummary>,
}

/// The comparison for one model under one method.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Table {
    /// Id of the model.
    pub model: String,
    /// Name of the method.
    pub method: String,
    /// Over all layers, then layer by layer.
    pub sections: Vec<Section>,
    /// What is known of every unit.
    #[serde(skip)]
    pub units: Vec<UnitScores>,
}

/// The comparison over some units.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Section {
    /// Their layer; none for all layers together.
    pub layer: Option<String>,
    /// Number of units.
    pub units: usize,
    /// Units that the reference wakes from every start.
    pub live: usize,
    /// Units that it wakes from some starts only.
    pub mixed: usize,
    /// Units that it wakes from no start.
    pub dead: usize,
    /// The arms, in the plan's order.
    pub arms: Vec<ArmSummary>,
    /// The arm in focus against the best of its rivals on each unit.
    pub focus: PairedComparison,
    /// The arm in focus against the reference.
    pub focus_against: PairedComparison,
    /// Share of units on which the arm of the row beats the arm of the column; a tie counts half.
    pub wins: Vec<Vec<f64>>,
}

/// How an arm does on some units.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ArmSummary {
    /// Its name.
    pub arm: String,
    /// Number of runs (units times starts).
    pub runs: usize,
    /// Runs whose score did not rise above their start.
    pub dead: usize,
    /// Dead runs where another arm came to life from the same start.
    pub needlessly_dead: usize,
    /// Runs alive here where the reference stays dead, of the runs where it does.
    pub rescued: [usize; 2],
    /// Median over units of their score.
    pub median_score: Option<f64>,
    /// Against the reference.
    #[serde(rename = "contest")]
    pub versus_reference: PairedComparison,
    /// Median over runs of the share of steps after which 90 % of the way to the run's own best was made.
    pub share_to_90: Option<f64>,
    /// The same for 99 %.
    pub share_to_99: Option<f64>,
    /// Share of live units' runs that pass the score at which the reference ends.
    pub passes_reference: Option<f64>,
    /// Median, over those that do, of the share of the run after which they pass it.
    pub share_to_reference: Option<f64>,
    /// Mean number of passes of a run.
    pub passes: Option<f64>,
    /// Mean seconds of a run.
    pub seconds: Option<f64>,
    /// Where the runs are searches: which gate won how many of them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub won_by: BTreeMap<String, usize>,
    /// Median over live units' runs of the best score so far, as a share of the best of any arm from the same start, at
    /// evenly spread points of the run.
    pub course: Vec<f64>,
}

/// One arm against another on the same units.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PairedComparison {
    /// Units on which it scores higher.
    pub wins: usize,
    /// Units on which both score the same.
    pub ties: usize,
    /// Units on which it scores lower.
    pub losses: usize,
    /// Live units with positive scores on both sides: those that ratios are taken of.
    pub rated: usize,
    /// Median ratio of the scores.
    pub median_ratio: Option<f64>,
    /// Bootstrap interval of the median ratio, 95 %.
    pub interval: Option<[f64; 2]>,
    /// Smallest, and 10 % quantile of the ratios.
    pub low_ratios: Option<[f64; 2]>,
    /// Wilcoxon's signed-rank test over live units, of `(a - b) / (|a| + |b|)`: which ranks as the logarithm of the
    /// ratio.
    pub p_live: Option<f64>,
    /// The same over all units.
    pub p_all: Option<f64>,
}

/// What is known of one unit.
#[derive(Debug, Clone, PartialEq)]
pub struct UnitScores {
    /// Its layer.
    pub layer: String,
    /// The unit, as text.
    pub unit: String,
    /// How it does under every arm, in the plan's order.
    pub arms: Vec<ArmOnUnit>,
}

/// How a unit does under one arm.
#[derive(Debug, Clone, PartialEq)]
pub struct ArmOnUnit {
    /// Mean score over the starts.
    pub score: f64,
    /// The runs, by start.
    pub runs: Vec<Row>,
}

impl Table {
    /// The units on which another arm is ahead of the one in focus by most, with the share of the best arm's score that
    /// it reaches, where both are positive; at most four, the worst first.
    pub fn losses(&self, arms: &[Variant], options: &ComparisonOptions) -> Vec<(&UnitScores, Option<f64>)> {
        let Some(focus) = arms.iter().position(|arm| arm.name == options.focus) else { return Vec::new() };
        let behind = |unit: &UnitScores| {
            let own = unit.arms[focus].score;
            let best = unit.arms.iter().map(|arm| arm.score).fold(f64::NEG_INFINITY, f64::max);
            (!options.ties(own, best)).then(|| (relative(own, best), (own > 0.0 && best > 0.0).then(|| own / best)))
        };
        let mut losses: Vec<_> = self.units.iter().filter_map(|unit| Some((unit, behind(unit)?))).collect();
        losses.sort_by(|(_, (a, _)), (_, (b, _))| a.total_cmp(b));
        losses.into_iter().take(LOSSES).map(|(unit, (_, share))| (unit, share)).collect()
    }
}

/// Units shown where the arm in focus loses most.
const LOSSES: usize = 4;

/// A difference as a share of both sizes: it ranks as the logarithm of the ratio, and is there for any two scores.
fn relative(a: f64, b: f64) -> f64 {
    match a.abs() + b.abs() {
        0.0 => 0.0,
        size => (a - b) / size,
    }
}

impl ArmOnUnit {
    fn alive(&self) -> usize {
        self.runs.iter().filter(|run| run.alive).count()
    }
}

/// The sections and tables of a study.
///
/// # Errors
/// If the options names an arm that the plan does not have.
pub fn summarize(plan: &Plan, rows: &[Row], toys: &[ToyRow], options: &ComparisonOptions) -> Result<Summary, Invalid> {
    options.check(&plan.arms)?;
    let mut tables = Vec::new();
    let mut counted = 0;
    for model in &plan.models {
        for method in &plan.methods {
            let of = rows.iter().filter(|row| row.key.model == model.id && row.key.method == method.name);
            let order =
                model.layers.iter().flat_map(|layer| layer.units.iter().map(move |unit| (&*layer.name, &**unit)));
            let units = units(plan, of, order);
            if units.is_empty() {
                continue;
            }
            counted += units.iter().flat_map(|unit| &unit.arms).map(|arm| arm.runs.len()).sum::<usize>();
            let all: Vec<&UnitScores> = units.iter().collect();
            let mut sections = vec![section(plan, None, &all, options)];
            for layer in &model.layers {
                let own: Vec<&UnitScores> = units.iter().filter(|unit| unit.layer == layer.name).collect();
                if !own.is_empty() {
                    sections.push(section(plan, Some(layer.name.clone()), &own, options));
                }
            }
            tables.push(Table { model: model.id.clone(), method: method.name.clone(), sections, units });
        }
    }
    let (planned, made) = (plan.runs(), rows.len());
    Ok(Summary {
        options: options.clone(),
        planned,
        made,
        left_out: made - counted.min(made),
        tables,
        toys: toy::summarize(toys),
    })
}

/// The units with the starts that have been run under every arm, in the plan's order.
fn units<'a>(
    plan: &Plan,
    rows: impl Iterator<Item = &'a Row>,
    order: impl Iterator<Item = (&'a str, &'a str)>,
) -> Vec<UnitScores> {
    /// By start, the row of each arm.
    type Starts<'a> = BTreeMap<u32, HashMap<&'a str, &'a Row>>;
    let mut found: HashMap<(&str, &str), Starts<'_>> = HashMap::new();
    for row in rows {
        let starts = found.entry((&row.key.layer, &row.key.unit)).or_default();
        starts.entry(row.key.repeat).or_default().insert(&row.key.arm, row);
    }
    let unit = |(layer, unit): (&'a str, &'a str)| {
        let starts = found.get(&(layer, unit))?;
        let complete = |arms: &&HashMap<&str, &Row>| plan.arms.iter().all(|arm| arms.contains_key(&*arm.name));
        let starts: Vec<&HashMap<&str, &Row>> = starts.values().filter(complete).collect();
        let arm = |arm: &Variant| {
            let runs: Vec<Row> = starts.iter().map(|start| start[&*arm.name].clone()).collect();
            let scores: Vec<f64> = runs.iter().map(|run| run.score.into()).collect();
            Some(ArmOnUnit { score: mean(&scores)?, runs })
        };
        let arms = plan.arms.iter().map(arm).collect::<Option<Vec<ArmOnUnit>>>()?;
        Some(UnitScores { layer: layer.to_owned(), unit: unit.to_owned(), arms })
    };
    order.filter_map(unit).collect()
}

fn section(plan: &Plan, layer: Option<String>, units: &[&UnitScores], options: &ComparisonOptions) -> Section {
    let index = |name: &str| plan.arms.iter().position(|arm| arm.name == name).unwrap_or(0);
    let (against, focus) = (index(&options.against), index(&options.focus));
    let rivals: Vec<usize> = options.rivals.iter().map(|name| index(name)).collect();
    let woken = |unit: &UnitScores| unit.arms[against].alive();
    let live: Vec<bool> = units.iter().map(|unit| woken(unit) == unit.arms[against].runs.len()).collect();
    let dead = units.iter().filter(|unit| woken(unit) == 0).count();
    let scores = |arm: usize| units.iter().map(|unit| unit.arms[arm].score).collect::<Vec<f64>>();
    let rivals = if rivals.is_empty() { vec![against] } else { rivals };
    let best_rival: Vec<f64> = units
        .iter()
        .map(|unit| rivals.iter().map(|&arm| unit.arms[arm].score).fold(f64::NEG_INFINITY, f64::max))
        .collect();
    let compare = |a: &[f64], b: &[f64]| compare(a, b, &live, options);
    let reference = scores(against);
    let arms = (0..plan.arms.len()).map(|arm| ArmSummary {
        versus_reference: compare(&scores(arm), &reference),
        ..arm_summary(&plan.arms[arm].name, arm, against, units, &live)
    });
    let arms: Vec<ArmSummary> = arms.collect();
    let beats = |a: usize, b: usize| {
        let pairs = units.iter().map(|unit| (unit.arms[a].score, unit.arms[b].score));
        let points = pairs.map(|(a, b)| if options.ties(a, b) { 0.5 } else { f64::from(u8::from(a > b)) });
        points.sum::<f64>() / units.len().max(1) as f64
    };
    let live_units = live.iter().filter(|live| **live).count();
    Section {
        layer,
        units: units.len(),
        live: live_units,
        mixed: units.len() - live_units - dead,
        dead,
        focus: compare(&scores(focus), &best_rival),
        focus_against: compare(&scores(focus), &reference),
        wins: (0..arms.len()).map(|a| (0..arms.len()).map(|b| beats(a, b)).collect()).collect(),
        arms,
    }
}

/// How an arm does, but for its paired.
fn arm_summary(name: &str, arm: usize, against: usize, units: &[&UnitScores], live: &[bool]) -> ArmSummary {
    let runs: Vec<&Row> = units.iter().flat_map(|unit| &unit.arms[arm].runs).collect();
    let over = |value: fn(&Row) -> f64| runs.iter().map(|run| value(run)).collect::<Vec<f64>>();
    let starts = || units.iter().flat_map(|unit| (0..unit.arms[arm].runs.len()).map(move |start| (unit, start)));
    let alive = |unit: &UnitScores, arm: usize, start: usize| unit.arms[arm].runs[start].alive;
    let needlessly_dead = starts().filter(|&(unit, start)| {
        !alive(unit, arm, start) && (0..unit.arms.len()).any(|other| alive(unit, other, start))
    });
    let to_rescue: Vec<_> = starts().filter(|&(unit, start)| !alive(unit, against, start)).collect();
    let rescued = to_rescue.iter().filter(|&&(unit, start)| alive(unit, arm, start)).count();
    let live_starts: Vec<_> = units
        .iter()
        .zip(live)
        .filter(|(_, live)| **live)
        .flat_map(|(unit, _)| (0..unit.arms[arm].runs.len()).map(move |start| (*unit, start)))
        .collect();
    let passing: Vec<f64> = live_starts
        .iter()
        .filter_map(|(unit, start)| passing(&unit.arms[arm].runs[*start], &unit.arms[against].runs[*start]))
        .collect();
    let shares: Vec<Vec<f64>> = live_starts.iter().filter_map(|(unit, start)| course(unit, arm, *start)).collect();
    let at = |i: usize| median(&shares.iter().filter_map(|share| share.get(i).copied()).collect::<Vec<f64>>());
    let scores: Vec<f64> = units.iter().map(|unit| unit.arms[arm].score).collect();
    let mut won_by = BTreeMap::new();
    for run in runs.iter().filter(|run| !run.won_by.is_empty()) {
        *won_by.entry(run.won_by.clone()).or_default() += 1;
    }
    ArmSummary {
        arm: name.to_owned(),
        runs: runs.len(),
        dead: runs.iter().filter(|run| !run.alive).count(),
        needlessly_dead: needlessly_dead.count(),
        rescued: [rescued, to_rescue.len()],
        median_score: median(&scores),
        versus_reference: PairedComparison::default(),
        share_to_90: median(&over(|run| f64::from(run.step_90) / f64::from(run.steps.max(1)))),
        share_to_99: median(&over(|run| f64::from(run.step_99) / f64::from(run.steps.max(1)))),
        passes_reference: (!live_starts.is_empty()).then(|| passing.len() as f64 / live_starts.len() as f64),
        share_to_reference: median(&passing),
        passes: mean(&over(|run| run.passes.into())),
        seconds: mean(&over(|run| run.seconds.into())),
        won_by,
        course: (0..COURSE).map_while(at).collect(),
    }
}

/// The share of a run after which it passes the best score of the reference's run from the same start.
fn passing(run: &Row, reference: &Row) -> Option<f64> {
    let goal = *reference.course.last()?;
    let at = run.course.iter().position(|&score| score >= goal)?;
    Some(at as f64 / (COURSE - 1) as f64)
}

/// The course of a run as shares of the best score of any arm from the same start.
fn course(unit: &UnitScores, arm: usize, start: usize) -> Option<Vec<f64>> {
    let ends = unit.arms.iter().filter_map(|arm| arm.runs[start].course.last().copied());
    let best = f64::from(ends.fold(f32::NEG_INFINITY, f32::max));
    (best > 0.0).then(|| unit.arms[arm].runs[start].course.iter().map(|&score| f64::from(score) / best).collect())
}

/// Scores `a` against scores `b` of the same units.
fn compare(a: &[f64], b: &[f64], live: &[bool], options: &ComparisonOptions) -> PairedComparison {
    let pairs: Vec<(f64, f64, bool)> = a.iter().zip(b).zip(live).map(|((&a, &b), &live)| (a, b, live)).collect();
    let count = |holds: &dyn Fn(f64, f64) -> bool| pairs.iter().filter(|&&(a, b, _)| holds(a, b)).count();
    let difference = |&(a, b, _): &(f64, f64, bool)| relative(a, b);
    let live_pairs = pairs.iter().filter(|(_, _, live)| *live);
    let ratios: Vec<f64> = live_pairs.clone().filter(|(a, b, _)| *a > 0.0 && *b > 0.0).map(|(a, b, _)| a / b).collect();
    let live_differences: Vec<f64> = live_pairs.map(difference).collect();
    let differences: Vec<f64> = pairs.iter().map(difference).collect();
    PairedComparison {
        wins: count(&|a, b| a > b && !options.ties(a, b)),
        ties: count(&|a, b| options.ties(a, b)),
        losses: count(&|a, b| a < b && !options.ties(a, b)),
        rated: ratios.len(),
        median_ratio: median(&ratios),
        interval: median_interval(&ratios, 0.95, options.resamples, 1),
        low_ratios: quantile(&ratios, 0.0).zip(quantile(&ratios, 0.1)).map(|(least, tenth)| [least, tenth]),
        p_live: signed_rank(&live_differences).map(|test| test.p),
        p_all: signed_rank(&differences).map(|test| test.p),
    }
}

impl Summary {
    /// Everything but the single runs as JSON, `summary.json`.
    ///
    /// # Errors
    /// If a number cannot be written.
    pub fn to_json(&self) -> Result<String, StudyError> {
        pretty(self, Path::new("summary.json"))
    }

    /// The arms of every section as a table, `summary.csv`.
    pub fn to_csv(&self) -> String {
        let number = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.6}"));
        let head = [
            "model",
            "method",
            "layer",
            "arm",
            "units",
            "live_units",
            "mixed_units",
            "dead_units",
            "runs",
            "dead_runs",
            "needlessly_dead_runs",
            "rescued_runs",
            "of_runs_dead_under_reference",
            "wins",
            "ties",
            "losses",
            "rated_units",
            "median_ratio",
            "ratio_low_95",
            "ratio_high_95",
            "least_ratio",
            "p_live",
            "p_all",
            "median_score",
            "share_to_90",
            "share_to_99",
            "passes",
            "seconds",
        ];
        let mut csv = super::csv::line(head);
        for table in &self.tables {
            for section in &table.sections {
                for arm in &section.arms {
                    let paired = &arm.versus_reference;
                    csv += &super::csv::line([
                        table.model.clone(),
                        table.method.clone(),
                        section.layer.clone().unwrap_or_else(|| "all".into()),
                        arm.arm.clone(),
                        section.units.to_string(),
                        section.live.to_string(),
                        section.mixed.to_string(),
                        section.dead.to_string(),
                        arm.runs.to_string(),
                        arm.dead.to_string(),
                        arm.needlessly_dead.to_string(),
                        arm.rescued[0].to_string(),
                        arm.rescued[1].to_string(),
                        paired.wins.to_string(),
                        paired.ties.to_string(),
                        paired.losses.to_string(),
                        paired.rated.to_string(),
                        number(paired.median_ratio),
                        number(paired.interval.map(|interval| interval[0])),
                        number(paired.interval.map(|interval| interval[1])),
                        number(paired.low_ratios.map(|low| low[0])),
                        paired.p_live.map_or_else(String::new, |p| format!("{p:.3e}")),
                        paired.p_all.map_or_else(String::new, |p| format!("{p:.3e}")),
                        number(arm.median_score),
                        number(arm.share_to_90),
                        number(arm.share_to_99),
                        number(arm.passes),
                        number(arm.seconds),
                    ]);
                }
            }
        }
        csv
    }
}
