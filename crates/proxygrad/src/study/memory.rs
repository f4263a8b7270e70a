//! Memory check: whether every run of a plan fits into memory, before the plan is accepted.

use super::plan::requests::{locate_error, request_for};
use super::plan::types::{Design, Plan};
use crate::Invalid;
use crate::engine::MemoryModel;
use crate::maximize::{Limits, Objective, Resolved, TooLarge, judges_too_large};
use crate::network::Model;
use serde_json::Value;

impl Design {
    /// Whether any of its requests starts from an image.
    pub fn has_images(&self) -> bool {
        let parts = self.arms.iter().chain(&self.methods).map(|variant| &variant.request).chain([&self.base]);
        parts.into_iter().any(|fields| fields.get("start").is_some_and(|start| start.get("image").is_some()))
    }
}

impl Plan {
    /// The first arm or judge whose runs need more than `allowed` bytes of memory for a single stimulus; its fields are named
    /// where the design sets them. Larger batches are cut to fit.
    ///
    /// # Errors
    /// If a request of the plan is invalid or cannot run.
    pub fn too_large(&self, design: &Design, memory: &MemoryModel, allowed: u64) -> Result<Option<TooLarge>, Invalid> {
        for ((model, _), planned) in design.models.iter().zip(&self.models) {
            let units: Vec<&String> = planned.layers.iter().filter_map(|layer| layer.units.first()).collect();
            for (m, method) in design.methods.iter().enumerate() {
                for (a, arm) in design.arms.iter().enumerate() {
                    let Some(settings) = self.settings_of(&model.id, &method.name, &arm.name) else { continue };
                    let locate = |error| locate_error(design, m, a, error);
                    let resolved = resolved(model, &settings.settings, &units).map_err(locate)?;
                    let found = resolved.too_large(memory, model, allowed);
                    let found = found.map_err(|error| locate(Invalid::new("request", error, "a request that runs")))?;
                    if let Some(too_large) = found {
                        let fields = too_large.fields.into_iter().map(locate).collect();
                        return Ok(Some(TooLarge { fields, ..too_large }));
                    }
                }
            }
        }
        judges_too_large(memory, &design.judges, allowed)
    }
}

/// Resolves planned settings for some units.
fn resolved(model: &Model, settings: &Value, units: &[&String]) -> Result<Resolved, Invalid> {
    let read = serde_json::from_value(settings.clone());
    let settings = read.map_err(|error| Invalid::new("settings", error, "settings that were planned"))?;
    let objectives = units.iter().map(|unit| unit.parse()).collect::<Result<Vec<Objective>, Invalid>>()?;
    let limits = Limits { objectives: units.len().max(1), ..Limits::default() };
    let named = request_for(&model.id, &Default::default(), objectives, 0)?.resolve(model, &limits)?;
    Ok(Resolved { settings, ..named })
}
