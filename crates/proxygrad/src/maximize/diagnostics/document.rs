//! Diagnostics documents.

use serde::{Deserialize, Serialize};
#[cfg(feature = "openapi")]
use utoipa::ToSchema;

use crate::judge::Verdict;
use crate::maximize::transform::Transform;

/// Root mean square of one default step, per pixel value of range [0, 1]. Part of the definition of the diagnostics:
/// independent of changes to the optimizers' defaults.
pub(super) const STEP: f64 = 0.005;

/// Diagnostics of a maximum: stationarity under plain gradient ascent, robustness to transforms, share of high spatial
/// frequencies, and comparison with natural images.
///
/// Everything is measured on the delivered 8-bit PNG with the original network and its true gradient, and does not
/// depend on the run's gate, optimizer, transforms or seed. A number is null where it is undefined: where a value is
/// not finite, or for shares of a score that is not positive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct Diagnostics {
    /// Distance of the image to stationarity.
    pub stationarity: Stationarity,
    /// Gain of 50 more plain steps.
    pub gain_50: Gain,
    /// Scores of 64 transformed images.
    pub robust: Robust,
    /// Share of the spectral energy of all colour channels, without their means, at spatial frequencies above a quarter
    /// of the sampling rate: 0 for a smooth image, 1 for a checkerboard. Null for an image of one colour.
    ///
    /// The mean is subtracted and a Hann window `sin^2(pi (i + 1/2) / n)` applied along both axes; the frequency of a
    /// coefficient is `sqrt(fx^2 + fy^2)` in cycles a pixel.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub high_frequency_share: Option<f32>,
    /// The same share for the image's brightness, `0.2126 R + 0.7152 G + 0.0722 B` of the pixel values.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub high_frequency_share_grey: Option<f32>,
    /// Share of the brightness' spectral energy that lies at higher frequencies than in natural images, whose power
    /// falls with the square of the frequency: the largest difference, over all frequencies, between the shares of the
    /// energy above it. 0 for an image as smooth as a photograph or smoother, nearly 1 for a checkerboard. Null for an
    /// image of one colour.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(required))]
    pub spectral_excess: Option<f32>,
    /// The objective's largest value on the natural images that the model was calibrated with.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub natural_maximum: Option<f32>,
    /// The score in percent of the natural maximum, when that is positive.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub percent_of_natural: Option<f32>,
    /// Why the natural maximum is unknown; null if it is known.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub natural_missing: Option<NaturalMissing>,
    /// What the judges see, in their order; absent without judges.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(required = false))]
    pub judges: Vec<Verdict>,
    /// Forward and backward passes spent on the diagnostics, without those of judges; the stimulus' own `passes` do not count them.
    pub passes: u32,
}

/// Distance of an image `x` in [0, 1] to stationarity. `g` is the true gradient of the score with respect to `x`, and
/// `clip` keeps pixel values in [0, 1]. All four are 0 exactly where no admissible direction has a first-order gain,
/// and where the gradient is zero.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct Stationarity {
    /// `||x - clip(x + g)||`, Euclidean: the projected gradient. It has the score's unit, so only images of one
    /// objective are comparable.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub projected_gradient: Option<f32>,
    /// `||x - clip(x + d)|| / ||d||` with `d` along `g` and of root mean square 0.005, one default step: the share of a
    /// step that remains within the pixel range, from 0 (every pixel that would move is at its limit) to 1.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub free_share: Option<f32>,
    /// `<g, clip(x + d) - x> / |score|`: first-order gain of that step, relative to the score.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub step_gain: Option<f32>,
    /// `max <g, y - x> / |score|` over all images `y`: upper bound on the first-order gain of any image, relative to
    /// the score. For a concave score no image gains more (the duality gap of Jaggi, ICML 2013, section 2).
    #[cfg_attr(feature = "openapi", schema(required))]
    pub gain_bound: Option<f32>,
}

/// Gain of 50 more steps of plain gradient ascent: `x = clip(x + lr g / |g|)` with steps of root mean square
/// `0.005 (1 + cos(pi t / 50)) / 2`, `t` = 0, 1, ... 49, from the delivered image; pixel values are not rounded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct Gain {
    /// Best of the 51 scores minus the first; never negative.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub absolute: Option<f32>,
    /// `absolute`, relative to the magnitude of the first score.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub relative: Option<f32>,
    /// Number of steps after which the best score was reached.
    pub best_step: u32,
}

/// Scores of 64 random views of the image. The views are the same for all stimuli of one size, regardless of the seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct Robust {
    /// Transforms, in this order; the jitter is proportional to the image size (8 pixels at 224).
    pub transforms: Vec<Transform>,
    /// Number of views.
    pub views: u32,
    /// Mean of their scores.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub mean: Option<f32>,
    /// Their 10th percentile: the 7th smallest of 64.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub p10: Option<f32>,
    /// Minimum of their scores.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub min: Option<f32>,
    /// The mean, relative to the score of the untransformed image.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub mean_share: Option<f32>,
    /// The 10th percentile, relative to that score.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub p10_share: Option<f32>,
    /// The minimum, relative to that score.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub min_share: Option<f32>,
}

/// Why the natural maximum is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum NaturalMissing {
    /// The model was not calibrated with these weights; run `proxygrad models calibrate`.
    NotCalibrated,
    /// The calibration does not include this layer.
    LayerLeftOut,
    /// The objective is a sum, whose maximum does not follow from those of its units.
    Sum,
    /// The calibration does not measure this selection: a single neuron, a share of the largest values, or a direction.
    Selection,
    /// The stimulus and the images of the calibration have different sizes.
    OtherSize,
}

impl NaturalMissing {
    /// The reason as a phrase.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::NotCalibrated => "the model is not calibrated",
            Self::LayerLeftOut => "the calibration left this layer out",
            Self::Sum => "the objective is a sum",
            Self::Selection => "a calibration measures only whole layers and channels by mean, center and max",
            Self::OtherSize => "the calibration was made at another size",
        }
    }
}

/// The number as f32; `None` if it is not finite.
pub(super) fn finite(x: f64) -> Option<f32> {
    Some(x as f32).filter(|x| x.is_finite())
}
