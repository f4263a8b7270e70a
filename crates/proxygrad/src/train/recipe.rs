//! Recipe: what is trained and how, with all defaults filled in.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::augmentation::Augmentation;
use super::optimizer::{OptimizerKind, OptimizerSettings};
use super::schedule::{LearningRate, fade};
use crate::Invalid;
use crate::engine::Surrogate;
use crate::network::trainable::{Initialization, TrainableArchitecture};

/// A training run. Two runs of the same recipe on the same data give the same weights, bit for bit, on processors with
/// the same instruction sets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The network.
    #[serde(with = "text")]
    pub architecture: TrainableArchitecture,
    /// Channels of the first layer; `None` for the architecture's own.
    pub width: Option<usize>,
    /// Stride of the first convolution; `None` for the architecture's own.
    pub stem_stride: Option<usize>,
    /// Slope below 0 of all rectifiers, in both passes; 0 for plain ReLUs.
    pub leaky: f32,
    /// How weights are drawn.
    pub initialization: Initialization,
    /// The derivative of rectifiers in the backward pass.
    pub surrogate: SurrogateSchedule,
    /// The optimizer.
    pub optimizer: OptimizerSettings,
    /// Learning rate at its highest.
    pub learning_rate: f64,
    /// How it changes.
    pub schedule: LearningRate,
    /// Share of the run in which the learning rate rises linearly.
    pub warm_up: f64,
    /// Label smoothing, in [0, 1).
    pub label_smoothing: f64,
    /// Passes over the training images.
    pub epochs: usize,
    /// Images of a step; the last images of an epoch that do not fill a batch are left out.
    pub batch: usize,
    /// Random changes of the images.
    pub augmentation: Augmentation,
    /// Number of training images, drawn by the seed; `None` for all.
    pub limit: Option<usize>,
    /// Epochs without a better test accuracy after which the run ends; `None` for no early stopping.
    pub patience: Option<usize>,
    /// Seed of the subset, the weights, the order of the images and their augmentation.
    pub seed: u64,
    /// The model whose weights the run starts from, instead of weights that are drawn for `architecture`.
    #[serde(default)]
    pub start: Option<Start>,
    /// Patterns for the layers of that model that keep their weights; `*` stands for any text.
    #[serde(default)]
    pub freeze: Vec<String>,
}

/// The model that a run fine-tunes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// Its id, or the name of its file.
    pub model: String,
    /// SHA-256 of its weights: another digest is another run.
    pub digest: String,
}

impl Default for Recipe {
    /// ResNet-8 with a decoupled slope of 0.1 that fades over the first 40 % of the run.
    fn default() -> Self {
        Self {
            architecture: TrainableArchitecture::default(),
            width: None,
            stem_stride: None,
            leaky: 0.0,
            initialization: Initialization::He,
            surrogate: SurrogateSchedule { surrogate: Surrogate::Decoupled { slope: 0.1 }, fade: 0.4 },
            optimizer: OptimizerSettings {
                kind: OptimizerKind::Sgd,
                momentum: 0.9,
                weight_decay: 5e-4,
                clip: Some(1.0),
            },
            learning_rate: 0.1,
            schedule: LearningRate::Cosine,
            warm_up: 0.0,
            label_smoothing: 0.0,
            epochs: 10,
            batch: 64,
            augmentation: Augmentation::default(),
            limit: None,
            patience: None,
            seed: 0,
            start: None,
            freeze: Vec::new(),
        }
    }
}

/// Largest values of some settings, far above sensible ones: products of them do not overflow.
const MOST_EPOCHS: usize = 1_000_000;
const MOST_IMAGES: usize = 65_536;
const MOST_CHANNELS: usize = 4096;
const MOST_PIXELS: usize = 1024;
const MOST_PATTERNS: usize = 1000;

impl Recipe {
    /// What is trained, in words: the architecture, or the model that is fine-tuned.
    pub fn network(&self) -> String {
        self.start.as_ref().map_or_else(|| self.architecture.to_string(), |start| start.model.clone())
    }

