//! Whether every run of a plan fits into memory, found before it is accepted.

use super::plan::{Design, Plan, origin, request_for};
use crate::Invalid;
use crate::engine::MemoryModel;
use crate::maximize::{Limits, Objective, Resolved, TooLarge};
use crate::network::Model;
use serde_json::Value;

impl Design {
    /// Whether some of its requests start from an image.
    pub fn has_images(&self) -> bool {
        let parts = self.arms.iter().chain(&self.methods).map(|variant| &variant.request).chain([&self.base]);
        parts.into_iter().any(|fields| fields.get("start").is_some_and(|start| start.get("image").is_some()))
    }
}

impl Plan {
    /// The first arm whose runs, one stimulus at a time, would take more than `allowed` bytes of memory; its fields are
    /// named where the design gives them. Batches are made no larger than fit.
    ///
    /// # Errors
    /// If a request of the plan cannot be read or does not run.
    pub fn too_large(&self, design: &Design, memory: &MemoryModel, allowed: u64) -> Result<Option<TooLarge>, Invalid> {
        for ((model, _), planned) in design.models.iter().zip(&self.models) {
            let units: Vec<&String> = planned.layers.iter().filter_map(|layer| layer.units.first()).collect();
            for (m, method) in design.methods.iter().enumerate() {
                for (a, arm) in design.arms.iter().enumerate() {
                    let Some(settings) = self.settings_of(&model.id, &method.name, &arm.name) else { continue };
                    let place = |error| origin(design, m, a, error);
                    let resolved = resolved(model, &settings.settings, &units).map_err(place)?;
                    let found = resolved.too_large(memory, model, allowed);
                    let found = found.map_err(|error| place(Invalid::new("request", error, "a request that runs")))?;
                    if let Some(too_large) = found {
                        let fields = too_large.fields.into_iter().map(place).collect();
                        return Ok(Some(TooLarge { fields, ..too_large }));
                    }
                }
            }
        }
        Ok(None)
    }
}

/// What the planned settings mean for some units.
fn resolved(model: &Model, settings: &Value, units: &[&String]) -> Result<Resolved, Invalid> {
    let read = serde_json::from_value(settings.clone());
    let settings = read.map_err(|error| Invalid::new("settings", error, "settings that were planned"))?;
    let objectives = units.iter().map(|unit| unit.parse()).collect::<Result<Vec<Objective>, Invalid>>()?;
    let limits = Limits { objectives: units.len().max(1), ..Limits::default() };
    let named = request_for(&model.id, &Default::default(), objectives, 0)?.resolve(model, &limits)?;
    Ok(Resolved { settings, ..named })
}
