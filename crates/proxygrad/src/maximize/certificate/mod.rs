//! Certificates of a maximum: measured behind a run, on the delivered images, with the original network and its true
//! gradient. [`Certificates`] defines every number.

mod bench;
mod document;
mod gain;
mod natural;
mod robust;
mod spectrum;
mod stationarity;

pub use document::{Certificates, Gain, NaturalMissing, Robust, Stationarity};

use self::bench::Bench;
use super::levels::Levels;
use super::outcome::{Observer, Outcome};
use super::parameterization::fft::Ffts;
use super::passes::Passes;
use super::run::{MaximizeError, Task};
use super::settings::Settings;
use crate::network::Model;

/// Root mean square of one default step, per pixel value of range [0, 1]. Part of the definition of the certificates: it
/// stays when defaults of the optimizers change.
const STEP: f64 = 0.005;

/// Adds certificates to outcomes if the settings ask for them, all in one batch. Should nobody want any of them any more, the outcomes are dropped.
///
/// # Errors
/// When the network cannot run.
pub(super) fn certify(
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
type Measured = (Vec<Gain>, Vec<Robust>, bench::Climb);

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
