//! Requests of a plan: merges base, method and arm, and resolves the result against a model.

use serde_json::Value;

use super::types::{Design, PlannedModel, PlannedSettings};
use crate::Invalid;
use crate::maximize::{Limits, Objective, Request, Settings};
use crate::network::Model;
use crate::study::variant::{Fields, merged};

/// Resolves an arm for a model under a method, both given by index, with one unit of each layer.
pub(super) fn planned_settings(
    design: &Design,
    limits: &Limits,
    model: &Model,
    planned: &PlannedModel,
    method: usize,
    arm: usize,
) -> Result<PlannedSettings, Invalid> {
    let parts = (&design.methods[method], &design.arms[arm]);
    let request = merged(&[&design.base, &parts.0.request, &parts.1.request]);
    let units: Vec<String> = planned.layers.iter().filter_map(|layer| layer.units.first().cloned()).collect();
    let resolved = planned_request(model, request, design.steps, &units, limits);
    let (request, settings) = resolved.map_err(|error| locate_error(design, method, arm, error))?;
    let (method, arm) = (parts.0.name.clone(), parts.1.name.clone());
    Ok(PlannedSettings { model: model.id.clone(), method, arm, request, settings })
}

/// Prefixes the field of an error with its origin: the arm, the method, the base or the design itself.
pub(in crate::study) fn locate_error(design: &Design, method: usize, arm: usize, error: Invalid) -> Invalid {
    let field = error.field.split(['.', '[']).next().unwrap_or_default();
    if design.arms[arm].request.contains_key(field) {
        error.within(&format!("arms[{arm}].request"))
    } else if design.methods[method].request.contains_key(field) {
        error.within(&format!("methods[{method}].request"))
    } else if design.base.contains_key(field) {
        error.within("base")
    } else if field == "steps" {
        error
    } else {
        error.within(&format!("arms[{arm}].request"))
    }
}

/// Completes a request with `steps`, unless it has its own, and returns it with the settings that it resolves to. If a
/// step costs more than two passes, it gets fewer steps, so that all arms spend the same number of passes.
pub(in crate::study) fn planned_request(
    model: &Model,
    mut request: Fields,
    steps: u32,
    units: &[String],
    limits: &Limits,
) -> Result<(Fields, Value), Invalid> {
    // Most of these are decided by the plan; of each run only scores and one image are kept.
    for field in ["model", "objective", "objectives", "seed", "diversity", "animation", "diagnostics"] {
        if let Some(value) = request.get(field) {
            return Err(Invalid::new(field, value, "nothing: requests of a study cannot set this field"));
        }
    }
    let start = request.get("start").and_then(Value::as_object);
    for (parent, fields, old) in [("", Some(&request), "certificates"), ("start.", start, "leash")] {
        if let (Some(value), Some(new)) = (fields.and_then(|fields| fields.get(old)), Request::renamed_field(old)) {
            return Err(Invalid::renamed(format!("{parent}{old}"), value, new));
        }
    }
    let own_steps = request.contains_key("steps");
    request.entry("steps").or_insert(steps.into());
    let resolve = |request: &Fields| resolved(model, request, units, limits);
    let mut settings = resolve(&request)?;
    if !own_steps && gate_kind(&settings) == Some("true-proxy") && has_no_transforms(&settings) {
        let share = |name: &str| settings.pointer(name).and_then(Value::as_f64).unwrap_or(0.0);
        let fewer = true_proxy_steps(steps, share("/gate/anneal"), share("/gate/polish"));
        request.insert("steps".to_owned(), fewer.into());
        settings = resolve(&request)?;
    }
    Ok((request, settings))
}

/// Steps of `true-proxy` without transforms that cost as many passes as `steps` of another gate: a step costs three
/// passes until the slope has annealed or polishing begins, else two.
fn true_proxy_steps(steps: u32, anneal: f64, polish: f64) -> u32 {
    let plain_from = if anneal > 0.0 { anneal.min(1.0 - polish) } else { 1.0 - polish };
    let passes = |steps: u32| 2 * steps + (f64::from(steps) * plain_from).ceil() as u32;
    (1..=steps).rev().find(|&fewer| passes(fewer) <= 2 * steps).unwrap_or(1)
}

fn gate_kind(settings: &Value) -> Option<&str> {
    settings.pointer("/gate/kind").and_then(Value::as_str)
}

fn has_no_transforms(settings: &Value) -> bool {
    settings.get("transforms").and_then(Value::as_array).is_none_or(Vec::is_empty)
}

fn resolved(model: &Model, request: &Fields, units: &[String], limits: &Limits) -> Result<Value, Invalid> {
    let limits = Limits { objectives: units.len(), ..*limits };
    let objectives = units.iter().map(|unit| unit.parse()).collect::<Result<Vec<Objective>, Invalid>>()?;
    let settings: Settings = request_for(&model.id, request, objectives, 0)?.resolve(model, &limits)?.settings;
    serde_json::to_value(&settings).map_err(|error| Invalid::new("settings", error, "settings that JSON can hold"))
}

/// A request with these fields and objectives.
pub(in crate::study) fn request_for(
    model: &str,
    fields: &Fields,
    objectives: Vec<Objective>,
    seed: u64,
) -> Result<Request, Invalid> {
    let mut fields = fields.clone();
    fields.insert("model".to_owned(), model.into());
    let read = serde_path_to_error::deserialize(Value::Object(fields.clone()));
    let mut request: Request = read.map_err(|error| {
        let path = error.path().to_string();
        let value = path.split('.').next().and_then(|field| fields.remove(field));
        let field = if path == "." { "request" } else { &path };
        Invalid::new(field, value.unwrap_or_default(), format!("a valid request: {}", error.inner()))
    })?;
    if let Some(presets) = &request.presets {
        let names: Vec<&str> = presets.iter().map(|preset| preset.name()).collect();
        let expected = "a single preset: a study compares presets as methods or arms";
        return Err(Invalid::new("presets", format!("[{}]", names.join(", ")), expected));
    }
    request.objectives = Some(objectives);
    request.seed = Some(seed);
    Ok(request)
}
