//! The subgraph below the targets of a plan, with unread channels pruned.

use std::collections::BTreeSet;

use candle_core::Tensor;

use super::EngineError;
use crate::network::{Array, Axis, Conv, Network, NodeId, Normalize, Op, Shape};

/// A layer whose output a plan computes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The layer.
    pub layer: NodeId,
    /// The channels that are read; `None` for all. Other channels may be left out: the output may hold 0 there, and the
    /// seeds of a backward pass must be 0 there.
    pub channels: Option<BTreeSet<usize>>,
}

impl Target {
    /// Some channels of a layer.
    pub fn channels(layer: NodeId, channels: impl IntoIterator<Item = usize>) -> Self {
        Self { layer, channels: Some(channels.into_iter().collect()) }
    }

    /// One target per layer, with all channels.
    pub fn whole(layers: &[NodeId]) -> Vec<Self> {
        layers.iter().copied().map(Self::from).collect()
    }
}

impl From<NodeId> for Target {
    fn from(layer: NodeId) -> Self {
        Self { layer, channels: None }
    }
}

/// The nodes that some targets depend on, at one input size. Nodes are referred to by their index in
/// [`Subgraph::nodes`].
pub(super) struct Subgraph {
    /// In topological order; the image is the first.
    pub(super) nodes: Vec<SubgraphNode>,
    /// The targets, in the order of the request.
    pub(super) targets: Vec<SubgraphTarget>,
    /// Input `[C,H,W]`.
    pub(super) input: Shape,
}

/// One node of a [`Subgraph`].
pub(super) struct SubgraphNode {
    pub(super) id: NodeId,
    pub(super) inputs: Vec<usize>,
    /// Shape of the output, without the batch axis.
    pub(super) shape: Shape,
    /// Whether the value depends on the image.
    pub(super) needs_gradient: bool,
    /// The operation on the remaining channels, if some were pruned.
    pub(super) pruned: Option<Op>,
}

impl SubgraphNode {
    /// What the node computes.
    pub(super) fn op<'a>(&'a self, network: &'a Network) -> &'a Op {
        self.pruned.as_ref().unwrap_or_else(|| &network.node(self.id).op)
    }
}

/// One target of a [`Subgraph`].
pub(super) struct SubgraphTarget {
    pub(super) node: usize,
    /// Shape of the layer's output with all channels, as callers of the engine see it.
    pub(super) shape: Shape,
    /// The channels that the node still computes, in order; `None` for all.
    pub(super) kept: Option<Vec<usize>>,
}

impl Subgraph {
    pub(super) fn new(network: &Network, targets: &[Target], input: &Shape) -> Result<Self, EngineError> {
        let order = network.below(&targets.iter().map(|target| target.layer).collect::<Vec<_>>());
        let mut shapes = network
            .shapes_at(input, &order)
            .map_err(|source| EngineError::Size { input: input.clone(), source: Box::new(source) })?;
        let index = |id: &NodeId| order.binary_search(id).ok();
        let mut nodes: Vec<SubgraphNode> = Vec::with_capacity(order.len());
        for &id in &order {
            let inputs: Vec<usize> = network.node(id).inputs.iter().filter_map(index).collect();
            let needs_gradient = id == Network::INPUT || inputs.iter().any(|&i| nodes[i].needs_gradient);
            let shape = shapes.remove(&id).unwrap_or_else(|| network.node(id).shape.clone());
            nodes.push(SubgraphNode { id, inputs, shape, needs_gradient, pruned: None });
        }
        let target_nodes: Vec<usize> = targets.iter().filter_map(|target| index(&target.layer)).collect();
        let mut found = Vec::with_capacity(targets.len());
        for (&node, target) in target_nodes.iter().zip(targets) {
            let (shape, mut kept) = (nodes[node].shape.clone(), None);
            if let Some(channels) = &target.channels {
                if let Some(beyond) = channels.iter().find(|&&channel| channel >= shape.channels()) {
                    let why = format!("channel {beyond} of a layer with {} channels", shape.channels());
                    return Err(EngineError::Mismatch(why));
                }
                let channels: Vec<usize> = channels.iter().copied().collect();
                kept = prune_channels(network, &mut nodes, node, &target_nodes, &channels).then_some(channels);
            }
            found.push(SubgraphTarget { node, shape, kept });
        }
        Ok(Self { targets: found, nodes, input: input.clone() })
    }

