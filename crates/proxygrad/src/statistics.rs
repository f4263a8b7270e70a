//! Statistics: quantiles, intervals, tests of paired differences, and the correction for several tests.

use std::f64::consts::LN_2;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

/// The quantile `q` (in [0, 1]) of `values`, interpolated (Hyndman & Fan 1996, type 7). NaN is ignored; `None` for no
/// values.
pub fn quantile(values: &[f64], q: f64) -> Option<f64> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| !value.is_nan()).collect();
    sorted.sort_by(f64::total_cmp);
    quantile_of_sorted(&sorted, q)
}

fn quantile_of_sorted(sorted: &[f64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let at = q.clamp(0.0, 1.0) * last as f64;
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    Some(below + (above - below) * at.fract())
}

/// The median of `values`; `None` for no values.
pub fn median(values: &[f64]) -> Option<f64> {
    quantile(values, 0.5)
}

/// The arithmetic mean of `values`; `None` for no values.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Confidence interval of the median at level `confidence` (such as 0.95): percentile bootstrap (Efron & Tibshirani
/// 1993, chapter 13) with this many resamples drawn with `seed`. `None` for fewer than two values.
pub fn median_interval(values: &[f64], confidence: f64, resamples: usize, seed: u64) -> Option<[f64; 2]> {
    if values.len() < 2 || resamples == 0 {
        return None;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut resample = vec![0.0; values.len()];
    let mut medians = Vec::with_capacity(resamples);
    for _ in 0..resamples {
        resample.fill_with(|| values[rng.random_range(0..values.len())]);
        resample.sort_by(f64::total_cmp);
        medians.extend(quantile_of_sorted(&resample, 0.5));
    }
    medians.sort_by(f64::total_cmp);
    let tail = (1.0 - confidence) / 2.0;
    Some([quantile_of_sorted(&medians, tail)?, quantile_of_sorted(&medians, 1.0 - tail)?])
}

/// 95 % confidence interval of a share of `count` cases (Wilson 1927); `None` without cases.
pub fn wilson_interval(share: f64, count: usize) -> Option<[f64; 2]> {
    const Z: f64 = 1.959_963_984_540_054;
    let n = count as f64;
    let middle = (share + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
    let half = Z / (1.0 + Z * Z / n) * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    (count > 0).then(|| [(middle - half).max(0.0), (middle + half).min(1.0)])
}

/// Exact two-sided p-value of the sign test of pairs of which `better` and `worse` differ in this and in the other
/// direction; for pairs of yes and no, McNemar's exact test. `None` without differences.
pub fn sign_test(better: usize, worse: usize) -> Option<f64> {
    let n = better + worse;
    let factorial = |n: usize| libm::lgamma(n as f64 + 1.0);
    let chance = |k: usize| (factorial(n) - factorial(k) - factorial(n - k) - n as f64 * LN_2).exp();
    let tail: f64 = (0..=better.min(worse)).map(chance).sum();
    (n > 0).then(|| (2.0 * tail).min(1.0))
}

/// Result of the signed-rank test of paired differences.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SignedRank {
    /// Number of nonzero differences.
    pub n: usize,
    /// Sum of the ranks of the positive ones.
    pub w_plus: f64,
    /// Two-sided p-value: probability of a sum at least as far from its mean if the differences are symmetric around
    /// zero.
    pub p: f64,
    /// Whether the p-value is exact rather than a normal approximation.
    pub exact: bool,
}

/// Largest number of differences with an exact p-value.
const MAX_EXACT: usize = 50;

/// Wilcoxon's signed-rank test (1945) of paired differences. Zeros are dropped; ties get their mean rank.
///
/// For up to 50 differences the distribution is exact, counted over all signs with tied ranks; beyond that it is a
/// normal approximation with tie correction and a continuity correction of one half. `None` if no nonzero difference is
/// left.
pub fn signed_rank(differences: &[f64]) -> Option<SignedRank> {
    let mut nonzero: Vec<f64> = differences.iter().copied().filter(|d| *d != 0.0 && !d.is_nan()).collect();
    nonzero.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
    let n = nonzero.len();
    if n == 0 {
        return None;
    }
    // Twice a rank is an integer even for ties.
    let mut doubled = Vec::with_capacity(n);
    let mut ties = 0.0;
    for group in nonzero.chunk_by(|a, b| a.abs() == b.abs()) {
        let first = doubled.len() + 1;
        let last = doubled.len() + group.len();
        doubled.extend(std::iter::repeat_n(first + last, group.len()));
        let size = group.len() as f64;
        ties += size * size * size - size;
    }
    let positive = nonzero.iter().zip(&doubled).filter(|(d, _)| **d > 0.0);
    let twice_w: usize = positive.map(|(_, rank)| rank).sum();
    let w_plus = twice_w as f64 / 2.0;
    let exact = n <= MAX_EXACT;
    let p = if exact { exact_p(&doubled, twice_w) } else { normal_p(n as f64, w_plus, ties) };
    Some(SignedRank { n, w_plus, p, exact })
}

/// Exact two-sided p-value: counts, over all signs of the doubled ranks, positive sums as extreme as `sum`.
fn exact_p(doubled: &[usize], sum: usize) -> f64 {
    let total: usize = doubled.iter().sum();
    let mut ways = vec![0f64; total + 1];
    ways[0] = 1.0;
    let mut reached = 0;
    for &rank in doubled {
        reached += rank;
        for s in (rank..=reached).rev() {
            ways[s] += ways[s - rank];
        }
    }
    let all = 2f64.powi(doubled.len() as i32);
    let (low, high) = (ways[..=sum].iter().sum::<f64>() / all, ways[sum..].iter().sum::<f64>() / all);
    (2.0 * low.min(high)).min(1.0)
}

/// p-values corrected for their number by Holm's step-down method (1979), in the same order.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let mut corrected = vec![0.0; p.len()];
    let mut most: f64 = 0.0;
    for (rank, &index) in order.iter().enumerate() {
        most = most.max((p[index] * (p.len() - rank) as f64).min(1.0));
        corrected[index] = most;
    }
    corrected
}

fn normal_p(n: f64, w_plus: f64, ties: f64) -> f64 {
    let mean = n * (n + 1.0) / 4.0;
    let variance = n * (n + 1.0) * (2.0 * n + 1.0) / 24.0 - ties / 48.0;
    let distance = ((w_plus - mean).abs() - 0.5).max(0.0);
    libm::erfc(distance / (2.0 * variance).sqrt()).min(1.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn close(found: f64, expected: f64) -> bool {
        (found - expected).abs() <= 1e-9 * expected.abs().max(1e-3)
    }

    /// Expected: Wilson's interval in Newcombe (1998), table I, method 3; `scipy.stats.binomtest(k, n).pvalue`.
    #[test]
    fn shares_have_intervals_and_signs_a_test() {
        for (hits, count, low, high) in
            [(81.0, 263, 0.2553, 0.3662), (15.0, 148, 0.0624, 0.1605), (0.0, 20, 0.0, 0.1611)]
        {
            let [l, h] = wilson_interval(hits / f64::from(count), count as usize).unwrap();
            assert!((l - low).abs() < 6e-5 && (h - high).abs() < 6e-5, "{hits} of {count}: {l} to {h}");
        }
        assert_eq!(wilson_interval(0.5, 0), None);
        for (better, worse, p) in [(8, 1, 0.0390625), (1, 8, 0.0390625), (5, 5, 1.0), (0, 1, 1.0), (0, 6, 0.03125)] {
            assert!(close(sign_test(better, worse).unwrap(), p), "{better}, {worse}");
        }
        assert!((sign_test(60, 40).unwrap() - 0.056_887_933_640_98).abs() < 1e-9);
        assert_eq!(sign_test(0, 0), None);
    }

    #[test]
    fn quantiles_are_interpolated() {
        let values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(median(&values), Some(2.5));
        assert_eq!(quantile(&values, 0.0), Some(1.0));
        assert_eq!(quantile(&values, 1.0), Some(4.0));
        assert_eq!(quantile(&values, 0.25), Some(1.75));
        assert_eq!((median(&[]), median(&[7.0])), (None, Some(7.0)));
    }

    /// Expected values: `scipy.stats.wilcoxon` 1.17, `method="exact"`, or with ties all `2^n` signs counted one by one.
    #[test]
    fn small_samples_are_counted_exactly() {
        // Differences in height of Zea plants (Darwin 1876), as in many a textbook: T = 24, n = 15.
        let darwin = [49., -67., 8., 16., 6., 23., 28., 41., 14., 29., 56., 24., 75., 60., -48.];
        let found = signed_rank(&darwin).unwrap();
        assert_eq!((found.n, found.w_plus, found.exact), (15, 96.0, true));
        assert!(close(found.p, 0.041_259_765_625), "{found:?}");
        let all_positive: Vec<f64> = (1..=6).map(f64::from).collect();
        assert!(close(signed_rank(&all_positive).unwrap().p, 2.0 / 64.0));
        assert_eq!(signed_rank(&[1.0, -1.0, 0.0]).unwrap().p, 1.0);
        assert_eq!(signed_rank(&[0.0, 0.0]), None);
        // Ranks 1.5, 1.5, 3.5, 3.5, 5: of 32 signs, 2 give a sum of 1.5 and 1 gives 0.
        let tied = signed_rank(&[1.0, -1.0, 2.0, 2.0, 3.0]).unwrap();
        assert_eq!((tied.w_plus, tied.p), (13.5, 2.0 * 3.0 / 32.0));
    }

    /// Expected: `scipy.stats.wilcoxon(d, method="approx", correction=True)`.
    #[test]
    fn large_samples_are_approximated_with_corrections() {
        let differences: Vec<f64> = (1..=60).map(|i| f64::from((i * 37) % 61 % 23) - 8.0).collect();
        let found = signed_rank(&differences).unwrap();
        assert_eq!((found.n, found.w_plus, found.exact), NORMAL_CASE.0);
        assert!((found.p - NORMAL_CASE.1).abs() < 1e-12, "{found:?}");
    }

    const NORMAL_CASE: ((usize, f64, bool), f64) = ((57, 1116.0, false), 0.021_539_205_800_415_337);

    #[test]
    fn holm_multiplies_by_the_number_of_tests_that_are_left() {
        let corrected = holm(&[0.01, 0.04, 0.03, 0.005]);
        for (found, expected) in corrected.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            assert!(close(*found, expected), "{corrected:?}");
        }
        assert_eq!((holm(&[]), holm(&[0.7, 0.8])), (vec![], vec![1.0, 1.0]));
    }

    #[test]
    fn the_interval_is_repeatable_and_holds_the_median() {
        let values: Vec<f64> = (0..41).map(|i| f64::from(i * i % 41)).collect();
        let interval = median_interval(&values, 0.95, 2000, 3).unwrap();
        assert_eq!(median_interval(&values, 0.95, 2000, 3), Some(interval));
        assert!(interval[0] < median(&values).unwrap() && median(&values).unwrap() < interval[1]);
        assert_eq!(median_interval(&[1.0], 0.95, 2000, 3), None);
        assert_eq!(median_interval(&[2.0; 9], 0.95, 100, 3), Some([2.0, 2.0]));
    }

    /// Of samples from one distribution, about 95 % of the intervals hold its median.
    #[test]
    fn the_interval_covers_as_often_as_it_says() {
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        let holds = (0..300).filter(|&i| {
            let sample: Vec<f64> = (0..40).map(|_| -(1.0 - rng.random::<f64>()).ln()).collect();
            let [low, high] = median_interval(&sample, 0.95, 400, i).unwrap();
            (low..=high).contains(&2f64.ln())
        });
        let share = holds.count() as f64 / 300.0;
        assert!((0.90..=0.985).contains(&share), "{share}");
    }

    proptest! {
        #[test]
        fn the_exact_and_the_normal_probability_agree(
            differences in proptest::collection::vec(-1.0..1.2f64, 40..=50),
        ) {
            let found = signed_rank(&differences).unwrap();
            let approximate = normal_p(found.n as f64, found.w_plus, 0.0);
            prop_assert!((found.p - approximate).abs() < 0.01, "{found:?}, {approximate}");
        }

        #[test]
        fn the_sign_does_not_matter(differences in proptest::collection::vec(-5..5i32, 1..70)) {
            let there: Vec<f64> = differences.iter().map(|&d| f64::from(d)).collect();
            let back: Vec<f64> = there.iter().map(|d| -d).collect();
            let (there, back) = (signed_rank(&there), signed_rank(&back));
            prop_assert_eq!(there.map(|t| t.n), back.map(|t| t.n));
            if let (Some(there), Some(back)) = (there, back) {
                prop_assert!((there.p - back.p).abs() < 1e-12 && (0.0..=1.0).contains(&there.p));
            }
        }
    }
}
