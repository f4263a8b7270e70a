//! Blueprints: the graph of an architecture with the names and shapes of its weights, but not their values.

use super::tensors::TensorShapes;
use super::weights::{Misfit, Tensor, Weights, batch_norm_factors, batch_norm_tensors};
use crate::network::{Array, Binary, Conv, Network, NodeId, Norm, Normalize, Op, Window};

/// Number of classes if the weights have no last layer to take it from: that of ImageNet.
const CLASSES: usize = 1000;

/// From the values of a step's tensors to its operation.
type Make = Box<dyn FnOnce(&[Array]) -> Result<Op, Misfit>>;

/// A node of a blueprint.
pub(super) struct Step {
    pub(super) name: String,
    pub(super) inputs: Vec<NodeId>,
    pub(super) tensors: Vec<Tensor>,
    pub(super) make: Make,
}

/// A graph under construction. Its nodes have the ids that they will have in the network.
pub(super) struct Blueprint<'a> {
    given: &'a TensorShapes,
    pub(super) steps: Vec<Step>,
    /// Paths of modules, and their last nodes.
    pub(super) modules: Vec<(String, NodeId)>,
    pub(super) output: NodeId,
}

impl<'a> Blueprint<'a> {
    /// An empty graph. Of the weights that are `given`, only the number of classes is used.
    pub(super) fn new(given: &'a TensorShapes) -> Self {
        Self { given, steps: Vec::new(), modules: Vec::new(), output: Network::INPUT }
    }

    /// All tensors that the architecture needs.
    pub(super) fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.steps.iter().flat_map(|step| &step.tensors)
    }

    /// Number of outputs of a layer, which is the number of classes: the length of its bias.
    pub(super) fn outputs_of(&self, tensors: &str) -> usize {
        match self.given.get(&format!("{tensors}.bias")).map(Vec::as_slice) {
            Some(&[outputs]) if outputs > 0 => outputs,
            _ => CLASSES,
        }
    }

    /// Whether the weights have a tensor of this layer.
    pub(super) fn is_given(&self, tensors: &str) -> bool {
        ["weight", "bias"].iter().any(|part| self.given.contains_key(&format!("{tensors}.{part}")))
    }

    /// Adds a node without weights.
    pub(super) fn push(&mut self, name: impl Into<String>, op: Op, inputs: &[NodeId]) -> NodeId {
        self.step(name, inputs, Vec::new(), move |_| Ok(op))
    }

    /// Adds a convolution.
    pub(super) fn conv(
        &mut self,
        name: impl Into<String>,
        weights: Weights,
        window: Window,
        groups: usize,
        input: NodeId,
    ) -> NodeId {
        self.weighted(name, weights, input, move |weight, bias| {
            Ok(Op::Conv(Conv { weight, bias: Some(bias), window, groups }))
        })
    }

    /// Adds a dense layer `[O,I]` that is applied to every pixel of a map `[I,H,W]`.
    pub(super) fn pointwise(&mut self, name: impl Into<String>, weights: Weights, input: NodeId) -> NodeId {
        self.weighted(name, weights, input, |weight, bias| {
            let weight = weight.reshape([weight.shape(), &[1, 1]].concat())?;
            Ok(Op::Conv(Conv { weight, bias: Some(bias), window: Window::new([1, 1]), groups: 1 }))
        })
    }

    /// Adds a dense layer.
    pub(super) fn dense(&mut self, name: impl Into<String>, weights: Weights, input: NodeId) -> NodeId {
        self.weighted(name, weights, input, |weight, bias| Ok(Op::Dense { weight, bias: Some(bias) }))
    }

    fn weighted(
        &mut self,
        name: impl Into<String>,
        weights: Weights,
        input: NodeId,
        op: impl FnOnce(Array, Array) -> Result<Op, Misfit> + 'static,
    ) -> NodeId {
        let (tensors, modules) = (weights.tensors(), weights.modules());
        let id = self.step(name, &[input], tensors, move |arrays| {
            let (weight, bias) = weights.fold(arrays)?;
            op(weight, bias)
        });
        modules.into_iter().for_each(|module| self.module(module, id));
        id
    }

    /// Adds a batch normalization that is not folded, with the tensors `{name}.weight`, `{name}.bias` and so on.
    pub(super) fn batch_norm(&mut self, name: &str, epsilon: f64, channels: usize, input: NodeId) -> NodeId {
        let own = name.to_owned();
        self.step(name, &[input], batch_norm_tensors(name, channels), move |arrays| {
            let (scale, shift) = batch_norm_factors(&own, arrays, epsilon)?;
            let vector = |values: Vec<f64>| Array::vector(values.into_iter().map(|v| v as f32).collect::<Vec<_>>());
            Ok(Op::Affine { scale: vector(scale), shift: vector(shift) })
        })
    }

    /// Adds a layer normalization of `channels` values along `axis`, the first or only one of a map, or the last one of
    /// tokens, with the tensors `{name}.weight` and `{name}.bias`.
    pub(super) fn layer_norm(
        &mut self,
        name: &str,
        channels: usize,
        [axis, axes]: [usize; 2],
        epsilon: f32,
        input: NodeId,
    ) -> NodeId {
        let tensors = ["weight", "bias"].map(|part| Tensor::new(format!("{name}.{part}"), [channels]));
        let mut shape = vec![1; axes];
        shape[axis] = channels;
        self.step(name, &[input], tensors.to_vec(), move |arrays| {
            let [scale, shift] = [0, 1].map(|i| arrays[i].reshape(shape.clone()));
            let (scale, shift) = (Some(scale?), Some(shift?));
            let kind = Norm::Deviation;
            Ok(Op::Normalize(Normalize { axes: vec![axis], groups: 1, kind, epsilon, scale, shift }))
        })
    }

    /// Adds a tensor of the state dict, in another shape.
    pub(super) fn parameter(&mut self, tensor: Tensor, shape: impl Into<Vec<usize>>) -> NodeId {
        let shape = shape.into();
        self.step(tensor.name.clone(), &[], vec![tensor], move |arrays| Ok(Op::Constant(arrays[0].reshape(shape)?)))
    }

    /// Adds `a + b`.
    pub(super) fn add(&mut self, name: impl Into<String>, a: NodeId, b: NodeId) -> NodeId {
        self.push(name, Op::Binary(Binary::Add), &[a, b])
    }

    /// Adds the dense layer that computes the class scores: the layer `logits`, also known by the path of its module.
    pub(super) fn logits(&mut self, module: &str, inputs: usize, input: NodeId) {
        let weights = Weights::new(module, [self.outputs_of(module), inputs]);
        self.output = self.dense("logits", weights, input);
        self.module(module, self.output);
    }

    /// Makes the path of a module a name of its last node.
    pub(super) fn module(&mut self, path: impl Into<String>, node: NodeId) {
        self.modules.push((path.into(), node));
    }

    fn step(
        &mut self,
        name: impl Into<String>,
        inputs: &[NodeId],
        tensors: impl Into<Vec<Tensor>>,
        make: impl FnOnce(&[Array]) -> Result<Op, Misfit> + 'static,
    ) -> NodeId {
        let (tensors, make) = (tensors.into(), Box::new(make));
        self.steps.push(Step { name: name.into(), inputs: inputs.to_vec(), tensors, make });
        // The image is node 0.
        NodeId(self.steps.len())
    }
}
