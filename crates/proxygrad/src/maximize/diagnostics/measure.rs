//! Certificates of a maximum: measured behind a run, on the delivered images, with the original network and its true
//! gradient. [`Certificates`] defines every number.

use super::document::{Certificates, Gain, Robust};
use super::evaluator::{Bench, Climb};
use super::{gain, natural, robust, spectrum, stationarity};
use crate::maximize::callback::Observer;
use crate::maximize::error::MaximizeError;
use crate::maximize::image8::Levels;
use crate::maximize::model_runner::Passes;
use crate::maximize::outcome::Outcome;
use crate::maximize::parameterization::fft::Ffts;
use crate::maximize::request::Settings;
use crate::maximize::task::Task;
use crate::network::Model;

/// Adds certificates to outcomes if the settings ask for them, all in one batch. Should nobody want any of them any more, the outcomes are dropped.
///
/// # Errors
/// When the network cannot run.
pub(in crate::maximize) fn certify(
    passes: &mut Passes<'_>,
    model: &Model,
    tasks: &[Task],
    settings: &Settings,
    outcomes: &mut [Option<Outcome>],
    observer: &mut dyn Observer,
) -> Result<(), MaximizeError> {
    let (indices, found): (Vec<usize>, Vec<&mut Outcome>) =
        outcomes.iter_mut().enumerate().filter_map(|(i, outcome)| Some((i, outcome.as_mut()?))).unzip();
    if found.is_empty() || !settings.certificates {
        return Ok(());
    }
    let channels = passes.image[0];
    let wanted = &mut || indices.iter().any(|&i| observer.wants(i));
    let images =
        found.iter().map(|outcome| Levels::read(&outcome.png, channels).map(|levels| levels.values_by_channel()));
    let images = images.collect::<Result<Vec<_>, _>>()?;
    let size = [passes.image[1], passes.image[2]];
    let mut bench = Bench::new(passes, tasks, &indices, wanted)?;
    let Some((gains, robust, first)) = measure(&mut bench, &images, size)? else {
        outcomes.iter_mut().for_each(|outcome| *outcome = None);
        return Ok(());
    };
    let (passes, ffts) = (bench.passes(), Ffts::new(size));
    let measured = gains.into_iter().zip(robust).zip(first.gradients).zip(&images);
    for ((((&i, outcome), (((gain_50, robust), gradient), image)), score), passes) in
        indices.iter().zip(found).zip(measured).zip(first.scores).zip(passes)
    {
        let [high_frequency_share, high_frequency_share_grey] = spectrum::high_frequency_shares(image, size, &ffts);
        let natural = natural::maximum(model, &tasks[i].objective, size);
        outcome.findings.certificates = Some(Certificates {
            stationarity: stationarity::stationarity(image, &gradient, score),
            gain_50,
            robust,
            high_frequency_share,
            high_frequency_share_grey,
            natural_maximum: natural.ok(),
            percent_of_natural: natural.ok().and_then(|natural| natural::percent(outcome.findings.score, natural)),
            natural_missing: natural.err(),
            passes,
        });
    }
    Ok(())
}

/// What was measured of every image.
type Measured = (Vec<Gain>, Vec<Robust>, Climb);

/// What needs passes; nothing when it is no longer wanted.
fn measure(
    bench: &mut Bench<'_, '_>,
    images: &[Vec<f64>],
    size: [usize; 2],
) -> Result<Option<Measured>, MaximizeError> {
    let first = bench.climb(images)?;
    let Some(gains) = gain::gains(bench, images, &first)? else { return Ok(None) };
    let Some(robust) = robust::robust(bench, images, &first.scores, size)? else { return Ok(None) };
    Ok(Some((gains, robust, first)))
}
