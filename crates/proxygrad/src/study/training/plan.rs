//! Plan of a study of training: all runs, with all settings filled in.

use serde::{Deserialize, Serialize};

use super::design::{NetworkDesign, TrainingDesign};
use super::row::TrainingKey;
use super::runner::StudyData;
use super::starts::{StartModels, model_of};
use crate::Invalid;
use crate::network::{Network, Preprocessing};
use crate::study::error::StudyError;
use crate::train::{Recipe, starting_network};

/// Largest number of runs.
const MOST_RUNS: usize = 100_000;

/// A study of training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainingPlan {
    /// Version of the program.
    pub program: String,
    /// Device that trains.
    pub device: String,
    /// The arm that all others are compared with.
    pub against: String,
    /// The first seed.
    pub first_seed: u64,
    /// Number of test images; `None` for all.
    pub test_limit: Option<usize>,
    /// The datasets.
    pub data: Vec<PlannedData>,
    /// The networks.
    pub networks: Vec<PlannedNetwork>,
    /// A recipe for each network and arm; `seed` is the first one.
    pub recipes: Vec<PlannedRecipe>,
}

/// A dataset of a study.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedData {
    /// Name in tables and files.
    pub name: String,
    /// SHA-256 of its images and labels.
    pub digest: String,
    /// Number of training images.
    pub train: usize,
    /// Number of test images.
    pub test: usize,
    /// Share of the most frequent class of the test images: the accuracy of a network that has learned nothing.
    pub chance: f64,
}

/// A network of a study.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedNetwork {
    /// Name in tables and files.
    pub name: String,
    /// Names of its arms.
    pub arms: Vec<String>,
    /// Number of seeds.
    pub seeds: u32,
    /// Test accuracy whose first epoch is reported.
    pub reach: f64,
}

/// The recipe of an arm on a network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedRecipe {
    /// Name of the network.
    pub network: String,
    /// Name of the arm.
    pub arm: String,
    /// What is trained and how.
    pub recipe: Recipe,
}

impl TrainingPlan {
    /// Fills in the recipes and builds every network, so that errors are found before anything runs. `models` are those
    /// that recipes start from.
    ///
    /// # Errors
    /// Names the field that is invalid, or the network that cannot be built.
    pub fn new(
        design: &TrainingDesign,
        data: &[StudyData],
        models: &StartModels,
        device: &str,
    ) -> Result<Self, StudyError> {
        each_once("data", data.iter().map(|data| &*data.name))?;
        each_once("networks", design.networks.iter().map(|network| &*network.name))?;
        each_once("arms", design.arms.iter().map(|arm| &*arm.name))?;
        let mut recipes = Vec::new();
        let mut networks = Vec::new();
        let against = design.against.clone().unwrap_or_else(|| default_reference(&design.networks));
        for network in &design.networks {
            each_once(&format!("networks.{}.arms", network.name), network.arms.iter().map(String::as_str))?;
            let seeds = network.seeds.unwrap_or(design.seeds);
            if seeds == 0 {
                return Err(Invalid::new("seeds", seeds, "a number of at least 1").into());
            }
            if !network.arms.contains(&against) {
                let expected = format!("an arm of every network, also of {}", network.name);
                return Err(Invalid::new("against", &against, expected).into());
            }
            if !(0.0..=1.0).contains(&network.reach) {
                return Err(Invalid::new("reach", network.reach, "an accuracy from 0 to 1").into());
            }
            for arm in &network.arms {
                let recipe = design.recipe(network, arm, models)?;
                recipes.push(PlannedRecipe { network: network.name.clone(), arm: arm.clone(), recipe });
            }
            let NetworkDesign { name, arms, reach, .. } = network.clone();
            networks.push(PlannedNetwork { name, arms, seeds, reach });
        }
        let planned_data = data.iter().map(|data| planned(data, design.test_limit)).collect::<Result<_, _>>()?;
        let plan = Self {
            program: env!("CARGO_PKG_VERSION").to_owned(),
            device: device.to_owned(),
            against,
            first_seed: design.first_seed,
            test_limit: design.test_limit,
            data: planned_data,
            networks,
            recipes,
        };
        let runs = plan.run_count();
        if runs > MOST_RUNS {
            let expected = format!("at most {MOST_RUNS} runs: data times networks, arms and seeds");
            return Err(Invalid::new("seeds", runs, expected).into());
        }
        plan.each_network(data, models, &mut |_, _, _| Ok(()))?;
        Ok(plan)
    }

