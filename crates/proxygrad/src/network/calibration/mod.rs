//! What natural images do to the units of a model: the yardstick for maxima.
//!
//! A calibration is measured once per model, on a folder of images, and kept with the model. It is good for exactly the
//! weights that it was measured with, and for the model's own input size.

mod file;
mod patch;

use std::collections::BTreeMap;
use std::path::Path;

pub use file::CalibrationError;
pub use patch::{Patch, cut};

use super::unit::{Reduction, Selection, Unit};

/// What a folder of natural images did to the units of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// SHA-256 of the weight file that was measured, lower-case hexadecimal.
    pub digest: String,
    /// Height and width of the images as the network saw them: the model's own input size.
    pub size: [usize; 2],
    /// How many images were shown.
    pub images: usize,
    /// Names of the images that excite some unit most, relative to their folder. Only these are kept.
    pub kept: Vec<String>,
    /// What was measured, by name of the layer.
    pub layers: BTreeMap<String, LayerRecord>,
}

/// What was measured of one layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerRecord {
    /// One per channel, or per neuron of a `[K]` layer.
    pub units: Vec<UnitRecord>,
    /// Of the mean of the layer's squared values.
    pub energy: Statistics,
}

/// What was measured of one unit. Values that are not finite do not count.
#[derive(Debug, Clone, PartialEq)]
pub struct UnitRecord {
    /// Of the channel's mean over its positions.
    pub mean: Statistics,
    /// Of its value at row `H/2`, column `W/2`.
    pub center: Statistics,
    /// Of its largest value.
    pub max: Statistics,
    /// The images that reach the largest values, the first of equal ones first.
    pub top: Vec<Exciting>,
}

/// Statistics over images.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Statistics {
    /// Smallest value.
    pub min: f32,
    /// Largest value: the natural maximum.
    pub max: f32,
    /// Arithmetic mean.
    pub mean: f32,
    /// Standard deviation of these images (their number in the divisor).
    pub std: f32,
}

/// An image that excites a unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Exciting {
    /// Index among the [kept](Calibration::kept) images.
    pub image: usize,
    /// The largest value of the unit's channel on it.
    pub score: f32,
    /// Which of the channel's positions has this value, in row-major order.
    pub place: usize,
}

/// Why a calibration tells nothing about a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unmeasured {
    /// The layer was left out.
    Layer,
    /// Nothing is measured for this selection: a single neuron, a share of the largest values, a direction.
    Selection,
}

impl Calibration {
    /// Name of the folder that holds a calibration, in the model's folder.
    pub const FOLDER: &str = "calibration";

    /// Name of the file that is written last, in a calibration's folder.
    pub const INDEX: &str = file::INDEX;

    /// What was measured of a unit under its own reduction.
    ///
    /// # Errors
    /// When that was not measured.
    pub fn statistics(&self, unit: &Unit) -> Result<Statistics, Unmeasured> {
        let layer = self.layers.get(&unit.layer).ok_or(Unmeasured::Layer)?;
        match &unit.selection {
            Selection::Channel { channel, reduction } => {
                let unit = layer.units.get(*channel).ok_or(Unmeasured::Layer)?;
                match reduction {
                    Reduction::Mean => Ok(unit.mean),
                    Reduction::Center => Ok(unit.center),
                    Reduction::Max => Ok(unit.max),
                    Reduction::TopFraction(_) => Err(Unmeasured::Selection),
                }
            }
            Selection::Energy => Ok(layer.energy),
            _ => Err(Unmeasured::Selection),
        }
    }

    /// The file of a [kept](Calibration::kept) image in the calibration's folder: a PNG of [the input's
    /// size](Calibration::size).
    pub fn image_file(image: usize) -> String {
        format!("images/{image:06}.png")
    }

    /// Reads a calibration from its folder.
    ///
    /// # Errors
    /// When a file cannot be read or does not hold what it should.
    pub fn read(folder: &Path) -> Result<Self, CalibrationError> {
        file::read(folder)
    }

    /// Writes everything but the images into an existing folder.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), CalibrationError> {
        file::write(self, folder)
    }
}
