//! From a manifest and the bytes of a weight file to a model.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::embedded;
use super::manifest::Manifest;
use super::survey::{Found, Place};
use crate::network::checkpoint::Format;
use crate::network::{Model, Network, Spectrum, Statistics, onnx};

/// Largest weight file.
const LARGEST: u64 = 8 << 30;
/// Largest file with a spectrum.
const LARGEST_SPECTRUM: u64 = 64 << 20;

/// The files of a model.
pub(super) struct Files {
    weights: Cow<'static, [u8]>,
    classes: Vec<String>,
    spectrum: Option<Arc<Spectrum>>,
}

impl Files {
    /// Reads the files of a model that is here, or says which one cannot be read.
    pub(super) fn read(found: &Found) -> Result<Self, String> {
        let manifest = found.manifest.as_ref().map_err(Clone::clone)?;
        let (weights, folder) = match &found.place {
            Place::Embedded => (Cow::Borrowed(embedded::WEIGHTS), Path::new("")),
            Place::Folder(folder) => {
                let weights = read(&folder.join(&manifest.file)).map_err(|e| format!("{}: {e}", manifest.file))?;
                (Cow::Owned(weights), folder.as_path())
            }
            Place::Index(_) => return Err("its files are not here".into()),
        };
        let classes = manifest.class_names(folder).map_err(|e| e.to_string())?;
        Ok(Self { weights, classes, spectrum: spectrum(manifest, folder)? })
    }

    /// Makes a model of them, or says why they do not fit their manifest.
    pub(super) fn assemble(self, found: &Found) -> Result<Model, String> {
        let manifest = found.manifest.as_ref().map_err(Clone::clone)?;
        assemble(&found.id, manifest, &self.weights, self.classes, self.spectrum)
    }
}

/// Reads a weight file.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("is larger than {LARGEST} bytes")));
    }
    Ok(bytes)
}

/// Reads the spectrum in `folder` that a manifest names, if it names one.
pub(super) fn spectrum(manifest: &Manifest, folder: &Path) -> Result<Option<Arc<Spectrum>>, String> {
    let Some(file) = &manifest.spectrum else { return Ok(None) };
    let read = || {
        let mut bytes = Vec::new();
        File::open(folder.join(file))?.take(LARGEST_SPECTRUM).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|e: io::Error| format!("{file}: {e}"))?;
    Spectrum::parse(&bytes).map(|spectrum| Some(Arc::new(spectrum))).map_err(|why| format!("{file}: {why}"))
}

/// Makes a model of a weight file's bytes, or says why they do not fit their manifest.
pub(super) fn assemble(
    id: &str,
    manifest: &Manifest,
    bytes: &[u8],
    classes: Vec<String>,
    spectrum: Option<Arc<Spectrum>>,
) -> Result<Model, String> {
    let file = &manifest.file;
    let digest = hex::encode(Sha256::digest(bytes));
    if let Some(expected) = manifest.digest.as_ref().filter(|&expected| *expected != digest) {
        return Err(format!("{file}: SHA-256 is {digest}; expected {expected}"));
    }
    let network = match manifest.architecture().map_err(|e| e.to_string())? {
        Some(architecture) => {
            let state = Format::of(file).and_then(|format| format.read(bytes)).map_err(|e| format!("{file}: {e}"))?;
            architecture.build(&state).map_err(|e| e.to_string())?
        }
        None => {
            let options = onnx::ImportOptions { input: Some(manifest.input) };
            onnx::import_with(bytes, &options).map_err(|e| format!("{file}: {e}"))?.network
        }
    };
    if network.input_shape()[..] != manifest.input {
        return Err(format!("input: {:?} is not the input {} of {file}", manifest.input, network.input_shape()));
    }
    check_classes(&network, &classes)?;
    let channels = manifest.input[0];
    if let Some(found) = spectrum.as_ref().map(|spectrum| spectrum.channels()).filter(|&found| found != channels) {
        return Err(format!("spectrum: {found} channels for images of {channels}"));
    }
    let colour = manifest.colour.as_ref().map(|colour| colour.resolve(channels)).transpose();
    let colour = colour.map_err(|invalid| invalid.within("colour").to_string())?;
    let preprocessing = manifest.preprocessing.clone();
    let statistics = Statistics { colour, spectrum };
    let (network, calibration) = (Arc::new(network), None);
    Ok(Model { id: id.into(), digest, network, preprocessing, classes, statistics, calibration })
}

/// There are no names, or as many as one of the outputs has values.
fn check_classes(network: &Network, classes: &[String]) -> Result<(), String> {
    let outputs: Vec<usize> = network.outputs().iter().map(|&id| network.node(id).shape.elements()).collect();
    if classes.is_empty() || outputs.contains(&classes.len()) {
        return Ok(());
    }
    let outputs: Vec<String> = outputs.iter().map(usize::to_string).collect();
    Err(format!("classes: {} names for an output of {} values", classes.len(), outputs.join(" or ")))
}
