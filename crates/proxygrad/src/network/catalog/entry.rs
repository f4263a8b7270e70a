//! Model listing: what is known about a model without loading it.

use serde::Serialize;
#[cfg(feature = "openapi")]
use utoipa::ToSchema;

use super::manifest::Manifest;
use crate::network::Preprocessing;

/// Whether a model can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ModelState {
    /// Its files are present.
    Ready,
    /// Its files will be downloaded at first use.
    Pullable,
    /// Its files are present, but cannot be used.
    Broken,
}

/// A model as listed, without its weights.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct ModelEntry {
    /// Key of the model.
    pub id: String,
    /// Whether it can be used.
    pub state: ModelState,
    /// Why it cannot be used, if it is broken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// One sentence; may be empty.
    pub description: String,
    /// Licence of the weights; empty if unknown.
    pub licence: String,
    /// Where the weights come from; empty if unknown.
    pub source: String,
    /// SHA-256 of the weight file, lower-case hexadecimal; unknown until the model is loaded if its manifest has none.
    /// For an ONNX file with external data, it is the SHA-256 of the lines that `sha256sum` prints: for the ONNX file
    /// on standard input, then for each other file, ordered by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Name of the architecture that the weights belong to; none for ONNX files, which contain their graph.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// Input size `[C,H,W]`; unknown if the manifest is broken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<[usize; 3]>,
    /// Preprocessing from pixels to the network's input; unknown if the manifest is broken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preprocessing: Option<Preprocessing>,
    /// Number of class names.
    pub classes: usize,
    /// Bytes to download at first use, if the state is `pullable`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub download_bytes: Option<u64>,
}

impl ModelEntry {
    /// A ready model with this manifest.
    pub(super) fn of(id: &str, manifest: &Manifest) -> Self {
        Self {
            id: id.into(),
            state: ModelState::Ready,
            problem: None,
            description: manifest.description.clone(),
            licence: manifest.licence.clone(),
            source: manifest.source.clone(),
            digest: manifest.digest.clone(),
            architecture: manifest.architecture.clone(),
            input: Some(manifest.input),
            preprocessing: Some(manifest.preprocessing.clone()),
            classes: 0,
            download_bytes: None,
        }
    }

    /// A broken model without a usable manifest.
    pub(super) fn unknown(id: &str) -> Self {
        Self {
            id: id.into(),
            state: ModelState::Broken,
            problem: None,
            description: String::new(),
            licence: String::new(),
            source: String::new(),
            digest: None,
            architecture: None,
            input: None,
            preprocessing: None,
            classes: 0,
            download_bytes: None,
        }
    }
}
