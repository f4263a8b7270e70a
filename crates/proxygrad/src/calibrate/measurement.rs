//! Measurement of the units of a model on inputs that arrive batch by batch.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};

use super::accumulator::{self, LayerAccumulator};
use crate::engine::{Engine, EngineError, Forward, Plan, Target};
use crate::network::calibration::Calibration;
use crate::network::{Model, NodeId};

/// Largest batch.
const MAX_BATCH: usize = 16;
/// Maximum number of values of all measured layers in a batch of more than one image: 256 MiB in f32.
const MAX_VALUES: usize = 64 << 20;
/// Maximum memory in bytes for running a batch of more than one image.
const MAX_MEMORY: u64 = 1 << 30;

/// Running statistics of the units of some layers.
pub(crate) struct Measurement<'a> {
    engine: &'a dyn Engine,
    model: &'a Model,
    layers: Vec<(String, LayerAccumulator)>,
    plan: Box<dyn Plan>,
    batch: usize,
    /// Inputs measured so far.
    measured: usize,
}

impl<'a> Measurement<'a> {
    /// Prepares the measurement of these layers, which keeps `top` images of each unit.
    ///
    /// # Errors
    /// When the network cannot be planned.
    pub(crate) fn new(
        engine: &'a dyn Engine,
        model: &'a Model,
        layers: &[NodeId],
        top: usize,
    ) -> Result<Self, EngineError> {
        let (network, targets) = (&model.network, Target::whole(layers));
        let plan = engine.plan(network, &targets, network.input_shape())?;
        let values: usize = layers.iter().map(|&id| network.node(id).shape.elements()).sum();
        let footprint = engine.memory_model().footprint(network, &targets, network.input_shape())?;
        let fits = |batch: usize| batch == 1 || footprint.bytes(batch, false) <= MAX_MEMORY;
        let mut batch = (MAX_VALUES / values.max(1)).clamp(1, MAX_BATCH);
        while !fits(batch) {
            batch -= 1;
        }
        let accumulator = |&id: &NodeId| {
            let node = network.node(id);
            (node.name.clone(), LayerAccumulator::new(&node.shape, top))
        };
        Ok(Self { engine, model, layers: layers.iter().map(accumulator).collect(), plan, batch, measured: 0 })
    }

    /// Largest number of inputs of [`add`](Self::add).
    pub(crate) fn batch(&self) -> usize {
        self.batch
    }

    /// Adds inputs `[C,H,W]` of the network.
    ///
    /// # Errors
    /// When the network cannot run.
    pub(crate) fn add(&mut self, inputs: &[Vec<f32>]) -> Result<(), EngineError> {
        if inputs.is_empty() {
            return Ok(());
        }
        let shape = [&[inputs.len()], &self.model.network.input_shape()[..]].concat();
        let images = Tensor::from_vec(inputs.concat(), shape, &Device::Cpu)?;
        let images = images.to_dtype(self.engine.dtype())?.to_device(self.engine.device())?;
        let outputs = self.plan.forward(&images, Forward::Original)?;
        for ((_, layer), output) in self.layers.iter_mut().zip(outputs) {
            let output = output.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?;
            layer.add(self.measured, &output.to_vec1()?);
        }
        self.measured += inputs.len();
        Ok(())
    }

    /// The calibration. `names` are those of the inputs; those of top images are kept.
    pub(crate) fn finish(self, names: Vec<String>) -> Calibration {
        let input = self.model.network.input_shape();
        let layers: BTreeMap<String, LayerAccumulator> = self.layers.into_iter().collect();
        accumulator::finish(self.model.digest.clone(), [input[1], input[2]], names, layers)
    }
}
