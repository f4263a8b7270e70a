//! Graph under construction: like [`Network`](crate::network::Network), but its nodes can still be rewritten.

use std::collections::HashSet;

use crate::network::{Array, Op, Shape, SizeBound};

/// Index of a node in its [`GraphBuilder`]; nodes only read nodes with smaller ids.
pub(super) type BuilderId = usize;

/// One operation.
#[derive(Debug, Clone)]
pub(super) struct BuilderNode {
    /// Preferred layer name.
    pub name: String,
    /// Name of its output in the file; `None` for intermediate results.
    pub tensor: Option<String>,
    /// What is computed.
    pub op: Op,
    /// The nodes it reads.
    pub inputs: Vec<BuilderId>,
    /// Shape at the network's own input size, without the batch axis.
    pub shape: Shape,
    /// Shape at another image size, if the node works there; axes that differ depend on the image size.
    pub other_shape: Option<Shape>,
    /// Input sizes that the parameters are valid for; `None` if all.
    pub bound: Option<SizeBound>,
    /// Set if this node only repeats another one along axes of length 1: elementwise operations read that one instead.
    pub expanded_from: Option<BuilderId>,
    /// Index in the file of the node it was lowered from.
    pub file_node: usize,
}

impl BuilderNode {
    /// Weights, biases and constants.
    fn parameters(&self) -> impl Iterator<Item = &Array> {
        let parameters = match &self.op {
            Op::Conv(conv) => [Some(&conv.weight), conv.bias.as_ref()],
            Op::Dense { weight, bias } => [Some(weight), bias.as_ref()],
            Op::Affine { scale, shift } => [Some(scale), Some(shift)],
            Op::Normalize(normalize) => [normalize.scale.as_ref(), normalize.shift.as_ref()],
            Op::Constant(array) => [Some(array), None],
            Op::Activation(activation) => [activation.channel_parameters(), None],
            Op::Input
            | Op::MatMul
            | Op::Unary(_)
            | Op::Binary(_)
            | Op::Select
            | Op::Concat { .. }
            | Op::MaxPool(_)
            | Op::AveragePool { .. }
            | Op::Reduce { .. }
            | Op::Pad { .. }
            | Op::Reshape(_)
            | Op::Transpose(_)
            | Op::Slice { .. }
            | Op::Gather { .. }
            | Op::Resize(_)
            | Op::Softmax { .. }
            | Op::LogSoftmax { .. }
            | Op::LocalResponse(_)
            | Op::DynamicQuantize => [None, None],
        };
        parameters.into_iter().flatten()
    }

    /// Number of values in weights, biases, constants and lists of indices, of which the node may hold a copy.
    pub fn parameter_count(&self) -> usize {
        let indices = if let Op::Gather { indices, .. } = &self.op { indices.len() } else { 0 };
        indices + self.parameters().map(Array::len).sum::<usize>()
    }

    /// Whether all weights are finite, which fails for diverged training runs. Constants may be infinite, such as
    /// masks.
    pub fn is_finite(&self) -> bool {
        let is_constant = matches!(self.op, Op::Constant(_));
        is_constant || self.parameters().all(|array| array.data().iter().all(|v| v.is_finite()))
    }
}

/// The nodes added so far, in topological order.
#[derive(Debug)]
pub(super) struct GraphBuilder {
    nodes: Vec<BuilderNode>,
    /// Index and name of the file's node that is being lowered.
    file_node: (usize, String),
}

impl GraphBuilder {
    /// The image input.
    pub const INPUT: BuilderId = 0;

    /// A graph with only its image input.
    pub fn new([channels, height, width]: [usize; 3]) -> Self {
        // At this size every axis that depends on the height or width has another length, however deep in the network.
        let other_shape = Shape::from([channels, 2 * height + 512, 3 * width + 512]);
        let input = BuilderNode {
            name: String::new(),
            tensor: None,
            op: Op::Input,
            inputs: Vec::new(),
            shape: [channels, height, width].into(),
            other_shape: Some(other_shape),
            bound: None,
            expanded_from: None,
            file_node: usize::MAX,
        };
        Self { nodes: vec![input], file_node: (usize::MAX, String::new()) }
    }

    /// Sets the file's node that the next nodes are lowered from.
    pub fn set_file_node(&mut self, index: usize, name: &str) {
        self.file_node = (index, name.into());
    }

    /// Removes all nodes but the first `count`.
    pub fn truncate(&mut self, count: usize) {
        self.nodes.truncate(count);
    }

    /// All nodes.
    pub fn nodes(&self) -> &[BuilderNode] {
        &self.nodes
    }

