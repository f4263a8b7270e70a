//! Request for a study, and its defaults.

use std::collections::HashSet;
use std::convert::Infallible;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
#[cfg(feature = "openapi")]
use utoipa::ToSchema;

use super::plan::types::Design;
use super::variant::{Fields, Variant, Variants};
use crate::Invalid;
use crate::maximize::string_or_object;
use crate::text::without_bom;

/// Defaults of a study, the same for HTTP and the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Defaults {
    /// Units drawn from each layer, and class logits drawn from each model.
    pub units: usize,
    /// Reduction of a channel to a number.
    pub reduce: &'static str,
    /// Seed of the choice of units and of the starts.
    pub seed: u64,
    /// Starts of each unit.
    pub seeds: u32,
    /// Steps of an arm whose step costs two passes.
    pub steps: u32,
    /// The arms, separated by commas.
    pub arms: &'static str,
    /// The methods, separated by commas.
    pub methods: &'static str,
    /// Number of units per layer whose images are kept.
    pub images: usize,
}

/// The defaults.
pub const DEFAULTS: Defaults = Defaults {
    units: 25,
    reduce: "mean",
    seed: 1,
    seeds: 3,
    steps: 128,
    arms: "plain,redirect,slope:0.1,soft+polish,anneal:0.3,identity,true-proxy",
    methods: "pixel",
    images: 3,
};

/// Seeds are below this, so that the seeds derived for the starts are exact in every JSON reader.
const SEEDS_END: u64 = 1 << 52;
/// Limit of starts per unit.
const MAX_SEEDS: u32 = 1000;
/// Limit of the length of an arm or method name in bytes: names become file names.
const MAX_NAME_BYTES: usize = 64;

/// A request for a study, which compares settings on the same units, from the same starts, with the same number of
/// passes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(deny_unknown_fields)]
pub struct StudyRequest {
    /// The models, each by its id or with the layers whose units are drawn.
    #[cfg_attr(feature = "openapi", schema(min_items = 1))]
    pub models: Vec<ModelChoice>,
    /// Units drawn from each layer.
    #[serde(default = "units")]
    #[cfg_attr(feature = "openapi", schema(default = 25, minimum = 0))]
    pub units_per_layer: usize,
    /// Class logits drawn from each model.
    #[serde(default = "units")]
    #[cfg_attr(feature = "openapi", schema(default = 25, minimum = 0))]
    pub logits: usize,
    /// Default reduction of a channel to a number: `mean`, `center`, `max` or `topFRACTION`.
    #[serde(default = "reduce")]
    #[cfg_attr(feature = "openapi", schema(default = "mean", examples("center")))]
    pub reduce: String,
    /// Seed of the choice of units and of the starts.
    #[serde(default = "seed")]
    #[cfg_attr(feature = "openapi", schema(default = 1, minimum = 0, maximum = 4_503_599_627_370_495_u64))]
    pub seed: u64,
    /// Starts of each unit.
    #[serde(default = "seeds")]
    #[cfg_attr(feature = "openapi", schema(default = 3, minimum = 1, maximum = 1000))]
    pub seeds: u32,
    /// Steps of an arm whose step costs two passes. More expensive arms get fewer, so that all spend the same number of
    /// passes.
    #[serde(default = "steps")]
    #[cfg_attr(feature = "openapi", schema(default = 128, minimum = 1))]
    pub steps: u32,
    /// The arms that are compared, each by name or as a part of a request. Names: `plain`, `redirect`, `decoupled`,
    /// `slope:P`, `anneal:P`, `soft`, `soft+polish`, `identity`, `true-proxy`, `true-proxy:P`, `auto`, `preset:NAME`.
    /// Default: `plain`, `redirect`, `slope:0.1`, `soft+polish`, `anneal:0.3`, `identity` and `true-proxy`.
    #[serde(default = "arms")]
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 64))]
    pub arms: Vec<VariantChoice>,
    /// The methods of making images, each with its own tables. Names: `pixel`, `fourier`, `maco`, `transforms` and
    /// `preset:NAME`, joined by `+`. Default: `pixel`.
    #[serde(default = "methods")]
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 32))]
    pub methods: Vec<VariantChoice>,
    /// Fields of the request of every run. Its preset is `maximum` unless this, a method or an arm sets another.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub base: Fields,
    /// Units of each layer whose images are kept, of the first start.
    #[serde(default = "images")]
    #[cfg_attr(feature = "openapi", schema(default = 3, minimum = 0))]
    pub images: usize,
    /// Ids of models that judge the readability of every stimulus: at what rank and with what probability they
    /// recognize its class, and whether they find it similar to natural images of its unit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(max_items = 8, examples(json!(["efficientnet-lite2"]))))]
    pub judges: Vec<String>,
}

