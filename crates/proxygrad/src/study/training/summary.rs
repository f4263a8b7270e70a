//! Summary of a study of training: the arms of every network compared seed by seed.
//!
//! A run that diverged counts as having the accuracy of chance. Only seeds that have been run under every arm of a network
//! count.

use std::collections::HashMap;

use serde::Serialize;

use super::maxima::{self, GateMaxima, MaximaComparison, MaximaPlan, MaximumRow};
use super::plan::{PlannedData, PlannedNetwork, TrainingPlan};
use super::row::TrainingRow;
use crate::statistics::{holm, median, median_interval, sign_test, signed_rank};

/// A network has learned if its test accuracy is above that of chance by more than this.
pub(super) const LEARNED: f64 = 0.1;

/// Resamples of a bootstrap interval.
const RESAMPLES: usize = 2000;

/// Summary of the runs of a study.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrainingSummary {
    /// The arm that all others are compared with.
    pub against: String,
    /// Number of runs of the plan.
    pub planned: usize,
    /// Number of runs done.
    pub made: usize,
    /// Number of runs that do not count yet, because not every arm has run with the same seed.
    pub left_out: usize,
    /// Number of comparisons for which each kind of p-value is corrected.
    pub comparisons: usize,
    /// The same for comparisons of maxima, one for each gate.
    #[serde(skip_serializing_if = "is_zero")]
    pub maxima_comparisons: usize,
    /// One table per dataset and network with runs.
    pub tables: Vec<TrainingTable>,
}

/// The arms of one network on one dataset.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrainingTable {
    /// Name of the dataset.
    pub data: String,
    /// Name of the network.
    pub network: String,
    /// Accuracy of chance.
    pub chance: f64,
    /// Test accuracy whose first epoch is reported.
    pub reach: f64,
    /// The seeds that have been run under every arm.
    pub seeds: Vec<u64>,
    /// The arms, in the plan's order.
    pub arms: Vec<TrainingArm>,
    /// Maxima of units of the trained networks, gate by gate.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub maxima: Vec<GateMaxima>,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// Results of an arm.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrainingArm {
    /// Its name.
    pub arm: String,
    /// Runs whose network has learned: its accuracy is more than ten points above chance.
    pub learned: usize,
    /// Runs that diverged.
    pub diverged: usize,
    /// Test accuracy of every seed.
    pub accuracies: Vec<f64>,
    /// Its median.
    pub accuracy: Spread,
    /// Training accuracy minus test accuracy.
    pub gap: Option<f64>,
    /// Share of dead units of every seed; of a diverged run after its last whole epoch.
    pub dead_shares: Vec<f64>,
    /// Its median.
    pub dead: Spread,
    /// Number of runs that reach [`TrainingTable::reach`].
    pub reached: usize,
    /// Median over those of the epoch in which they do.
    pub epochs_to_reach: Option<f64>,
    /// Median seconds of a run.
    pub seconds: Option<f64>,
    /// Comparison with the reference; `None` for the reference itself.
    pub versus: Option<TrainingComparison>,
    /// Medians over seeds after every epoch.
    #[serde(skip)]
    pub course: Course,
}

/// A median with its bootstrap 95 % confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Spread {
    /// The median.
    pub median: Option<f64>,
    /// The interval; `None` for fewer than two values.
    pub interval: Option<[f64; 2]>,
}

/// Medians over seeds after every epoch.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Course {
    /// Mean training loss of the epoch.
    pub loss: Vec<f64>,
    /// Test accuracy.
    pub accuracy: Vec<f64>,
    /// Share of dead units.
    pub dead: Vec<f64>,
}

/// An arm compared with the reference, seed by seed.
///
/// p-values are two-sided. Each is followed by the one that Holm's method corrects for all comparisons of the study.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct TrainingComparison {
    /// Difference of the test accuracies.
    pub difference: Spread,
    /// Seeds with a higher, the same and a lower accuracy than the reference.
    pub outcomes: [usize; 3],
    /// Wilcoxon's signed-rank test of the accuracies.
    pub p_accuracy: Corrected,
    /// Sign test of the accuracies.
    pub p_sign: Corrected,
    /// Seeds that learn only under the arm, and only under the reference.
    pub learned_only: [usize; 2],
    /// Sign test of these (McNemar's exact test).
    pub p_learned: Corrected,
    /// Difference of the shares of dead units.
    pub dead_difference: Spread,
    /// Wilcoxon's signed-rank test of these.
    pub p_dead: Corrected,
}

