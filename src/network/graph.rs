//! The graph: nodes in topological order, layers by name, the part below a target.

use std::collections::HashMap;

use super::op::Op;
use super::shape::Shape;

/// Index of a node in its [`Network`]; nodes only read nodes with smaller ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub usize);

/// One operation of the graph.
#[derive(Debug, Clone)]
pub struct Node {
    /// The layer's name; unique in the network.
    pub name: String,
    /// What is computed.
    pub op: Op,
    /// Where its inputs come from, in the operation's order.
    pub inputs: Vec<NodeId>,
    /// Shape of the output at the network's own input size, without the batch axis.
    pub shape: Shape,
}

/// For which input sizes the parameters of a node hold that were computed from a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SizeBound {
    /// Only for the network's own input size.
    Exact,
    /// For maps whose height and width, divided by these numbers, leave the same remainders as at the network's own
    /// input size: the padding of a strided window that is meant to cover the whole map (SAME).
    Remainder([usize; 2]),
}

/// A layer as shown to users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer<'a> {
    /// Name by which units refer to it.
    pub name: &'a str,
    /// Operation, in the field's words: `conv`, `relu`, `max-pool`, …
    pub op: &'static str,
    /// Output shape without the batch axis: `[C,H,W]` or `[K]`.
    pub shape: &'a Shape,
}

/// A convolutional network with frozen weights: a directed acyclic graph with one image input.
#[derive(Debug, Clone)]
pub struct Network {
    nodes: Vec<Node>,
    by_name: HashMap<String, NodeId>,
    outputs: Vec<NodeId>,
    bounds: HashMap<NodeId, SizeBound>,
}

impl Network {
    /// A network that so far only has its image input `[C,H,W]`, under the name `input`.
    pub fn new(channels: usize, height: usize, width: usize) -> Self {
        let shape = Shape::from([channels, height, width]);
        let node = Node { name: "input".into(), op: Op::Input, inputs: Vec::new(), shape };
        let by_name = HashMap::from([(node.name.clone(), NodeId(0))]);
        Self { by_name, nodes: vec![node], outputs: Vec::new(), bounds: HashMap::new() }
    }

    /// The image input.
    pub const INPUT: NodeId = NodeId(0);

    /// Adds a node behind its inputs and infers its shape.
    ///
    /// # Errors
    /// When the name is taken, an input does not exist, or the operation does not accept the inputs' shapes.
    pub fn push(&mut self, name: impl Into<String>, op: Op, inputs: &[NodeId]) -> Result<NodeId, String> {
        let name = name.into();
        if self.by_name.contains_key(&name) {
            return Err(format!("{name}: two layers have this name"));
        }
        if let Some(missing) = inputs.iter().find(|id| id.0 >= self.nodes.len()) {
            return Err(format!("{name}: reads node {} before it exists", missing.0));
        }
        let shapes: Vec<&Shape> = inputs.iter().map(|&id| &self.node(id).shape).collect();
        let shape = op.infer(&shapes).map_err(|why| format!("{name} ({}): {why}", op.name()))?;
        let id = NodeId(self.nodes.len());
        self.by_name.insert(name.clone(), id);
        self.nodes.push(Node { name, op, inputs: inputs.to_vec(), shape });
        Ok(id)
    }

    /// Declares that the parameters of a node only hold for some input sizes; [`Network::shapes_at`] refuses all others.
    pub fn bind_size(&mut self, id: NodeId, bound: SizeBound) {
        self.bounds.insert(id, bound);
    }

    /// Declares which nodes are the network's outputs (its logits).
    pub fn set_outputs(&mut self, outputs: Vec<NodeId>) {
        self.outputs = outputs;
    }

    /// The declared outputs.
    pub fn outputs(&self) -> &[NodeId] {
        &self.outputs
    }

    /// All nodes; every node stands behind its inputs.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node with this id.
    ///
    /// # Panics
    /// When the id comes from another, larger network.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// The layer with this name.
    pub fn find(&self, name: &str) -> Option<NodeId> {
        self.by_name.get(name).copied()
    }

    /// Input size `[C,H,W]`.
    pub fn input_shape(&self) -> &Shape {
        &self.node(Self::INPUT).shape
    }

    /// The layers whose output can be maximized, in topological order: every node but the input, constants, and what has its
    /// channels last before the network begins.
    pub fn layers(&self) -> impl Iterator<Item = Layer<'_>> {
        let hidden = self.channels_last();
        let is_layer = move |(id, node): &(usize, &Node)| {
            !matches!(node.op, Op::Input | Op::Constant(_)) && !hidden.contains(&NodeId(*id))
        };
        self.nodes.iter().enumerate().filter(is_layer).map(|(_, node)| Layer {
            name: &node.name,
            op: node.op.name(),
            shape: &node.shape,
        })
    }

    /// The nodes that the `targets` depend on, themselves included, in topological order.
    pub fn below(&self, targets: &[NodeId]) -> Vec<NodeId> {
        let mut needed = vec![false; self.nodes.len()];
        for target in targets {
            needed[target.0] = true;
        }
        for id in (0..self.nodes.len()).rev() {
            if needed[id] {
                for input in &self.nodes[id].inputs {
                    needed[input.0] = true;
                }
            }
        }
        (0..self.nodes.len()).filter(|&id| needed[id]).map(NodeId).collect()
    }

    /// Shapes of all nodes in `order` (as given by [`Network::below`]) for another input size `[C,H,W]`.
    ///
    /// # Errors
    /// When an operation cannot work at that size, for example a dense layer behind a flatten, or one whose parameters
    /// were computed from another size.
    pub fn shapes_at(&self, input: &Shape, order: &[NodeId]) -> Result<HashMap<NodeId, Shape>, String> {
        let mut shapes: HashMap<NodeId, Shape> = HashMap::with_capacity(order.len());
        for &id in order {
            let node = self.node(id);
            let shape = if id == Self::INPUT {
                input.clone()
            } else {
                let inputs: Vec<&Shape> = node.inputs.iter().map(|input| &shapes[input]).collect();
                self.check_bound(id, input, &inputs)?;
                node.op.infer(&inputs).map_err(|why| format!("{} ({}): {why}", node.name, node.op.name()))?
            };
            shapes.insert(id, shape);
        }
        Ok(shapes)
    }

    /// Whether the parameters of a node hold for an image `input`, which gives the node `inputs`.
    fn check_bound(&self, id: NodeId, input: &Shape, inputs: &[&Shape]) -> Result<(), String> {
        let node = self.node(id);
        let holds = match self.bounds.get(&id) {
            None => true,
            Some(SizeBound::Exact) => input == self.input_shape(),
            Some(SizeBound::Remainder(steps)) => {
                let maps = node.inputs.iter().map(|&input| self.node(input).shape.feature_map());
                maps.zip(inputs).all(|(own, found)| match (own, found.feature_map()) {
                    (Some([_, h, w]), Some([_, y, x])) => h % steps[0] == y % steps[0] && w % steps[1] == x % steps[1],
                    _ => false,
                })
            }
        };
        if holds {
            return Ok(());
        }
        let (name, op, own) = (&node.name, node.op.name(), self.input_shape());
        Err(format!("{name} ({op}): its parameters were computed for an input of {own} and do not fit {input}"))
    }
}
