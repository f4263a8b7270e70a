//! Builds layers from the tensors of a state dict, with batch norm folding.

use super::{Architecture, ArchitectureError};
use crate::network::checkpoint::StateDict;
use crate::network::{Array, Conv, Network, NodeId, Op, Window};

/// Builds a network layer by layer from the tensors of a state dict.
pub(super) struct NetworkBuilder<'a> {
    architecture: Architecture,
    state: &'a StateDict,
    pub(super) network: Network,
}

/// A batch normalization at inference: `weight * (x - running_mean) / sqrt(running_var + epsilon) + bias`.
pub(super) struct BatchNorm<'a> {
    /// Name in the state dict.
    pub(super) name: &'a str,
    /// Added to the variance.
    pub(super) epsilon: f64,
}

/// Shape of a convolution.
pub(super) struct ConvShape {
    pub(super) outputs: usize,
    pub(super) inputs: usize,
    pub(super) groups: usize,
    pub(super) window: Window,
}

impl<'a> NetworkBuilder<'a> {
    pub(super) fn new(architecture: Architecture, state: &'a StateDict) -> Self {
        let [channels, height, width] = architecture.input();
        Self { architecture, state, network: Network::new(channels, height, width) }
    }

    /// Adds a layer.
    pub(super) fn push(&mut self, name: &str, op: Op, inputs: &[NodeId]) -> Result<NodeId, ArchitectureError> {
        let architecture = self.architecture;
        self.network.push(name, op, inputs).map_err(|source| ArchitectureError::Graph { architecture, source })
    }

    /// A convolution with the tensors `{tensors}.weight` and `{tensors}.bias`.
    pub(super) fn conv(
        &mut self,
        name: &str,
        tensors: &str,
        shape: ConvShape,
        input: NodeId,
    ) -> Result<NodeId, ArchitectureError> {
        let weight = self.conv_weight(tensors, &shape)?;
        let bias = self.tensor(&format!("{tensors}.bias"), &[shape.outputs])?;
        let conv = Conv { weight, bias: Some(bias), window: shape.window, groups: shape.groups };
        self.push(name, Op::Conv(conv), &[input])
    }

    /// A convolution with the tensor `{tensors}.weight`, with the batch normalization after it folded in.
    pub(super) fn conv_bn(
        &mut self,
        name: &str,
        tensors: &str,
        norm: BatchNorm<'_>,
        shape: ConvShape,
        input: NodeId,
    ) -> Result<NodeId, ArchitectureError> {
        let weight = self.conv_weight(tensors, &shape)?;
        let [gamma, beta, mean, variance] = ["weight", "bias", "running_mean", "running_var"]
            .map(|part| self.tensor(&format!("{}.{part}", norm.name), &[shape.outputs]));
        let (gamma, beta, mean, variance) = (gamma?, beta?, mean?, variance?);
        let fan = weight.len() / shape.outputs;
        let (mut folded, mut bias) = (weight.data().to_vec(), vec![0.0; shape.outputs]);
        for o in 0..shape.outputs {
            let at = |array: &Array| f64::from(array.data()[o]);
            let scale = at(&gamma) / (at(&variance) + norm.epsilon).sqrt();
            for value in &mut folded[o * fan..][..fan] {
                *value = (f64::from(*value) * scale) as f32;
            }
            bias[o] = (at(&beta) - at(&mean) * scale) as f32;
        }
        if !folded.iter().chain(&bias).all(|value| value.is_finite()) {
            return Err(self.not_finite(norm.name));
        }
        let weight = self.array(weight.shape(), folded)?;
        let conv = Conv { weight, bias: Some(Array::vector(bias)), window: shape.window, groups: shape.groups };
        self.push(name, Op::Conv(conv), &[input])
    }

    /// A dense layer with the tensors `{tensors}.weight` `[O,I]` and `{tensors}.bias`, with the stored number of
    /// outputs.
    pub(super) fn dense(
        &mut self,
        name: &str,
        tensors: &str,
        inputs: usize,
        input: NodeId,
    ) -> Result<NodeId, ArchitectureError> {
        let outputs = self.outputs_of(tensors)?;
        let weight = self.tensor(&format!("{tensors}.weight"), &[outputs, inputs])?;
        let bias = self.tensor(&format!("{tensors}.bias"), &[outputs])?;
        self.push(name, Op::Dense { weight, bias: Some(bias) }, &[input])
    }

