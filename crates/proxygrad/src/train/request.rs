//! Request for a training run, and its defaults: the same over HTTP and on the command line.

use serde::{Deserialize, Serialize};
#[cfg(feature = "openapi")]
use utoipa::ToSchema;

use super::augmentation::Augmentation;
use super::data::DataOptions;
use super::optimizer::{OptimizerKind, OptimizerSettings};
use super::recipe::{Recipe, Start};
use crate::Invalid;
use crate::network::Model;
use crate::network::trainable::{Initialization, TrainableArchitecture};

/// A request to train a classifier of images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct TrainingRequest {
    /// The dataset: a path below the server's folder of datasets. A folder with IDX files (MNIST, Fashion-MNIST), with
    /// CIFAR's binary files, or with one subfolder of PNG and JPEG images per class (optionally below `train` and
    /// `test`), or a numpy archive `.npz` with `x_train`, `y_train`, `x_test` and `y_test`.
    #[cfg_attr(feature = "openapi", schema(required = true, examples("fashion-mnist")))]
    pub dataset: String,
    /// Id under which the network of the epoch with the best test accuracy becomes a model. Default: it does not.
    #[cfg_attr(feature = "openapi", schema(examples("my-resnet")))]
    pub add: Option<String>,

    /// Height and width to which the images of a folder are scaled and cropped. Default: the model's, or that of the
    /// first image, which all others must have.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<usize>>, min_items = 2, max_items = 2, examples(json!([32, 32]))))]
    pub size: Option<[usize; 2]>,
    /// Whether the images of a folder are read as grey. Default: whether the model reads grey images, else false.
    pub grey: Option<bool>,
    /// Share of the images that becomes the test part, if the dataset has none.
    #[cfg_attr(feature = "openapi", schema(default = 0.1, exclusive_minimum = 0, exclusive_maximum = 1))]
    pub test_share: f64,
    /// Number of training images, drawn by the seed. Default: all.
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub limit: Option<usize>,
    /// Pixels by which images are padded before a random crop of their size.
    #[cfg_attr(feature = "openapi", schema(default = 0, minimum = 0, maximum = 1024))]
    pub crop: usize,
    /// Whether half of the images are mirrored.
    #[cfg_attr(feature = "openapi", schema(default = false))]
    pub flip: bool,

    /// A model to start from. Its last layer is replaced by one for the classes of the dataset, unless it has the same
    /// classes; images are normalized as for this model.
    #[cfg_attr(feature = "openapi", schema(examples("efficientnet-lite0")))]
    pub model: Option<String>,
    /// Patterns for the layers of that model that keep their weights; `*` stands for any text.
    #[cfg_attr(feature = "openapi", schema(max_items = 1000, examples(json!(["layer1*", "conv1"]))))]
    pub freeze: Vec<String>,
    /// Network that is trained from random weights: `resnet8`, `resnet14`, `resnet20`, `resnet18` or `resnet34` (with
    /// batch normalization unless followed by `-nobn`), `vgg8`, `vgg13` or `vgg16` (with it if followed by `-bn`), or
    /// `plain2` to `plain100`. Default: `resnet8`. Not together with a model.
    #[cfg_attr(feature = "openapi", schema(examples("resnet8")))]
    pub architecture: Option<String>,
    /// Channels of its first layer; other layers have multiples of it. Default: that of the architecture.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 4096))]
    pub width: Option<usize>,
    /// Stride of its first convolution. Default: that of the architecture.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 1024))]
    pub stem_stride: Option<usize>,
    /// Slope below 0 of its ReLUs, in both passes.
    #[cfg_attr(feature = "openapi", schema(default = 0.0, minimum = 0, maximum = 1))]
    pub leaky: f32,
    /// How its weights are drawn, or those of the new last layer of a model.
    #[cfg_attr(feature = "openapi", schema(default = "he"))]
    pub initialization: Initialization,

    /// Derivative of ReLUs in the backward pass: `plain`, `decoupled:SLOPE` or `true-proxy:SLOPE` (ProxyGrad; followed
    /// by `@SHARE`, the slope fades over that share of the run), `bsilu`, `silu`, `elu` or `selu`.
    #[cfg_attr(feature = "openapi", schema(default = "decoupled:0.1@0.4", examples("decoupled:0.1@0.4")))]
    pub surrogate: String,
    /// The optimizer.
    #[cfg_attr(feature = "openapi", schema(default = "sgd"))]
    pub optimizer: OptimizerKind,
    /// Learning rate at its highest. Default: 0.1 for `sgd`, 0.001 for `adamw`; a tenth of that with a model.
    #[cfg_attr(feature = "openapi", schema(exclusive_minimum = 0))]
    pub learning_rate: Option<f64>,
    /// `constant`, `cosine` or `steps:SHARES:FACTOR`.
    #[cfg_attr(feature = "openapi", schema(default = "cosine", examples("steps:0.5,0.75:0.1")))]
    pub schedule: String,
    /// Share of the run in which the learning rate rises linearly.
    #[cfg_attr(feature = "openapi", schema(default = 0.0, minimum = 0, maximum = 1))]
    pub warm_up: f64,
    /// Momentum, or the decay of AdamW's first moment.
    #[cfg_attr(feature = "openapi", schema(default = 0.9, minimum = 0, maximum = 1))]
    pub momentum: f32,
    /// Weight decay of convolutions and dense layers.
    #[cfg_attr(feature = "openapi", schema(default = 0.0005, minimum = 0, exclusive_maximum = 1))]
    pub weight_decay: f32,
    /// Largest norm of the whole gradient; 0 for no limit.
    #[cfg_attr(feature = "openapi", schema(default = 1.0, minimum = 0))]
    pub clip: f32,
    /// Label smoothing.
    #[cfg_attr(feature = "openapi", schema(default = 0.0, minimum = 0, exclusive_maximum = 1))]
    pub label_smoothing: f64,
    /// Passes over the training images.
    #[cfg_attr(feature = "openapi", schema(default = 10, minimum = 1, maximum = 1_000_000))]
    pub epochs: usize,
    /// Images of a step.
    #[cfg_attr(feature = "openapi", schema(default = 64, minimum = 1, maximum = 65_536))]
    pub batch: usize,
    /// End the run after this number of epochs without a better test accuracy. Default: never.
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub patience: Option<usize>,
    /// Seed of weights, subset, order and augmentation.
    #[cfg_attr(feature = "openapi", schema(default = 0, minimum = 0))]
    pub seed: u64,
}

