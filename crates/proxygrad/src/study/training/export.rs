//! Summary of a study of training as CSV.

use super::maxima::MaximaComparison;
use super::summary::{Spread, TrainingComparison, TrainingSummary};
use crate::report::csv;

impl TrainingSummary {
    /// The arms of every table as CSV, the content of `summary.csv`.
    pub fn to_csv(&self) -> String {
        let mut text = csv::line([
            "data",
            "network",
            "arm",
            "seeds",
            "learned",
            "diverged",
            "accuracy",
            "accuracy_low_95",
            "accuracy_high_95",
            "gap",
            "dead",
            "reached",
            "epochs_to_reach",
            "seconds",
            "difference",
            "difference_low_95",
            "difference_high_95",
            "wins",
            "ties",
            "losses",
            "p_accuracy",
            "p_accuracy_holm",
            "p_sign",
            "p_sign_holm",
            "learned_only",
            "reference_learned_only",
            "p_learned",
            "p_learned_holm",
            "dead_difference",
            "p_dead",
            "p_dead_holm",
        ]);
        for table in &self.tables {
            for arm in &table.arms {
                let versus = arm.versus.clone();
                let count = |count: fn(&TrainingComparison) -> usize| {
                    versus.as_ref().map_or_else(String::new, |v| count(v).to_string())
                };
                let other = versus.clone().unwrap_or_default();
                let ends = |spread: Spread| [0, 1].map(|end| spread.interval.map(|interval| interval[end]));
                let ([low, high], difference) = (ends(arm.accuracy), ends(other.difference));
                text += &csv::line([
                    table.data.clone(),
                    table.network.clone(),
                    arm.arm.clone(),
                    table.seeds.len().to_string(),
                    arm.learned.to_string(),
                    arm.diverged.to_string(),
                    number(arm.accuracy.median),
                    number(low),
                    number(high),
                    number(arm.gap),
                    number(arm.dead.median),
                    arm.reached.to_string(),
                    number(arm.epochs_to_reach),
                    number(arm.seconds),
                    number(other.difference.median),
                    number(difference[0]),
                    number(difference[1]),
                    count(|versus| versus.outcomes[0]),
                    count(|versus| versus.outcomes[1]),
                    count(|versus| versus.outcomes[2]),
                    p(other.p_accuracy.single),
                    p(other.p_accuracy.corrected),
                    p(other.p_sign.single),
                    p(other.p_sign.corrected),
                    count(|versus| versus.learned_only[0]),
                    count(|versus| versus.learned_only[1]),
                    p(other.p_learned.single),
                    p(other.p_learned.corrected),
                    number(other.dead_difference.median),
                    p(other.p_dead.single),
                    p(other.p_dead.corrected),
                ]);
            }
        }
        text
    }

    /// The maxima of every arm under each gate as CSV, the content of `maxima-summary.csv`.
    pub fn maxima_to_csv(&self) -> String {
        let ends = |spread: Spread| [0, 1].map(|end| number(spread.interval.map(|interval| interval[end])));
        let mut text = csv::line([
            "data",
            "network",
            "gate",
            "arm",
            "networks",
            "ratio",
            "ratio_low_95",
            "ratio_high_95",
            "of_best",
            "still",
            "still_low_95",
            "still_high_95",
            "dead",
            "woken",
            "difference",
            "difference_low_95",
            "difference_high_95",
            "wins",
            "ties",
            "losses",
            "p_ratio",
            "p_ratio_holm",
            "still_difference",
            "p_still",
            "p_still_holm",
        ]);
        for table in &self.tables {
            for (gate, arm) in table.maxima.iter().flat_map(|gate| gate.arms.iter().map(|arm| (&gate.gate, arm))) {
                let count = |entry: usize| {
                    arm.versus.as_ref().map_or_else(String::new, |versus| versus.outcomes[entry].to_string())
                };
                let other: MaximaComparison = arm.versus.clone().unwrap_or_default();
                let ([low, high], [still_low, still_high]) = (ends(arm.ratio), ends(arm.still));
                let [difference_low, difference_high] = ends(other.difference);
                text += &csv::line([
                    table.data.clone(),
                    table.network.clone(),
                    gate.clone(),
                    arm.arm.clone(),
                    arm.networks.to_string(),
                    number(arm.ratio.median),
                    low,
                    high,
                    number(arm.of_best),
                    number(arm.still.median),
                    still_low,
                    still_high,
                    arm.dead.to_string(),
                    arm.woken.to_string(),
                    number(other.difference.median),
                    difference_low,
                    difference_high,
                    count(0),
                    count(1),
                    count(2),
                    p(other.p_ratio.single),
                    p(other.p_ratio.corrected),
                    number(other.still_difference.median),
                    p(other.p_still.single),
                    p(other.p_still.corrected),
                ]);
            }
        }
        text
    }
}

/// A cell with a number; empty if there is none.
fn number(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| format!("{value:.6}"))
}

/// A cell with a p-value; empty if there is none.
fn p(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| format!("{value:.3e}"))
}
