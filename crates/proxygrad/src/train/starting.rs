//! What a run starts from: weights that are drawn for an architecture, or those of a model.

use super::data::{Dataset, Splits};
use super::error::TrainError;
use super::export::exported;
use super::recipe::Recipe;
use super::run::subset;
use crate::Invalid;
use crate::network::trainable::{Parameters, TrainableArchitecture, TrainableNetwork};
use crate::network::{Activation, ChannelOrder, Model, Network, Preprocessing};

/// The network of a run before its first step.
pub(super) struct Starting {
    pub(super) network: TrainableNetwork,
    pub(super) preprocessing: Preprocessing,
    /// `None` for weights that are drawn.
    weights: Option<Parameters>,
}

/// The network of a run before its first step, with frozen weights, and the normalization of its input. `model` is the one
/// that the recipe starts from, if there is one.
///
/// # Errors
/// As [`Training::within`](super::Training::within).
pub(crate) fn starting_network(
    recipe: &Recipe,
    splits: Splits,
    model: Option<&Model>,
) -> Result<(Network, Preprocessing), TrainError> {
    recipe.check()?;
    let starting = Starting::new(recipe, &subset(recipe, splits)?.train, model)?;
    Ok((starting.network.freeze(&starting.parameters(recipe))?, starting.preprocessing))
}

impl Starting {
    /// The model that the recipe names, or else its architecture.
    pub(super) fn new(recipe: &Recipe, train: &Dataset, model: Option<&Model>) -> Result<Self, TrainError> {
        let named = recipe.start.as_ref().map(|start| start.digest.as_str());
        if named != model.map(|model| model.digest.as_str()) {
            let (found, expected) = (named.unwrap_or("none"), model.map_or("none", |model| &model.digest));
            return Err(Invalid::new("model", found, format!("the digest of the model, {expected}")).into());
        }
        match model {
            Some(model) => Self::from_model(recipe, train, model),
            None => Self::random(recipe, train),
        }
    }

    /// The architecture of the recipe for these images.
    fn random(recipe: &Recipe, train: &Dataset) -> Result<Self, TrainError> {
        let activation = match recipe.leaky {
            0.0 => Activation::Relu,
            slope => Activation::LeakyRelu { slope },
        };
        let architecture = TrainableArchitecture {
            width: recipe.width.or(recipe.architecture.width),
            stem_stride: recipe.stem_stride.or(recipe.architecture.stem_stride),
            activation,
            ..recipe.architecture.clone()
        };
        let network = architecture.build(train.size(), train.classes().len())?;
        let channels = if train.size()[0] == 1 { ChannelOrder::Grey } else { ChannelOrder::Rgb };
        let (mean, std) = train.statistics();
        Ok(Self { network, preprocessing: Preprocessing { channels, range: 1.0, mean, std }, weights: None })
    }

    /// A model, with a new last layer unless its classes are those of the images.
    fn from_model(recipe: &Recipe, train: &Dataset, model: &Model) -> Result<Self, TrainError> {
        let (network, weights) = TrainableNetwork::from_network(&model.network)?;
        let network = network.without_softmax();
        let (found, expected) = (train.size(), &network.input_shape()[..]);
        if found[..] != *expected {
            let why = format!(
                "a dataset whose images have the model's [C,H,W], {expected:?}; those of a folder are scaled to size"
            );
            return Err(Invalid::new("model", format!("{}, with images of {found:?}", model.id), why).into());
        }
        let same_classes = model.classes == train.classes() && network.classes() == train.classes().len();
        let (mut network, weights) = match same_classes {
            true => (network, weights),
            false => network.with_classes(&weights, train.classes().len(), recipe.initialization, recipe.seed)?,
        };
        network.freeze_layers(&recipe.freeze)?;
        // Not only when the run has ended.
        exported(&network.freeze(&weights)?)?;
        Ok(Self { network, preprocessing: model.preprocessing.clone(), weights: Some(weights) })
    }

    /// The weights; drawn only now if they are drawn, since they may need much memory.
    pub(super) fn parameters(&self, recipe: &Recipe) -> Parameters {
        let drawn = || self.network.initialize(recipe.initialization, recipe.seed);
        self.weights.clone().unwrap_or_else(drawn)
    }
}
