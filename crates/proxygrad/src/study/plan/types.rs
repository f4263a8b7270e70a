//! Documents of a study: the design that a user asks for, and the plan that follows from it.

use std::fmt;
use std::sync::Arc;

use image::DynamicImage;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
#[cfg(feature = "openapi")]
use utoipa::ToSchema;

use crate::judge::JudgeRef;
use crate::maximize::Limits;
use crate::network::calibration::Patch;
use crate::network::{Model, Network};
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
    /// Models that judge the readability of every stimulus.
    pub judges: Vec<Arc<Model>>,
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
    /// Models that judge the readability of every stimulus.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub judges: Vec<JudgeRef>,
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
    /// The part of an image that its units see, if they look at the centre of the layer and see less than the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<PlannedPart>,
}

/// A part of the images of a layer's units: the receptive field of the layer's centre.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PlannedPart {
    /// Height and width of the images.
    #[cfg_attr(feature = "openapi", schema(min_items = 2, max_items = 2))]
    pub size: [usize; 2],
    /// Rows `[from, to)` that the units see.
    #[cfg_attr(feature = "openapi", schema(min_items = 2, max_items = 2))]
    pub rows: [usize; 2],
    /// Columns `[from, to)` that they see.
    #[cfg_attr(feature = "openapi", schema(min_items = 2, max_items = 2))]
    pub columns: [usize; 2],
}

impl PlannedPart {
    /// What the centre of a layer sees; `None` if that is the whole image.
    pub(super) fn of_centre(network: &Network, layer: &str) -> Option<Self> {
        let Patch { rows, columns } = Patch::centre(network, layer);
        let size = [1, 2].map(|axis| network.input_shape()[axis]);
        let part = Self { size, rows: [rows.start, rows.end], columns: [columns.start, columns.end] };
        ([rows.len(), columns.len()] != size).then_some(part)
    }

    /// This part of an image; `None` if the image has another size.
    pub(in crate::study) fn of(&self, image: &DynamicImage) -> Option<DynamicImage> {
        let patch = Patch { rows: self.rows[0]..self.rows[1], columns: self.columns[0]..self.columns[1] };
        ([image.height(), image.width()].map(|side| side as usize) == self.size).then(|| patch.of(image))
    }
}

impl fmt::Display for PlannedPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [height, width] = [self.rows, self.columns].map(|[from, to]| to.saturating_sub(from));
        write!(f, "{width} x {height} of {} x {} pixels", self.size[1], self.size[0])
    }
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
