//! Plan file of a study of training: networks and arms as parts of a recipe.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::starts::{self, StartModels};
use crate::Invalid;
use crate::study::training::maxima::MaximaDesign;
use crate::study::variant::Fields;
use crate::text::without_bom;
use crate::train::{OptimizerKind, Recipe, SurrogateSchedule};

/// What a plan file (TOML or JSON) says. The recipe of a run is the default one, with the fields of the base, the network
/// and the arm, in this order; later fields replace earlier ones.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingDesign {
    /// Seed of the first run of each arm; the others follow.
    #[serde(default)]
    pub first_seed: u64,
    /// Number of seeds, unless a network has its own.
    #[serde(default = "five")]
    pub seeds: u32,
    /// Number of test images, the same for all runs; `None` for all.
    #[serde(default)]
    pub test_limit: Option<usize>,
    /// Fields of every recipe.
    #[serde(default)]
    pub base: Fields,
    /// The arm that all others are compared with. Default: `plain`, or else the first of a network.
    #[serde(default)]
    pub against: Option<String>,
    /// The networks.
    pub networks: Vec<NetworkDesign>,
    /// Arms that are more than a surrogate.
    #[serde(default)]
    pub arms: Vec<RecipePart>,
    /// What is maximized in the trained networks, if anything.
    #[serde(default)]
    pub maxima: Option<MaximaDesign>,
}

/// A network of a study of training.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkDesign {
    /// Name in tables and files.
    pub name: String,
    /// The fields of a recipe that it sets.
    pub recipe: Fields,
    /// Names of its arms: of `arms` of the file, or surrogates such as `decoupled:0.1`.
    pub arms: Vec<String>,
    /// Number of seeds.
    #[serde(default)]
    pub seeds: Option<u32>,
    /// Test accuracy, from 0 to 1, whose first epoch is reported.
    #[serde(default = "half")]
    pub reach: f64,
}

/// A named part of a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecipePart {
    /// Name in tables and files.
    pub name: String,
    /// The fields of a recipe that it sets.
    pub recipe: Fields,
}

fn five() -> u32 {
    5
}

fn half() -> f64 {
    0.5
}

impl TrainingDesign {
    /// Parses the text of a file: JSON if it begins with a brace, else TOML.
    ///
    /// # Errors
    /// Describes where the text is invalid.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = without_bom(text);
        match text.trim_start().starts_with('{') {
            true => serde_json::from_str(text).map_err(|error| error.to_string()),
            false => toml::from_str(text).map_err(|error| error.to_string()),
        }
    }

    /// The recipe of an arm on a network, with the first seed. `models` are those that recipes [start](Self::starts) from.
    ///
    /// # Errors
    /// Names the network, the arm and the field that is invalid.
    pub fn recipe(&self, network: &NetworkDesign, arm: &str, models: &StartModels) -> Result<Recipe, Invalid> {
        let surrogate = || {
            let known: Vec<&str> = self.arms.iter().map(|arm| &*arm.name).collect();
            let expected = format!("an arm of the file ({}) or a surrogate such as decoupled:0.1", known.join(", "));
            arm.parse::<SurrogateSchedule>().map_err(|_| Invalid::new("arms", arm, expected))?;
            Ok::<_, Invalid>(Fields::from_iter([("surrogate".to_owned(), arm.into())]))
        };
        let own = match self.arms.iter().find(|part| part.name == arm) {
            Some(part) => part.recipe.clone(),
            None => surrogate()?,
        };
        let within =
            |invalid: Invalid| Invalid { field: format!("{}, {arm}: {}", network.name, invalid.field), ..invalid };
        let mut document = serde_json::to_value(Recipe::default())
            .map_err(|error| Invalid::new("recipe", "the default", error.to_string()))?;
        // The default depends on the other fields.
        document["learning_rate"] = Value::Null;
        for part in [&self.base, &network.recipe, &own] {
            let part = starts::with_model(part, models).map_err(within)?;
            overlay(&mut document, &Value::Object(part));
        }
        document["seed"] = self.first_seed.into();
        if document["learning_rate"].is_null() {
            let kind = OptimizerKind::deserialize(&document["optimizer"]["kind"]).unwrap_or_default();
            document["learning_rate"] = kind.default_rate(!document["start"].is_null()).into();
        }
        let recipe: Recipe =
            serde_path_to_error::deserialize(&document).map_err(|error| within(named(&error, &document)))?;
        starts::check(&recipe).and_then(|()| recipe.check()).map_err(within)?;
        Ok(recipe)
    }
}

