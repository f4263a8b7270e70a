//! Calibration: measures the statistics of a model's units on a folder of natural images.
//!
//! Every image is scaled to cover the network's input and center-cropped, and the network runs forward once. Only
//! running statistics and the top images of each unit are kept, so memory does not grow with the number of images, and
//! results depend neither on batches nor on threads.

mod accumulator;
mod folder;
mod measurement;
mod memory_budget;
mod natural_image;

use std::path::{Path, PathBuf};

use rayon::prelude::*;

pub use folder::images_in;

pub(crate) use self::measurement::Measurement;
pub(crate) use self::natural_image::NaturalImage;
use crate::Invalid;
use crate::engine::{Engine, EngineError};
use crate::network::calibration::{Calibration, CalibrationError};
use crate::network::catalog::ModelError;
use crate::network::{Model, Network, NodeId};

/// Options of a calibration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Names of the layers to measure; all if empty.
    pub layers: Vec<String>,
    /// Number of top images per unit.
    pub top: usize,
}

/// Largest [`Options::top`].
pub const MAX_TOP: usize = 100;
impl Default for Options {
    fn default() -> Self {
        Self { layers: Vec::new(), top: 9 }
    }
}

/// Why a model was not calibrated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CalibrateError {
    /// An option does not fit the model, or no file is a readable image.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The network could not be run.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The result could not be written.
    #[error(transparent)]
    Write(#[from] CalibrationError),
    /// The model's folder cannot be changed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// An image that was measured can no longer be read.
    #[error("{}: can no longer be read: {why}", file.display())]
    Gone {
        /// The image.
        file: PathBuf,
        /// The reason.
        why: String,
    },
}

/// A file that could not be read as an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The file, relative to its folder.
    pub file: PathBuf,
    /// The reason.
    pub why: String,
}

/// Result of [`calibrate`].
#[derive(Debug)]
pub struct Calibrated {
    /// The calibration.
    pub calibration: Calibration,
    /// Files that were skipped.
    pub skipped: Vec<Skipped>,
}

/// Measures the model on the images `files`, given as paths relative to `root`. Calls `progress` with the number of
/// files done.
///
/// # Errors
/// When an option does not fit the model, no file is a readable image, or the network cannot run.
pub fn calibrate(
    engine: &dyn Engine,
    model: &Model,
    root: &Path,
    files: &[PathBuf],
    options: &Options,
    progress: &mut dyn FnMut(usize),
) -> Result<Calibrated, CalibrateError> {
    let network = &model.network;
    model.preprocessing.check(network.input_shape()[0])?;
    if !(1..=MAX_TOP).contains(&options.top) {
        let expected = format!("a whole number from 1 to {MAX_TOP}");
        return Err(Invalid::new("top", options.top, expected).into());
    }
    let ids = layers(network, &options.layers)?;
    let mut measurement = Measurement::new(engine, model, &ids, options.top)?;
    let size = [network.input_shape()[1], network.input_shape()[2]];
    let mut measured: Vec<&PathBuf> = Vec::new();
    let mut skipped = Vec::new();
    let mut done = 0;
    for files in files.chunks(measurement.batch()) {
        let read = |file: &PathBuf| NaturalImage::read(&root.join(file), size, model.preprocessing.channels);
        let images: Vec<Result<NaturalImage, String>> = files.par_iter().map(read).collect();
        let mut inputs = Vec::with_capacity(images.len());
        for (file, image) in files.iter().zip(images) {
            match image {
                Ok(image) => {
                    measured.push(file);
                    inputs.push(image.input(&model.preprocessing));
                }
                Err(why) => skipped.push(Skipped { file: file.clone(), why }),
            }
        }
        measurement.add(&inputs)?;
        done += files.len();
        progress(done);
    }
    if measured.is_empty() {
        let found = format!("{} with {} files to read", root.display(), files.len());
        return Err(Invalid::new("images", found, "a folder with at least one readable PNG or JPEG").into());
    }
    let names = measured.iter().map(|file| file.to_string_lossy().into_owned()).collect();
    Ok(Calibrated { calibration: measurement.finish(names), skipped })
}

/// Writes a calibration with its kept images into an empty folder; the images are read from `root` again.
///
/// # Errors
/// When an image can no longer be read or a file cannot be written.
pub fn write(calibration: &Calibration, model: &Model, root: &Path, folder: &Path) -> Result<(), CalibrateError> {
    let failed = |file: PathBuf| move |why| CalibrationError::File { file, why };
    let images = folder.join("images");
    std::fs::create_dir_all(&images).map_err(failed(images))?;
    let keep = |(i, name): (usize, &String)| -> Result<(), CalibrateError> {
        let file = root.join(name);
        let image = NaturalImage::read(&file, calibration.size, model.preprocessing.channels);
        let png = image.and_then(|image| image.png()).map_err(|why| CalibrateError::Gone { file, why })?;
        let file = folder.join(Calibration::image_file(i));
        std::fs::write(&file, png).map_err(failed(file))?;
        Ok(())
    };
    calibration.kept.par_iter().enumerate().try_for_each(keep)?;
    Ok(calibration.write(folder)?)
}

/// The layers with these names, or all layers, in the order of the graph.
fn layers(network: &Network, names: &[String]) -> Result<Vec<NodeId>, Invalid> {
    let all: Vec<String> = network.layers().map(|layer| layer.name.to_owned()).collect();
    let names = if names.is_empty() { &all[..] } else { names };
    let find = |name: &String| network.layer(name).map_err(|e| Invalid { field: "layers".into(), ..e });
    let mut ids = names.iter().map(find).collect::<Result<Vec<_>, _>>()?;
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}
