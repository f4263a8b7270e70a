//! Documents of a study: the design that a user asks for, and the plan that follows from it.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
#[cfg(feature = "openapi")]
use utoipa::ToSchema;

use crate::maximize::Limits;
use crate::network::Model;
use crate::study::variant::{Fields, Variant};

/// What a user asks for, with models loaded.
#[derive(Debug, Clone)]
pub struct Design {
    /// The models, each with the layers whose units are drawn; without layers, four activations spread by depth.
    pub models: Vec<(Arc<Model>, Vec<String>)>,
    /// Units drawn per layer.
    pub units_per_layer: usize,
    /// Class logits drawn per model, if it has an output `[K]`.
    pub logits: usize,
    /// Default reduction of a channel to a number: `mean`, `center`, `max` or `topF`.
    pub reduce: String,
    /// Seed of the choice of units; seeds of the starts follow from it.
    pub seed: u64,
    /// Starts per unit.
    pub repeats: u32,
    /// Steps of an arm whose step costs two passes; more expensive arms get fewer.
    pub steps: u32,
    /// Fields of every request.
    pub base: Fields,
    /// The settings that are compared.
    pub arms: Vec<Variant>,
    /// How images are made; each method gets its own tables.
    pub methods: Vec<Variant>,
    /// Name of the device that the study runs on, or of several acceptable ones, separated by a comma and a space.
    pub device: String,
    /// The study of toy functions, if any.
    pub toys: Option<Toys>,
}

/// Limit of arms: each is compared with every other.
pub const MAX_ARMS: usize = 64;
/// Limit of methods.
pub const MAX_METHODS: usize = 32;

/// Limits of a study.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Limits of a request; the number of objectives is ignored.
    pub request: Limits,
    /// Limit of runs of a plan.
    pub runs: usize,
}

impl Default for Bounds {
    /// Limits of a local study, larger than those of a service.
    fn default() -> Self {
        Self { request: Limits { steps: 1_000_000, side: 8192, objectives: 1 << 20 }, runs: usize::MAX }
    }
}

/// The plan of a study. Two equal plans give equal scores.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Version of the program that runs it.
    pub program: String,
    /// Name of the device that the study runs on.
    pub device: String,
    /// Seed of the choice of units; seeds of the starts follow from it.
    pub seed: u64,
    /// Starts per unit.
    pub repeats: u32,
    /// Steps of an arm whose step costs two passes.
    pub steps: u32,
    /// Fields of every request.
    pub base: Fields,
    /// The models and their units.
    pub models: Vec<PlannedModel>,
    /// How images are made.
    pub methods: Vec<Variant>,
    /// The settings that are compared.
    pub arms: Vec<Variant>,
    /// Settings of every arm for every model under every method.
    pub settings: Vec<PlannedSettings>,
    /// The study of toy functions, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toys: Option<Toys>,
}

/// A model of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PlannedModel {
    /// Its id.
    pub id: String,
    /// SHA-256 of its weight file.
    pub digest: String,
    /// The layers with the units drawn from them.
    pub layers: Vec<PlannedLayer>,
}

/// A layer of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PlannedLayer {
    /// Its name.
    pub name: String,
    /// The units as text, in the order drawn.
    pub units: Vec<String>,
    /// Class names of the units, if they are logits of known classes; else empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
}

/// Settings of an arm for a model under a method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedSettings {
    /// Id of the model.
    pub model: String,
    /// Name of the method.
    pub method: String,
    /// Name of the arm.
    pub arm: String,
    /// The request, without objectives and seed.
    #[serde(deserialize_with = "stored_fields")]
    pub request: Fields,
    /// The settings that it resolves to, with defaults filled in.
    #[serde(deserialize_with = "stored_settings")]
    pub settings: Value,
}

/// The request of a stored plan, whose fields may have their old names.
fn stored_fields<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Fields, D::Error> {
    let mut request = Fields::deserialize(deserializer)?;
    rename_start(&mut request);
    Ok(request)
}

/// The settings of a stored plan, whose fields may have their old names.
fn stored_settings<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    let mut settings = Value::deserialize(deserializer)?;
    if let Some(settings) = settings.as_object_mut() {
        rename(settings, "certificates", "diagnostics");
        rename_start(settings);
    }
    Ok(settings)
}

fn rename_start(fields: &mut Fields) {
    if let Some(start) = fields.get_mut("start").and_then(Value::as_object_mut) {
        rename(start, "leash", "max_rms_distance");
    }
}

fn rename(fields: &mut Fields, old: &str, new: &str) {
    if let Some(value) = fields.remove(old) {
        fields.insert(new.to_owned(), value);
    }
}

/// A study of toy functions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Toys {
    /// Random networks of each random kind.
    pub networks: u32,
    /// Starts of each network, drawn uniformly from all images.
    pub starts: u32,
    /// Steps of an arm whose step costs two passes.
    pub steps: u32,
    /// The settings that are compared.
    pub arms: Vec<Variant>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn stored_plans_may_have_the_old_names() {
        let start = |name: &str| json!({"kind": "image", name: 0.1});
        let planned = |start: &Value, diagnostics: &str| {
            let settings = json!({"start": start, diagnostics: false});
            json!({"model": "m", "method": "x", "arm": "a", "request": {"start": start}, "settings": settings})
        };
        let read = |document: Value| serde_json::from_value::<PlannedSettings>(document).unwrap();
        let new = planned(&start("max_rms_distance"), "diagnostics");
        assert_eq!(read(planned(&start("leash"), "certificates")), read(new));
    }
}
