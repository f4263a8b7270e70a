//! Calibration: what a folder of natural images does to the units of a model.
//!
//! Every image is scaled until it just covers the network's input, its middle is cut out, and the network runs forward
//! once. Of all layers only running statistics and the best images of each unit are kept, so memory does not grow with
//! the number of images, and results depend neither on batches nor on threads.

mod budget;
mod folder;
mod photo;
mod record;

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

pub use folder::images_in;

use self::photo::Photo;
use self::record::LayerRun;
use crate::Invalid;
use crate::engine::{Engine, EngineError, Forward, Target};
use crate::network::calibration::{Calibration, CalibrationError};
use crate::network::catalog::ModelError;
use crate::network::{Model, Network, NodeId};

/// What to measure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Names of the layers; all of them when empty.
    pub layers: Vec<String>,
    /// How many images are kept for each unit.
    pub top: usize,
}

/// Most images kept for each unit.
pub const MOST_TOP: usize = 100;
/// Most images of a batch.
const MOST_IMAGES: usize = 16;
/// Most values of all measured layers that a batch may have, unless one image alone has more: 256 MiB in f32.
const MOST_VALUES: usize = 64 << 20;

/// Most bytes of memory that running a batch may take, unless one image alone takes more.
const MOST_MEMORY: u64 = 1 << 30;

impl Default for Options {
    fn default() -> Self {
        Self { layers: Vec::new(), top: 9 }
    }
}

/// Why a model was not calibrated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CalibrateError {
    /// An option does not fit the model, or no file is an image.
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
    /// An image that was read before cannot be read any more.
    #[error("{}: {why}; it was readable a moment ago", file.display())]
    Gone {
        /// The image.
        file: PathBuf,
        /// What is wrong with it now.
        why: String,
    },
}

impl From<candle_core::Error> for CalibrateError {
    fn from(error: candle_core::Error) -> Self {
        Self::Engine(error.into())
    }
}

/// A file that could not be read as an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The file, relative to its folder.
    pub file: PathBuf,
    /// Why.
    pub why: String,
}

/// What a calibration found.
#[derive(Debug)]
pub struct Calibrated {
    /// The result.
    pub calibration: Calibration,
    /// Files that were left out.
    pub skipped: Vec<Skipped>,
}

/// Shows the images `files`, paths relative to `root`, to the model. `watch` is told how many are done.
///
/// # Errors
/// When an option does not fit the model, no file is an image, or the network cannot run.
pub fn calibrate(
    engine: &dyn Engine,
    model: &Model,
    root: &Path,
    files: &[PathBuf],
    options: &Options,
    watch: &mut dyn FnMut(usize),
) -> Result<Calibrated, CalibrateError> {
    let network = &model.network;
    model.preprocessing.check(network.input_shape()[0])?;
    if !(1..=MOST_TOP).contains(&options.top) {
        let expected = format!("a whole number from 1 to {MOST_TOP}");
        return Err(Invalid::new("top", options.top, expected).into());
    }
    let ids = layers(network, &options.layers)?;
    let mut runs: Vec<LayerRun> = ids.iter().map(|&id| LayerRun::new(&network.node(id).shape, options.top)).collect();
    let mut plan = engine.plan(network, &Target::whole(&ids), network.input_shape())?;
    let values: usize = ids.iter().map(|&id| network.node(id).shape.elements()).sum();
    let footprint = engine.memory_model().footprint(network, &Target::whole(&ids), network.input_shape())?;
    let fits = |batch: usize| batch == 1 || footprint.bytes(batch, false) <= MOST_MEMORY;
    let mut batch = (MOST_VALUES / values.max(1)).clamp(1, MOST_IMAGES);
    while !fits(batch) {
        batch -= 1;
    }
    let size = [network.input_shape()[1], network.input_shape()[2]];
    let mut shown: Vec<&PathBuf> = Vec::new();
    let mut skipped = Vec::new();
    let mut done = 0;
    for files in files.chunks(batch) {
        let read = |file: &PathBuf| Photo::read(&root.join(file), size, model.preprocessing.channels);
        let photos: Vec<Result<Photo, String>> = files.par_iter().map(read).collect();
        let mut inputs = Vec::with_capacity(photos.len());
        for (file, photo) in files.iter().zip(photos) {
            match photo {
                Ok(photo) => {
                    shown.push(file);
                    inputs.push(photo.input(&model.preprocessing));
                }
                Err(why) => skipped.push(Skipped { file: file.clone(), why }),
            }
        }
        if !inputs.is_empty() {
            let shape = [&[inputs.len()], &network.input_shape()[..]].concat();
            let images = Tensor::from_vec(inputs.concat(), shape, &Device::Cpu)?;
            let images = images.to_dtype(engine.dtype())?.to_device(engine.device())?;
            let outputs = plan.forward(&images, Forward::Original)?;
            let first = shown.len() - inputs.len();
            for (run, output) in runs.iter_mut().zip(outputs) {
                let output = output.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?;
                run.show(first, &output.to_vec1()?);
            }
        }
        done += files.len();
        watch(done);
    }
    if shown.is_empty() {
        let found = format!("{} with {} files to read", root.display(), files.len());
        return Err(Invalid::new("images", found, "a folder with at least one readable PNG or JPEG").into());
    }
    let names = shown.iter().map(|file| file.to_string_lossy().into_owned()).collect();
    let layers = ids.iter().map(|&id| network.node(id).name.clone()).zip(runs).collect();
    let calibration = record::finish(model.digest.clone(), size, names, layers);
    Ok(Calibrated { calibration, skipped })
}

/// Writes a calibration into an empty folder, with the images that it keeps, which are read from `root` once more.
///
/// # Errors
/// When an image cannot be read any more or a file cannot be written.
pub fn write(calibration: &Calibration, model: &Model, root: &Path, folder: &Path) -> Result<(), CalibrateError> {
    let failed = |file: PathBuf| move |why| CalibrationError::File { file, why };
    let images = folder.join("images");
    std::fs::create_dir_all(&images).map_err(failed(images))?;
    let keep = |(i, name): (usize, &String)| -> Result<(), CalibrateError> {
        let file = root.join(name);
        let photo = Photo::read(&file, calibration.size, model.preprocessing.channels);
        let png = photo.and_then(|photo| photo.png()).map_err(|why| CalibrateError::Gone { file, why })?;
        let file = folder.join(Calibration::image_file(i));
        std::fs::write(&file, png).map_err(failed(file))?;
        Ok(())
    };
    calibration.kept.par_iter().enumerate().try_for_each(keep)?;
    Ok(calibration.write(folder)?)
}

/// The layers with these names, or all, in the order of the graph.
fn layers(network: &Network, names: &[String]) -> Result<Vec<NodeId>, Invalid> {
    let all: Vec<String> = network.layers().map(|layer| layer.name.to_owned()).collect();
    let names = if names.is_empty() { &all[..] } else { names };
    let find = |name: &String| network.layer(name).map_err(|e| Invalid { field: "layers".into(), ..e });
    let mut ids = names.iter().map(find).collect::<Result<Vec<_>, _>>()?;
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}
