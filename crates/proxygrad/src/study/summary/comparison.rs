//! Computes the comparisons of a study from its runs.
//!
//! The score of a unit under an arm is the mean over its starts. Medians, intervals and tests are over units, so that
//! the starts of one unit do not count as independent. Only starts that have been run under every arm count.

use std::collections::{BTreeMap, HashMap};

use super::options::ComparisonOptions;
use super::readability::readability;
use super::types::{ArmOnUnit, ArmSummary, Comparison, PairedComparison, Section, Summary, UnitScores, relative};
use crate::Invalid;
use crate::statistics::{mean, median, median_interval, quantile, signed_rank};
use crate::study::plan::types::Plan;
use crate::study::row::{COURSE, Row};
use crate::study::toy::{self, ToyRow};
use crate::study::variant::Variant;

/// Computes the summary of a study.
///
/// # Errors
/// If the options name an arm that the plan does not have.
pub(in crate::study) fn summarize(
    plan: &Plan,
    rows: &[Row],
    toys: &[ToyRow],
    options: &ComparisonOptions,
) -> Result<Summary, Invalid> {
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
            tables.push(Comparison { model: model.id.clone(), method: method.name.clone(), sections, units });
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

/// The units and their starts that have been run under every arm, in the order of the plan.
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
        readability: readability(units, arm, against),
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

/// Results of an arm, without its comparison with the reference.
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
        readability: None,
    }
}

/// Share of a run after which it reaches the best score of the reference from the same start.
fn passing(run: &Row, reference: &Row) -> Option<f64> {
    let goal = *reference.course.last()?;
    let at = run.course.iter().position(|&score| score >= goal)?;
    Some(at as f64 / (COURSE - 1) as f64)
}

/// Course of a run relative to the best score of any arm from the same start.
fn course(unit: &UnitScores, arm: usize, start: usize) -> Option<Vec<f64>> {
    let ends = unit.arms.iter().filter_map(|arm| arm.runs[start].course.last().copied());
    let best = f64::from(ends.fold(f32::NEG_INFINITY, f32::max));
    (best > 0.0).then(|| unit.arms[arm].runs[start].course.iter().map(|&score| f64::from(score) / best).collect())
}

/// Compares scores `a` with scores `b` of the same units.
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
