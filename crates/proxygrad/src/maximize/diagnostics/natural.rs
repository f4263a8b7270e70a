//! Natural maximum: the largest value on the images of the calibration.

use super::document::{NaturalMissing, finite};
use crate::maximize::objective::Objective;
use crate::network::Model;
use crate::network::calibration::Unmeasured;

/// The objective's largest value on the images that the model was calibrated with, for stimuli of this height and
/// width.
pub(super) fn maximum(model: &Model, objective: &Objective, size: [usize; 2]) -> Result<f32, NaturalMissing> {
    let calibration = model.calibration.as_ref().ok_or(NaturalMissing::NotCalibrated)?;
    let [term] = objective.terms.as_slice() else { return Err(NaturalMissing::Sum) };
    if calibration.size != size {
        return Err(NaturalMissing::OtherSize);
    }
    let statistics = calibration.statistics(&term.unit).map_err(|unmeasured| match unmeasured {
        Unmeasured::Layer => NaturalMissing::LayerLeftOut,
        Unmeasured::Selection => NaturalMissing::Selection,
    })?;
    // A negative weight minimizes the unit.
    Ok(term.weight * if term.weight < 0.0 { statistics.min } else { statistics.max })
}

/// A score in percent of a natural maximum.
pub(super) fn percent(score: f32, natural: f32) -> Option<f32> {
    if natural > 0.0 { finite(100.0 * f64::from(score) / f64::from(natural)) } else { None }
}
