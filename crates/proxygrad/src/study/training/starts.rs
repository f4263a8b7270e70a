//! Models that networks of a study start from.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::design::TrainingDesign;
use crate::Invalid;
use crate::network::Model;
use crate::study::variant::Fields;
use crate::train::{Recipe, Start};

/// Models that recipes start from, by the names that the plan file gives them.
pub type StartModels = BTreeMap<String, Arc<Model>>;

/// Fields that only weights that are drawn have.
const OF_ARCHITECTURE: [&str; 4] = ["architecture", "width", "stem_stride", "leaky"];

impl TrainingDesign {
    /// The names of all models that a recipe starts from.
    pub fn starts(&self) -> BTreeSet<String> {
        let mut parts = vec![&self.base];
        for network in &self.networks {
            parts.push(&network.recipe);
            let arms = self.arms.iter().filter(|part| network.arms.contains(&part.name));
            parts.extend(arms.map(|part| &part.recipe));
        }
        parts.into_iter().filter_map(name_in).map(str::to_owned).collect()
    }
}

/// The model that a part of a recipe names.
fn name_in(part: &Fields) -> Option<&str> {
    part.get("start").and_then(Value::as_str).filter(|name| *name != "none")
}

/// A part of a recipe with the model that it names, if it names one. Later parts replace earlier ones: a model replaces an
/// architecture, and an architecture a model.
pub(super) fn with_model(part: &Fields, models: &StartModels) -> Result<Fields, Invalid> {
    let mut part = part.clone();
    if let Some(name) = name_in(&part).map(str::to_owned) {
        if let Some(field) = OF_ARCHITECTURE.iter().find(|&&field| part.contains_key(field)) {
            return Err(Invalid::unsupported(*field, &part[*field], "weights that are drawn, not with start"));
        }
        let Some(model) = models.get(&name) else {
            let known: Vec<&str> = models.keys().map(String::as_str).collect();
            return Err(Invalid::new(
                "start",
                name,
                format!("the id of a model or an ONNX file: {}", known.join(", ")),
            ));
        };
        let start = Start { model: model.id.clone(), digest: model.digest.clone() };
        part.insert("start".into(), serde_json::to_value(start).unwrap_or_default());
        let default = serde_json::to_value(Recipe::default()).unwrap_or_default();
        part.extend(OF_ARCHITECTURE.map(|field| (field.to_owned(), default[field].clone())));
    } else if part.contains_key("architecture") {
        part.insert("start".into(), Value::Null);
        part.entry("freeze").or_insert_with(|| Value::Array(Vec::new()));
    }
    Ok(part)
}

/// Checks that nothing is set that only drawn weights have.
pub(super) fn check(recipe: &Recipe) -> Result<(), Invalid> {
    let Some(start) = &recipe.start else { return Ok(()) };
    let set = [
        ("width", recipe.width.map(|width| width.to_string())),
        ("stem_stride", recipe.stem_stride.map(|stride| stride.to_string())),
        ("leaky", Some(recipe.leaky).filter(|&slope| slope != 0.0).map(|slope| slope.to_string())),
    ];
    match set.into_iter().find_map(|(field, value)| Some((field, value?))) {
        Some((field, value)) => {
            let expected = format!("weights that are drawn, not with start = {}", start.model);
            Err(Invalid::unsupported(field, value, &expected))
        }
        None => Ok(()),
    }
}

/// The model that a recipe starts from.
pub(super) fn model_of<'a>(recipe: &Recipe, models: &'a StartModels) -> Option<&'a Model> {
    let start = recipe.start.as_ref()?;
    models.values().find(|model| model.digest == start.digest).map(|model| &**model)
}