/// A p-value; `None` where no pair differs.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Corrected {
    /// Of this comparison alone.
    pub single: Option<f64>,
    /// Corrected for the number of comparisons.
    pub corrected: Option<f64>,
}

/// A kind of p-value of a comparison.
type Kind<C> = fn(&mut C) -> &mut Corrected;

const KINDS: [Kind<TrainingComparison>; 4] = [
    |versus| &mut versus.p_accuracy,
    |versus| &mut versus.p_sign,
    |versus| &mut versus.p_learned,
    |versus| &mut versus.p_dead,
];

const MAXIMA_KINDS: [Kind<MaximaComparison>; 2] = [|versus| &mut versus.p_ratio, |versus| &mut versus.p_still];

/// Computes the summary of a study, with its maxima if there are any.
pub(super) fn summarize(
    plan: &TrainingPlan,
    rows: &[TrainingRow],
    maxima: Option<(&MaximaPlan, &[MaximumRow])>,
) -> TrainingSummary {
    let mut tables = Vec::new();
    for data in &plan.data {
        tables.extend(plan.networks.iter().filter_map(|network| table(plan, data, network, rows)));
    }
    if let Some((plan_of_maxima, maxima)) = maxima {
        for table in &mut tables {
            table.maxima = maxima::of_table(plan_of_maxima, table, &plan.against, maxima);
        }
    }
    for kind in KINDS {
        let arms = tables.iter_mut().flat_map(|table| &mut table.arms);
        correct(arms.filter_map(|arm| arm.versus.as_mut()).map(kind));
    }
    for kind in MAXIMA_KINDS {
        let arms = tables.iter_mut().flat_map(|table| &mut table.maxima).flat_map(|maxima| &mut maxima.arms);
        correct(arms.filter_map(|arm| arm.versus.as_mut()).map(kind));
    }
    let of_maxima = tables.iter().flat_map(|table| &table.maxima).flat_map(|maxima| &maxima.arms);
    let maxima_comparisons = of_maxima.filter(|arm| arm.versus.is_some()).count();
    let comparisons = tables.iter().flat_map(|table| &table.arms).filter(|arm| arm.versus.is_some()).count();
    let counted: usize = tables.iter().map(|table| table.arms.len() * table.seeds.len()).sum();
    TrainingSummary {
        against: plan.against.clone(),
        planned: plan.run_count(),
        made: rows.len(),
        left_out: rows.len().saturating_sub(counted),
        comparisons,
        maxima_comparisons,
        tables,
    }
}

/// Corrects one kind of p-value over all comparisons; where no pair differs, it is 1.
fn correct<'a>(values: impl Iterator<Item = &'a mut Corrected>) {
    let mut values: Vec<&mut Corrected> = values.collect();
    let corrected = holm(&values.iter().map(|value| value.single.unwrap_or(1.0)).collect::<Vec<_>>());
    for (value, corrected) in values.iter_mut().zip(corrected) {
        value.corrected = value.single.map(|_| corrected);
    }
}

fn table(
    plan: &TrainingPlan,
    data: &PlannedData,
    network: &PlannedNetwork,
    rows: &[TrainingRow],
) -> Option<TrainingTable> {
    let own = rows.iter().filter(|row| row.key.data == data.name && row.key.network == network.name);
    let by_key: HashMap<(&str, u64), &TrainingRow> = own.map(|row| ((&*row.key.arm, row.key.seed), row)).collect();
    let seeds = (0..network.seeds).map(|repeat| plan.first_seed + u64::from(repeat));
    let complete = |seed: &u64| network.arms.iter().all(|arm| by_key.contains_key(&(&**arm, *seed)));
    let seeds: Vec<u64> = seeds.filter(complete).collect();
    if seeds.is_empty() {
        return None;
    }
    let of_arm = |arm: &str| seeds.iter().map(|&seed| by_key[&(arm, seed)]).collect::<Vec<_>>();
    let arms = network.arms.iter().map(|arm| summarize_arm(arm, &of_arm(arm), data.chance, network.reach));
    let mut arms: Vec<TrainingArm> = arms.collect();
    let reference = arms.iter().find(|arm| arm.arm == plan.against)?.clone();
    for arm in arms.iter_mut().filter(|arm| arm.arm != plan.against) {
        arm.versus = Some(compare(arm, &reference, data.chance));
    }
    let (data, chance) = (data.name.clone(), data.chance);
    let maxima = Vec::new();
    Some(TrainingTable { data, network: network.name.clone(), chance, reach: network.reach, seeds, arms, maxima })
}