fn units() -> usize {
    DEFAULTS.units
}
fn reduce() -> String {
    DEFAULTS.reduce.to_owned()
}
fn seed() -> u64 {
    DEFAULTS.seed
}
fn seeds() -> u32 {
    DEFAULTS.seeds
}
fn steps() -> u32 {
    DEFAULTS.steps
}
fn arms() -> Vec<VariantChoice> {
    DEFAULTS.arms.split(',').map(|name| VariantChoice::Named(name.to_owned())).collect()
}
fn methods() -> Vec<VariantChoice> {
    DEFAULTS.methods.split(',').map(|name| VariantChoice::Named(name.to_owned())).collect()
}
fn images() -> usize {
    DEFAULTS.images
}

/// A model of a study: its id, or its id with layers.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(untagged)]
pub enum ModelChoice {
    /// Its id; units are drawn from four activations spread by depth.
    Id(String),
    /// Its id with the layers whose units are drawn.
    Layers(ModelLayers),
}

/// A model of a study with its layers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ModelLayers {
    /// Id of the model.
    #[cfg_attr(feature = "openapi", schema(examples("fashion-resnet8")))]
    pub id: String,
    /// Layers whose units are drawn, optionally with a reduction: `@center`, `@mean`, `@max` or `@topFRACTION`.
    /// Default: four activations spread by depth.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(examples(json!(["layer2/Relu", "layer3/Relu@center"]))))]
    pub layers: Vec<String>,
}

/// An arm or a method: the name of a built-in one, or a custom one.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(untagged)]
pub enum VariantChoice {
    /// The name of a built-in one.
    Named(String),
    /// A named part of a request.
    Custom(Variant),
}

impl<'de> Deserialize<'de> for ModelChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        string_or_object::<D, Self, ModelLayers>(deserializer, "a model's id as text, or an object with id and layers")
    }
}

impl FromStr for ModelChoice {
    type Err = Infallible;

    fn from_str(id: &str) -> Result<Self, Infallible> {
        Ok(Self::Id(id.to_owned()))
    }
}

impl From<ModelLayers> for ModelChoice {
    fn from(model: ModelLayers) -> Self {
        if model.layers.is_empty() { Self::Id(model.id) } else { Self::Layers(model) }
    }
}

impl<'de> Deserialize<'de> for VariantChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        string_or_object::<D, Self, Variant>(deserializer, "a name as text, or an object with name and request")
    }
}

impl FromStr for VariantChoice {
    type Err = Infallible;

    fn from_str(name: &str) -> Result<Self, Infallible> {
        Ok(Self::Named(name.to_owned()))
    }
}

impl From<Variant> for VariantChoice {
    fn from(variant: Variant) -> Self {
        Self::Custom(variant)
    }
}

impl ModelChoice {
    /// Id of the model.
    pub fn id(&self) -> &str {
        match self {
            Self::Id(id) => id,
            Self::Layers(model) => &model.id,
        }
    }

    /// The layers named for it; empty for the default.
    pub fn layers(&self) -> &[String] {
        match self {
            Self::Id(_) => &[],
            Self::Layers(model) => &model.layers,
        }
    }
}

impl StudyRequest {
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

