//! A judge ready to see images.

use candle_core::{DType, Device, Tensor};
use image::DynamicImage;

use super::features::{channel_means, feature_layer};
use super::panel::JudgeError;
use crate::calibrate::NaturalImage;
use crate::engine::{Engine, EngineError, Forward, MemoryModel, Plan, Target};
use crate::network::{Model, Network, NodeId};

/// A judge with its plan.
pub(super) struct Viewer<'a> {
    engine: &'a dyn Engine,
    model: &'a Model,
    plan: Box<dyn Plan>,
    /// The layers of the plan.
    layers: Vec<NodeId>,
    logits: Option<NodeId>,
    features: Option<NodeId>,
}

/// What a judge computes of an image.
pub(super) struct Impression {
    /// Logits; empty if it has none.
    pub(super) logits: Vec<f32>,
    /// Channel means of the layer before the logits; empty if there is none.
    pub(super) features: Vec<f32>,
}

/// The layers that a judge computes: its logits, and the features before them.
fn layers(network: &Network) -> Vec<NodeId> {
    network.logits().into_iter().chain(feature_layer(network)).collect()
}

/// Bytes of memory, at most, that a judge needs to see an image.
///
/// # Errors
/// If the judge cannot run.
pub fn memory_needed(memory: &MemoryModel, judge: &Model) -> Result<u64, EngineError> {
    let (network, input) = (&judge.network, judge.network.input_shape());
    Ok(memory.footprint(network, &Target::whole(&layers(network)), input)?.bytes(1, false))
}

impl<'a> Viewer<'a> {
    /// Plans the judge for one image at a time, within `memory` bytes.
    pub(super) fn open(engine: &'a dyn Engine, model: &'a Model, memory: u64) -> Result<Self, JudgeError> {
        let network = &model.network;
        let (logits, features) = (network.logits(), feature_layer(network));
        let layers = layers(network);
        if layers.is_empty() {
            return Err(JudgeError::no_classifier(model).into());
        }
        let targets = Target::whole(&layers);
        let needed = memory_needed(&engine.memory_model(), model)?;
        if needed > memory {
            return Err(JudgeError::Memory { judge: model.id.clone(), needed, allowed: memory });
        }
        let plan = engine.plan(network, &targets, network.input_shape())?;
        Ok(Self { engine, model, plan, layers, logits, features })
    }

    /// Shows an image to the judge.
    pub(super) fn see(&mut self, image: DynamicImage) -> Result<Impression, JudgeError> {
        let network = &self.model.network;
        let [channels, height, width] = [0, 1, 2].map(|axis| network.input_shape()[axis]);
        let preprocessing = &self.model.preprocessing;
        let input = NaturalImage::fitted(image, [height, width], preprocessing.channels).input(preprocessing);
        let input = Tensor::from_vec(input, (1, channels, height, width), &Device::Cpu)?;
        let input = input.to_dtype(self.engine.dtype())?.to_device(self.engine.device())?;
        let outputs = self.plan.forward(&input, Forward::Original)?;
        let mut impression = Impression { logits: Vec::new(), features: Vec::new() };
        for (&layer, output) in self.layers.iter().zip(outputs) {
            let values: Vec<f32> = output.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
            if Some(layer) == self.features {
                impression.features = channel_means(&values, network.node(layer).shape.channels());
            }
            if Some(layer) == self.logits {
                impression.logits = values;
            }
        }
        Ok(impression)
    }
}
