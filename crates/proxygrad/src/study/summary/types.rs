//! Summary of a study: the comparisons, and the scores of every unit.

use std::collections::BTreeMap;

use serde::Serialize;

use super::options::ComparisonOptions;
use super::readability::ReadabilitySummary;
use crate::study::row::Row;
use crate::study::toy::ToySummary;
use crate::study::variant::Variant;

/// Summary of the runs of a study.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Options of the comparison.
    #[serde(rename = "view")]
    pub options: ComparisonOptions,
    /// Number of runs of the plan.
    pub planned: usize,
    /// Number of runs done.
    pub made: usize,
    /// Number of runs that do not count yet, because the same start has not been run under every arm.
    pub left_out: usize,
    /// One comparison per model and method with runs.
    pub tables: Vec<Comparison>,
    /// Results of the toy functions, if any.
    pub toys: Vec<ToySummary>,
}

/// Comparison of the arms for one model under one method.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Id of the model.
    pub model: String,
    /// Name of the method.
    pub method: String,
    /// The section over all layers, then one per layer.
    pub sections: Vec<Section>,
    /// Scores of every unit.
    #[serde(skip)]
    pub units: Vec<UnitScores>,
}

/// Comparison of the arms on some units.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Section {
    /// Their layer; `None` for all layers together.
    pub layer: Option<String>,
    /// Number of units.
    pub units: usize,
    /// Units that come to life under the reference from every start.
    pub live: usize,
    /// Units that come to life under the reference from some starts only.
    pub mixed: usize,
    /// Units that stay dead under the reference from every start.
    pub dead: usize,
    /// The arms, in the plan's order.
    pub arms: Vec<ArmSummary>,
    /// The arm in focus compared with the best of its rivals on each unit.
    pub focus: PairedComparison,
    /// The arm in focus compared with the reference.
    pub focus_against: PairedComparison,
    /// Share of units on which the arm of the row beats the arm of the column; a tie counts half.
    pub wins: Vec<Vec<f64>>,
}

/// Results of an arm on some units.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ArmSummary {
    /// Its name.
    pub arm: String,
    /// Number of runs (units times starts).
    pub runs: usize,
    /// Runs whose score did not rise above the start.
    pub dead: usize,
    /// Dead runs for which another arm came to life from the same start.
    pub needlessly_dead: usize,
    /// Number of runs that are alive although the reference stays dead from the same start, and number of such dead
    /// runs of the reference.
    pub rescued: [usize; 2],
    /// Median over units of the score.
    pub median_score: Option<f64>,
    /// Comparison with the reference.
    #[serde(rename = "contest")]
    pub versus_reference: PairedComparison,
    /// Median over runs of the share of steps after which the score has risen 90 % of the way to the best of the run.
    pub share_to_90: Option<f64>,
    /// The same for 99 %.
    pub share_to_99: Option<f64>,
    /// Share of runs of live units that reach the final score of the reference.
    pub passes_reference: Option<f64>,
    /// Median over those runs of the share of the run after which they reach it.
    pub share_to_reference: Option<f64>,
    /// Mean number of passes of a run.
    pub passes: Option<f64>,
    /// Mean seconds of a run.
    pub seconds: Option<f64>,
    /// If the runs are searches: number of wins by gate.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub won_by: BTreeMap<String, usize>,
    /// Best score so far at evenly spaced points of the run, as a share of the best of any arm from the same start:
    /// median over runs of live units.
    pub course: Vec<f64>,
    /// Readability of the stimuli, if the study has judges.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readability: Option<ReadabilitySummary>,
}

/// Paired comparison of two arms on the same units.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PairedComparison {
    /// Units on which the first arm scores higher.
    pub wins: usize,
    /// Units on which the scores tie.
    pub ties: usize,
    /// Units on which the first arm scores lower.
    pub losses: usize,
    /// Number of live units with two positive scores, for which ratios exist.
    pub rated: usize,
    /// Median ratio of the scores.
    pub median_ratio: Option<f64>,
    /// Bootstrap 95 % confidence interval of the median ratio.
    pub interval: Option<[f64; 2]>,
    /// Smallest ratio, and 10 % quantile of the ratios.
    pub low_ratios: Option<[f64; 2]>,
    /// p-value of Wilcoxon's signed-rank test over live units, of `(a - b) / (|a| + |b|)`, which ranks like the log
    /// ratio.
    pub p_live: Option<f64>,
    /// The same over all units.
    pub p_all: Option<f64>,
}

/// Scores of one unit.
#[derive(Debug, Clone, PartialEq)]
pub struct UnitScores {
    /// Its layer.
    pub layer: String,
    /// The unit, as text.
    pub unit: String,
    /// Its results under every arm, in the order of the plan.
    pub arms: Vec<ArmOnUnit>,
}

/// Results of a unit under one arm.
#[derive(Debug, Clone, PartialEq)]
pub struct ArmOnUnit {
    /// Mean score over the starts.
    pub score: f64,
    /// The runs, by start.
    pub runs: Vec<Row>,
}

impl Comparison {
    /// The units with the largest losses of the arm in focus to another arm, with its share of the best arm's score if
    /// both are positive. At most four, the worst first.
    pub fn losses(&self, arms: &[Variant], options: &ComparisonOptions) -> Vec<(&UnitScores, Option<f64>)> {
        let Some(focus) = arms.iter().position(|arm| arm.name == options.focus) else { return Vec::new() };
        let deficit = |unit: &UnitScores| {
            let own = unit.arms[focus].score;
            let best = unit.arms.iter().map(|arm| arm.score).fold(f64::NEG_INFINITY, f64::max);
            (!options.ties(own, best)).then(|| (relative(own, best), (own > 0.0 && best > 0.0).then(|| own / best)))
        };
        let mut losses: Vec<_> = self.units.iter().filter_map(|unit| Some((unit, deficit(unit)?))).collect();
        losses.sort_by(|(_, (a, _)), (_, (b, _))| a.total_cmp(b));
        losses.into_iter().take(MAX_LOSSES).map(|(unit, (_, share))| (unit, share)).collect()
    }
}

/// Limit of [`Comparison::losses`].
const MAX_LOSSES: usize = 4;

impl ArmOnUnit {
    pub(super) fn alive(&self) -> usize {
        self.runs.iter().filter(|run| run.alive).count()
    }
}

/// Difference relative to the sum of both magnitudes. It ranks like the log ratio, and is defined for any two scores.
pub(super) fn relative(a: f64, b: f64) -> f64 {
    match a.abs() + b.abs() {
        0.0 => 0.0,
        size => (a - b) / size,
    }
}