/// Longest text of a setting in bytes.
const MOST_TEXT: usize = 1000;

impl Default for TrainingRequest {
    fn default() -> Self {
        let recipe = Recipe::default();
        Self {
            dataset: String::new(),
            add: None,
            size: None,
            grey: None,
            test_share: DataOptions::default().test_share,
            limit: recipe.limit,
            crop: recipe.augmentation.crop,
            flip: recipe.augmentation.flip,
            model: None,
            freeze: recipe.freeze,
            architecture: None,
            width: recipe.width,
            stem_stride: recipe.stem_stride,
            leaky: recipe.leaky,
            initialization: recipe.initialization,
            surrogate: recipe.surrogate.to_string(),
            optimizer: recipe.optimizer.kind,
            learning_rate: None,
            schedule: recipe.schedule.to_string(),
            warm_up: recipe.warm_up,
            momentum: recipe.optimizer.momentum,
            weight_decay: recipe.optimizer.weight_decay,
            clip: recipe.optimizer.clip.unwrap_or(0.0),
            label_smoothing: recipe.label_smoothing,
            epochs: recipe.epochs,
            batch: recipe.batch,
            patience: recipe.patience,
            seed: recipe.seed,
        }
    }
}

impl TrainingRequest {
    /// The recipe, with all defaults filled in. `model` is the model that the request starts from.
    ///
    /// # Errors
    /// When a setting is out of range, or does not fit another one.
    pub fn recipe(&self, model: Option<&Model>) -> Result<Recipe, Invalid> {
        let texts = [("surrogate", &self.surrogate), ("schedule", &self.schedule)];
        if let Some((field, text)) = texts.into_iter().find(|(_, text)| text.len() > MOST_TEXT) {
            return Err(Invalid::new(field, text, format!("a text of at most {MOST_TEXT} bytes")));
        }
        if model.is_some() {
            let of_architecture = [
                ("architecture", self.architecture.clone()),
                ("width", self.width.map(|width| width.to_string())),
                ("stem_stride", self.stem_stride.map(|stride| stride.to_string())),
                ("leaky", Some(self.leaky).filter(|&slope| slope != 0.0).map(|slope| slope.to_string())),
            ];
            for (field, value) in of_architecture {
                if let Some(value) = value {
                    return Err(Invalid::unsupported(field, value, "weights that are drawn, not with a model"));
                }
            }
        }
        let default_rate = self.optimizer.default_rate(model.is_some());
        let architecture = self.architecture.as_deref().map(str::parse::<TrainableArchitecture>).transpose()?;
        let recipe = Recipe {
            architecture: architecture.unwrap_or_default(),
            width: self.width,
            stem_stride: self.stem_stride,
            leaky: self.leaky,
            initialization: self.initialization,
            surrogate: self.surrogate.parse()?,
            optimizer: OptimizerSettings {
                kind: self.optimizer,
                momentum: self.momentum,
                weight_decay: self.weight_decay,
                clip: Some(self.clip).filter(|clip| *clip != 0.0),
            },
            learning_rate: self.learning_rate.unwrap_or(default_rate),
            schedule: self.schedule.parse()?,
            warm_up: self.warm_up,
            label_smoothing: self.label_smoothing,
            epochs: self.epochs,
            batch: self.batch,
            augmentation: Augmentation { crop: self.crop, flip: self.flip },
            limit: self.limit,
            patience: self.patience,
            seed: self.seed,
            start: model.map(|model| Start { model: model.id.clone(), digest: model.digest.clone() }),
            freeze: self.freeze.clone(),
        };
        recipe.check().map(|()| recipe)
    }

