//! Stationarity of an image under the true gradient.

use super::document::{STEP, Stationarity, finite};

/// Stationarity of an image `x` in [0, 1] with this `score`, whose gradient at `x` is `g`.
pub(super) fn stationarity(x: &[f64], g: &[f64], score: f64) -> Stationarity {
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let moved = |x: f64, by: f64| (x + by).clamp(0.0, 1.0) - x;
    let norm = square(&mut g.iter().copied());
    let length = STEP * (x.len() as f64).sqrt();
    // Without a gradient there is no direction, and so no step.
    let scale = if norm > 0.0 { length / norm } else { 0.0 };
    let both = || x.iter().zip(g);
    let free = square(&mut both().map(|(&x, &g)| moved(x, scale * g)));
    let step_gain: f64 = both().map(|(&x, &g)| g * moved(x, scale * g)).sum();
    let bound: f64 = both().map(|(&x, &g)| if g > 0.0 { g * (1.0 - x) } else { -g * x }).sum();
    // Clamping would hide a gradient that is not a number.
    let whole = |value: f64| if norm.is_finite() { finite(value) } else { None };
    Stationarity {
        projected_gradient: whole(square(&mut both().map(|(&x, &g)| moved(x, g)))),
        free_share: whole(free / length),
        step_gain: whole(relative(step_gain, score)),
        gain_bound: whole(relative(bound, score)),
    }
}

/// A gain relative to a score; a gain of 0 is 0 for any finite score.
pub(super) fn relative(gain: f64, score: f64) -> f64 {
    if gain == 0.0 && score.is_finite() { 0.0 } else { gain / score.abs() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn close(found: Option<f32>, expected: f64) {
        let found = f64::from(found.unwrap());
        assert!((found - expected).abs() <= 1e-6 * expected.abs().max(1e-3), "{found}, not {expected}");
    }

    #[test]
    fn of_a_linear_score_everything_is_known() {
        // The score is <g, x> + 2: 0.3 - 0.4 + 2.
        let (x, g) = ([0.5, 1.0, 0.0, 1.0, 0.5], [0.6, 0.3, -0.2, -0.7, 0.0]);
        let all = stationarity(&x, &g, 1.9);
        // The second and third pixels are at the limit that their gradients push towards.
        close(all.projected_gradient, (0.5f64 * 0.5 + 0.7 * 0.7).sqrt());
        let norm = 0.98f64.sqrt();
        close(all.free_share, (0.36f64 + 0.49).sqrt() / norm);
        let step = 0.005 * 5f64.sqrt();
        close(all.step_gain, step * (0.36 + 0.49) / norm / 1.9);
        close(all.gain_bound, (0.6 * 0.5 + 0.7) / 1.9);
    }

    #[test]
    fn a_corner_that_the_gradient_points_into_is_stationary() {
        let all = stationarity(&[1.0, 0.0, 1.0], &[2.0, -3.0, 0.0], -5.0);
        let none = Some(0.0);
        let expected = Stationarity { projected_gradient: none, free_share: none, step_gain: none, gain_bound: none };
        assert_eq!(all, expected);
        assert_eq!(stationarity(&[0.2, 0.7, 0.4], &[0.0; 3], 0.0), expected, "no gradient");
        let broken = stationarity(&[0.5], &[f64::NAN], 1.0);
        assert_eq!([broken.projected_gradient, broken.free_share, broken.gain_bound], [None; 3]);
        assert_eq!(stationarity(&[0.5], &[1.0], 0.0).gain_bound, None, "nothing is a share of 0");
    }

    proptest! {
        #[test]
        fn only_the_projected_gradient_has_a_unit(
            pixels in prop::collection::vec((0.0f64..=1.0, -1.0f64..1.0), 1..40), unit in 0.01f64..100.0,
        ) {
            let (x, g): (Vec<f64>, Vec<f64>) = pixels.into_iter().unzip();
            let here = stationarity(&x, &g, 3.0);
            let scaled: Vec<f64> = g.iter().map(|g| g * unit).collect();
            let there = stationarity(&x, &scaled, 3.0 * unit);
            for (a, b) in [
                (here.free_share, there.free_share),
                (here.step_gain, there.step_gain),
                (here.gain_bound, there.gain_bound),
            ] {
                prop_assert!((a.unwrap() - b.unwrap()).abs() <= 1e-5 * a.unwrap().abs().max(1e-3));
            }
            prop_assert!((0.0..=1.0 + 1e-6).contains(&here.free_share.unwrap()));
            prop_assert!(here.step_gain.unwrap() <= here.gain_bound.unwrap() + 1e-6);
        }
    }
}