fn summarize_arm(arm: &str, rows: &[&TrainingRow], chance: f64, reach: f64) -> TrainingArm {
    let accuracies: Vec<f64> = rows.iter().map(|row| row.test_accuracy.unwrap_or(chance)).collect();
    let dead_shares: Vec<f64> =
        rows.iter().map(|row| row.dead.or(row.dead_shares.last().copied()).unwrap_or(0.0)).collect();
    let gaps: Vec<f64> = rows.iter().filter_map(|row| Some(row.train_accuracy? - row.test_accuracy?)).collect();
    let reached: Vec<f64> = rows
        .iter()
        .filter_map(|row| row.accuracies.iter().position(|&accuracy| accuracy >= reach))
        .map(|index| (index + 1) as f64)
        .collect();
    let course = |of: fn(&TrainingRow) -> &Vec<f64>| {
        let epochs = rows.iter().map(|row| of(row).len()).max().unwrap_or(0);
        let at = |epoch: usize| rows.iter().filter_map(|row| of(row).get(epoch).copied()).collect::<Vec<f64>>();
        (0..epochs).filter_map(|epoch| median(&at(epoch))).collect::<Vec<f64>>()
    };
    TrainingArm {
        arm: arm.to_owned(),
        learned: accuracies.iter().filter(|&&accuracy| learned(accuracy, chance)).count(),
        diverged: rows.iter().filter(|row| row.diverged).count(),
        accuracy: spread(&accuracies),
        accuracies,
        gap: median(&gaps),
        dead: spread(&dead_shares),
        dead_shares,
        reached: reached.len(),
        epochs_to_reach: median(&reached),
        seconds: median(&rows.iter().map(|row| row.seconds).collect::<Vec<_>>()),
        versus: None,
        course: Course {
            loss: course(|row| &row.losses),
            accuracy: course(|row| &row.accuracies),
            dead: course(|row| &row.dead_shares),
        },
    }
}

fn learned(accuracy: f64, chance: f64) -> bool {
    accuracy > chance + LEARNED
}

pub(super) fn spread(values: &[f64]) -> Spread {
    Spread { median: median(values), interval: median_interval(values, 0.95, RESAMPLES, 1) }
}

fn compare(arm: &TrainingArm, reference: &TrainingArm, chance: f64) -> TrainingComparison {
    let difference = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<f64>>();
    let accuracy = difference(&arm.accuracies, &reference.accuracies);
    let dead = difference(&arm.dead_shares, &reference.dead_shares);
    let count = |holds: fn(&f64) -> bool| accuracy.iter().filter(|difference| holds(difference)).count();
    let outcomes = [count(|&d| d > 0.0), count(|&d| d == 0.0), count(|&d| d < 0.0)];
    let pairs = arm.accuracies.iter().zip(&reference.accuracies);
    let pairs: Vec<[bool; 2]> = pairs.map(|(&a, &b)| [learned(a, chance), learned(b, chance)]).collect();
    let only = |which: usize| pairs.iter().filter(|pair| pair[which] && !pair[1 - which]).count();
    let learned_only = [only(0), only(1)];
    let single = |single: Option<f64>| Corrected { single, corrected: None };
    TrainingComparison {
        difference: spread(&accuracy),
        outcomes,
        p_accuracy: single(signed_rank(&accuracy).map(|test| test.p)),
        p_sign: single(sign_test(outcomes[0], outcomes[2])),
        learned_only,
        p_learned: single(sign_test(learned_only[0], learned_only[1])),
        dead_difference: spread(&dead),
        p_dead: single(signed_rank(&dead).map(|test| test.p)),
    }
}
