//! Summary of maxima: the networks of every arm under each gate, compared seed by seed.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::plan::MaximaPlan;
use super::row::MaximumRow;
use crate::statistics::{median, signed_rank};
use crate::study::training::summary::{Corrected, Spread, TrainingTable, spread};

/// Maxima under one gate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GateMaxima {
    /// Name of the gate.
    pub gate: String,
    /// The arms, in the plan's order.
    pub arms: Vec<ArmMaxima>,
}

/// Maxima of the units of the networks of an arm under a gate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ArmMaxima {
    /// Name of the arm.
    pub arm: String,
    /// Number of networks whose units were maximized; those of runs that diverged are missing.
    pub networks: usize,
    /// For every seed, the median over units of the maximum divided by the natural maximum; `None` without a network, or if
    /// the test images activate none of its units.
    pub ratios: Vec<Option<f64>>,
    /// Its median over seeds.
    pub ratio: Spread,
    /// Median over seeds of the median over units of the maximum divided by the largest under any gate.
    pub of_best: Option<f64>,
    /// For every seed, the share of units whose stimulus scores no higher than its start.
    pub still_shares: Vec<Option<f64>>,
    /// Its median over seeds.
    pub still: Spread,
    /// Units that no test image activates, in all networks.
    pub dead: usize,
    /// Those of them that their stimulus activates.
    pub woken: usize,
    /// Comparison with the reference; `None` for the reference itself.
    pub versus: Option<MaximaComparison>,
}

/// Maxima of an arm compared with those of the reference, seed by seed. p-values are two-sided.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct MaximaComparison {
    /// Difference of [`ArmMaxima::ratios`].
    pub difference: Spread,
    /// Seeds with a higher, the same and a lower ratio than the reference.
    pub outcomes: [usize; 3],
    /// Wilcoxon's signed-rank test of these.
    pub p_ratio: Corrected,
    /// Difference of [`ArmMaxima::still_shares`].
    pub still_difference: Spread,
    /// Wilcoxon's signed-rank test of these.
    pub p_still: Corrected,
}

/// Maxima of one network under one gate.
struct NetworkMaxima {
    ratio: Option<f64>,
    of_best: Option<f64>,
    still: f64,
    dead: usize,
    woken: usize,
}

/// The maxima of a table, gate by gate; none if no network of it was maximized.
pub(in crate::study::training) fn of_table(
    plan: &MaximaPlan,
    table: &TrainingTable,
    against: &str,
    rows: &[MaximumRow],
) -> Vec<GateMaxima> {
    let mut by_run: HashMap<(&str, u64), Vec<&MaximumRow>> = HashMap::new();
    for row in rows.iter().filter(|row| row.key.run.data == table.data && row.key.run.network == table.network) {
        by_run.entry((&row.key.run.arm, row.key.run.seed)).or_default().push(row);
    }
    if by_run.is_empty() {
        return Vec::new();
    }
    let of_gate = |gate: &str| {
        let arm = |arm: &str| {
            let network = |seed: &u64| by_run.get(&(arm, *seed)).and_then(|rows| network(rows, gate));
            summarize(arm, &table.seeds.iter().map(network).collect::<Vec<_>>())
        };
        let mut arms: Vec<ArmMaxima> = table.arms.iter().map(|own| arm(&own.arm)).collect();
        let reference = arms.iter().find(|arm| arm.arm == against).cloned();
        for arm in arms.iter_mut().filter(|arm| arm.arm != against) {
            arm.versus = reference.as_ref().map(|reference| compare(arm, reference));
        }
        GateMaxima { gate: gate.to_owned(), arms }
    };
    plan.gates.iter().map(|gate| of_gate(&gate.name)).collect()
}

/// The maxima of one network under a gate; `rows` are those of all gates.
fn network(rows: &[&MaximumRow], gate: &str) -> Option<NetworkMaxima> {
    let mut best: BTreeMap<&str, f32> = BTreeMap::new();
    for row in rows {
        let best = best.entry(&row.key.unit).or_insert(f32::NEG_INFINITY);
        *best = best.max(row.maximum);
    }
    let own: Vec<&MaximumRow> = rows.iter().copied().filter(|row| row.key.gate == gate).collect();
    let of_best = |row: &&MaximumRow| {
        let best = f64::from(best[&*row.key.unit]);
        (best > 0.0 && row.maximum.is_finite()).then(|| f64::from(row.maximum) / best)
    };
    let dead = || own.iter().filter(|row| row.is_dead());
    (!own.is_empty()).then(|| NetworkMaxima {
        ratio: median(&own.iter().filter_map(|row| row.ratio()).collect::<Vec<_>>()),
        of_best: median(&own.iter().filter_map(of_best).collect::<Vec<_>>()),
        still: own.iter().filter(|row| !row.rose()).count() as f64 / own.len() as f64,
        dead: dead().count(),
        woken: dead().filter(|row| row.maximum > 0.0).count(),
    })
}

