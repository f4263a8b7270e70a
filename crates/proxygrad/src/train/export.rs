//! What a finished run leaves: the network as an ONNX file, its class names, and what the model registry has to know.

use std::path::Path;

use super::Training;
use super::error::TrainError;
use super::run::write;
use crate::network::GraphError;
use crate::network::catalog::AddOptions;
use crate::network::onnx;

/// Name of the file of the network after the epoch with the best test accuracy, the first of several.
pub const MODEL_FILE: &str = "model.onnx";
/// Name of the file of the network after the last epoch.
pub const LAST_MODEL_FILE: &str = "last.onnx";
/// Name of the file with its class names, one per line.
pub const CLASSES_FILE: &str = "classes.txt";

impl Training {
    /// Writes the network with the weights of the best epoch as [`MODEL_FILE`], with the last ones as [`LAST_MODEL_FILE`], and
    /// its class names as [`CLASSES_FILE`] into a folder. Returns how [`Models::add`](crate::network::catalog::Models::add)
    /// adds one of them, still without an id.
    ///
    /// # Errors
    /// When the network cannot be exported, or a file cannot be written.
    pub fn export(&self, folder: &Path) -> Result<AddOptions, TrainError> {
        write(folder, LAST_MODEL_FILE, &exported(&self.freeze()?)?)?;
        write(folder, MODEL_FILE, &exported(&self.freeze_best()?)?)?;
        write(folder, CLASSES_FILE, (self.classes().join("\n") + "\n").as_bytes())?;
        let (recipe, preprocessing) = (self.recipe(), self.preprocessing());
        let description = match &recipe.start {
            Some(start) => format!("{} fine-tuned with ProxyGrad", start.model),
            None => format!("{} trained with ProxyGrad", recipe.architecture),
        };
        Ok(AddOptions {
            channels: Some(preprocessing.channels),
            range: Some(preprocessing.range),
            mean: Some(preprocessing.mean.clone()),
            std: Some(preprocessing.std.clone()),
            classes: Some(folder.join(CLASSES_FILE)),
            description: Some(description),
            ..AddOptions::default()
        })
    }
}

/// The network as an ONNX file.
pub(super) fn exported(network: &crate::network::Network) -> Result<Vec<u8>, GraphError> {
    onnx::export(network).map_err(|why| GraphError::Trainable(why.to_string()))
}
