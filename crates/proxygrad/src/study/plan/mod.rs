//! Plan of a study: units and settings, fixed before anything runs.

mod judges;
pub(in crate::study) mod requests;
pub(in crate::study) mod types;
pub(in crate::study) mod units;

use std::path::Path;

use judges::planned_judges;
use requests::planned_settings;
use types::{MAX_ARMS, MAX_METHODS};
use units::{check_reduce, planned_layers};

use super::error::StudyError;
use super::json::pretty;
use super::toy;
use super::variant::Variant;
use crate::Invalid;

pub use types::{Bounds, Design, Plan, PlannedLayer, PlannedModel, PlannedPart, PlannedSettings, Toys};

/// Distance between the seeds of two starts of a unit; seeds of the other units of a model are in between.
const SEEDS_PER_REPEAT: u64 = 1_000_000;

impl Plan {
    /// Draws the units and resolves every arm against every model, so that errors are found before anything runs.
    ///
    /// # Errors
    /// Names the field that is invalid.
    pub fn new(design: &Design) -> Result<Self, Invalid> {
        Self::within(design, &Bounds::default())
    }

    /// Like [`Plan::new`], within bounds.
    ///
    /// # Errors
    /// Names the field that is invalid or too large.
    pub fn within(design: &Design, bounds: &Bounds) -> Result<Self, Invalid> {
        let Design { seed, repeats, steps, ref device, .. } = *design;
        let at_least = |field: &str, value: u64, min: u64| match value >= min {
            true => Ok(()),
            false => Err(Invalid::new(field, value, format!("a whole number of at least {min}"))),
        };
        if !design.models.is_empty() {
            at_least("seeds", repeats.into(), 1)?;
            at_least("units_per_layer", design.units_per_layer.saturating_add(design.logits) as u64, 1)?;
        }
        check_reduce(&design.reduce)?;
        at_least("steps", steps.into(), 1)?;
        let fits = |runs: usize| match runs <= bounds.runs {
            true => Ok(()),
            false => {
                let expected = format!("at most {}: units times starts, methods and arms", bounds.runs);
                Err(Invalid::new("runs", runs, expected))
            }
        };
        for (field, variants, max) in [("arms", &design.arms, MAX_ARMS), ("methods", &design.methods, MAX_METHODS)] {
            if variants.is_empty() {
                return Err(Invalid::new(field, "nothing", "at least one name"));
            }
            if variants.len() > max {
                return Err(Invalid::new(field, format!("{} of them", variants.len()), format!("at most {max}")));
            }
            for (i, variant) in variants.iter().enumerate() {
                if variants[..i].iter().any(|earlier| earlier.name == variant.name) {
                    return Err(Invalid::new(field, &variant.name, "each name once"));
                }
            }
        }
        let mut models = Vec::with_capacity(design.models.len());
        let mut settings = Vec::new();
        for (i, (model, layers)) in design.models.iter().enumerate() {
            let place = format!("models[{i}]");
            if models.iter().any(|planned: &PlannedModel| planned.id == model.id) {
                return Err(Invalid::new(place, &model.id, "each model once"));
            }
            let layers = planned_layers(design, model, layers).map_err(|error| error.within(&place))?;
            models.push(PlannedModel { id: model.id.clone(), digest: model.digest.clone(), layers });
        }
        fits(count_runs(&models, repeats, &design.methods, &design.arms))?;
        for ((model, _), planned) in design.models.iter().zip(&models) {
            for method in 0..design.methods.len() {
                for arm in 0..design.arms.len() {
                    settings.push(planned_settings(design, &bounds.request, model, planned, method, arm)?);
                }
            }
        }
        if let Some(toys) = &design.toys {
            toy::check(toys, &design.base)?;
        }
        let judges = planned_judges(design, &models)?;
        Ok(Self {
            program: env!("CARGO_PKG_VERSION").to_owned(),
            device: device.clone(),
            seed,
            repeats,
            steps,
            base: design.base.clone(),
            models,
            methods: design.methods.clone(),
            arms: design.arms.clone(),
            settings,
            toys: design.toys.clone(),
            judges,
        })
    }

    /// Seed of the request for unit number `unit` of a model, counted over its layers, at this start.
    pub fn request_seed(&self, repeat: u32, unit: usize) -> u64 {
        self.seed + u64::from(repeat) * SEEDS_PER_REPEAT + unit as u64
    }

    /// Settings of an arm for a model under a method.
    pub fn settings_of(&self, model: &str, method: &str, arm: &str) -> Option<&PlannedSettings> {
        self.settings.iter().find(|s| (s.model.as_str(), s.method.as_str(), s.arm.as_str()) == (model, method, arm))
    }

    /// The plan as JSON, the content of `plan.json`.
    ///
    /// # Errors
    /// If a number cannot be written.
    pub fn to_json(&self) -> Result<String, StudyError> {
        pretty(self, Path::new("plan.json"))
    }

    /// Checks that this program on this device runs the plan as planned.
    ///
    /// # Errors
    /// Describes the difference.
    pub fn fits(&self, device: &str) -> Result<(), String> {
        let program = env!("CARGO_PKG_VERSION");
        if self.program != program {
            return Err(format!(
                "the study was planned by version {} of the program; this is version {program}",
                self.program
            ));
        }
        match self.device.split(", ").any(|planned| planned == device) {
            true => Ok(()),
            false => Err(format!("the study was planned for device {}; this device is {device}", self.device)),
        }
    }

    /// Number of units of all models.
    pub fn units(&self) -> usize {
        count_units(&self.models)
    }

    /// Number of runs, not counting toy functions.
    pub fn runs(&self) -> usize {
        count_runs(&self.models, self.repeats, &self.methods, &self.arms)
    }
}

fn count_runs(models: &[PlannedModel], repeats: u32, methods: &[Variant], arms: &[Variant]) -> usize {
    [repeats as usize, methods.len(), arms.len()].into_iter().fold(count_units(models), usize::saturating_mul)
}

fn count_units(models: &[PlannedModel]) -> usize {
    models.iter().flat_map(|model| &model.layers).map(|layer| layer.units.len()).sum()
}