    /// Whether a node is a target.
    pub(super) fn is_target(&self, node: usize) -> bool {
        self.targets.iter().any(|target| target.node == node)
    }

    /// Shapes of the inputs of a node.
    pub(super) fn input_shapes(&self, node: &SubgraphNode) -> Vec<&Shape> {
        node.inputs.iter().map(|&i| &self.nodes[i].shape).collect()
    }

    /// Checks images `[N,C,H,W]` for a forward pass.
    pub(super) fn check_images(&self, images: &Tensor) -> Result<(), EngineError> {
        if images.dims().get(1..) == Some(&self.input[..]) {
            return Ok(());
        }
        let found = images.dims();
        Err(EngineError::Mismatch(format!("images of {found:?} do not fit a plan for {}", self.input)))
    }

    /// Checks the seeds of a backward pass after a forward pass of `batch` images; a batch of 0 means that there was no
    /// forward pass.
    pub(super) fn check_seeds(&self, seeds: &[Tensor], batch: usize) -> Result<(), EngineError> {
        if batch == 0 {
            return Err(EngineError::Mismatch("a backward pass needs a forward pass before it".into()));
        }
        if seeds.len() != self.targets.len() {
            let expected = self.targets.len();
            return Err(EngineError::Mismatch(format!("{} seeds for {expected} targets", seeds.len())));
        }
        for (seed, shape) in seeds.iter().zip(self.targets.iter().map(|target| &target.shape)) {
            if seed.dims().first() != Some(&batch) || seed.dims()[1..] != shape[..] {
                let found = seed.dims();
                return Err(EngineError::Mismatch(format!("a seed of {found:?} for {batch} outputs {shape}")));
            }
        }
        Ok(())
    }
}

/// Removes all channels of a target but `kept`, down to the layer that mixes channels: for one class, a classifier's
/// last layer needs one row of its weights. Does nothing if another node or target reads a layer in between, if an
/// operation in between mixes channels, or if at least half of the channels are kept. Returns whether it pruned.
///
/// `targets` are all targets of the plan, including this one.
fn prune_channels(
    network: &Network,
    nodes: &mut [SubgraphNode],
    target: usize,
    targets: &[usize],
    kept: &[usize],
) -> bool {
    if kept.is_empty() || 2 * kept.len() > nodes[target].shape.channels() {
        return false;
    }
    let mut path = vec![target];
    let mut at = target;
    loop {
        let readers = nodes.iter().flat_map(|node| &node.inputs).filter(|&&input| input == at).count();
        let read_as_target = targets.iter().filter(|&&other| other == at).count();
        // The target itself must have no reader, and every node below it only the one on the path.
        if (read_as_target, readers) != (if at == target { (1, 0) } else { (0, 1) }) {
            return false;
        }
        let input = nodes[at].inputs.first().map(|&input| &nodes[input].shape);
        match ChannelFlow::of(nodes[at].op(network), input, &nodes[at].shape) {
            ChannelFlow::Other => return false,
            ChannelFlow::Weighted => break,
            ChannelFlow::OneToOne => at = nodes[at].inputs[0],
        }
        path.push(at);
    }
    for n in path {
        let mut shape = nodes[n].shape.to_vec();
        shape[0] = kept.len();
        let shape = Shape::from(shape);
        nodes[n].pruned = Some(pruned(nodes[n].op(network), kept, &shape));
        nodes[n].shape = shape;
    }
    true
}

/// Which input channels an output channel is computed from.
enum ChannelFlow {
    /// All of them, with weights that belong to the output channel.
    Weighted,
    /// The same channel of the only input.
    OneToOne,
    /// Anything else.
    Other,
}

