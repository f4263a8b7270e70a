//! Adding a user's own network to the data directory.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::error::ModelError;
use super::id::{check_id, suggest_id};
use super::load::{self, Weights};
use super::manifest::{Classes, Manifest, is_onnx, names_in, read_text};
use super::model_dir::ModelLock;
use super::pull::write;
use crate::Invalid;
use crate::network::architecture::Architecture;
use crate::network::calibration::Calibration;
use crate::network::{ChannelOrder, Preprocessing, Spectrum, Unavailable, onnx};

/// Known facts about a network; omitted ones are taken from a manifest next to the file, or derived.
#[derive(Debug, Clone, Default)]
pub struct AddOptions {
    /// Key of the model; by default derived from the file's name.
    pub id: Option<String>,
    /// Height and width of the input, for files with dynamic input size.
    pub size: Option<[usize; 2]>,
    /// Order of the channels; by default RGB for three, grey for one.
    pub channels: Option<ChannelOrder>,
    /// Value of a white pixel before `mean` and `std`; by default 1.
    pub range: Option<f32>,
    /// Mean that is subtracted, one for all channels or one per channel; by default 0.
    pub mean: Option<Vec<f32>>,
    /// Standard deviation to divide by, one for all channels or one per channel; by default 1.
    pub std: Option<Vec<f32>>,
    /// A file with one class name per line.
    pub classes: Option<PathBuf>,
    /// One sentence.
    pub description: Option<String>,
    /// Licence of the weights.
    pub licence: Option<String>,
    /// Name of the architecture, for files that are not ONNX.
    pub architecture: Option<String>,
    /// Values of inputs besides the image, by name.
    pub constants: BTreeMap<String, f64>,
}

/// An assumed value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Assumption {
    /// Key in the manifest, and name of the option that sets it.
    pub field: &'static str,
    /// The assumed value.
    pub value: String,
    /// The reason for it.
    pub why: &'static str,
}

/// A validated network, ready to be installed in the data directory.
pub(super) struct PreparedModel {
    /// Its manifest, with an id.
    pub(super) manifest: Manifest,
    /// Assumed values.
    pub(super) assumed: Vec<Assumption>,
    /// The nodes of the file that have no layer.
    pub(super) unavailable: Vec<Unavailable>,
    weights: Weights,
    classes: Vec<String>,
    spectrum: Option<Arc<Spectrum>>,
}

/// Name of the file with the class names, next to the weights.
const CLASSES_FILE: &str = "classes.txt";
/// Name of the copy of an ONNX file.
const WEIGHTS_FILE: &str = "weights.onnx";
/// Name of the file with the spectrum, next to the weights.
const SPECTRUM_FILE: &str = "spectrum.safetensors";

/// Reads the weight file at `path` (or the one that the manifest in the folder `path` names), completes its manifest
/// and loads it once. Also returns the id.
pub(super) fn prepare(path: &Path, options: AddOptions) -> Result<(String, PreparedModel), ModelError> {
    let (file, given) = locate(path)?;
    let bytes = load::read(&file).map_err(ModelError::folder(&file))?;
    let mut assumed = Vec::new();
    let id = match options.id.clone().or_else(|| given.as_ref().and_then(|given| given.id.clone())) {
        Some(id) => id,
        None => {
            let id = suggest_id(&part(file.file_stem()));
            assumed.push(Assumption { field: "id", value: id.clone(), why: "the name of the file" });
            id
        }
    };
    check_id(&id)?;
    let broken = |why| ModelError::Broken { id: id.clone(), why };
    let folder = file.parent().unwrap_or(Path::new(""));
    let external = load::external_files(&part(file.file_name()), &bytes).map_err(|why| broken(why.to_string()))?;
    if let Some(name) = external.iter().find(|name| is_reserved(name)) {
        let why = format!("{name}, where its weights are stored, is a reserved file name; rename that file");
        return Err(broken(why));
    }
    let external = load::external(folder, external).map_err(broken)?;
    let weights = Weights { bytes: bytes.into(), external };
    let classes = classes(&file, given.as_ref(), &options, &mut assumed)?;
    let manifest = match given {
        Some(given) => given,
        None => derive(&id, &file, &weights, &options, &mut assumed)?,
    };
    let mut manifest = apply_options(manifest, options)?;
    manifest.id = Some(id.clone());
    manifest.digest = Some(weights.digest());
    manifest.classes = if classes.is_empty() { Classes::default() } else { Classes::File(CLASSES_FILE.into()) };
    manifest.check()?;
    let spectrum = load::spectrum(&manifest, folder).map_err(broken)?;
    let model = load::assemble(&id, &manifest, &weights, classes.clone(), spectrum.clone()).map_err(broken)?;
    // The copies get fixed names.
    manifest.file = format!("weights.{}", part(file.extension()).to_lowercase());
    manifest.spectrum = spectrum.is_some().then(|| SPECTRUM_FILE.into());
    manifest.check()?;
    let unavailable = model.network.unavailable().to_vec();
    Ok((id, PreparedModel { manifest, assumed, unavailable, weights, classes, spectrum }))
}

