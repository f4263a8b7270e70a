//! Summary of a study: the comparisons, and the scores of every unit.

use std::collections::BTreeMap;

use serde::Serialize;

use super::options::ComparisonOptions;
use crate::study::row::Row;
use crate::study::toy::ToySummary;
use crate::study::variant::Variant;

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
    pub tables: Vec<Comparison>,
    /// How the toy functions do, if there are any.
    pub toys: Vec<ToySummary>,
}

/// The comparison for one model under one method.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
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

impl Comparison {
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

impl ArmOnUnit {
    pub(super) fn alive(&self) -> usize {
        self.runs.iter().filter(|run| run.alive).count()
    }
}

/// A difference as a share of both sizes: it ranks as the logarithm of the ratio, and is there for any two scores.
pub(super) fn relative(a: f64, b: f64) -> f64 {
    match a.abs() + b.abs() {
        0.0 => 0.0,
        size => (a - b) / size,
    }
}
