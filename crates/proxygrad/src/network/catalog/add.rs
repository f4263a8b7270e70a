//! Adding a user's own network to the data directory.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::error::ModelError;
use super::id::{check_id, suggest_id};
use super::load::{self, Weights};
use super::manifest::{Classes, Manifest, is_onnx, read_names};
use super::model_dir::ModelLock;
use super::pull::write;
use crate::Invalid;
use crate::network::architecture::{Architecture, Family};
use crate::network::calibration::Calibration;
use crate::network::checkpoint::Format;
use crate::network::{ChannelOrder, Model, Preprocessing, Spectrum, onnx};

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
    /// A file with one class name per line, or a JSON list or index of the names.
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

/// What the source of a file says about the network; options given by the caller take precedence.
#[derive(Debug, Clone, Default)]
pub(super) struct Described {
    /// Where the file comes from.
    pub(super) source: String,
    /// Licence of the weights.
    pub(super) licence: Option<String>,
    /// Height and width of the input, for files with dynamic input size.
    pub(super) size: Option<[usize; 2]>,
    /// From pixels to the network's input.
    pub(super) preprocessing: Option<Preprocessing>,
    /// Names of the classes.
    pub(super) classes: Vec<String>,
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
    /// Inputs of the file that no node reads.
    pub(super) ignored_inputs: Vec<String>,
    /// The network itself; the nodes of its file that have no layer are listed in it.
    pub(super) model: Model,
    weights: Weights,
    classes: Vec<String>,
    spectrum: Option<Arc<Spectrum>>,
}

/// Why the class names of a repository are not used.
const NAMES_DO_NOT_FIT: &str = "the repository names another number of classes than the network has";
/// Name of the file with the class names, next to the weights.
const CLASSES_FILE: &str = "classes.txt";
/// Name of the copy of an ONNX file.
const WEIGHTS_FILE: &str = "weights.onnx";
/// Name of the file with the spectrum, next to the weights.
const SPECTRUM_FILE: &str = "spectrum.safetensors";