    /// Checks the ranges of all settings.
    ///
    /// # Errors
    /// The first setting that is out of range.
    pub fn check(&self) -> Result<(), Invalid> {
        let unit = |field: &str, value: f64| match (0.0..=1.0).contains(&value) {
            true => Ok(()),
            false => Err(Invalid::new(field, value, "a number from 0 to 1")),
        };
        let between = |field: &str, value: usize, least: usize, most: usize| match (least..=most).contains(&value) {
            true => Ok(()),
            false => Err(Invalid::new(field, value, format!("a number from {least} to {most}"))),
        };
        unit("leaky", f64::from(self.leaky))?;
        unit("surrogate.slope", f64::from(self.surrogate.slope().unwrap_or(0.0)))?;
        unit("surrogate.fade", self.surrogate.fade)?;
        unit("warm_up", self.warm_up)?;
        unit("momentum", f64::from(self.optimizer.momentum))?;
        for (field, value) in
            [("label_smoothing", self.label_smoothing), ("weight_decay", f64::from(self.optimizer.weight_decay))]
        {
            if !(0.0..1.0).contains(&value) {
                return Err(Invalid::new(field, value, "a number from 0 to below 1"));
            }
        }
        if !(self.learning_rate > 0.0 && self.learning_rate.is_finite()) {
            return Err(Invalid::new("learning_rate", self.learning_rate, "a number above 0"));
        }
        if let Some(clip) = self.optimizer.clip.filter(|clip| !(*clip > 0.0 && clip.is_finite())) {
            return Err(Invalid::new("clip", clip, "a number above 0"));
        }
        if let LearningRate::Steps { at, factor } = &self.schedule
            && !(at.iter().all(|at| (0.0..=1.0).contains(at)) && (0.0..=1.0).contains(factor))
        {
            return Err(Invalid::new("schedule", format!("{at:?} {factor}"), "shares and a factor from 0 to 1"));
        }
        between("epochs", self.epochs, 1, MOST_EPOCHS)?;
        between("batch", self.batch, 1, MOST_IMAGES)?;
        between("limit", self.limit.unwrap_or(1), 1, usize::MAX)?;
        between("width", self.width.unwrap_or(1), 1, MOST_CHANNELS)?;
        between("stem_stride", self.stem_stride.unwrap_or(1), 1, MOST_PIXELS)?;
        between("patience", self.patience.unwrap_or(1), 1, usize::MAX)?;
        between("crop", self.augmentation.crop, 0, MOST_PIXELS)?;
        match self.freeze.len() {
            0 => Ok(()),
            _ if self.start.is_none() => {
                Err(Invalid::unsupported("freeze", self.freeze.join(", "), "model: weights that are drawn are trained"))
            }
            patterns => between("freeze", patterns, 0, MOST_PATTERNS),
        }
    }
}

/// A surrogate, and the share of the run over which its slope fades to 0.
///
/// As text: `plain`, `decoupled:0.1`, `true-proxy:0.3`, `bsilu`, `silu`, `elu` or `selu`; a slope may be followed by
/// `@` and a share: `decoupled:1@0.4`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SurrogateSchedule {
    /// At the start.
    pub surrogate: Surrogate,
    /// Share of the run over which the slope falls linearly to 0; 0 keeps it.
    pub fade: f64,
}

impl SurrogateSchedule {
    fn slope(&self) -> Option<f32> {
        match self.surrogate {
            Surrogate::Decoupled { slope } | Surrogate::TrueProxy { slope } => Some(slope),
            _ => None,
        }
    }

    /// The surrogate at a step, of `steps` in all.
    pub(super) fn at(&self, step: u64, steps: u64) -> Surrogate {
        let faded = |slope: f32| (f64::from(slope) * fade(step, steps, self.fade)) as f32;
        match self.surrogate {
            Surrogate::Decoupled { slope } => Surrogate::Decoupled { slope: faded(slope) },
            Surrogate::TrueProxy { slope } => Surrogate::TrueProxy { slope: faded(slope) },
            surrogate => surrogate,
        }
    }
}

const SURROGATES: &str = "plain, decoupled:SLOPE, true-proxy:SLOPE (optionally followed by @SHARE over which it fades), bsilu, silu, elu or selu";

