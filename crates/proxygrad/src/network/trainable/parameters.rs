//! Values of the tensors of a trainable network.

use super::{TensorId, TrainableNetwork};
use crate::network::Array;
use crate::network::checkpoint::StateDict;

/// The values of all tensors of a [`TrainableNetwork`], in its order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Parameters {
    values: Vec<Vec<f32>>,
}

/// Stored values do not fit a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParameterError {
    /// A tensor of the network is not stored.
    #[error("the tensor {0} is missing")]
    Missing(String),
    /// A stored tensor has another shape.
    #[error("the tensor {name} has the shape {found:?}; expected {expected:?}")]
    Shape {
        /// Its name.
        name: String,
        /// The stored shape.
        found: Vec<usize>,
        /// The network's shape.
        expected: Vec<usize>,
    },
}

impl Parameters {
    pub(super) fn new(values: Vec<Vec<f32>>) -> Self {
        Self { values }
    }

    /// Values of one tensor, row-major.
    pub fn get(&self, id: TensorId) -> &[f32] {
        &self.values[id]
    }

    /// Values of one tensor, row-major.
    pub fn get_mut(&mut self, id: TensorId) -> &mut [f32] {
        &mut self.values[id]
    }

    /// Replaces one tensor, by one of another size if its layer was replaced.
    pub(super) fn set(&mut self, id: TensorId, values: Vec<f32>) {
        self.values[id] = values;
    }

    /// All tensors.
    pub fn iter(&self) -> impl Iterator<Item = &[f32]> {
        self.values.iter().map(Vec::as_slice)
    }

    /// Whether all values are finite.
    pub fn are_finite(&self) -> bool {
        self.values.iter().flatten().all(|value| value.is_finite())
    }

    /// One tensor as an array of the network's shape.
    pub(crate) fn array(&self, network: &TrainableNetwork, id: TensorId) -> Result<Array, crate::network::ArrayError> {
        Array::new(network.tensors()[id].shape.clone(), self.values[id].as_slice())
    }

    /// Reads the tensors of `network` from a state dict by name. Other tensors of the state dict are ignored.
    ///
    /// # Errors
    /// When one is missing or has another shape.
    pub fn from_state_dict(network: &TrainableNetwork, state: &StateDict) -> Result<Self, ParameterError> {
        let value = |spec: &super::TensorSpec| {
            let array = state.get(&spec.name).ok_or_else(|| ParameterError::Missing(spec.name.clone()))?;
            if array.shape() != spec.shape {
                let (name, found, expected) = (spec.name.clone(), array.shape().to_vec(), spec.shape.clone());
                return Err(ParameterError::Shape { name, found, expected });
            }
            Ok(array.data().to_vec())
        };
        network.tensors().iter().map(value).collect::<Result<_, _>>().map(Self::new)
    }
}