/// Reads the weight file at `path` (or the one that the manifest in the folder `path` names), completes its manifest
/// and loads it once. Also returns the id.
pub(super) fn prepare(
    path: &Path,
    options: AddOptions,
    described: Described,
) -> Result<(String, PreparedModel), ModelError> {
    let (file, given) = locate(path)?;
    let bytes = load::read(&file).map_err(ModelError::folder(&file))?;
    let (mut assumed, mut ignored_inputs) = (Vec::new(), Vec::new());
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
    let mut classes = classes(&file, given.as_ref(), &options)?;
    let position = assumed.len();
    let manifest = match given {
        Some(given) => given,
        None => derive(&id, &file, &weights, &options, &described, &mut assumed, &mut ignored_inputs)?,
    };
    let mut manifest = apply_options(manifest, options)?;
    manifest.id = Some(id.clone());
    manifest.digest = Some(weights.digest());
    manifest.classes = Classes::default();
    manifest.check()?;
    let spectrum = load::spectrum(&manifest, folder).map_err(broken)?;
    let names = classes.clone().unwrap_or_default();
    let model = load::assemble(&id, &manifest, &weights, names, spectrum.clone()).map_err(broken)?;
    if classes.is_none() {
        // Names of more or fewer classes belong to another head than that of this file.
        let fit = !described.classes.is_empty() && load::check_classes(&model.network, &described.classes).is_ok();
        if fit {
            classes = Some(described.classes);
        } else {
            let why = if described.classes.is_empty() { "no names were specified" } else { NAMES_DO_NOT_FIT };
            assumed.insert(position, Assumption { field: "classes", value: "none".into(), why });
        }
    }
    let classes = classes.unwrap_or_default();
    manifest.classes = if classes.is_empty() { Classes::default() } else { Classes::File(CLASSES_FILE.into()) };
    // The copies get fixed names.
    manifest.file = format!("weights.{}", part(file.extension()).to_lowercase());
    manifest.spectrum = spectrum.is_some().then(|| SPECTRUM_FILE.into());
    manifest.check()?;
    Ok((id, PreparedModel { manifest, assumed, ignored_inputs, model, weights, classes, spectrum }))
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

/// The class names that the caller or a manifest specifies.
fn classes(file: &Path, given: Option<&Manifest>, options: &AddOptions) -> Result<Option<Vec<String>>, ModelError> {
    let folder = |file: &Path| file.parent().unwrap_or(Path::new("")).to_owned();
    if let Some(list) = &options.classes {
        return Ok(Some(read_names(&folder(list), &part(list.file_name()))?));
    }
    if let Some(given) = given {
        return Ok(Some(given.class_names(&folder(file))?));
    }
    Ok(None)
}

/// Derives a manifest for a file without one: the file's input size, pixels in [0, 1]. Also finds the inputs that are
/// ignored.
fn derive(
    id: &str,
    file: &Path,
    weights: &Weights,
    options: &AddOptions,
    described: &Described,
    assumed: &mut Vec<Assumption>,
    ignored: &mut Vec<String>,
) -> Result<Manifest, ModelError> {
    let name = part(file.file_name());
    let architecture = match &options.architecture {
        Some(name) => Some(name.parse::<Architecture>()?),
        None if !is_onnx(&name) => {
            let architecture = guess(id, &name, weights)?;
            let (value, why) = (architecture.name.into(), "the names and shapes of its tensors");
            assumed.push(Assumption { field: "architecture", value, why });
            Some(architecture)
        }
        None => None,
    };
    let (input, bytes) = match architecture {
        Some(architecture) => (architecture.input, false),
        None => {
            let inputs = onnx_inputs(id, weights, options, described.size)?;
            *ignored = inputs.unread;
            (inputs.image, inputs.bytes)
        }
    };
    // Neither says anything about a network that reads bytes.
    let stated = described.preprocessing.clone().filter(|stated| !bytes && stated.channels.count() == input[0]);
    let is_stated = stated.is_some();
    let usual = stated.or_else(|| architecture.map(|architecture| architecture.preprocessing()));
    let mut preprocessing =
        usual.or_else(|| Preprocessing::unit_range(input[0])).ok_or_else(|| ModelError::Broken {
            id: id.into(),
            why: format!("{name} reads images of {} channels; expected 1 or 3", input[0]),
        })?;
    if bytes {
        preprocessing.range = 255.0;
        if let Some(other) = options.range.filter(|&range| range != 255.0) {
            return Err(Invalid::new("range", other, "255, because the network reads bytes").into());
        }
    }
    let why = match (bytes, architecture.map(|architecture| architecture.family)) {
        (true, _) => "the network reads bytes",
        (_, Some(Family::Vit(vit))) if !vit.layer_scale => {
            "as for torchvision and DeiT; many vit_ models of timm have 0.5"
        }
        (_, Some(_)) => "as for the published weights of this architecture",
        (_, None) => "the file does not say how images are prepared",
    };
    let order = match preprocessing.channels {
        ChannelOrder::Grey => "grey",
        ChannelOrder::Rgb => "rgb",
        ChannelOrder::Bgr => "bgr",
    };
    for (field, given, value) in [
        ("channels", options.channels.is_some(), order.to_owned()),
        ("range", options.range.is_some(), preprocessing.range.to_string()),
        ("mean", options.mean.is_some(), list(&preprocessing.mean)),
        ("std", options.std.is_some(), list(&preprocessing.std)),
    ] {
        if !given && !is_stated {
            assumed.push(Assumption { field, value, why });
        }
    }
    Ok(Manifest {
        id: None,
        source: match described.source.is_empty() {
            true => format!("added from {name}"),
            false => described.source.clone(),
        },
        file: name,
        digest: None,
        architecture: architecture.map(|architecture| architecture.name.into()),
        input,
        classes: Classes::default(),
        description: String::new(),
        licence: described.licence.clone().unwrap_or_default(),
        spectrum: None,
        preprocessing,
        colour: None,
        constants: options.constants.clone(),
    })
}

/// The architecture that the weights in the file `name` belong to.
fn guess(id: &str, name: &str, weights: &Weights) -> Result<Architecture, ModelError> {
    let state = Format::from_file_name(name).and_then(|format| format.read(&weights.bytes));
    let state = state.map_err(|why| ModelError::Broken { id: id.into(), why: format!("{name}: {why}") })?;
    Ok(Architecture::guess(&state)?)
}

/// One number for all channels, or one per channel.
fn list(values: &[f32]) -> String {
    let equal = values.iter().all(|value| Some(value) == values.first());
    let shown = if equal { values.get(..1) } else { None }.unwrap_or(values);
    shown.iter().map(f32::to_string).collect::<Vec<_>>().join(",")
}

/// The inputs of an ONNX file; if the image's size is dynamic, it is the requested or else the usual one.
fn onnx_inputs(
    id: &str,
    weights: &Weights,
    options: &AddOptions,
    usual: Option<[usize; 2]>,
) -> Result<onnx::Inputs, ModelError> {
    let broken = |why: onnx::ImportError| ModelError::Broken { id: id.into(), why: why.to_string() };
    let constants = &options.constants;
    let read = |input| onnx::read_inputs(&weights.bytes, &onnx::ImportOptions { input, constants: constants.clone() });
    let [height, width] = match (options.size, usual) {
        (Some(size), _) => size,
        (None, usual) => match (read(None), usual) {
            (Ok(inputs), _) => return Ok(inputs),
            (Err(onnx::ImportError::DynamicInput { .. }), Some(size)) => size,
            (Err(why @ onnx::ImportError::DynamicInput { .. }), None) => {
                return Err(Invalid::missing("size", &format!("224,224, because {why}")).into());
            }
            (Err(why), _) => return Err(broken(why)),
        },
    };
    let read = |channels| read(Some([channels, height, width]));
    // Without a requested number of channels, the file decides between colour and grey.
    let inputs = match (options.channels, read(options.channels.map_or(3, ChannelOrder::count))) {
        (None, Err(onnx::ImportError::Input(_))) => read(1),
        (_, inputs) => inputs,
    };
    inputs.map_err(broken)
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
    if let Some(name) = options.architecture {
        manifest.architecture = Some(name.parse::<Architecture>()?.name.into());
    }
    manifest.constants.extend(options.constants);
    Ok(manifest)
}

fn part(name: Option<&OsStr>) -> String {
    name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