/// The maxima of an arm, from those of its networks by seed.
fn summarize(arm: &str, networks: &[Option<NetworkMaxima>]) -> ArmMaxima {
    let of = |value: fn(&NetworkMaxima) -> Option<f64>| -> Vec<Option<f64>> {
        networks.iter().map(|network| network.as_ref().and_then(value)).collect()
    };
    let present = |values: &[Option<f64>]| spread(&values.iter().copied().flatten().collect::<Vec<f64>>());
    let (ratios, still_shares) = (of(|network| network.ratio), of(|network| Some(network.still)));
    let sum = |value: fn(&NetworkMaxima) -> usize| networks.iter().flatten().map(value).sum();
    ArmMaxima {
        arm: arm.to_owned(),
        networks: networks.iter().flatten().count(),
        ratio: present(&ratios),
        ratios,
        of_best: present(&of(|network| network.of_best)).median,
        still: present(&still_shares),
        still_shares,
        dead: sum(|network| network.dead),
        woken: sum(|network| network.woken),
        versus: None,
    }
}

fn compare(arm: &ArmMaxima, reference: &ArmMaxima) -> MaximaComparison {
    let differences = |a: &[Option<f64>], b: &[Option<f64>]| -> Vec<f64> {
        a.iter().zip(b).filter_map(|(a, b)| Some((*a)? - (*b)?)).collect()
    };
    let ratio = differences(&arm.ratios, &reference.ratios);
    let still = differences(&arm.still_shares, &reference.still_shares);
    let count = |holds: fn(&f64) -> bool| ratio.iter().filter(|difference| holds(difference)).count();
    let single =
        |differences: &[f64]| Corrected { single: signed_rank(differences).map(|test| test.p), corrected: None };
    MaximaComparison {
        difference: spread(&ratio),
        outcomes: [count(|&d| d > 0.0), count(|&d| d == 0.0), count(|&d| d < 0.0)],
        p_ratio: single(&ratio),
        still_difference: spread(&still),
        p_still: single(&still),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::study::training::maxima::MaximumKey;
    use crate::study::training::row::TrainingKey;

    fn row(gate: &str, unit: &str, natural: f32, initial: f32, maximum: f32) -> MaximumRow {
        let run = TrainingKey { data: "d".into(), network: "n".into(), arm: "a".into(), seed: 0 };
        MaximumRow { key: MaximumKey { run, gate: gate.into(), unit: unit.into() }, natural, initial, maximum }
    }

    #[test]
    fn a_network_is_summarized_over_its_units() {
        let rows = [
            row("plain", "r:0", 2.0, 1.0, 4.0),
            row("plain", "r:1", 2.0, 0.0, 0.0),
            row("plain", "r:2", 0.0, 0.0, 0.0),
            row("auto", "r:0", 2.0, 1.0, 8.0),
            row("auto", "r:1", 2.0, 0.0, 6.0),
            row("auto", "r:2", 0.0, 0.0, 3.0),
        ];
        let rows: Vec<&MaximumRow> = rows.iter().collect();
        let plain = network(&rows, "plain").unwrap();
        assert_eq!((plain.ratio, plain.of_best, plain.still), (Some(1.0), Some(0.0), 2.0 / 3.0));
        assert_eq!((plain.dead, plain.woken), (1, 0));
        let auto = network(&rows, "auto").unwrap();
        assert_eq!((auto.ratio, auto.of_best, auto.still), (Some(3.5), Some(1.0), 0.0));
        assert_eq!((auto.dead, auto.woken), (1, 1));
        assert!(network(&rows, "soft").is_none());
    }

    #[test]
    fn seeds_without_a_network_are_not_compared() {
        let network = |ratio, still| Some(NetworkMaxima { ratio, of_best: None, still, dead: 1, woken: 0 });
        let arm = summarize("a", &[network(Some(3.0), 0.25), None, network(Some(2.0), 0.5), network(None, 1.0)]);
        let reference =
            summarize("b", &[network(Some(1.0), 0.25), network(Some(9.0), 0.0), network(Some(4.0), 1.0), None]);
        assert_eq!((arm.networks, arm.dead, arm.ratio.median, arm.still.median), (3, 3, Some(2.5), Some(0.5)));
        let versus = compare(&arm, &reference);
        assert_eq!((versus.difference.median, versus.outcomes), (Some(0.0), [1, 0, 1]));
        assert_eq!(versus.still_difference.median, Some(-0.25));
    }
}
