//! Model manifest, `model.toml`: the weight file, input size, preprocessing and class names.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::class_list;
use super::id::check_id;
use crate::Invalid;
use crate::network::architecture::Architecture;
use crate::network::{ColourMatrix, Preprocessing};
use crate::text;

/// A model's manifest, the file `model.toml` next to the weights.
///
/// ```toml
/// id = "my-net"                   # default: the folder's name
/// file = "model.onnx"             # .onnx; or .safetensors, .pth, .pkl with an architecture
/// digest = "5e1f…"                # SHA-256 of that file; checked when given
/// input = [3, 224, 224]           # channels, height, width
/// classes = "classes.txt"         # a file with one name per line, or a list of names
/// licence = "MIT"
/// source = "https://example.org"
/// spectrum = "spectrum.safetensors" # average magnitudes of natural images
///
/// [preprocessing]                 # x = (pixel * range / 255 - mean) / std
/// channels = "rgb"
/// range = 1.0
/// mean = [0.485, 0.456, 0.406]
/// std = [0.229, 0.224, 0.225]
///
/// [colour]                        # of natural images: a decorrelation matrix or a covariance
/// matrix = [[0.26, 0.09, 0.02], [0.27, 0.0, -0.05], [0.27, -0.09, 0.03]]
///
/// [constants]                     # inputs of the ONNX file besides the image
/// keep_prob = 1.0
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Key of the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Name of the weight file, in the manifest's folder.
    pub file: String,
    /// SHA-256 of the weight file, lower-case hexadecimal; with external data see [`ModelEntry`](super::ModelEntry).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Name of the [`Architecture`] that the weights belong to; not for ONNX files, which contain their graph.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// Input size `[C,H,W]`.
    pub input: [usize; 3],
    /// Names of the classes, in the order of the logits.
    #[serde(default, skip_serializing_if = "Classes::is_empty")]
    pub classes: Classes,
    /// One sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Licence of the weights.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub licence: String,
    /// Where the weights come from.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Name of a file in the manifest's folder: the magnitude [`Spectrum`](crate::network::Spectrum) of images from the
    /// model's domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spectrum: Option<String>,
    /// Preprocessing from pixels to the network's input.
    pub preprocessing: Preprocessing,
    /// Colour correlation of images from the model's domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub colour: Option<ColourStatistic>,
    /// Values of the inputs of an ONNX file besides the image, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub constants: BTreeMap<String, f64>,
}

/// Colour correlation, in the order of the image's channels (red, green, blue): either a matrix or a covariance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColourStatistic {
    /// Map from decorrelated colours to the channels, one row per channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matrix: Option<ColourMatrix>,
    /// Covariance of the channels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub covariance: Option<Vec<Vec<f64>>>,
}

impl ColourStatistic {
    /// The map from decorrelated colours to this number of channels.
    ///
    /// # Errors
    /// When there is not exactly one of the two, or it does not fit the channels.
    pub fn resolve(&self, channels: usize) -> Result<ColourMatrix, Invalid> {
        let (key, matrix) = match (&self.matrix, &self.covariance) {
            (Some(matrix), None) => ("matrix", matrix.clone()),
            (None, Some(covariance)) => ("covariance", ColourMatrix::of_covariance(covariance)?),
            (given, _) => {
                let found = if given.is_some() { "both" } else { "nothing" };
                return Err(Invalid::new("", found, "either a matrix or a covariance"));
            }
        };
        matrix.check(channels).map_err(|invalid| invalid.within(key))?;
        Ok(matrix)
    }
}

/// Names of classes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a list of names or the name of a file")]
pub enum Classes {
    /// The names themselves.
    Names(Vec<String>),
    /// Name of a file in the manifest's folder, with one name per line or in JSON.
    File(String),
}

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// A file cannot be read.
    #[error("{file}: {why}")]
    Read {
        /// Name of the file.
        file: String,
        /// The I/O error.
        why: std::io::Error,
    },
    /// It is not TOML, a key is missing or unknown.
    #[error("model.toml: {0}")]
    Syntax(String),
    /// A key has an invalid value.
    #[error("model.toml: {0}")]
    Value(#[from] Invalid),
}

impl Manifest {
    /// The manifest's file name.
    pub const FILE: &str = "model.toml";
    /// Largest manifest or file of class names, in bytes.
    const MAX_BYTES: u64 = 4 << 20;
    /// Largest height or width.
    const MAX_SIDE: usize = 4096;

    /// Reads and checks the manifest in `folder`.
    ///
    /// # Errors
    /// When the file is missing, unreadable or invalid.
    pub fn read(folder: &Path) -> Result<Self, ManifestError> {
        Self::parse(&read_text(folder, Self::FILE)?)
    }

    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// When it is invalid.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let text = text::without_bom(text);
        let manifest: Self = toml::from_str(text).map_err(|e| ManifestError::Syntax(on_one_line(&e, text)))?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Writes the manifest as TOML.
    ///
    /// # Errors
    /// When a value cannot be written as TOML.
    pub fn to_toml(&self) -> Result<String, ManifestError> {
        toml::to_string(self).map_err(|e| ManifestError::Syntax(e.to_string()))
    }

