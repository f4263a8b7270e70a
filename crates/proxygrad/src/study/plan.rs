//! The plan of a study: everything that is decided before anything runs.

use std::path::Path;
use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
#[cfg(feature = "openapi")]
use utoipa::ToSchema;

use super::error::StudyError;
use super::json::pretty;
use super::toy::{self, Toys};
use super::variant::{Fields, Variant, merged};
use crate::Invalid;
use crate::maximize::{Limits, Objective, Request, Settings};
use crate::network::{Model, Network, NodeId, Op, Selection, Unit};

/// What a user asks a study to be.
#[derive(Debug, Clone)]
pub struct Design {
    /// The models, each with the layers whose units are drawn; without layers four activations spread by depth.
    pub models: Vec<(Arc<Model>, Vec<String>)>,
    /// Units drawn per layer.
    pub units_per_layer: usize,
    /// Class logits drawn per model, if it has an output `[K]`.
    pub logits: usize,
    /// How the positions of a channel become one number where the layer does not say: `mean`, `center`, `max`, `topF`.
    pub reduce: String,
    /// Seed of the choice of units; the starts' seeds follow it.
    pub seed: u64,
    /// Starts per unit.
    pub repeats: u32,
    /// Steps of an arm whose step costs two passes; dearer arms get fewer.
    pub steps: u32,
    /// Fields of every request.
    pub base: Fields,
    /// What is compared.
    pub arms: Vec<Variant>,
    /// How images are made: each gets a table of its own.
    pub methods: Vec<Variant>,
    /// Name of the device that everything runs on, or of several, separated by a comma and a blank, each of which may.
    pub device: String,
    /// The study of toy functions, if any.
    pub toys: Option<Toys>,
}

/// Most arms: every one is compared with every other.
pub const MOST_ARMS: usize = 64;
/// Most methods.
pub const MOST_METHODS: usize = 32;

/// How large a study may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The largest requests; how many objectives they have does not count here.
    pub request: Limits,
    /// Most runs of a plan.
    pub runs: usize,
}

impl Default for Bounds {
    /// A study of one's own: it may ask for more than a service allows.
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
    /// Name of the device that everything runs on.
    pub device: String,
    /// Seed of the choice of units; the starts' seeds follow it.
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
    /// What is compared.
    pub arms: Vec<Variant>,
    /// What every arm means for every model under every method.
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
    /// The units drawn, as text, in the order drawn.
    pub units: Vec<String>,
    /// Names of the classes that the units are, where they are logits with known classes; else empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
}

/// What an arm means for a model under a method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedSettings {
    /// Id of the model.
    pub model: String,
    /// Name of the method.
    pub method: String,
    /// Name of the arm.
    pub arm: String,
    /// The request, but for objectives and seed.
    pub request: Fields,
    /// The settings that it resolves to, every default filled in.
    pub settings: Value,
}

/// Distance between the seeds of two starts of one unit; the units of a model lie in between.
const SEEDS_PER_REPEAT: u64 = 1_000_000;

/// Layers that are chosen where none are named.
const DEFAULT_LAYERS: usize = 4;

impl Plan {
    /// Draws the units and resolves every arm against every model, so that nothing is found wrong half-way.
    ///
    /// # Errors
    /// Names what does not exist or does not fit.
    pub fn new(design: &Design) -> Result<Self, Invalid> {
        Self::within(design, &Bounds::default())
    }

    /// The same for a study that may be no larger than this.
    ///
    /// # Errors
    /// Names what does not exist, does not fit or is too large.
    pub fn within(design: &Design, bounds: &Bounds) -> Result<Self, Invalid> {
        let Design { seed, repeats, steps, ref device, .. } = *design;
        let least = |field: &str, value: u64, least: u64| match value >= least {
            true => Ok(()),
            false => Err(Invalid::new(field, value, format!("a whole number from {least}"))),
        };
        if !design.models.is_empty() {
            least("seeds", repeats.into(), 1)?;
            least("units_per_layer", design.units_per_layer.saturating_add(design.logits) as u64, 1)?;
        }
        check_reduce(&design.reduce)?;
        least("steps", steps.into(), 1)?;
        let fits = |runs: usize| match runs <= bounds.runs {
            true => Ok(()),
            false => {
                let expected = format!("at most {}: units times starts, methods and arms", bounds.runs);
                Err(Invalid::new("runs", runs, expected))
            }
        };
        for (field, variants, most) in [("arms", &design.arms, MOST_ARMS), ("methods", &design.methods, MOST_METHODS)] {
            if variants.is_empty() {
                return Err(Invalid::new(field, "nothing", "at least one name"));
            }
            if variants.len() > most {
                return Err(Invalid::new(field, format!("{} of them", variants.len()), format!("at most {most}")));
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
        })
    }

    /// Seed of the request for the `unit`-th unit of a model (counted over its layers) at one of its starts.
    pub fn request_seed(&self, repeat: u32, unit: usize) -> u64 {
        self.seed + u64::from(repeat) * SEEDS_PER_REPEAT + unit as u64
    }

