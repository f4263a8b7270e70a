//! Readability of the stimuli of an arm, by judge.
//!
//! As with scores, the starts of one unit do not count as independent: shares are means over units of the share of its
//! starts, and tests compare units.

use serde::Serialize;

use super::types::UnitScores;
use crate::judge::Verdict;
use crate::statistics::{mean, median, sign_test, wilson_interval};
use crate::study::readability::Readability;
use crate::study::row::Row;

/// Readability of the stimuli of an arm.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReadabilitySummary {
    /// Median over units of the score in percent of the natural maximum.
    pub median_percent_of_natural: Option<f64>,
    /// Median over units of the share of spectral energy at higher frequencies than in natural images.
    pub median_spectral_excess: Option<f64>,
    /// Mean seconds of judging a stimulus.
    pub seconds: Option<f64>,
    /// What the judges say, in the order of the plan.
    pub judges: Vec<JudgeSummary>,
}

/// What a judge says about the stimuli of an arm.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JudgeSummary {
    /// Id of the judge.
    pub judge: String,
    /// Number of units whose class it knows.
    pub classes: usize,
    /// How often it ranks the class first.
    pub top_1: Recognized,
    /// How often the class is among its first five.
    pub top_5: Recognized,
    /// Median over units of the probability of the class.
    pub median_probability: Option<f64>,
    /// Number of units with natural images.
    pub rated: usize,
    /// Median over units of the affinity to their natural images.
    pub median_affinity: Option<f64>,
    /// The affinities compared with those of the reference.
    pub affinity_against: SignTest,
    /// Mean number of forward passes of the judge on a stimulus.
    pub passes: Option<f64>,
}

/// How often a class is recognized.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Recognized {
    /// Share of stimuli.
    pub share: Option<f64>,
    /// Wilson's 95 % interval of the share.
    pub interval: Option<[f64; 2]>,
    /// The share of each unit compared with the reference.
    pub against: SignTest,
}

/// Sign test of an arm against the reference; with one start and yes or no, McNemar's exact test.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SignTest {
    /// Units on which the arm is better.
    pub better: usize,
    /// Units on which the reference is better.
    pub worse: usize,
    /// Exact two-sided p-value, if there is a difference.
    pub p: Option<f64>,
}

/// Readability of the stimuli of an arm, by its index, compared with the arm `against`; `None` without judges.
pub(super) fn readability(units: &[&UnitScores], arm: usize, against: usize) -> Option<ReadabilitySummary> {
    let first = units.first()?.arms.get(arm)?.runs.first()?.readability.as_ref()?;
    let judges: Vec<&str> = first.verdicts.iter().map(|verdict| verdict.judge.as_str()).collect();
    let median_of = |of: &dyn Fn(&Readability) -> Option<f32>| {
        let values: Vec<f64> =
            units.iter().filter_map(|unit| unit_mean(unit, arm, |row| of(row.readability.as_ref()?))).collect();
        median(&values)
    };
    let rows = || units.iter().flat_map(|unit| &unit.arms[arm].runs).filter_map(|row| row.readability.as_ref());
    let judge = |(i, judge): (usize, &&str)| {
        let verdict = move |row: &Row| row.readability.as_ref()?.verdicts.get(i).cloned();
        let passes: Vec<f64> =
            rows().filter_map(|readability| readability.verdicts.get(i)).map(|v| f64::from(v.passes)).collect();
        JudgeSummary { passes: mean(&passes), ..of_judge(judge, units, [arm, against], &verdict) }
    };
    Some(ReadabilitySummary {
        median_percent_of_natural: median_of(&|readability| readability.percent_of_natural),
        median_spectral_excess: median_of(&|readability| readability.spectral_excess),
        seconds: mean(&rows().map(|readability| f64::from(readability.seconds)).collect::<Vec<_>>()),
        judges: judges.iter().enumerate().map(judge).collect(),
    })
}

fn of_judge(
    judge: &str,
    units: &[&UnitScores],
    [arm, against]: [usize; 2],
    verdict: &dyn Fn(&Row) -> Option<Verdict>,
) -> JudgeSummary {
    // Of each unit, the mean of a number over its starts under both arms.
    let pairs = |of: &dyn Fn(&Verdict) -> Option<f32>| -> Vec<[f64; 2]> {
        let mean = |unit: &UnitScores, arm: usize| unit_mean(unit, arm, |row| of(&verdict(row)?));
        units.iter().filter_map(|unit| Some([mean(unit, arm)?, mean(unit, against)?])).collect()
    };
    let own = |pairs: &[[f64; 2]]| median(&pairs.iter().map(|pair| pair[0]).collect::<Vec<_>>());
    let within = |first: u32| {
        let hits = pairs(&|verdict| verdict.rank.map(|rank| f32::from(u8::from(rank <= first))));
        let share = mean(&hits.iter().map(|pair| pair[0]).collect::<Vec<_>>());
        Recognized { share, interval: share.and_then(|share| wilson_interval(share, hits.len())), against: test(&hits) }
    };
    let (probabilities, affinities) = (pairs(&|verdict| verdict.probability), pairs(&|verdict| verdict.affinity));
    JudgeSummary {
        judge: judge.to_owned(),
        classes: probabilities.len(),
        top_1: within(1),
        top_5: within(5),
        median_probability: own(&probabilities),
        rated: affinities.len(),
        median_affinity: own(&affinities),
        affinity_against: test(&affinities),
        passes: None,
    }
}