    /// Checks all values that can be checked without the weights.
    ///
    /// # Errors
    /// When a value is invalid.
    pub fn check(&self) -> Result<(), Invalid> {
        if let Some(id) = &self.id {
            check_id(id)?;
        }
        check_file_name("file", &self.file)?;
        if let Some(digest) = &self.digest {
            let hex = |c: char| matches!(c, '0'..='9' | 'a'..='f');
            if digest.len() != 64 || !digest.chars().all(hex) {
                return Err(Invalid::new("digest", digest, "a SHA-256 as 64 lower-case hexadecimal digits"));
            }
        }
        self.preprocessing.check(self.input[0]).map_err(|invalid| invalid.within("preprocessing"))?;
        if !self.input[1..].iter().all(|side| (1..=Self::MAX_SIDE).contains(side)) {
            let expected = format!("[channels, height, width] with sides of 1 to {}", Self::MAX_SIDE);
            return Err(Invalid::new("input", format!("{:?}", self.input), expected));
        }
        match self.architecture()? {
            Some(architecture) if architecture.input != self.input => {
                let expected = format!("{:?}, the input of {architecture}", architecture.input);
                return Err(Invalid::new("input", format!("{:?}", self.input), expected));
            }
            Some(architecture) if is_onnx(&self.file) => {
                let with = "files other than ONNX, which contains its graph";
                return Err(Invalid::unsupported("architecture", architecture, with));
            }
            None if !is_onnx(&self.file) => {
                let example = "squeezenet1.1, because only ONNX files contain their graph";
                return Err(Invalid::missing("architecture", example));
            }
            _ => {}
        }
        if let Classes::File(file) = &self.classes {
            check_file_name("classes", file)?;
        }
        if let Some(file) = &self.spectrum {
            check_file_name("spectrum", file)?;
        }
        if let Some(name) = self.constants.keys().next().filter(|_| !is_onnx(&self.file)) {
            return Err(Invalid::unsupported("constants", name, "ONNX files"));
        }
        if let Some((name, value)) = self.constants.iter().find(|(_, value)| !value.is_finite()) {
            return Err(Invalid::new(format!("constants.{name}"), value, "a finite number"));
        }
        if let Some(colour) = &self.colour {
            colour.resolve(self.input[0]).map_err(|invalid| invalid.within("colour"))?;
        }
        Ok(())
    }

    /// The named architecture, if any.
    ///
    /// # Errors
    /// When the name is unknown.
    pub fn architecture(&self) -> Result<Option<Architecture>, Invalid> {
        self.architecture.as_deref().map(str::parse).transpose()
    }

    /// The names of the classes, read from their file in `folder` if necessary.
    ///
    /// # Errors
    /// When that file cannot be read.
    pub fn class_names(&self, folder: &Path) -> Result<Vec<String>, ManifestError> {
        match &self.classes {
            Classes::Names(names) => Ok(names.clone()),
            Classes::File(file) => read_names(folder, file),
        }
    }
}

impl Default for Classes {
    fn default() -> Self {
        Self::Names(Vec::new())
    }
}

impl Classes {
    fn is_empty(&self) -> bool {
        matches!(self, Self::Names(names) if names.is_empty())
    }
}

/// Whether a file is an ONNX file, by its name.
pub(super) fn is_onnx(file: &str) -> bool {
    Path::new(file).extension().is_some_and(|ending| ending.eq_ignore_ascii_case("onnx"))
}

/// Reads the class names in a file; `file` must be a checked file name in `folder`.
pub(super) fn read_names(folder: &Path, file: &str) -> Result<Vec<String>, ManifestError> {
    class_list::parse(&read_text(folder, file)?).map_err(|why| {
        let why = std::io::Error::new(std::io::ErrorKind::InvalidData, why);
        ManifestError::Read { file: file.into(), why }
    })
}

/// Reads a small text file; `file` must be a checked file name in `folder`.
fn read_text(folder: &Path, file: &str) -> Result<String, ManifestError> {
    let read = || {
        let mut bytes = Vec::new();
        std::fs::File::open(folder.join(file))?.take(Manifest::MAX_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > Manifest::MAX_BYTES {
            let why = format!("is larger than {} bytes", Manifest::MAX_BYTES);
            return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, why));
        }
        text::decode(&bytes)
    };
    read().map_err(|why| ManifestError::Read { file: file.into(), why })
}

/// Accepts only the name of a visible file in the same folder.
fn check_file_name(field: &str, name: &str) -> Result<(), Invalid> {
    let plain = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', ':', '\0']);
    if plain { Ok(()) } else { Err(Invalid::new(field, name, "the plain name of a file next to model.toml")) }
}