impl ChannelFlow {
    fn of(op: &Op, input: Option<&Shape>, output: &Shape) -> Self {
        let Some(input) = input else { return Self::Other };
        let has_channels = |shape: &Shape| matches!(shape.len(), 1 | 3);
        let one_to_one = |is: bool| if is { Self::OneToOne } else { Self::Other };
        match op {
            Op::Conv(conv) if conv.groups == 1 => Self::Weighted,
            Op::Conv(conv) => one_to_one(conv.groups == conv.in_channels() && conv.groups == conv.out_channels()),
            // Along the channels of a vector; the first axis of other tensors counts positions.
            Op::Dense { .. } if output.len() == 1 => Self::Weighted,
            Op::Activation(_) | Op::Unary(_) | Op::Affine { .. } | Op::MaxPool(_) | Op::AveragePool { .. } => {
                one_to_one(has_channels(output))
            }
            Op::Reduce { axes, .. } => one_to_one(has_channels(input) && has_channels(output) && !axes.contains(&0)),
            Op::Normalize(Normalize { axes, .. }) => one_to_one(has_channels(output) && !axes.contains(&0)),
            // A vector written as a map of one pixel, or back.
            Op::Reshape(_) => {
                let is_vector = |shape: &Shape| has_channels(shape) && shape.elements() == shape.channels();
                one_to_one(is_vector(input) && is_vector(output))
            }
            Op::Input
            | Op::Constant(_)
            | Op::Dense { .. }
            | Op::MatMul
            | Op::Binary(_)
            | Op::Select
            | Op::Concat { .. }
            | Op::Pad { .. }
            | Op::Transpose(_)
            | Op::Slice { .. }
            | Op::Gather { .. }
            | Op::Resize(_)
            | Op::Softmax { .. }
            | Op::LogSoftmax { .. }
            | Op::LocalResponse(_)
            | Op::DynamicQuantize => Self::Other,
        }
    }
}

/// An operation restricted to some channels.
fn pruned(op: &Op, kept: &[usize], output: &Shape) -> Op {
    match op {
        Op::Conv(conv) => Op::Conv(Conv {
            weight: conv.weight.rows(kept),
            bias: conv.bias.as_ref().map(|bias| bias.rows(kept)),
            window: conv.window,
            groups: if conv.groups == 1 { 1 } else { kept.len() },
        }),
        Op::Dense { weight, bias } => {
            Op::Dense { weight: weight.rows(kept), bias: bias.as_ref().map(|bias| bias.rows(kept)) }
        }
        Op::Affine { scale, shift } => Op::Affine { scale: scale.rows(kept), shift: shift.rows(kept) },
        Op::Activation(activation) => Op::Activation(activation.select_channels(kept)),
        Op::Normalize(normalize) => {
            let select =
                |values: &Option<Array>| values.as_ref().map(|values| select_channels(values, kept, output.len()));
            Op::Normalize(Normalize {
                scale: select(&normalize.scale),
                shift: select(&normalize.shift),
                ..normalize.clone()
            })
        }
        Op::Reshape(_) => Op::Reshape(output.iter().map(|&length| Axis::Exact(length)).collect()),
        Op::MaxPool(_)
        | Op::AveragePool { .. }
        | Op::Reduce { .. }
        | Op::Input
        | Op::Constant(_)
        | Op::MatMul
        | Op::Unary(_)
        | Op::Binary(_)
        | Op::Select
        | Op::Concat { .. }
        | Op::Pad { .. }
        | Op::Transpose(_)
        | Op::Slice { .. }
        | Op::Gather { .. }
        | Op::Resize(_)
        | Op::Softmax { .. }
        | Op::LogSoftmax { .. }
        | Op::LocalResponse(_)
        | Op::DynamicQuantize => op.clone(),
    }
}

/// Some channels of an array that broadcasts over a tensor of `rank` axes.
fn select_channels(values: &Array, kept: &[usize], rank: usize) -> Array {
    let differs = values.shape().len() == rank && values.shape().first().is_some_and(|&channels| channels > 1);
    if differs { values.rows(kept) } else { values.clone() }
}
