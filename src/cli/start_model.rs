//! The model that a training starts from.

use std::path::Path;
use std::sync::Arc;

use proxygrad::network::Model;
use proxygrad::network::catalog::{AddOptions, Models};
use proxygrad_server::config::StorageOptions;

/// Loads a model by its id, or from an ONNX file or a folder with a `model.toml`. Prints what is assumed about a file.
pub(super) fn load(storage: &StorageOptions, model: &str) -> anyhow::Result<Arc<Model>> {
    let path = Path::new(model);
    if !path.is_file() && !path.join("model.toml").is_file() {
        return super::models::load(&Models::new(storage.models())?, model);
    }
    let (model, assumed) = Models::load_file(path, AddOptions::default())?;
    for assumption in assumed.iter().filter(|assumption| !matches!(assumption.field, "id" | "classes")) {
        let (field, value, why) = (assumption.field, &assumption.value, assumption.why);
        eprintln!("assumed: {field} = {value}, because {why}; a model.toml next to the file would say");
    }
    Ok(Arc::new(model))
}
