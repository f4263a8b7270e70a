//! Model loading: from a manifest and weight files to a [`Model`].

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::builtin::EMBEDDED_WEIGHTS;
use super::discovery::{FilesStamp, FoundModel, Location};
use super::manifest::{Manifest, is_onnx};
use crate::network::checkpoint::Format;
use crate::network::onnx::ExternalData;
use crate::network::{ImageStatistics, Model, Network, Spectrum, onnx};

/// Largest weight file, and largest total of its external data files, in bytes.
pub(super) const MAX_BYTES: u64 = 8 << 30;
/// Largest spectrum file, in bytes.
const MAX_SPECTRUM_BYTES: u64 = 64 << 20;

/// A weight file, and the external data files of an ONNX file.
pub(super) struct Weights {
    pub(super) bytes: Cow<'static, [u8]>,
    pub(super) external: ExternalData,
}

impl Weights {
    /// SHA-256 of the weight file, lower-case hexadecimal. With external data it is the SHA-256 of the lines that
    /// `sha256sum` prints: the digest of the weight file and ` -`, then the digest and name of each other file, ordered
    /// by name.
    pub(super) fn digest(&self) -> String {
        let digest = |bytes: &[u8]| hex::encode(Sha256::digest(bytes));
        let own = digest(&self.bytes);
        if self.external.is_empty() {
            return own;
        }
        let others = self.external.files().map(|(name, content)| format!("{}  {name}\n", digest(content)));
        digest(format!("{own}  -\n{}", others.collect::<String>()).as_bytes())
    }
}

/// The files of a model, read into memory.
pub(super) struct ModelFiles {
    /// The weights, or which external data file cannot be used.
    weights: Result<Weights, String>,
    classes: Vec<String>,
    spectrum: Option<Arc<Spectrum>>,
    /// Stamp of the files when they were read.
    pub(super) stamp: FilesStamp,
}

impl ModelFiles {
    /// Reads the files of a local model. Fails with the name of the file that cannot be read.
    pub(super) fn read(found: &FoundModel) -> Result<Self, String> {
        let manifest = found.manifest.as_ref().map_err(Clone::clone)?;
        let mut stamp = found.stamp();
        let (weights, folder) = match &found.location {
            Location::Embedded => {
                let bytes = Cow::Borrowed(EMBEDDED_WEIGHTS);
                (Ok(Weights { bytes, external: ExternalData::default() }), Path::new(""))
            }
            Location::Folder(folder) => {
                let file = folder.join(&manifest.file);
                let bytes = read(&file).map_err(|e| format!("{}: {e}", manifest.file))?;
                let names = external_files(&manifest.file, &bytes).map_err(|e| format!("{}: {e}", manifest.file));
                let external = names.and_then(|names| {
                    stamp.add(folder, &names);
                    external(folder, names)
                });
                (external.map(|external| Weights { bytes: Cow::Owned(bytes), external }), folder.as_path())
            }
            Location::Index(_) => return Err("it is not downloaded".into()),
        };
        let classes = manifest.class_names(folder).map_err(|e| e.to_string())?;
        Ok(Self { weights, classes, spectrum: spectrum(manifest, folder)?, stamp })
    }

    /// Builds the model. Fails if the files do not fit their manifest.
    pub(super) fn assemble(self, found: &FoundModel) -> Result<Model, String> {
        let manifest = found.manifest.as_ref().map_err(Clone::clone)?;
        assemble(&found.id, manifest, &self.weights?, self.classes, self.spectrum)
    }
}

/// Reads a weight file.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_at_most(path, MAX_BYTES)
}

fn read_at_most(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("is larger than {most} bytes")));
    }
    Ok(bytes)
}

/// Names of the external data files of a weight file named `file`.
pub(super) fn external_files(file: &str, bytes: &[u8]) -> Result<BTreeSet<String>, onnx::ImportError> {
    if is_onnx(file) { onnx::external_files(bytes) } else { Ok(BTreeSet::new()) }
}