/// Whether a file or folder next to the copied weights has this name.
fn is_reserved(name: &str) -> bool {
    let reserved = [Manifest::FILE, CLASSES_FILE, SPECTRUM_FILE, Calibration::FOLDER, WEIGHTS_FILE];
    reserved.iter().any(|reserved| reserved.eq_ignore_ascii_case(name))
}

impl PreparedModel {
    /// Installs the network in the data directory.
    pub(super) fn install(&self, lock: &ModelLock<'_>) -> Result<(), ModelError> {
        let text = self.manifest.to_toml()?;
        let staged = lock.stage().map_err(ModelError::folder("models"))?;
        let install = || {
            write(&staged.join(&self.manifest.file), &self.weights.bytes)?;
            for (name, content) in self.weights.external.files() {
                write(&staged.join(name), content)?;
            }
            if !self.classes.is_empty() {
                write(&staged.join(CLASSES_FILE), self.classes.join("\n") + "\n")?;
            }
            if let Some(spectrum) = &self.spectrum {
                spectrum.save(&staged.join(SPECTRUM_FILE)).map_err(std::io::Error::other)?;
            }
            write(&staged.join(Manifest::FILE), text)?;
            lock.install(&staged)
        };
        install().map_err(ModelError::folder(&staged))
    }
}