    /// The design of this request for a device, without its models and judges.
    ///
    /// # Errors
    /// Names the first field that is invalid regardless of the models.
    pub fn design(&self, device: &str) -> Result<Design, Invalid> {
        if self.models.is_empty() {
            return Err(Invalid::new("models", "nothing", "at least one model"));
        }
        let mut ids = HashSet::new();
        if let Some(i) = self.models.iter().position(|model| !ids.insert(model.id())) {
            return Err(Invalid::new(format!("models[{i}]"), self.models[i].id(), "each model once"));
        }
        if self.seed >= SEEDS_END {
            return Err(Invalid::new("seed", self.seed, format!("a whole number from 0 to {}", SEEDS_END - 1)));
        }
        if !(1..=MAX_SEEDS).contains(&self.seeds) {
            return Err(Invalid::new("seeds", self.seeds, format!("a whole number from 1 to {MAX_SEEDS}")));
        }
        let built_in = Variants::default();
        Ok(Design {
            models: Vec::new(),
            units_per_layer: self.units_per_layer,
            logits: self.logits,
            reduce: self.reduce.clone(),
            seed: self.seed,
            repeats: self.seeds,
            steps: self.steps,
            base: self.base.clone(),
            arms: chosen("arms", &self.arms, |name| built_in.arm(name))?,
            methods: chosen("methods", &self.methods, |name| built_in.method(name))?,
            device: device.to_owned(),
            toys: None,
            judges: Vec::new(),
        })
    }
}

/// The chosen variants; a custom name may replace a built-in one.
fn chosen(
    field: &str,
    choices: &[VariantChoice],
    find: impl Fn(&str) -> Result<Variant, Invalid>,
) -> Result<Vec<Variant>, Invalid> {
    let variant = |(i, choice): (usize, &VariantChoice)| {
        let (variant, place) = match choice {
            VariantChoice::Named(name) => {
                let place = format!("{field}[{i}]");
                let found = find(name).map_err(|error| Invalid { field: place.clone(), ..error });
                (found?, place)
            }
            VariantChoice::Custom(variant) => (variant.clone(), format!("{field}[{i}].name")),
        };
        match (1..=MAX_NAME_BYTES).contains(&variant.name.len()) {
            true => Ok(variant),
            false => Err(Invalid::new(place, &variant.name, format!("1 to {MAX_NAME_BYTES} bytes of UTF-8"))),
        }
    };
    choices.iter().enumerate().map(variant).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_left_out_is_filled_in() {
        let shortest: StudyRequest = serde_json::from_value(json!({"models": ["m"]})).unwrap();
        let full = json!({
            "models": [{"id": "m"}], "units_per_layer": 25, "logits": 25, "reduce": "mean", "seed": 1, "seeds": 3,
            "steps": 128, "methods": ["pixel"], "base": {}, "images": 3,
            "arms": ["plain", "redirect", "slope:0.1", "soft+polish", "anneal:0.3", "identity", "true-proxy"],
        });
        assert_eq!(shortest, serde_json::from_value(full).unwrap());
        assert_eq!(shortest.design("cpu").unwrap().arms.len(), 7);
    }

    #[test]
    fn a_file_holds_a_request_in_toml_or_json() {
        let toml = "
            models = ['m', { id = 'n', layers = ['a@center'] }]
            judges = ['j']
            arms = ['plain', { name = 'steep', request = { gate = { kind = 'decoupled', slope = 1.0 } } }]
        ";
        let json = r#"{"models": ["m", {"id": "n", "layers": ["a@center"]}], "judges": ["j"],
                       "arms": ["plain", {"name": "steep", "request": {"gate": {"kind": "decoupled", "slope": 1.0}}}]}"#;
        let request = StudyRequest::parse(toml).unwrap();
        assert_eq!(request, StudyRequest::parse(json).unwrap());
        assert_eq!((request.judges.as_slice(), request.arms.len()), (&["j".to_owned()][..], 2));
        assert!(StudyRequest::parse("models = ['m']\nunit = 3").unwrap_err().contains("unit"));
    }

    #[test]
    fn what_is_wrong_without_any_model_is_named() {
        let own = |name: &str| json!([{"name": name, "request": {}}]);
        for (fields, field) in [
            (json!({"models": []}), "models"),
            (json!({"models": ["m", {"id": "m", "layers": ["a"]}]}), "models[1]"),
            (json!({"seed": 1_u64 << 52}), "seed"),
            (json!({"seeds": 1001}), "seeds"),
            (json!({"arms": ["plain", "plane"]}), "arms[1]"),
            (json!({"methods": ["pixels"]}), "methods[0]"),
            (json!({"arms": own(&"x".repeat(65))}), "arms[0].name"),
            (json!({"methods": own("")}), "methods[0].name"),
        ] {
            let mut document = json!({"models": ["m"]});
            document.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            let request: StudyRequest = serde_json::from_value(document).unwrap();
            assert_eq!(request.design("cpu").unwrap_err().field, field, "{fields}");
        }
    }
}
