//! Checkpoints: weights, optimizer state and epochs in one safetensors file.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::error::TrainError;
use super::metrics::Epoch;
use super::optimizer::{Optimizer, OptimizerKind};
use super::recipe::Recipe;
use crate::network::checkpoint::{Format, StateDict};
use crate::network::trainable::{Parameters, TrainableNetwork};

/// Name of the tensor that holds [`Progress`] as JSON, one byte per value.
const PROGRESS: &str = "proxygrad.progress";

/// State of a run that is not tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Progress {
    pub(super) recipe: Recipe,
    /// Digest of the data.
    pub(super) data: String,
    /// Updates of the optimizer.
    pub(super) steps: u64,
    pub(super) epochs: Vec<Epoch>,
    /// The epoch that was begun.
    #[serde(default)]
    pub(super) begun: Begun,
}

/// The part of an epoch that is done.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Begun {
    pub(super) steps: usize,
    /// Sum of the losses of its batches.
    pub(super) loss_sum: f64,
    /// Correctly classified images.
    pub(super) correct: usize,
    /// Learning rate of the last step.
    pub(super) learning_rate: f64,
}

/// Weights with the optimizer's moments.
pub(super) struct State {
    pub(super) progress: Progress,
    pub(super) parameters: Parameters,
    pub(super) moments: Vec<Vec<Vec<f32>>>,
}

/// Name of a moment of a tensor.
fn moment_name(tensor: &str, moment: &str) -> String {
    format!("optimizer.{moment}.{tensor}")
}

/// The content of a checkpoint file, or why there is none.
pub(super) fn serialize(
    network: &TrainableNetwork,
    parameters: &Parameters,
    optimizer: &Optimizer,
    progress: &Progress,
) -> Result<Vec<u8>, String> {
    let names = Optimizer::moment_names(progress.recipe.optimizer.kind);
    let mut tensors: HashMap<String, Tensor> = HashMap::new();
    let mut insert = |name: String, values: &[f32], shape: &[usize]| {
        tensors.insert(name, Tensor::from_slice(values, shape, &Device::Cpu).map_err(|why| why.to_string())?);
        Ok::<(), String>(())
    };
    for (id, spec) in network.tensors().iter().enumerate() {
        insert(spec.name.clone(), parameters.get(id), &spec.shape)?;
        for (moment, name) in optimizer.moments.iter().zip(names).filter(|_| spec.is_trained()) {
            insert(moment_name(&spec.name, name), &moment[id], &spec.shape)?;
        }
    }
    let json = serde_json::to_vec(progress).map_err(|why| why.to_string())?;
    let bytes = Tensor::from_slice(&json, json.len(), &Device::Cpu).map_err(|why| why.to_string())?;
    tensors.insert(PROGRESS.into(), bytes);
    safetensors::serialize(&tensors, None).map_err(|why| why.to_string())
}

/// Reads a checkpoint; `None` if there is none.
///
/// # Errors
/// When the file cannot be read or is not a checkpoint of this network.
pub(super) fn load(path: &Path, network: &TrainableNetwork, kind: OptimizerKind) -> Result<Option<State>, TrainError> {
    let failed = |why: String| TrainError::Checkpoint { path: path.into(), why };
    let bytes = match std::fs::read(path) {
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes.map_err(|why| failed(why.to_string()))?,
    };
    let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).map_err(|why| failed(why.to_string()))?;
    let progress = tensors.get(PROGRESS).ok_or_else(|| failed("is not a checkpoint of a training run".into()))?;
    let json = progress.to_vec1::<u8>().map_err(|why| failed(why.to_string()))?;
    let progress: Progress = serde_json::from_slice(&json).map_err(|why| failed(why.to_string()))?;
    let state = Format::Safetensors.read(&bytes).map_err(|why| failed(why.to_string()))?;
    let parameters = Parameters::from_state_dict(network, &state).map_err(|why| failed(why.to_string()))?;
    let moment = |name: &str| moments(network, &state, name).map_err(failed);
    let moments = Optimizer::moment_names(kind).iter().map(|name| moment(name)).collect::<Result<_, _>>()?;
    Ok(Some(State { progress, parameters, moments }))
}

/// One moment of all tensors.
fn moments(network: &TrainableNetwork, state: &StateDict, moment: &str) -> Result<Vec<Vec<f32>>, String> {
    let of = |spec: &crate::network::trainable::TensorSpec| {
        if !spec.is_trained() {
            return Ok(Vec::new());
        }
        let name = moment_name(&spec.name, moment);
        let array = state.get(&name).ok_or_else(|| format!("the tensor {name} is missing"))?;
        match array.shape() == spec.shape {
            true => Ok(array.data().to_vec()),
            false => Err(format!("the tensor {name} has the shape {:?}; expected {:?}", array.shape(), spec.shape)),
        }
    };
    network.tensors().iter().map(of).collect()
}
