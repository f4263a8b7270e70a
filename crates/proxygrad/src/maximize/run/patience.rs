//! Early stopping: whether the score of a stimulus has settled.

use crate::maximize::outcome::Point;

/// Smallest improvement of a best score that counts, relative to its absolute value.
const IMPROVEMENT: f64 = 0.01;

/// How long a stimulus goes on without a better score.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Number of steps within which its best score has to improve; at least 1.
    pub(super) steps: u32,
    /// Number of steps after which the first of them counts.
    pub(super) after: u32,
}

impl Patience {
    /// Whether the best score has not improved by one percent within the last steps. `scores` are all finite scores in
    /// the order of their steps, the last of which is at most `step`.
    pub(super) fn has_ended(self, scores: &[Point], step: u32) -> bool {
        let Some(before) = step.checked_sub(self.steps).filter(|&before| before >= self.after) else { return false };
        let (earlier, later) = scores.split_at(scores.partition_point(|point| point.step <= before));
        match (best(earlier), best(later)) {
            (Some(earlier), Some(later)) => !improves(earlier, later),
            (None, Some(_)) => false,
            (_, None) => true,
        }
    }
}

fn best(scores: &[Point]) -> Option<f64> {
    scores.iter().map(|point| f64::from(point.score)).reduce(f64::max)
}

/// Whether a score is higher than another by a share of its absolute value; above 0, every score is higher.
fn improves(earlier: f64, later: f64) -> bool {
    later > earlier && later - earlier >= IMPROVEMENT * earlier.abs()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn points(scores: &[f32]) -> Vec<Point> {
        (0..).zip(scores).map(|(step, &score)| Point { step, score }).collect()
    }

    /// The first step at which the patience has ended.
    fn stop(patience: Patience, scores: &[f32]) -> Option<u32> {
        let points = points(scores);
        (0..).zip(scores).map(|(step, _)| step).find(|&step| patience.has_ended(&points[..=step as usize], step))
    }

    #[test]
    fn it_ends_when_the_best_score_has_not_improved_by_a_hundredth() {
        let after_three = |scores: &[f32]| stop(Patience { steps: 3, after: 0 }, scores);
        assert_eq!(after_three(&[1.0, 1.0, 1.0, 1.0]), Some(3), "a dead unit");
        assert_eq!(after_three(&[10.0, 10.05, 10.09, 10.05, 10.2]), Some(3), "less than 0.1");
        assert_eq!(after_three(&[10.0, 9.0, 3.0, 10.1, 10.1, 10.1]), None, "0.1 in time");
        assert_eq!(after_three(&[10.0, 9.0, 3.0, 10.1, 10.1, 10.1, 10.1]), Some(6));
        assert_eq!(after_three(&[1.0, 2.0, 4.0, 8.0, 7.0, 6.0, 5.0]), Some(6), "scores fall");
        assert_eq!(after_three(&[1.0, 1.02, 1.04, 1.06, 1.08, 1.10]), None);
    }

    #[test]
    fn a_hundredth_of_a_score_below_zero_is_upwards() {
        let after_two = |scores: &[f32]| stop(Patience { steps: 2, after: 0 }, scores);
        assert_eq!(after_two(&[-10.0, -9.95, -9.91]), Some(2));
        assert_eq!(after_two(&[-10.0, -9.95, -9.89]), None);
        assert_eq!(after_two(&[-10.0, -10.2, -10.4]), Some(2), "further from 0 is no improvement");
        assert_eq!(after_two(&[-0.001, -0.001, 5.0]), None, "across 0");
        assert_eq!(after_two(&[0.0, 0.0, 0.0]), Some(2));
        assert_eq!(after_two(&[0.0, 0.0, 1e-30]), None, "no share of 0");
    }

    #[test]
    fn it_begins_after_some_steps_but_knows_the_scores_before() {
        let from = |after| stop(Patience { steps: 2, after }, &[5.0, 5.0, 5.0, 5.0, 1.0, 2.0, 3.0, 9.0]);
        assert_eq!([from(0), from(1), from(3), from(4), from(5)], [Some(2), Some(3), Some(5), Some(6), None]);
    }

    #[test]
    fn steps_without_a_finite_score_count() {
        let patience = Patience { steps: 4, after: 0 };
        let sparse = [Point { step: 0, score: 2.0 }, Point { step: 3, score: 3.0 }];
        assert!(!patience.has_ended(&sparse, 6), "the improvement of step 3 is recent");
        assert!(patience.has_ended(&sparse, 7));
        assert!(patience.has_ended(&[], 4), "nothing but infinities");
        assert!(!patience.has_ended(&sparse[1..], 6), "the first finite score is an improvement");
    }

    proptest! {
        #[test]
        fn it_does_not_depend_on_the_unit_and_longer_patience_ends_later(
            scores in prop::collection::vec(-100.0f32..100.0, 1..60), steps in 1u32..20, after in 0u32..20,
        ) {
            let patience = Patience { steps, after };
            let end = stop(patience, &scores);
            // Powers of two scale without rounding.
            let scaled: Vec<f32> = scores.iter().map(|score| score * 1024.0).collect();
            prop_assert_eq!(stop(patience, &scaled), end);
            let last = scores.len() as u32;
            for longer in [Patience { steps: steps + 1, after }, Patience { steps, after: after + 1 }] {
                prop_assert!(stop(longer, &scores).unwrap_or(last) >= end.unwrap_or(last));
            }
            if let Some(end) = end {
                prop_assert!(end >= after + steps);
                let best = |until: u32| scores[..=until as usize].iter().copied().fold(f32::MIN, f32::max);
                let (before, now) = (best(end - steps), best(end));
                prop_assert!(now - before <= 0.01 * before.abs() * 1.001, "{} to {}", before, now);
            }
        }
    }
}