    /// The node with this id.
    pub fn node(&self, id: BuilderId) -> &BuilderNode {
        &self.nodes[id]
    }

    /// The node with this id.
    pub fn node_mut(&mut self, id: BuilderId) -> &mut BuilderNode {
        &mut self.nodes[id]
    }

    /// Adds an operation.
    ///
    /// # Errors
    /// When it does not accept its inputs.
    pub fn push(&mut self, op: Op, inputs: &[BuilderId]) -> Result<BuilderId, String> {
        self.push_bound(op, inputs, None)
    }

    /// Adds an operation, valid only at the network's own input size if `sized`.
    ///
    /// # Errors
    /// When it does not accept its inputs.
    pub fn push_sized(&mut self, op: Op, inputs: &[BuilderId], sized: bool) -> Result<BuilderId, String> {
        self.push_bound(op, inputs, sized.then_some(SizeBound::Exact))
    }

    /// Adds an operation whose parameters are valid for the input sizes of `bound`.
    ///
    /// # Errors
    /// When it does not accept its inputs.
    pub fn push_bound(&mut self, op: Op, inputs: &[BuilderId], bound: Option<SizeBound>) -> Result<BuilderId, String> {
        let shapes: Vec<&Shape> = inputs.iter().map(|&id| &self.nodes[id].shape).collect();
        let shape = op.infer(&shapes)?;
        let others: Option<Vec<&Shape>> = inputs.iter().map(|&id| self.nodes[id].other_shape.as_ref()).collect();
        let others = others.filter(|_| bound != Some(SizeBound::Exact));
        let other_shape = others.and_then(|shapes| op.infer(&shapes).ok());
        Ok(self.add(op, inputs, shape, other_shape, bound))
    }

    /// Adds a constant operand.
    ///
    /// # Errors
    /// When it is empty.
    pub fn push_constant(&mut self, array: Array) -> Result<BuilderId, String> {
        self.push(Op::Constant(array), &[])
    }

    /// Adds a node without values that stands for a tensor that cannot be computed.
    pub fn push_placeholder(&mut self, shape: Shape, other_shape: Option<Shape>) -> BuilderId {
        self.add(Op::Input, &[], shape, other_shape, None)
    }

    /// Marks the values of a node as valid only at the network's own input size.
    pub fn bind_to_size(&mut self, id: BuilderId) {
        self.nodes[id].bound = Some(SizeBound::Exact);
        self.nodes[id].other_shape = None;
    }

    fn add(
        &mut self,
        op: Op,
        inputs: &[BuilderId],
        shape: Shape,
        other_shape: Option<Shape>,
        bound: Option<SizeBound>,
    ) -> BuilderId {
        let (file_node, name) = self.file_node.clone();
        self.nodes.push(BuilderNode {
            name,
            tensor: None,
            op,
            inputs: inputs.to_vec(),
            shape,
            other_shape,
            bound,
            expanded_from: None,
            file_node,
        });
        self.nodes.len() - 1
    }

    /// Whether the length of `axis` depends on the image size.
    pub fn depends_on_image_size(&self, id: BuilderId, axis: usize) -> bool {
        let BuilderNode { shape, other_shape, .. } = &self.nodes[id];
        other_shape.as_ref().is_some_and(|other| other.get(axis) != shape.get(axis))
    }

    /// For each node, how often it is read by nodes that `outputs` depend on; being an output counts as one read.
    pub fn reader_counts(&self, outputs: &[BuilderId]) -> Vec<usize> {
        let mut readers = vec![0; self.nodes.len()];
        for &output in outputs {
            readers[output] += 1;
        }
        for id in (0..self.nodes.len()).rev() {
            if readers[id] > 0 {
                for &input in &self.nodes[id].inputs {
                    readers[input] += 1;
                }
            }
        }
        readers
    }

    /// The nodes that `outputs` depend on, including themselves, in ascending order.
    pub fn ancestors(&self, outputs: &[BuilderId]) -> Vec<BuilderId> {
        let readers = self.reader_counts(outputs);
        (0..self.nodes.len()).filter(|&id| readers[id] > 0).collect()
    }

    /// The nodes that compute `id` (included) from `source` (excluded); `None` if there are more than `most`.
    pub fn subgraph_between(&self, id: BuilderId, source: BuilderId, most: usize) -> Option<HashSet<BuilderId>> {
        let mut found = HashSet::from([id]);
        let mut open = vec![id];
        while let Some(id) = open.pop() {
            for &input in &self.nodes[id].inputs {
                if input != source && found.insert(input) {
                    open.push(input);
                }
            }
            if found.len() > most {
                return None;
            }
        }
        Some(found)
    }
}
