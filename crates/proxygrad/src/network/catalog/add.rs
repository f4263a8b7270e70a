//! Adds a user's own network to the data directory.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::error::ModelError;
use super::id::{check_id, suggest_id};
use super::load::{self, Weights};
use super::manifest::{Classes, Manifest, is_onnx, names_in, read_text};
use super::pull::write;
use super::shelf::Claim;
use crate::Invalid;
use crate::network::architecture::Architecture;
use crate::network::calibration::Calibration;
use crate::network::{ChannelOrder, Preprocessing, Spectrum, Unavailable, onnx};

/// What the caller knows about a network; what is left out is taken from a manifest next to the file, or derived.
#[derive(Debug, Clone, Default)]
pub struct AddOptions {
    /// Key of the model; derived from the file's name.
    pub id: Option<String>,
    /// Height and width of the input, for files that leave them open.
    pub size: Option<[usize; 2]>,
    /// Order of the channels; RGB for three, grey for one.
    pub channels: Option<ChannelOrder>,
    /// Value of a white pixel before `mean` and `std`; 1.
    pub range: Option<f32>,
    /// Subtracted, one for all channels or one each; 0.
    pub mean: Option<Vec<f32>>,
    /// Divided by, one for all channels or one each; 1.
    pub std: Option<Vec<f32>>,
    /// A file with one class name a line.
    pub classes: Option<PathBuf>,
    /// One sentence for people.
    pub description: Option<String>,
    /// Licence of the weights.
    pub licence: Option<String>,
    /// Name of the architecture, for files that are not ONNX.
    pub architecture: Option<String>,
}

/// A value that nobody gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Assumption {
    /// Key of the manifest, and name of the option that sets it.
    pub field: &'static str,
    /// What was assumed.
    pub value: String,
    /// Why.
    pub why: &'static str,
}

/// A network, checked and ready to be put into the data directory.
pub(super) struct Prepared {
    /// Its manifest, with an id.
    pub(super) manifest: Manifest,
    /// What was assumed.
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
/// and loads it once. Gives the id, too.
pub(super) fn prepare(path: &Path, options: AddOptions) -> Result<(String, Prepared), ModelError> {
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
    if let Some(name) = external.iter().find(|name| is_taken(name)) {
        let why = format!("{name}, where its weights are stored, is the name of a file of ours; give it another name");
        return Err(broken(why));
    }
    let external = load::external(folder, external).map_err(broken)?;
    let weights = Weights { bytes: bytes.into(), external };
    let classes = classes(&file, given.as_ref(), &options, &mut assumed)?;
    let manifest = match given {
        Some(given) => given,
        None => derive(&id, &file, &weights, &options, &mut assumed)?,
    };
    let mut manifest = overlay(manifest, options)?;
    manifest.id = Some(id.clone());
    manifest.digest = Some(weights.digest());
    manifest.classes = if classes.is_empty() { Classes::default() } else { Classes::File(CLASSES_FILE.into()) };
    manifest.check()?;
    let spectrum = load::spectrum(&manifest, folder).map_err(broken)?;
    let model = load::assemble(&id, &manifest, &weights, classes.clone(), spectrum.clone()).map_err(broken)?;
    // The files' names may be anything; the copies get plain ones.
    manifest.file = format!("weights.{}", part(file.extension()).to_lowercase());
    manifest.spectrum = spectrum.is_some().then(|| SPECTRUM_FILE.into());
    manifest.check()?;
    let unavailable = model.network.unavailable().to_vec();
    Ok((id, Prepared { manifest, assumed, unavailable, weights, classes, spectrum }))
}

/// Whether a file next to the copied weights, or a folder there, has this name.
fn is_taken(name: &str) -> bool {
    let own = [Manifest::FILE, CLASSES_FILE, SPECTRUM_FILE, Calibration::FOLDER, WEIGHTS_FILE];
    own.iter().any(|own| own.eq_ignore_ascii_case(name))
}

impl Prepared {
    /// Puts the network in its place.
    pub(super) fn put(&self, claim: &Claim<'_>) -> Result<(), ModelError> {
        let text = self.manifest.to_toml()?;
        let bench = claim.workbench().map_err(ModelError::folder("models"))?;
        let place = || {
            write(&bench.join(&self.manifest.file), &self.weights.bytes)?;
            for (name, content) in self.weights.external.files() {
                write(&bench.join(name), content)?;
            }
            if !self.classes.is_empty() {
                write(&bench.join(CLASSES_FILE), self.classes.join("\n") + "\n")?;
            }
            if let Some(spectrum) = &self.spectrum {
                spectrum.save(&bench.join(SPECTRUM_FILE)).map_err(std::io::Error::other)?;
            }
            write(&bench.join(Manifest::FILE), text)?;
            claim.put(&bench)
        };
        place().map_err(ModelError::folder(&bench))
    }
}

/// The weight file, and the manifest that describes it if there is one.
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
    assumed.push(Assumption { field: "classes", value: "none".into(), why: "no names were given" });
    Ok(Vec::new())
}

/// The manifest of a file that has none: its own input size, pixels in [0, 1].
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
            let expected = format!("a name, because {name} is no .onnx file, which brings its own graph");
            return Err(Invalid::new("architecture", "nothing", expected).into());
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
    })
}

/// The input size of an ONNX file (where the file leaves it open, the one asked for), and whether it reads bytes.
fn onnx_input(id: &str, weights: &Weights, options: &AddOptions) -> Result<([usize; 3], bool), ModelError> {
    let broken = |why: onnx::ImportError| ModelError::Broken { id: id.into(), why: why.to_string() };
    let import = |input| onnx::import_with(&weights.bytes, &weights.external, &onnx::ImportOptions { input });
    let Some([height, width]) = options.size else {
        return match import(None) {
            Ok(imported) => Ok((imported.input, imported.bytes)),
            Err(why @ onnx::ImportError::DynamicInput { .. }) => {
                Err(Invalid::new("size", "nothing", format!("HEIGHT,WIDTH, because {why}")).into())
            }
            Err(why) => Err(broken(why)),
        };
    };
    let import = |channels| import(Some([channels, height, width]));
    // Only the file knows whether it reads colour or brightness.
    let imported = match (options.channels, import(options.channels.map_or(3, ChannelOrder::count))) {
        (None, Err(onnx::ImportError::Input(_))) => import(1),
        (_, imported) => imported,
    };
    imported.map(|imported| (imported.input, imported.bytes)).map_err(broken)
}

/// The manifest with what the caller knows better.
fn overlay(mut manifest: Manifest, options: AddOptions) -> Result<Manifest, Invalid> {
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
    Ok(manifest)
}

fn part(name: Option<&OsStr>) -> String {
    name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
