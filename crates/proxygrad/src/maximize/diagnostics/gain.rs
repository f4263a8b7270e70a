//! Gain of more steps of plain gradient ascent.

use std::f64::consts::PI;

use super::document::{Gain, STEP, finite};
use super::evaluator::{Evaluator, Gradients};
use super::stationarity::relative;
use crate::maximize::error::MaximizeError;

/// Number of steps.
const STEPS: u32 = 50;

/// Continues gradient ascent from `images`, whose scores and gradients are `first`; `None` when stopped.
pub(super) fn gains(
    evaluator: &mut Evaluator<'_, '_>,
    images: &[Vec<f64>],
    first: &Gradients,
) -> Result<Option<Vec<Gain>>, MaximizeError> {
    let mut images = images.to_vec();
    let mut courses: Vec<Vec<f64>> = first.scores.iter().map(|&score| vec![score]).collect();
    let mut note = |scores: &[f64]| courses.iter_mut().zip(scores).for_each(|(course, &score)| course.push(score));
    for step in 0..STEPS {
        if evaluator.should_stop() {
            return Ok(None);
        }
        let scored = if step == 0 { None } else { Some(evaluator.gradients(&images)?) };
        if let Some(scored) = &scored {
            note(&scored.scores);
        }
        for (image, gradient) in images.iter_mut().zip(&scored.as_ref().unwrap_or(first).gradients) {
            let length = length(step, image.len());
            climb_on(image, gradient, length);
        }
    }
    let last = evaluator.tensor(&images)?;
    note(&evaluator.scores(&last)?);
    Ok(Some(courses.iter().map(|course| gain(course)).collect()))
}

/// Length of step `step` over an image of `values` values.
fn length(step: u32, values: usize) -> f64 {
    let decay = 0.5 * (1.0 + (PI * f64::from(step) / f64::from(STEPS)).cos());
    STEP * decay * (values as f64).sqrt()
}

/// One step along the gradient. An image whose gradient is zero or not finite does not change.
fn climb_on(image: &mut [f64], gradient: &[f64], length: f64) {
    let norm = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
    if norm > 0.0 && norm.is_finite() {
        for (x, g) in image.iter_mut().zip(gradient) {
            *x = (*x + length / norm * g).clamp(0.0, 1.0);
        }
    }
}

/// Gain of the best score over the first.
fn gain(scores: &[f64]) -> Gain {
    let start = scores.first().copied().unwrap_or(f64::NAN);
    let mut best = (0, start);
    for (step, &score) in (0..).zip(scores) {
        if score.is_finite() && score > best.1 {
            best = (step, score);
        }
    }
    let gained = best.1 - start;
    Gain { absolute: finite(gained), relative: finite(relative(gained, start)), best_step: best.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_best_scores_counts() {
        assert_eq!(
            gain(&[2.0, 1.0, 3.0, 3.0, f64::NAN]),
            Gain { absolute: Some(1.0), relative: Some(0.5), best_step: 2 }
        );
        assert_eq!(gain(&[-2.0, -1.0]).relative, Some(0.5));
        assert_eq!(gain(&[0.0, 0.0]), Gain { absolute: Some(0.0), relative: Some(0.0), best_step: 0 });
        assert_eq!(gain(&[0.0, 4.0]), Gain { absolute: Some(4.0), relative: None, best_step: 1 });
        assert_eq!(gain(&[f64::NAN, 4.0]), Gain { absolute: None, relative: None, best_step: 0 });
    }

    #[test]
    fn steps_fade_and_stay_in_range() {
        assert!((length(0, 400) - 0.1).abs() < 1e-12 && (length(25, 400) - 0.05).abs() < 1e-12);
        assert!(length(STEPS - 1, 400) < 1e-4);
        let mut image = [0.5, 0.99, 0.2];
        climb_on(&mut image, &[0.0, 3.0, -4.0], 0.1);
        assert!(image.iter().zip([0.5, 1.0, 0.12]).all(|(x, expected)| (x - expected).abs() < 1e-12), "{image:?}");
        climb_on(&mut image, &[f64::INFINITY, 0.0, 0.0], 0.1);
        climb_on(&mut image, &[0.0; 3], 0.1);
        assert!((image[0] - 0.5).abs() < 1e-12);
    }
}