    /// Calls `check` with every network before its first step, and the normalization of its input.
    ///
    /// # Errors
    /// That of `check`, or names the network that cannot be built.
    pub(super) fn each_network(
        &self,
        data: &[StudyData],
        models: &StartModels,
        check: &mut dyn FnMut(&PlannedRecipe, Network, Preprocessing) -> Result<(), StudyError>,
    ) -> Result<(), StudyError> {
        for data in data {
            for planned in &self.recipes {
                let model = model_of(&planned.recipe, models);
                let (network, preprocessing) =
                    starting_network(&planned.recipe, data.splits.clone(), model).map_err(|source| {
                        StudyError::Train {
                            what: format!("{}, {}, {}", data.name, planned.network, planned.arm),
                            source: Box::new(source),
                        }
                    })?;
                check(planned, network, preprocessing)?;
            }
        }
        Ok(())
    }

    /// Number of runs.
    pub fn run_count(&self) -> usize {
        let of = |network: &PlannedNetwork| (network.seeds as usize).saturating_mul(network.arms.len());
        let each = self.networks.iter().map(of).fold(0, usize::saturating_add);
        each.saturating_mul(self.data.len())
    }

    /// The recipe of a run.
    pub fn recipe(&self, key: &TrainingKey) -> Option<Recipe> {
        let planned = self.recipes.iter().find(|planned| planned.network == key.network && planned.arm == key.arm)?;
        Some(Recipe { seed: key.seed, ..planned.recipe.clone() })
    }

    /// All runs: seeds one after another, so that what is done so far is paired.
    pub fn runs(&self) -> impl Iterator<Item = TrainingKey> {
        let most = self.networks.iter().map(|network| network.seeds).max().unwrap_or(0);
        (0..most).flat_map(move |repeat| {
            self.data.iter().flat_map(move |data| {
                self.networks.iter().filter(move |network| repeat < network.seeds).flat_map(move |network| {
                    network.arms.iter().map(move |arm| TrainingKey {
                        data: data.name.clone(),
                        network: network.name.clone(),
                        arm: arm.clone(),
                        seed: self.first_seed + u64::from(repeat),
                    })
                })
            })
        })
    }
}

/// `plain` if a network has it, else the first arm.
fn default_reference(networks: &[NetworkDesign]) -> String {
    let first = networks.first().map_or(&[][..], |network| &network.arms);
    let plain = first.iter().find(|arm| *arm == "plain");
    plain.or(first.first()).cloned().unwrap_or_default()
}

fn planned(data: &StudyData, test_limit: Option<usize>) -> Result<PlannedData, Invalid> {
    let (train, test) = (&data.splits.train, &data.splits.test);
    if let Some(limit) = test_limit.filter(|limit| !(1..=test.len()).contains(limit)) {
        return Err(Invalid::new(
            "test_limit",
            limit,
            format!("a number from 1 to the test images of {}, {}", data.name, test.len()),
        ));
    }
    let used = data.used(test_limit);
    let mut counts = vec![0usize; test.classes().len()];
    (0..used.test.len()).for_each(|index| counts[used.test.label(index) as usize] += 1);
    let most = counts.into_iter().max().unwrap_or(0);
    Ok(PlannedData {
        name: data.name.clone(),
        digest: data.splits.digest(),
        train: train.len(),
        test: used.test.len(),
        chance: most as f64 / used.test.len().max(1) as f64,
    })
}

pub(super) fn each_once<'a>(field: &str, names: impl Iterator<Item = &'a str>) -> Result<(), Invalid> {
    let names: Vec<&str> = names.collect();
    if names.is_empty() && field != "arms" {
        return Err(Invalid::new(field, "nothing", "at least one name"));
    }
    match names.iter().enumerate().find(|(i, name)| names[..*i].contains(*name)) {
        Some((_, name)) => Err(Invalid::new(field, name, "each name once")),
        None => Ok(()),
    }
}
