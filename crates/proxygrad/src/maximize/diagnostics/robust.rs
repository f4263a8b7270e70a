//! Robustness: scores of randomly transformed images.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::document::{Robust, finite};
use super::evaluator::Evaluator;
use crate::maximize::error::MaximizeError;
use crate::maximize::transform::Views;
use crate::maximize::transform::{Transform, TransformKind};

/// Number of views.
const VIEWS: u32 = 64;
/// Seed of the views, the same for all runs, so that robust scores are comparable.
const SEED: u64 = 64;
/// Length of the shorter side per pixel of jitter: 8 pixels at 224, 1 at 28.
const SIDE_PER_PIXEL: usize = 28;

/// Transforms of the views of images of height and width `size`.
fn transforms([height, width]: [usize; 2]) -> Vec<Transform> {
    let pixels = (height.min(width) / SIDE_PER_PIXEL).max(1) as u32;
    let kinds = [
        TransformKind::Jitter { pixels },
        TransformKind::Scale { low: 0.9, high: 1.1 },
        TransformKind::Rotate { degrees: 10.0 },
    ];
    kinds.map(|kind| Transform { kind, probability: 1.0 }).to_vec()
}

/// Scores views of `images`, whose untransformed scores are `scores`; `None` when stopped.
pub(super) fn robust(
    evaluator: &mut Evaluator<'_, '_>,
    images: &[Vec<f64>],
    scores: &[f64],
    size: [usize; 2],
) -> Result<Option<Vec<Robust>>, MaximizeError> {
    let transforms = transforms(size);
    let pixels = evaluator.tensor(images)?;
    let arithmetic = evaluator.arithmetic();
    let mut views: Vec<Vec<f64>> = vec![Vec::new(); images.len()];
    for view in 0..VIEWS {
        if evaluator.should_stop() {
            return Ok(None);
        }
        let mut rng = ChaCha8Rng::seed_from_u64(SEED);
        rng.set_stream(u64::from(view));
        let mut streams = vec![rng; images.len()];
        let seen = Views::draw(&transforms, streams.iter_mut(), size, arithmetic).apply(&pixels)?;
        for (views, score) in views.iter_mut().zip(evaluator.scores(&seen)?) {
            views.push(score);
        }
    }
    Ok(Some(views.into_iter().zip(scores).map(|(views, &score)| summary(&transforms, views, score)).collect()))
}

fn summary(transforms: &[Transform], mut views: Vec<f64>, score: f64) -> Robust {
    let whole = views.iter().all(|view| view.is_finite());
    views.sort_unstable_by(f64::total_cmp);
    // Nearest-rank percentile: a tenth of the views, rounded up, score at most this.
    let rank = views.len().div_ceil(10).saturating_sub(1);
    let number = |x: Option<&f64>| x.filter(|_| whole).copied();
    let mean = views.iter().sum::<f64>() / views.len() as f64;
    let (mean, p10, min) = (number(Some(&mean)), number(views.get(rank)), number(views.first()));
    let share = |x: Option<f64>| x.filter(|_| score > 0.0).and_then(|x| finite(x / score));
    Robust {
        transforms: transforms.to_vec(),
        views: VIEWS,
        mean: mean.and_then(finite),
        p10: p10.and_then(finite),
        min: min.and_then(finite),
        mean_share: share(mean),
        p10_share: share(p10),
        min_share: share(min),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tenth_percentile_is_the_seventh_smallest_of_64() {
        let views: Vec<f64> = (0..64).rev().map(f64::from).collect();
        let all = summary(&transforms([224, 300]), views, 2.0);
        assert_eq!((all.mean, all.p10, all.min), (Some(31.5), Some(6.0), Some(0.0)));
        assert_eq!((all.mean_share, all.p10_share, all.min_share), (Some(15.75), Some(3.0), Some(0.0)));
        assert_eq!(all.transforms[0].to_string(), "jitter:8");
    }

    #[test]
    fn shares_need_a_positive_score_and_numbers_finite_ones() {
        let of = |views: &[f64], score: f64| summary(&[], views.to_vec(), score);
        assert_eq!(of(&[1.0, 3.0], 0.0).mean_share, None);
        assert_eq!(of(&[1.0, 3.0], -1.0).min_share, None);
        let broken = of(&[1.0, f64::NAN], 1.0);
        assert_eq!((broken.mean, broken.p10, broken.min, broken.mean_share), (None, None, None, None));
    }
}
