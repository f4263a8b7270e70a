//! Which units of the trained networks are maximized, and how.

use serde::{Deserialize, Serialize};

use crate::Invalid;
use crate::network::{ImageStatistics, Model, Unit};
use crate::study::StudyError;
use crate::study::plan::requests::planned_request;
use crate::study::plan::types::Bounds;
use crate::study::plan::units::{activations, draw};
use crate::study::training::plan::{TrainingPlan, each_once};
use crate::study::training::runner::StudyData;
use crate::study::training::starts::StartModels;
use crate::study::variant::{Fields, Variant, Variants, merged};

/// Largest number of units of a layer.
const MOST_UNITS: usize = 1000;

/// Distance between the seeds of the starts of two runs; those of the units of a network are in between.
const SEEDS_PER_RUN: u64 = 1_000_000;

/// The table `[maxima]` of a plan file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MaximaDesign {
    /// Names of the layers; if empty, all activations with feature maps.
    pub layers: Vec<String>,
    /// Units of every layer, drawn by the seed of the run.
    pub units: usize,
    /// Reduction of a channel to a number: `mean`, `center` or `max`.
    pub reduce: String,
    /// Steps of a gate whose step costs two passes; more expensive gates get fewer.
    pub steps: u32,
    /// Names of gates, as arms of a study of gates: `plain`, `auto`, `slope:0.1` …
    pub gates: Vec<String>,
    /// Other fields of the requests.
    pub request: Fields,
}

impl Default for MaximaDesign {
    fn default() -> Self {
        Self {
            layers: Vec::new(),
            units: 4,
            reduce: "mean".to_owned(),
            steps: 128,
            gates: vec!["plain".to_owned(), "auto".to_owned()],
            request: Fields::new(),
        }
    }
}

/// What is maximized in the networks of a study, the content of `maxima.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MaximaPlan {
    /// Version of the program.
    pub program: String,
    /// Device that maximizes.
    pub device: String,
    /// Names of the layers; if empty, all activations with feature maps.
    pub layers: Vec<String>,
    /// Units of every layer.
    pub units: usize,
    /// Reduction of a channel to a number.
    pub reduce: String,
    /// Steps of a gate whose step costs two passes.
    pub steps: u32,
    /// The gates, each with the fields of its requests.
    pub gates: Vec<Variant>,
}

impl MaximaPlan {
    /// Resolves the requests against the untrained networks of a study, so that errors are found before anything runs.
    ///
    /// # Errors
    /// Names the field that is invalid, or the network that cannot be built.
    pub fn new(
        design: &MaximaDesign,
        study: &TrainingPlan,
        data: &[StudyData],
        models: &StartModels,
    ) -> Result<Self, StudyError> {
        if !(1..=MOST_UNITS).contains(&design.units) {
            let expected = format!("a number from 1 to {MOST_UNITS}");
            return Err(Invalid::new("maxima.units", design.units, expected).into());
        }
        if !["mean", "center", "max"].contains(&&*design.reduce) {
            return Err(Invalid::new("maxima.reduce", &design.reduce, "mean, center or max").into());
        }
        if design.steps == 0 {
            return Err(Invalid::new("maxima.steps", design.steps, "a number of at least 1").into());
        }
        each_once("maxima.gates", design.gates.iter().map(String::as_str))?;
        let gate = |name: &String| {
            let arm =
                Variants::default().arm(name).map_err(|error| Invalid { field: "maxima.gates".into(), ..error })?;
            Ok::<_, Invalid>(Variant { request: merged(&[&design.request, &arm.request]), ..arm })
        };
        let plan = Self {
            program: study.program.clone(),
            device: study.device.clone(),
            layers: design.layers.clone(),
            units: design.units,
            reduce: design.reduce.clone(),
            steps: design.steps,
            gates: design.gates.iter().map(gate).collect::<Result<_, _>>()?,
        };
        study.each_network(data, models, &mut |planned, network, preprocessing| {
            let model = Model {
                id: planned.network.clone(),
                digest: String::new(),
                network: network.into(),
                preprocessing,
                classes: Vec::new(),
                calibration: None,
                statistics: ImageStatistics::default(),
            };
            let units = plan.units_of(&model, planned.recipe.seed).map_err(|error| error.within("maxima"))?;
            for gate in &plan.gates {
                plan.request(gate, &model, &units).map_err(|error| error.within("maxima.request"))?;
            }
            Ok(())
        })?;
        Ok(plan)
    }

    /// The units of the network of a run with this seed: the same for all arms whose networks have the same layers.
    pub(super) fn units_of(&self, model: &Model, seed: u64) -> Result<Vec<Unit>, Invalid> {
        let network = &model.network;
        let layers: Vec<String> = match &self.layers[..] {
            [] => activations(network).into_iter().map(|id| network.node(id).name.clone()).collect(),
            layers => layers.to_vec(),
        };
        if layers.is_empty() {
            return Err(Invalid::new("layers", "nothing", format!("layers: {} has no activations", model.id)));
        }
        let mut units = Vec::new();
        for (i, layer) in layers.iter().enumerate() {
            let drawn = draw(seed, model, layer, &self.reduce, self.units);
            let drawn = drawn.map_err(|error| Invalid { field: format!("layers[{i}]"), ..error })?;
            for unit in drawn.units {
                units.push(unit.parse()?);
            }
        }
        Ok(units)
    }

    /// The fields of the request of a gate.
    pub(super) fn request(&self, gate: &Variant, model: &Model, units: &[Unit]) -> Result<Fields, Invalid> {
        let units: Vec<String> = units.iter().map(Unit::to_string).collect();
        let (request, _) =
            planned_request(model, gate.request.clone(), self.steps, &units, &Bounds::default().request)?;
        Ok(request)
    }

    /// Seed of the start of unit number `unit` of the network of a run with this seed.
    pub(super) fn start_seed(seed: u64, unit: usize) -> u64 {
        seed.wrapping_mul(SEEDS_PER_RUN).wrapping_add(unit as u64)
    }
}