    /// Number of outputs of a layer: the length of its bias.
    pub(super) fn outputs_of(&self, tensors: &str) -> Result<usize, ArchitectureError> {
        let name = format!("{tensors}.bias");
        let bias = self.find(&name)?;
        match bias.shape() {
            &[outputs] if outputs > 0 => Ok(outputs),
            shape => Err(self.shape_error(&name, shape, "a vector [O]".into())),
        }
    }

    fn conv_weight(&self, tensors: &str, shape: &ConvShape) -> Result<Array, ArchitectureError> {
        let name = format!("{tensors}.weight");
        let [kh, kw] = shape.window.kernel;
        let (outputs, inputs) = (shape.outputs, shape.inputs / shape.groups);
        let stored = self.find(&name)?;
        let (native, keras) = ([outputs, inputs, kh, kw], [kh, kw, inputs, outputs]);
        let weight = if stored.shape() == native {
            stored.clone()
        } else if stored.shape() == keras {
            let mut data = Vec::with_capacity(stored.len());
            for o in 0..outputs {
                for i in 0..inputs {
                    data.extend((0..kh * kw).map(|tap| stored.data()[(tap * inputs + i) * outputs + o]));
                }
            }
            self.array(&native, data)?
        } else {
            return Err(self.shape_error(&name, stored.shape(), format!("{native:?} or {keras:?}")));
        };
        self.finite(&name, weight)
    }

    fn tensor(&self, name: &str, expected: &[usize]) -> Result<Array, ArchitectureError> {
        let stored = self.find(name)?;
        if stored.shape() != expected {
            return Err(self.shape_error(name, stored.shape(), format!("{expected:?}")));
        }
        self.finite(name, stored.clone())
    }

    fn finite(&self, name: &str, array: Array) -> Result<Array, ArchitectureError> {
        if array.data().iter().all(|value| value.is_finite()) { Ok(array) } else { Err(self.not_finite(name)) }
    }

    fn find(&self, name: &str) -> Result<&'a Array, ArchitectureError> {
        self.state.get(name).ok_or_else(|| {
            let mut found: Vec<_> = self.state.iter().take(4).map(|(name, _)| name).collect();
            if self.state.len() > found.len() {
                found.push("…");
            }
            let found = if found.is_empty() { "none".into() } else { found.join(", ") };
            ArchitectureError::Missing { architecture: self.architecture, name: name.into(), found }
        })
    }

    fn array(&self, shape: &[usize], data: Vec<f32>) -> Result<Array, ArchitectureError> {
        Array::new(shape, data).map_err(|source| ArchitectureError::Array { architecture: self.architecture, source })
    }

    fn shape_error(&self, name: &str, found: &[usize], expected: String) -> ArchitectureError {
        let (architecture, name, found) = (self.architecture, name.to_owned(), found.to_vec());
        ArchitectureError::Shape { architecture, name, found, expected }
    }

    fn not_finite(&self, name: &str) -> ArchitectureError {
        ArchitectureError::NotFinite { architecture: self.architecture, name: name.into() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_batch_normalization_is_folded_into_the_convolution_before_it() {
        let mut state = StateDict::default();
        state.insert("conv.weight", Array::new([2, 3, 1, 1], vec![1.0, 2.0, 3.0, -1.0, 0.5, 0.0]).unwrap());
        for (part, values) in
            [("weight", [4.0, 3.0]), ("bias", [0.5, -0.5]), ("running_mean", [10.0, 4.0]), ("running_var", [3.0, 8.0])]
        {
            state.insert(format!("norm.{part}"), Array::vector(values.to_vec()));
        }
        let mut builder = NetworkBuilder::new(Architecture::SqueezeNet11, &state);
        let shape = ConvShape { outputs: 2, inputs: 3, groups: 1, window: Window::new([1, 1]) };
        let norm = BatchNorm { name: "norm", epsilon: 1.0 };
        let id = builder.conv_bn("layer", "conv", norm, shape, Network::INPUT).unwrap();
        let Op::Conv(conv) = &builder.network.node(id).op else { panic!() };
        // Scales are 4 / sqrt(3 + 1) = 2 and 3 / sqrt(8 + 1) = 1.
        assert_eq!(conv.weight.data(), [2.0, 4.0, 6.0, -1.0, 0.5, 0.0]);
        assert_eq!(conv.bias.as_ref().unwrap().data(), [0.5 - 20.0, -0.5 - 4.0]);
    }
}