/// Reads the files `names` in `folder`. Refuses links to files elsewhere.
pub(super) fn external(folder: &Path, names: BTreeSet<String>) -> Result<ExternalData, String> {
    let mut external = ExternalData::default();
    for name in names {
        let left = MAX_BYTES.saturating_sub(external.len() as u64);
        let content = read_sibling(folder, &name, left);
        let content = content.map_err(|why| format!("{name}, where the weights of the network are stored: {why}"))?;
        external.insert(name, content);
    }
    Ok(external)
}

/// Reads a regular file directly inside `folder`.
fn read_sibling(folder: &Path, name: &str, most: u64) -> io::Result<Vec<u8>> {
    let refused = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why);
    // The parent of `net.onnx` is the empty path.
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder }.canonicalize()?;
    let file = folder.join(name).canonicalize()?;
    if file.parent() != Some(&folder) {
        return Err(refused("is a link to a file outside of the model's folder; copy the file itself there"));
    }
    if !std::fs::metadata(&file)?.is_file() {
        return Err(refused("is not a file"));
    }
    read_at_most(&file, most)
}

/// Reads the spectrum in `folder` that a manifest names; `None` if it names none.
pub(super) fn spectrum(manifest: &Manifest, folder: &Path) -> Result<Option<Arc<Spectrum>>, String> {
    let Some(file) = &manifest.spectrum else { return Ok(None) };
    let read = || {
        let mut bytes = Vec::new();
        File::open(folder.join(file))?.take(MAX_SPECTRUM_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|e: io::Error| format!("{file}: {e}"))?;
    Spectrum::parse(&bytes).map(|spectrum| Some(Arc::new(spectrum))).map_err(|why| format!("{file}: {why}"))
}

/// Builds a model from its weights. Fails if they do not fit the manifest.
pub(super) fn assemble(
    id: &str,
    manifest: &Manifest,
    weights: &Weights,
    classes: Vec<String>,
    spectrum: Option<Arc<Spectrum>>,
) -> Result<Model, String> {
    let file = &manifest.file;
    let (digest, bytes) = (weights.digest(), &*weights.bytes);
    if let Some(expected) = manifest.digest.as_ref().filter(|&expected| *expected != digest) {
        return Err(format!("{file}: SHA-256 is {digest}; expected {expected}"));
    }
    let network = match manifest.architecture().map_err(|e| e.to_string())? {
        Some(architecture) => {
            let state = Format::from_file_name(file)
                .and_then(|format| format.read(bytes))
                .map_err(|e| format!("{file}: {e}"))?;
            architecture.build(&state).map_err(|e| e.to_string())?
        }
        None => {
            let options = onnx::ImportOptions { input: Some(manifest.input), constants: manifest.constants.clone() };
            onnx::import_with(bytes, &weights.external, &options).map_err(|e| e.to_string())?.network
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
    let statistics = ImageStatistics { colour, spectrum };
    let (network, calibration) = (Arc::new(network), None);
    Ok(Model { id: id.into(), digest, network, preprocessing, classes, statistics, calibration })
}

/// Checks that there are no class names, or one per value of an output.
pub(super) fn check_classes(network: &Network, classes: &[String]) -> Result<(), String> {
    let outputs: Vec<usize> = network.outputs().iter().map(|&id| network.node(id).shape.elements()).collect();
    if classes.is_empty() || outputs.contains(&classes.len()) {
        return Ok(());
    }
    let outputs: Vec<String> = outputs.iter().map(usize::to_string).collect();
    let remark = match classes.iter().position(String::is_empty) {
        Some(empty) => format!("name {empty} is empty"),
        None => format!("name 0 is {:?}", classes[0].chars().take(40).collect::<String>()),
    };
    Err(format!("classes: {} names for an output of {} values; {remark}", classes.len(), outputs.join(" or ")))
}
