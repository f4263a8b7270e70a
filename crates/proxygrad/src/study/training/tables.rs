//! Tables of a report of training, as text.

use super::maxima::{ArmMaxima, GateMaxima};
use super::summary::{Corrected, Spread, TrainingArm, TrainingComparison, TrainingTable};
use crate::report::html::{number, optional, percent, probability};

/// A table of text; the first cell of a row is its name.
pub(super) struct Table {
    pub(super) caption: String,
    pub(super) heads: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

/// The tables of one network.
pub(super) fn all(table: &TrainingTable, against: &str) -> Vec<Table> {
    let maxima = table.maxima.iter().map(|gate| maxima(gate, against));
    [accuracy(table, against), units(table, against), seeds(table)].into_iter().chain(maxima).collect()
}

fn heads<const N: usize>(heads: [&str; N]) -> Vec<String> {
    heads.map(str::to_owned).to_vec()
}

/// The cells that compare an arm with the reference; dashes for the reference itself.
fn compared<const N: usize>(arm: &TrainingArm, cells: impl Fn(&TrainingComparison) -> [String; N]) -> Vec<String> {
    arm.versus.as_ref().map_or_else(|| vec!["–".to_owned(); N], |versus| cells(versus).to_vec())
}

fn accuracy(table: &TrainingTable, against: &str) -> Table {
    let row = |arm: &TrainingArm| {
        let own = [
            arm.arm.clone(),
            spread(arm.accuracy, |share| format!("{:.2}", 100.0 * share)),
            optional(arm.gap, |gap| format!("{:+.2}", 100.0 * gap)),
            format!("{} of {}", arm.reached, table.seeds.len()),
            optional(arm.epochs_to_reach, number),
        ];
        let versus = compared(arm, |versus| {
            let [wins, ties, losses] = versus.outcomes;
            [
                spread(versus.difference, |share| format!("{:+.2}", 100.0 * share)),
                format!("{wins} / {ties} / {losses}"),
                corrected(versus.p_accuracy),
                corrected(versus.p_sign),
            ]
        });
        own.into_iter().chain(versus).collect()
    };
    Table {
        caption: format!("Test accuracy in %, {} seeds; differences to {against} in points", table.seeds.len()),
        heads: heads([
            "arm",
            "accuracy, median (95 %)",
            "training minus test",
            &format!("reach {}", percent(table.reach)),
            "after epochs",
            "difference, median (95 %)",
            "higher / same / lower",
            "p, signed rank",
            "p, sign",
        ]),
        rows: table.arms.iter().map(row).collect(),
    }
}

fn units(table: &TrainingTable, against: &str) -> Table {
    let row = |arm: &TrainingArm| {
        let own = [
            arm.arm.clone(),
            format!("{} of {}", arm.learned, table.seeds.len()),
            arm.diverged.to_string(),
            spread(arm.dead, |share| format!("{:.1}", 100.0 * share)),
            optional(arm.seconds, number),
        ];
        let versus = compared(arm, |versus| {
            let [here, there] = versus.learned_only;
            [
                format!("{here} / {there}"),
                corrected(versus.p_learned),
                spread(versus.dead_difference, |share| format!("{:+.1}", 100.0 * share)),
                corrected(versus.p_dead),
            ]
        });
        own.into_iter().chain(versus).collect()
    };
    Table {
        caption: format!("Runs that learn, and dead units in %; differences to {against}"),
        heads: heads([
            "arm",
            "learn",
            "diverge",
            "dead units, median (95 %)",
            "seconds",
            &format!("learn only here / only under {against}"),
            "p, learn",
            "dead units, difference (95 %)",
            "p, dead units",
        ]),
        rows: table.arms.iter().map(row).collect(),
    }
}

/// Maxima under one gate.
fn maxima(gate: &GateMaxima, against: &str) -> Table {
    let points = |share: f64| format!("{:+.1}", 100.0 * share);
    let row = |arm: &ArmMaxima| {
        let own = [
            arm.arm.clone(),
            arm.networks.to_string(),
            spread(arm.ratio, |ratio| format!("{:.0}", 100.0 * ratio)),
            optional(arm.of_best, |share| format!("{:.0}", 100.0 * share)),
            spread(arm.still, |share| format!("{:.1}", 100.0 * share)),
            format!("{} of {}", arm.woken, arm.dead),
        ];
        let versus = arm.versus.as_ref().map_or_else(
            || ["–"; 5].map(str::to_owned),
            |versus| {
                let [wins, ties, losses] = versus.outcomes;
                [
                    spread(versus.difference, |ratio| format!("{:+.0}", 100.0 * ratio)),
                    format!("{wins} / {ties} / {losses}"),
                    corrected(versus.p_ratio),
                    spread(versus.still_difference, points),
                    corrected(versus.p_still),
                ]
            },
        );
        own.into_iter().chain(versus).collect()
    };
    Table {
        caption: format!(
            "Maxima under {} in % of the natural maximum, median over units; differences to {against}",
            gate.gate
        ),
        heads: heads([
            "arm",
            "networks",
            "maximum, median (95 %)",
            "% of the best gate's",
            "units that stay at their start, % (95 %)",
            "woken, of units that no test image activates",
            "difference, median (95 %)",
            "higher / same / lower",
            "p, maximum",
            "stay at their start, difference (95 %)",
            "p, stay",
        ]),
        rows: gate.arms.iter().map(row).collect(),
    }
}

/// The accuracy of every run.
fn seeds(table: &TrainingTable) -> Table {
    let row = |arm: &TrainingArm| {
        let accuracies = arm.accuracies.iter().map(|accuracy| format!("{:.1}", 100.0 * accuracy));
        std::iter::once(arm.arm.clone()).chain(accuracies).collect()
    };
    Table {
        caption: "Test accuracy in % by seed".to_owned(),
        heads: std::iter::once("arm".to_owned()).chain(table.seeds.iter().map(u64::to_string)).collect(),
        rows: table.arms.iter().map(row).collect(),
    }
}

fn spread(spread: Spread, format: impl Fn(f64) -> String) -> String {
    let interval = spread.interval.map(|[low, high]| format!(" ({} to {})", format(low), format(high)));
    optional(spread.median, &format) + &interval.unwrap_or_default()
}

fn corrected(p: Corrected) -> String {
    match (p.single, p.corrected) {
        (Some(single), Some(corrected)) => format!("{} / {}", probability(single), probability(corrected)),
        _ => "–".to_owned(),
    }
}