/// The error of a document, with the field and its value.
fn named(error: &serde_path_to_error::Error<serde_json::Error>, document: &Value) -> Invalid {
    let (path, why) = (error.path().to_string(), error.inner().to_string());
    let pointer = format!("/{}", path.replace('.', "/"));
    let value = document.pointer(&pointer).map_or_else(String::new, |value| match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    });
    Invalid::from_text(&why).unwrap_or_else(|| Invalid::new(path, value, format!("another: {why}")))
}

/// Replaces the fields of a document that another sets, also within objects. The text `none` stands for no value, for which
/// TOML has no word.
fn overlay(document: &mut Value, with: &Value) {
    match (document, with) {
        (Value::Object(document), Value::Object(with)) => {
            for (field, value) in with {
                overlay(document.entry(field.clone()).or_insert(Value::Null), value);
            }
        }
        (document, Value::String(text)) if text == "none" => *document = Value::Null,
        (document, with) => *document = with.clone(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const FILE: &str = "
        seeds = 3
        base = { epochs = 2, optimizer = { kind = 'adamw' } }
        [[networks]]
        name = 'deep'
        recipe = { architecture = 'plain20', initialization = 'torch', learning_rate = 0.001 }
        arms = ['plain', 'decoupled:1@0.4', 'he']
        [[arms]]
        name = 'he'
        recipe = { surrogate = 'plain', initialization = 'he', optimizer = { momentum = 0.5, clip = 'none' } }
    ";

    #[test]
    fn recipes_are_laid_over_each_other() {
        let design = TrainingDesign::parse(FILE).unwrap();
        let recipe = |arm| design.recipe(&design.networks[0], arm, &StartModels::new()).unwrap();
        let faded = recipe("decoupled:1@0.4");
        assert_eq!(
            (faded.surrogate.to_string(), faded.architecture.to_string()),
            ("decoupled:1@0.4".into(), "plain20".into())
        );
        assert_eq!((faded.epochs, faded.optimizer.kind, faded.optimizer.momentum), (2, OptimizerKind::Adamw, 0.9));
        let he = recipe("he");
        assert_eq!((he.optimizer.kind, he.optimizer.momentum, he.optimizer.clip), (OptimizerKind::Adamw, 0.5, None));
        assert_ne!(he.initialization, faded.initialization);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |from: &str, to: &str| {
            let design = TrainingDesign::parse(&FILE.replace(from, to)).unwrap();
            let network = &design.networks[0];
            network
                .arms
                .iter()
                .find_map(|arm| design.recipe(network, arm, &StartModels::new()).err())
                .unwrap()
                .to_string()
        };
        for (from, to, parts) in [
            ("'decoupled:1@0.4'", "'decoupld'", &["arms", "decoupld", "he"][..]),
            ("epochs = 2", "epochs = 0", &["deep, plain: epochs", "0"]),
            ("epochs = 2", "epoch = 2", &["deep, plain: epoch", "unknown field"]),
            ("epochs = 2", "epochs = 'two'", &["deep, plain: epochs", "two"]),
            ("'plain20'", "'plain'", &["deep, plain: architecture", "plain2 to plain100"]),
            ("architecture = 'plain20'", "start = 'mynet'", &["deep, plain: start", "mynet", "ONNX file"]),
            ("initialization = 'he'", "start = 'mynet', width = 3", &["deep, he: width", "not with start"]),
            ("initialization = 'he'", "freeze = ['conv*']", &["deep, he: freeze", "model"]),
        ] {
            let error = error(from, to);
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
        assert!(TrainingDesign::parse("network = []").unwrap_err().contains("network"));
    }
}
