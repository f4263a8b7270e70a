//! What of a stimulus can be compared with natural images without running a network.

use super::natural;
use super::spectrum::spectral_excess;
use crate::maximize::image8::Image8;
use crate::maximize::objective::Objective;
use crate::maximize::outcome::Outcome;
use crate::maximize::parameterization::fft::Ffts;
use crate::network::Model;

/// Comparison of a stimulus with natural images.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Naturalness {
    /// The score in percent of the objective's largest value on the images that the model was calibrated with; `None`
    /// without one, or if it is not positive.
    pub percent_of_natural: Option<f32>,
    /// Share of the spectral energy that lies at higher frequencies than in natural images; see
    /// [`Diagnostics::spectral_excess`](super::Diagnostics::spectral_excess).
    pub spectral_excess: Option<f32>,
}

impl Naturalness {
    /// Measures the outcome of this objective.
    ///
    /// # Errors
    /// When its PNG cannot be read.
    pub fn measure(model: &Model, objective: &Objective, outcome: &Outcome) -> Result<Self, image::ImageError> {
        let image = Image8::read(&outcome.png, model.network.input_shape()[0])?;
        let size = [image.height, image.width];
        let natural = natural::maximum(model, objective, size).ok();
        Ok(Self {
            percent_of_natural: natural.and_then(|natural| natural::percent(outcome.findings.score, natural)),
            spectral_excess: spectral_excess(&image.values_by_channel(), size, &Ffts::new(size)),
        })
    }
}
