//! Measures the diagnostics of maxima after a run, on the 8-bit images, with the original network and its true
//! gradient. [`Diagnostics`] defines every number.

use super::document::{Diagnostics, Gain, Robust};
use super::evaluator::{Evaluator, Gradients};
use super::{gain, natural, robust, spectrum, stationarity};
use crate::maximize::error::MaximizeError;
use crate::maximize::image8::Image8;
use crate::maximize::model_runner::ModelRunner;
use crate::maximize::outcome::Outcome;
use crate::maximize::parameterization::fft::Ffts;
use crate::maximize::task::Task;

/// Adds diagnostics to outcomes, all in one batch. If `should_stop(task)` holds for all of them, all outcomes become
/// `None`.
///
/// # Errors
/// When the network cannot run.
pub(in crate::maximize) fn add_diagnostics(
    model_runner: &mut ModelRunner<'_>,
    tasks: &[Task],
    outcomes: &mut [Option<Outcome>],
    should_stop: &mut dyn FnMut(usize) -> bool,
) -> Result<(), MaximizeError> {
    let (indices, found): (Vec<usize>, Vec<&mut Outcome>) =
        outcomes.iter_mut().enumerate().filter_map(|(i, outcome)| Some((i, outcome.as_mut()?))).unzip();
    if found.is_empty() {
        return Ok(());
    }
    let (model, [channels, height, width]) = (model_runner.model, model_runner.image_shape);
    let all_stopped = &mut || indices.iter().all(|&i| should_stop(i));
    let images =
        found.iter().map(|outcome| Image8::read(&outcome.png, channels).map(|levels| levels.values_by_channel()));
    let images = images.collect::<Result<Vec<_>, _>>()?;
    let size = [height, width];
    let mut evaluator = Evaluator::new(model_runner, indices.iter().map(|&i| &tasks[i]), all_stopped)?;
    let Some((gains, robust, first)) = measure(&mut evaluator, &images, size)? else {
        outcomes.iter_mut().for_each(|outcome| *outcome = None);
        return Ok(());
    };
    let (passes, ffts) = (evaluator.passes(), Ffts::new(size));
    let measured = gains.into_iter().zip(robust).zip(first.gradients).zip(&images);
    for ((((&i, outcome), (((gain_50, robust), gradient), image)), score), passes) in
        indices.iter().zip(found).zip(measured).zip(first.scores).zip(passes)
    {
        let [high_frequency_share, high_frequency_share_grey] = spectrum::high_frequency_shares(image, size, &ffts);
        let natural = natural::maximum(model, &tasks[i].objective, size);
        outcome.findings.diagnostics = Some(Diagnostics {
            stationarity: stationarity::stationarity(image, &gradient, score),
            gain_50,
            robust,
            high_frequency_share,
            high_frequency_share_grey,
            spectral_excess: spectrum::spectral_excess(image, size, &ffts),
            natural_maximum: natural.ok(),
            percent_of_natural: natural.ok().and_then(|natural| natural::percent(outcome.findings.score, natural)),
            natural_missing: natural.err(),
            judges: Vec::new(),
            passes,
        });
    }
    Ok(())
}

/// Measurements of every image.
type Measured = (Vec<Gain>, Vec<Robust>, Gradients);

/// Measures everything that needs passes; `None` when stopped.
fn measure(
    evaluator: &mut Evaluator<'_, '_>,
    images: &[Vec<f64>],
    size: [usize; 2],
) -> Result<Option<Measured>, MaximizeError> {
    let first = evaluator.gradients(images)?;
    let Some(gains) = gain::gains(evaluator, images, &first)? else { return Ok(None) };
    let Some(robust) = robust::robust(evaluator, images, &first.scores, size)? else { return Ok(None) };
    Ok(Some((gains, robust, first)))
}
