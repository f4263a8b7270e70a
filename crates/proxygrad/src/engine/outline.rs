//! What every engine's plan starts from: the part of a network below its targets, and what may be handed to it.

use candle_core::Tensor;

use super::narrow::narrow;
use super::{EngineError, Target};
use crate::network::{Network, NodeId, Op, Shape};

/// The part of a network below some targets, at one input size. Nodes are known by their position in [`Outline::nodes`].
pub(super) struct Outline {
    /// In topological order; the image is the first.
    pub(super) nodes: Vec<Outlined>,
    /// The targets, in the order asked for.
    pub(super) targets: Vec<Aimed>,
    /// Input `[C,H,W]`.
    pub(super) input: Shape,
}

/// One node of an [`Outline`].
pub(super) struct Outlined {
    pub(super) id: NodeId,
    pub(super) inputs: Vec<usize>,
    /// Shape of the output, without the batch axis.
    pub(super) shape: Shape,
    /// Whether the value depends on the image, so that a gradient is wanted.
    pub(super) depends: bool,
    /// The operation on the channels that are looked at, where others were left out.
    pub(super) narrowed: Option<Op>,
}

impl Outlined {
    /// What the node computes.
    pub(super) fn op<'a>(&'a self, network: &'a Network) -> &'a Op {
        self.narrowed.as_ref().unwrap_or_else(|| &network.node(self.id).op)
    }
}

/// One target of an [`Outline`].
pub(super) struct Aimed {
    pub(super) node: usize,
    /// Shape of the layer's output with all channels, as it crosses the engine's border.
    pub(super) shape: Shape,
    /// The channels that the node holds, in order; all of them where none are named.
    pub(super) kept: Option<Vec<usize>>,
}

impl Outline {
    pub(super) fn new(network: &Network, targets: &[Target], input: &Shape) -> Result<Self, EngineError> {
        let order = network.below(&targets.iter().map(|target| target.layer).collect::<Vec<_>>());
        let mut shapes =
            network.shapes_at(input, &order).map_err(|why| EngineError::Size { input: input.to_string(), why })?;
        let slot = |id: &NodeId| order.binary_search(id).ok();
        let mut nodes: Vec<Outlined> = Vec::with_capacity(order.len());
        for &id in &order {
            let inputs: Vec<usize> = network.node(id).inputs.iter().filter_map(slot).collect();
            let depends = id == Network::INPUT || inputs.iter().any(|&i| nodes[i].depends);
            let shape = shapes.remove(&id).unwrap_or_else(|| network.node(id).shape.clone());
            nodes.push(Outlined { id, inputs, shape, depends, narrowed: None });
        }
        let places: Vec<usize> = targets.iter().filter_map(|target| slot(&target.layer)).collect();
        let mut aimed = Vec::with_capacity(targets.len());
        for (&node, target) in places.iter().zip(targets) {
            let (shape, mut kept) = (nodes[node].shape.clone(), None);
            if let Some(channels) = &target.channels {
                if let Some(beyond) = channels.iter().find(|&&channel| channel >= shape.channels()) {
                    let why = format!("channel {beyond} of a layer with {} channels", shape.channels());
                    return Err(EngineError::Mismatch(why));
                }
                let channels: Vec<usize> = channels.iter().copied().collect();
                kept = narrow(network, &mut nodes, node, &places, &channels).then_some(channels);
            }
            aimed.push(Aimed { node, shape, kept });
        }
        Ok(Self { targets: aimed, nodes, input: input.clone() })
    }

    /// Whether a node is a target.
    pub(super) fn is_target(&self, node: usize) -> bool {
        self.targets.iter().any(|target| target.node == node)
    }

    /// Shapes of the inputs of a node.
    pub(super) fn input_shapes(&self, node: &Outlined) -> Vec<&Shape> {
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

    /// Checks the seeds of a backward pass behind a forward pass of `batch` images; 0 stands for none.
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