/// Finds the weight file, and the manifest that describes it, if any.
fn locate(path: &Path) -> Result<(PathBuf, Option<Manifest>), ModelError> {
    let is_manifest = path.file_name().is_some_and(|name| name == Manifest::FILE);
    if path.is_dir() || is_manifest {
        let folder = if is_manifest { path.parent().unwrap_or(Path::new("")) } else { path };
        let manifest = Manifest::read(folder)?;
        return Ok((folder.join(&manifest.file), Some(manifest)));
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    if !folder.join(Manifest::FILE).exists() {
        return Ok((path.into(), None));
    }
    let manifest = Manifest::read(folder)?;
    let describes = manifest.file == part(path.file_name());
    Ok((path.into(), describes.then_some(manifest)))
}

fn classes(
    file: &Path,
    given: Option<&Manifest>,
    options: &AddOptions,
    assumed: &mut Vec<Assumption>,
) -> Result<Vec<String>, ModelError> {
    let folder = |file: &Path| file.parent().unwrap_or(Path::new("")).to_owned();
    if let Some(list) = &options.classes {
        return Ok(names_in(&read_text(&folder(list), &part(list.file_name()))?));
    }
    if let Some(given) = given {
        return Ok(given.class_names(&folder(file))?);
    }
    assumed.push(Assumption { field: "classes", value: "none".into(), why: "no names were specified" });
    Ok(Vec::new())
}

/// Derives a manifest for a file without one: the file's input size, pixels in [0, 1].
fn derive(
    id: &str,
    file: &Path,
    weights: &Weights,
    options: &AddOptions,
    assumed: &mut Vec<Assumption>,
) -> Result<Manifest, ModelError> {
    let name = part(file.file_name());
    let architecture = options.architecture.as_deref().map(str::parse::<Architecture>).transpose()?;
    let (input, bytes) = match architecture {
        Some(architecture) => (architecture.input(), false),
        None if !is_onnx(&name) => {
            let example = format!("squeezenet1.1, because {name} is not an ONNX file, which contains its graph");
            return Err(Invalid::missing("architecture", &example).into());
        }
        None => onnx_input(id, weights, options)?,
    };
    let mut preprocessing = Preprocessing::unit_range(input[0]).ok_or_else(|| ModelError::Broken {
        id: id.into(),
        why: format!("{name} reads images of {} channels; expected 1 or 3", input[0]),
    })?;
    let range = if bytes { "255" } else { "1" };
    if bytes {
        preprocessing.range = 255.0;
        if let Some(other) = options.range.filter(|&range| range != 255.0) {
            return Err(Invalid::new("range", other, "255, because the network reads bytes").into());
        }
    }
    let mut assume = |field, given: bool, value: &str| {
        if !given {
            let why = match (field, bytes) {
                ("range", true) => "the network reads bytes",
                _ => "the file does not say how images are prepared",
            };
            assumed.push(Assumption { field, value: value.into(), why });
        }
    };
    let order = if preprocessing.channels == ChannelOrder::Grey { "grey" } else { "rgb" };
    assume("channels", options.channels.is_some(), order);
    assume("range", options.range.is_some(), range);
    assume("mean", options.mean.is_some(), "0");
    assume("std", options.std.is_some(), "1");
    Ok(Manifest {
        id: None,
        source: format!("added from {name}"),
        file: name,
        digest: None,
        architecture: options.architecture.clone(),
        input,
        classes: Classes::default(),
        description: String::new(),
        licence: String::new(),
        spectrum: None,
        preprocessing,
        colour: None,
        constants: options.constants.clone(),
    })
}

/// The input size of an ONNX file (if dynamic, the requested one), and whether it reads bytes.
fn onnx_input(id: &str, weights: &Weights, options: &AddOptions) -> Result<([usize; 3], bool), ModelError> {
    let broken = |why: onnx::ImportError| ModelError::Broken { id: id.into(), why: why.to_string() };
    let constants = &options.constants;
    let import = |input| {
        let options = onnx::ImportOptions { input, constants: constants.clone() };
        onnx::import_with(&weights.bytes, &weights.external, &options)
    };
    let Some([height, width]) = options.size else {
        return match import(None) {
            Ok(imported) => Ok((imported.input, imported.bytes)),
            Err(why @ onnx::ImportError::DynamicInput { .. }) => {
                Err(Invalid::missing("size", &format!("224,224, because {why}")).into())
            }
            Err(why) => Err(broken(why)),
        };
    };
    let import = |channels| import(Some([channels, height, width]));
    // Without a requested number of channels, the file decides between colour and grey.
    let imported = match (options.channels, import(options.channels.map_or(3, ChannelOrder::count))) {
        (None, Err(onnx::ImportError::Input(_))) => import(1),
        (_, imported) => imported,
    };
    imported.map(|imported| (imported.input, imported.bytes)).map_err(broken)
}

/// Applies the options to a manifest.
fn apply_options(mut manifest: Manifest, options: AddOptions) -> Result<Manifest, Invalid> {
    let channels = manifest.input[0];
    let each = |values: Vec<f32>| if values.len() == 1 { vec![values[0]; channels] } else { values };
    let preprocessing = &mut manifest.preprocessing;
    if let Some(order) = options.channels {
        preprocessing.channels = order;
    }
    if let Some(range) = options.range {
        preprocessing.range = range;
    }
    if let Some(mean) = options.mean {
        preprocessing.mean = each(mean);
    }
    if let Some(std) = options.std {
        preprocessing.std = each(std);
    }
    preprocessing.check(channels)?;
    if let Some([height, width]) = options.size {
        manifest.input = [channels, height, width];
    }
    manifest.description = options.description.unwrap_or(manifest.description);
    manifest.licence = options.licence.unwrap_or(manifest.licence);
    manifest.architecture = options.architecture.or(manifest.architecture);
    manifest.constants.extend(options.constants);
    Ok(manifest)
}

fn part(name: Option<&OsStr>) -> String {
    name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