    /// How the dataset is read. `model` is the model that the request starts from.
    ///
    /// # Errors
    /// When a setting is out of range.
    pub fn data_options(&self, model: Option<&Model>) -> Result<DataOptions, Invalid> {
        const SIDES: std::ops::RangeInclusive<usize> = 1..=1024;
        if let Some(size) = self.size.filter(|size| !size.iter().all(|side| SIDES.contains(side))) {
            return Err(Invalid::new("size", format!("{size:?}"), "a height and a width from 1 to 1024"));
        }
        if !(self.test_share > 0.0 && self.test_share < 1.0) {
            return Err(Invalid::new("test_share", self.test_share, "a number between 0 and 1"));
        }
        let of_model = model.and_then(|model| model.network.input_shape().feature_map());
        Ok(DataOptions {
            size: self.size.or(of_model.map(|[_, height, width]| [height, width])),
            grey: self.grey.unwrap_or(of_model.is_some_and(|[channels, ..]| channels == 1)),
            test_share: self.test_share,
            seed: self.seed,
            ..DataOptions::default()
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn parsed(json: &str) -> Result<TrainingRequest, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn what_is_left_out_has_the_default_of_the_recipe() {
        let request = parsed(r#"{"dataset": "a"}"#).unwrap();
        assert_eq!(request.recipe(None).unwrap(), Recipe::default());
        assert_eq!(request.data_options(None).unwrap(), DataOptions::default());
        let adamw = parsed(r#"{"dataset": "a", "optimizer": "adamw", "clip": 0}"#).unwrap().recipe(None).unwrap();
        assert_eq!((adamw.learning_rate, adamw.optimizer.clip), (1e-3, None));
        assert!(parsed(r#"{"dataset": "a", "epoch": 3}"#).unwrap_err().to_string().contains("unknown field `epoch`"));
    }

    #[test]
    fn settings_that_cannot_be_are_named() {
        for (json, field) in [
            (r#"{"surrogate": "relu"}"#, "surrogate"),
            (r#"{"architecture": "resnet9"}"#, "architecture"),
            (r#"{"schedule": "linear"}"#, "schedule"),
            (r#"{"epochs": 0}"#, "epochs"),
            (r#"{"learning_rate": -1}"#, "learning_rate"),
            (r#"{"clip": -1}"#, "clip"),
            (r#"{"freeze": ["conv1"]}"#, "freeze"),
        ] {
            assert_eq!(parsed(json).unwrap().recipe(None).unwrap_err().field, field, "{json}");
        }
        for (json, field) in [(r#"{"size": [0, 8]}"#, "size"), (r#"{"test_share": 1}"#, "test_share")] {
            assert_eq!(parsed(json).unwrap().data_options(None).unwrap_err().field, field, "{json}");
        }
    }
}
