//! Calibration: statistics of a model's units on natural images, which maxima are compared with.
//!
//! A calibration is measured once per model, on a folder of images, and stored with the model. It is valid for exactly
//! the weights that it was measured with, at the model's own input size.

mod file;
mod patch;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

pub use file::CalibrationError;
pub use patch::{Patch, cut};

use super::unit::{Reduction, Selection, Unit};

/// Statistics of the units of a model over a folder of natural images.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// Digest of the model that was measured.
    pub digest: String,
    /// Height and width of the images as the network read them: the model's input size.
    pub size: [usize; 2],
    /// Number of images.
    pub images: usize,
    /// Paths, relative to their folder, of the images among the top images of some unit. Only these are stored.
    pub kept: Vec<String>,
    /// Records by layer name.
    pub layers: BTreeMap<String, LayerRecord>,
    /// The folder that it was read from, which holds the kept images; `None` if it was not read from one.
    pub folder: Option<PathBuf>,
}

/// Statistics of one layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerRecord {
    /// One per channel, or per neuron of a `[K]` layer.
    pub units: Vec<UnitRecord>,
    /// Statistics of the mean of the layer's squared values.
    pub energy: Statistics,
}

/// Statistics of one unit. Values that are not finite are ignored.
#[derive(Debug, Clone, PartialEq)]
pub struct UnitRecord {
    /// Statistics of the channel's mean over its positions.
    pub mean: Statistics,
    /// Statistics of its value at row `H/2`, column `W/2`.
    pub center: Statistics,
    /// Statistics of its largest value.
    pub max: Statistics,
    /// The images with the largest values, in descending order; ties are in the order of the images.
    pub top: Vec<TopImage>,
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
    /// Standard deviation (divided by the number of images).
    pub std: f32,
}

/// One of the images that activate a unit most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TopImage {
    /// Index among the [kept](Calibration::kept) images.
    pub image: usize,
    /// The largest value of the unit's channel on it.
    pub score: f32,
    /// Index of the position with this value, in row-major order.
    pub position_index: usize,
}

/// Why a calibration has no statistics of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unmeasured {
    /// The layer was not measured.
    Layer,
    /// This kind of selection is never measured, such as a single neuron, a top fraction or a direction.
    Selection,
}

impl Calibration {
    /// Name of the calibration folder in the model's folder.
    pub const FOLDER: &str = "calibration";

    /// Name of the file in the calibration folder that is written last.
    pub const INDEX: &str = file::INDEX;

    /// Statistics of a unit with its own reduction.
    ///
    /// # Errors
    /// When the unit was not measured.
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
            Selection::Class { .. }
            | Selection::Neuron { .. }
            | Selection::Direction { .. }
            | Selection::Caricature { .. }
            | Selection::Inversion { .. } => Err(Unmeasured::Selection),
        }
    }

    /// Path of a [kept](Calibration::kept) image in the calibration folder: a PNG of the [input
    /// size](Calibration::size).
    pub fn image_file(image: usize) -> String {
        format!("images/{image:06}.png")
    }

    /// The PNG of a [kept](Calibration::kept) image.
    ///
    /// # Errors
    /// When the file cannot be read, or the calibration was not read from a folder.
    pub fn image(&self, image: usize) -> io::Result<Vec<u8>> {
        let folder = self.folder.as_ref().ok_or(io::ErrorKind::NotFound)?;
        std::fs::read(folder.join(Self::image_file(image)))
    }

    /// Reads a calibration from its folder.
    ///
    /// # Errors
    /// When a file cannot be read or is damaged.
    pub fn read(folder: &Path) -> Result<Self, CalibrationError> {
        file::read(folder)
    }

    /// Writes everything except the images into an existing folder.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), CalibrationError> {
        file::write(self, folder)
    }
}