    /// What an arm means for a model under a method.
    pub fn settings_of(&self, model: &str, method: &str, arm: &str) -> Option<&PlannedSettings> {
        self.settings.iter().find(|s| (s.model.as_str(), s.method.as_str(), s.arm.as_str()) == (model, method, arm))
    }

    /// The plan as JSON, as it stands in `plan.json`.
    ///
    /// # Errors
    /// If a number cannot be written.
    pub fn to_json(&self) -> Result<String, StudyError> {
        pretty(self, Path::new("plan.json"))
    }

    /// Whether this program on this device gives what the plan stands for.
    ///
    /// # Errors
    /// Says what is different.
    pub fn fits(&self, device: &str) -> Result<(), String> {
        let program = env!("CARGO_PKG_VERSION");
        if self.program != program {
            return Err(format!("the study was planned by version {} of the program; this is {program}", self.program));
        }
        match self.device.split(", ").any(|planned| planned == device) {
            true => Ok(()),
            false => Err(format!("the study was planned for {}; this device is {device}", self.device)),
        }
    }

    /// Number of units, of all models.
    pub fn units(&self) -> usize {
        count_units(&self.models)
    }

    /// Number of stimuli that the plan asks for, toys not counted.
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

/// Checks that this is a way to make one number of the positions of a channel.
fn check_reduce(reduce: &str) -> Result<(), Invalid> {
    let unit: Option<Unit> = if reduce.is_empty() { None } else { format!("x:0@{reduce}").parse().ok() };
    match unit.map(|unit| unit.selection) {
        Some(Selection::Channel { .. }) => Ok(()),
        None if reduce.is_empty() => Ok(()),
        _ => Err(Invalid::new("reduce", reduce, "mean, center, max or topF, such as top0.25")),
    }
}

/// The layers of a model with their units.
fn planned_layers(design: &Design, model: &Model, layers: &[String]) -> Result<Vec<PlannedLayer>, Invalid> {
    let network = &model.network;
    let logits = logits(network);
    let named: Vec<String> = match layers {
        [] => spread(network, logits).into_iter().map(|id| network.node(id).name.clone()).collect(),
        layers => layers.to_vec(),
    };
    let mut planned: Vec<PlannedLayer> = Vec::new();
    let wanted = named.iter().filter(|_| design.units_per_layer > 0).map(|name| (name.clone(), design.units_per_layer));
    let wanted = wanted.collect::<Vec<_>>().into_iter();
    let output = logits.filter(|_| design.logits > 0).map(|id| (network.node(id).name.clone(), design.logits));
    for (i, (layer, count)) in wanted.chain(output).enumerate() {
        let (name, reduce) = layer.split_once('@').unwrap_or((&layer, &design.reduce));
        // A layer has several names.
        let name = network.find(name).map_or(name, |id| &network.node(id).name);
        let place = |error| Invalid { field: format!("layers[{i}]"), ..error };
        if planned.iter().any(|earlier| earlier.name == name) {
            return Err(place(Invalid::new("", name, "each layer once; the logits have a number of their own")));
        }
        planned.push(draw(design.seed, model, name, reduce, count).map_err(place)?);
    }
    Ok(planned)
}

/// Draws units of a layer; which ones depends on the seed, the model and the layer alone.
fn draw(seed: u64, model: &Model, layer: &str, reduce: &str, count: usize) -> Result<PlannedLayer, Invalid> {
    let network = &model.network;
    let unit = |channel: usize| -> Result<Unit, Invalid> {
        let id = network.find(layer);
        let is_map = id.is_some_and(|id| network.node(id).shape.feature_map().is_some());
        let text = match (is_map, reduce) {
            (false, _) | (true, "mean" | "") => format!("{layer}:{channel}"),
            (true, reduce) => format!("{layer}:{channel}@{reduce}"),
        };
        let unit: Unit = text.parse().map_err(|_| Invalid::new("", layer, "NAME, or NAME@center and the like"))?;
        if !matches!(unit.selection, Selection::Channel { .. }) {
            return Err(Invalid::new("", format!("{layer}@{reduce}"), "mean, center, max or topF behind the @"));
        }
        network.layer(&unit.layer).and_then(|id| unit.check(&network.node(id).shape))?;
        Ok(unit)
    };
    // Also finds out whether the layer is there.
    let id = network.find(&unit(0)?.layer).unwrap_or(Network::INPUT);
    let channels = network.node(id).shape.channels();
    let mut stream = [0u8; 8];
    stream.copy_from_slice(&Sha256::digest(format!("{} {layer}", model.id))[..8]);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(u64::from_le_bytes(stream));
    let mut left: Vec<usize> = (0..channels).collect();
    let drawn = (0..count.min(channels)).map(|_| left.swap_remove(rng.random_range(0..left.len())));
    let units = drawn.map(unit).collect::<Result<Vec<Unit>, Invalid>>()?;
    let classes: Option<Vec<String>> = units.iter().map(|unit| model.class_of(unit).map(str::to_owned)).collect();
    let units = units.iter().map(Unit::to_string).collect();
    Ok(PlannedLayer { name: layer.to_owned(), units, classes: classes.unwrap_or_default() })
}

/// The layer of class logits: the first output, or what a softmax there reads.
fn logits(network: &Network) -> Option<NodeId> {
    let mut id = *network.outputs().first()?;
    while network.node(id).op.is_softmax() {
        id = *network.node(id).inputs.first()?;
    }
    (network.node(id).shape.len() == 1).then_some(id)
}

/// Activations of feature maps, spread evenly over those below the logits.
fn spread(network: &Network, logits: Option<NodeId>) -> Vec<NodeId> {
    let below = match logits {
        Some(logits) => network.below(&[logits]),
        None => (0..network.nodes().len()).map(NodeId).collect(),
    };
    let is_activation = |id: &NodeId| {
        let node = network.node(*id);
        matches!(node.op, Op::Activation(_)) && node.shape.feature_map().is_some()
    };
    let activations: Vec<NodeId> = below.into_iter().filter(is_activation).collect();
    let chosen = DEFAULT_LAYERS.min(activations.len());
    (0..chosen).map(|i| activations[(2 * i + 1) * activations.len() / (2 * chosen)]).collect()
}

/// Resolves an arm against a model under a method, each given by its index, for one unit of each layer.
fn planned_settings(
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
    let (request, settings) = resolved.map_err(|error| origin(design, method, arm, error))?;
    let (method, arm) = (parts.0.name.clone(), parts.1.name.clone());
    Ok(PlannedSettings { model: model.id.clone(), method, arm, request, settings })
}

/// The error of a request, named where its field was given: by the arm, the method, the base or the design itself.
pub(super) fn origin(design: &Design, method: usize, arm: usize, error: Invalid) -> Invalid {
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

/// The request with its steps, unless it has its own: `steps` where a step costs two passes, else fewer, so that all
/// spend the same passes. And the settings that it resolves to.
pub(super) fn planned_request(
    model: &Model,
    mut request: Fields,
    steps: u32,
    units: &[String],
    limits: &Limits,
) -> Result<(Fields, Value), Invalid> {
    // The plan itself says most of these; and a run has one stimulus, of which its scores and one image are kept.
    for field in ["model", "objective", "objectives", "seed", "diversity", "animation", "certificates"] {
        if let Some(value) = request.get(field) {
            return Err(Invalid::new(field, value, "nothing: no part of a study's requests has this field"));
        }
    }
    let own_steps = request.contains_key("steps");
    request.entry("steps").or_insert(steps.into());
    let resolve = |request: &Fields| resolved(model, request, units, limits);
    let mut settings = resolve(&request)?;
    if !own_steps && kind(&settings) == Some("true-proxy") && has_no_views(&settings) {
        let share = |name: &str| settings.pointer(name).and_then(Value::as_f64).unwrap_or(0.0);
        let fewer = true_proxy_steps(steps, share("/gate/anneal"), share("/gate/polish"));
        request.insert("steps".to_owned(), fewer.into());
        settings = resolve(&request)?;
    }
    Ok((request, settings))
}

/// Steps of the true proxy without views that spend the passes of `steps` other ones: until its slope has faded or it
/// polishes, a step costs three passes, of all others two.
fn true_proxy_steps(steps: u32, anneal: f64, polish: f64) -> u32 {
    let plain_from = if anneal > 0.0 { anneal.min(1.0 - polish) } else { 1.0 - polish };
    let passes = |steps: u32| 2 * steps + (f64::from(steps) * plain_from).ceil() as u32;
    (1..=steps).rev().find(|&fewer| passes(fewer) <= 2 * steps).unwrap_or(1)
}

fn kind(settings: &Value) -> Option<&str> {
    settings.pointer("/gate/kind").and_then(Value::as_str)
}

fn has_no_views(settings: &Value) -> bool {
    settings.get("transforms").and_then(Value::as_array).is_none_or(Vec::is_empty)
}

fn resolved(model: &Model, request: &Fields, units: &[String], limits: &Limits) -> Result<Value, Invalid> {
    let limits = Limits { objectives: units.len(), ..*limits };
    let objectives = units.iter().map(|unit| unit.parse()).collect::<Result<Vec<Objective>, Invalid>>()?;
    let settings: Settings = request_for(&model.id, request, objectives, 0)?.resolve(model, &limits)?.settings;
    serde_json::to_value(&settings).map_err(|error| Invalid::new("settings", error, "settings that JSON can hold"))
}

/// The request of these fields for objectives.
pub(super) fn request_for(
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
        Invalid::new(field, value.unwrap_or_default(), format!("a request: {}", error.inner()))
    })?;
    request.objectives = Some(objectives);
    request.seed = Some(seed);
    Ok(request)
}