fn on_one_line(error: &toml::de::Error, text: &str) -> String {
    let why = error.message().replace('\n', ", ");
    match error.span() {
        Some(span) => {
            let line = text.get(..span.start).unwrap_or_default().matches('\n').count() + 1;
            format!("line {line}: {why}")
        }
        None => why,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const GOOD: &str = r#"
file = "model.onnx"
input = [3, 224, 224]
[preprocessing]
channels = "rgb"
range = 1.0
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
"#;

    #[test]
    fn a_short_manifest_is_enough_and_survives_being_written() {
        let manifest = Manifest::parse(GOOD).unwrap();
        assert_eq!(manifest.input, [3, 224, 224]);
        assert_eq!(manifest.classes, Classes::Names(vec![]));
        assert_eq!(Manifest::parse(&manifest.to_toml().unwrap()).unwrap(), manifest);
    }

    #[test]
    fn whole_numbers_are_accepted_for_fractions() {
        let text = GOOD.replace("range = 1.0", "range = 255").replace("[0.485, 0.456, 0.406]", "[104, 117, 123]");
        assert_eq!(Manifest::parse(&text).unwrap().preprocessing.mean, [104.0, 117.0, 123.0]);
    }

    #[test]
    fn every_wrong_value_is_named() {
        for (from, to, expected) in [
            ("file = \"model.onnx\"", "", "line 1: missing field `file`"),
            ("file =", "fil =", "line 2: unknown field `fil`"),
            ("\"model.onnx\"", "\"../model.onnx\"", "file: ../model.onnx is not valid"),
            ("\"model.onnx\"", "\"/etc/passwd\"", "file: /etc/passwd is not valid"),
            ("\"model.onnx\"", "\"..\"", "file: .. is not valid"),
            ("\"model.onnx\"", "\"model.pth\"", "architecture is required, for example"),
            (
                "input",
                "architecture = \"lenet-5\"\ninput",
                "architecture: lenet-5 is not valid; expected one of efficient",
            ),
            ("input", "architecture = \"squeezenet1.1\"\ninput", "expected [3, 227, 227], the input of squeezenet1.1"),
            ("[3, 224, 224]", "[3, 0, 224]", "input: [3, 0, 224] is not valid"),
            ("[3, 224, 224]", "[4, 224, 224]", "preprocessing.channels: rgb is not valid"),
            ("[3, 224, 224]", "[3, 224]", "line 3: "),
            ("input", "digest = \"ABC\"\ninput", "digest: ABC is not valid"),
            ("input", "id = \"../x\"\ninput", "id: ../x is not valid"),
            ("input", "classes = \"../names\"\ninput", "classes: ../names is not valid"),
            ("input", "classes = 3\ninput", "a list of names or the name of a file"),
            ("0.229", "0.0", "preprocessing.std: [0.0, 0.224, 0.225] is not valid"),
            ("input", "spectrum = \"../s\"\ninput", "spectrum: ../s is not valid"),
            (
                "[preprocessing]",
                "[colour]\n[preprocessing]",
                "colour: nothing is not valid; expected either a matrix or",
            ),
            (
                "[preprocessing]",
                "[colour]\nmatrix = [[1]]\n[preprocessing]",
                "colour.matrix: [[1.0]] is not valid; expected 3",
            ),
            ("[preprocessing]", "[colour]\ncovariance = [[1, 2], [2, 1]]\n[preprocessing]", "colour.covariance: "),
            ("[preprocessing]", "[constants]\np = inf\n[preprocessing]", "constants.p: inf is not valid"),
            ("range = 1.0", "range = nan", "preprocessing.range: NaN is not valid"),
            ("channels = \"rgb\"", "channels = \"cmyk\"", "unknown variant `cmyk`"),
        ] {
            let text = GOOD.replace(from, to);
            let error = Manifest::parse(&text).unwrap_err().to_string();
            assert!(error.starts_with("model.toml: ") && error.contains(expected), "{to}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn colours_are_given_as_a_matrix_or_as_their_covariance() {
        let colour = |given: &str| {
            let manifest = Manifest::parse(&format!("{GOOD}[colour]\n{given}\n")).unwrap();
            assert_eq!(Manifest::parse(&manifest.to_toml().unwrap()).unwrap(), manifest);
            manifest.colour.unwrap().resolve(3).unwrap()
        };
        assert_eq!(
            colour("matrix = [[0.26, 0.09, 0.02], [0.27, 0, -0.05], [0.27, -0.09, 0.03]]"),
            ColourMatrix::imagenet()
        );
        let root = colour("covariance = [[4, 0, 0], [0, 9, 0], [0, 0, 1]]");
        assert_eq!(root.rows(), [[0.0, 2.0, 0.0], [3.0, 0.0, 0.0], [0.0, 0.0, 1.0]]);
    }

    #[test]
    fn class_names_are_read_from_the_file_that_a_manifest_names() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("names.txt"), "cat\ndog\n").unwrap();
        let text = format!("\u{feff}{}", GOOD.replace("input", "classes = \"names.txt\"\ninput").replace('\n', "\r\n"));
        assert_eq!(Manifest::parse(&text).unwrap().class_names(folder.path()).unwrap(), ["cat", "dog"]);
        let missing = Manifest::parse(&text.replace("names", "nomes")).unwrap();
        let error = missing.class_names(folder.path()).unwrap_err().to_string();
        assert!(error.starts_with("nomes.txt: "), "{error}");
    }
}