impl FromStr for SurrogateSchedule {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = || Invalid::new("surrogate", text, SURROGATES);
        let number = |text: &str| text.parse::<f64>().ok().filter(|value| (0.0..=1.0).contains(value));
        let (kind, settings) = text.split_once(':').map_or((text, None), |(kind, rest)| (kind, Some(rest)));
        let constant = |surrogate| match settings {
            None => Ok(Self { surrogate, fade: 0.0 }),
            Some(_) => Err(wrong()),
        };
        match kind {
            "plain" => return constant(Surrogate::Plain),
            "bsilu" => return constant(Surrogate::BSilu),
            "silu" => return constant(Surrogate::Silu),
            "elu" => return constant(Surrogate::Elu),
            "selu" => return constant(Surrogate::Selu),
            _ => {}
        }
        let settings = settings.ok_or_else(wrong)?;
        let (slope, share) = settings.split_once('@').map_or((settings, None), |(slope, share)| (slope, Some(share)));
        let slope = number(slope).ok_or_else(wrong)? as f32;
        let fade = share.map_or(Some(0.0), number).ok_or_else(wrong)?;
        let surrogate = match kind {
            "decoupled" => Surrogate::Decoupled { slope },
            "true-proxy" => Surrogate::TrueProxy { slope },
            _ => return Err(wrong()),
        };
        Ok(Self { surrogate, fade })
    }
}

impl fmt::Display for SurrogateSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.surrogate {
            Surrogate::Plain => write!(f, "plain"),
            Surrogate::Decoupled { slope } => write!(f, "decoupled:{slope}"),
            Surrogate::TrueProxy { slope } => write!(f, "true-proxy:{slope}"),
            Surrogate::BSilu => write!(f, "bsilu"),
            Surrogate::Silu => write!(f, "silu"),
            Surrogate::Elu => write!(f, "elu"),
            Surrogate::Selu => write!(f, "selu"),
        }?;
        if self.fade > 0.0 && self.slope().is_some() { write!(f, "@{}", self.fade) } else { Ok(()) }
    }
}

impl Serialize for SurrogateSchedule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        text::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for SurrogateSchedule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::deserialize(deserializer)
    }
}

/// Values stored as their text.
mod text {
    use super::{Deserialize, Deserializer, FromStr, Serializer, fmt};

    pub(super) fn serialize<T: fmt::Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, T: FromStr<Err: fmt::Display>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn surrogates_survive_the_round_trip_and_wrong_ones_name_the_right_ones() {
        for text in ["plain", "decoupled:0.1", "decoupled:1@0.4", "true-proxy:0.3", "bsilu", "silu", "elu", "selu"] {
            assert_eq!(text.parse::<SurrogateSchedule>().unwrap().to_string(), text);
        }
        for text in ["", "relu", "decoupled", "decoupled:2", "decoupled:0.1@7", "bsilu:1", "plain@0.4", "decoupled:nan"]
        {
            let error = text.parse::<SurrogateSchedule>().unwrap_err().to_string();
            assert!(error.contains("surrogate") && error.contains("decoupled:SLOPE"), "{error}");
        }
    }

    #[test]
    fn a_fading_slope_ends_as_the_plain_derivative() {
        let schedule: SurrogateSchedule = "decoupled:0.5@0.5".parse().unwrap();
        let slope = |step| match schedule.at(step, 100) {
            Surrogate::Decoupled { slope } => slope,
            _ => panic!("another surrogate"),
        };
        assert_eq!([0, 25, 50, 99].map(slope), [0.5, 0.25, 0.0, 0.0]);
    }

    #[test]
    fn a_recipe_is_stored_as_json_and_read_back() {
        let recipe = Recipe { architecture: "vgg13-bn".parse().unwrap(), limit: Some(6000), ..Recipe::default() };
        let json = serde_json::to_string(&recipe).unwrap();
        assert!(json.contains(r#""architecture":"vgg13-bn""#) && json.contains(r#""surrogate":"decoupled:0.1@0.4""#));
        assert_eq!(serde_json::from_str::<Recipe>(&json).unwrap(), recipe);
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let default = Recipe::default;
        let broken = [
            (Recipe { epochs: 0, ..default() }, "epochs"),
            (Recipe { learning_rate: f64::NAN, ..default() }, "learning_rate"),
            (Recipe { label_smoothing: 1.0, ..default() }, "label_smoothing"),
            (Recipe { leaky: -0.1, ..default() }, "leaky"),
            (Recipe { schedule: LearningRate::Steps { at: vec![2.0], factor: 0.1 }, ..default() }, "schedule"),
            (Recipe { epochs: usize::MAX, ..default() }, "epochs"),
            (Recipe { width: Some(1 << 40), ..default() }, "width"),
            (Recipe { augmentation: Augmentation { crop: usize::MAX, flip: false }, ..default() }, "crop"),
            (Recipe { freeze: vec!["conv1".into()], ..default() }, "freeze"),
        ];
        for (recipe, field) in broken {
            assert_eq!(recipe.check().unwrap_err().field, field);
        }
        assert_eq!(default().check(), Ok(()));
    }
}