/// Mean over the starts of a unit under an arm, of those that have this number.
fn unit_mean(unit: &UnitScores, arm: usize, of: impl Fn(&Row) -> Option<f32>) -> Option<f64> {
    let values: Vec<f64> = unit.arms.get(arm)?.runs.iter().filter_map(|row| of(row).map(f64::from)).collect();
    mean(&values)
}

fn test(pairs: &[[f64; 2]]) -> SignTest {
    let better = pairs.iter().filter(|[own, reference]| own > reference).count();
    let worse = pairs.iter().filter(|[own, reference]| own < reference).count();
    SignTest { better, worse, p: sign_test(better, worse) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::types::ArmOnUnit;
    use super::*;
    use crate::maximize::{Findings, Point};
    use crate::study::row::RunKey;

    fn row(rank: Option<u32>, affinity: Option<f32>) -> Row {
        let [model, method, layer, unit, arm] = ["m", "pixel", "a", "a:3", "plain"].map(str::to_owned);
        let found = Findings {
            score: 1.0,
            initial_score: 0.0,
            final_score: 1.0,
            steps: 1,
            best_step: 1,
            trajectory: vec![Point { step: 1, score: 1.0 }],
            passes: 2,
            arms: Vec::new(),
            warnings: Vec::new(),
            diagnostics: None,
        };
        let probability = rank.map(|rank| 1.0 / rank as f32);
        let verdict = Verdict { judge: "j".into(), rank, probability, affinity, passes: 2 };
        let readability =
            Readability { percent_of_natural: None, spectral_excess: Some(0.5), seconds: 2.0, verdicts: vec![verdict] };
        Row {
            readability: Some(readability),
            ..Row::new(RunKey { model, method, layer, unit, repeat: 0, arm }, 0, 0.0, &found)
        }
    }

    /// A unit with the ranks of its starts under the reference and under the other arm.
    fn unit(reference: &[u32], other: &[u32]) -> UnitScores {
        let arm = |ranks: &[u32]| ArmOnUnit {
            score: 1.0,
            runs: ranks.iter().map(|&rank| row(Some(rank), Some(rank as f32 / 100.0))).collect(),
        };
        UnitScores { layer: "a".into(), unit: "a:3".into(), arms: vec![arm(reference), arm(other)] }
    }

    #[test]
    fn shares_and_tests_are_over_units() {
        let units = [unit(&[9, 9], &[1, 1]), unit(&[1, 7], &[4, 1]), unit(&[6, 6], &[1, 6]), unit(&[1, 1], &[1, 1])];
        let units: Vec<&UnitScores> = units.iter().collect();
        let summary = readability(&units, 1, 0).unwrap();
        assert_eq!((summary.median_spectral_excess, summary.median_percent_of_natural), (Some(0.5), None));
        assert_eq!(summary.seconds, Some(2.0));
        let judge = &summary.judges[0];
        assert_eq!((judge.judge.as_str(), judge.classes, judge.rated, judge.passes), ("j", 4, 4, Some(2.0)));
        // Shares of the starts: 1, 1/2, 1/2, 1; of the reference 0, 1/2, 0, 1.
        assert_eq!(judge.top_1.share, Some(0.75));
        assert_eq!(judge.top_1.against, SignTest { better: 2, worse: 0, p: Some(0.5) });
        assert_eq!((judge.top_5.share, judge.top_5.against.better), (Some(0.875), 3));
        let [low, high] = judge.top_1.interval.unwrap();
        assert!(low < 0.75 && 0.75 < high && high < 1.0);
        // The affinities of the test rise with the rank: better ranks are worse there.
        assert_eq!((judge.affinity_against.better, judge.affinity_against.worse), (0, 3));
        let reference = readability(&units, 0, 0).unwrap();
        assert_eq!(reference.judges[0].top_1.against, SignTest::default());
    }

    #[test]
    fn hidden_units_have_no_ranks() {
        let arm = || ArmOnUnit { score: 1.0, runs: vec![row(None, Some(0.9))] };
        let unit = UnitScores { layer: "a".into(), unit: "a:3".into(), arms: vec![arm(), arm()] };
        let judge = &readability(&[&unit], 1, 0).unwrap().judges[0];
        assert_eq!((judge.classes, judge.median_probability, judge.rated), (0, None, 1));
        assert_eq!(judge.top_1, Recognized::default());
    }
}
