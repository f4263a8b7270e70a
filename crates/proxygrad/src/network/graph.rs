//! The graph: nodes in topological order, layers by name, the part below a target.

use std::collections::HashMap;

use super::op::Op;
use super::shape::Shape;
use super::unavailable::Unavailable;

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
    /// Paths of the PyTorch modules whose output this is (`layer1.0.bn2`), where the file tells; they name the layer too.
    pub modules: &'a [String],
}

/// A convolutional network with frozen weights: a directed acyclic graph with one image input.
#[derive(Debug, Clone)]
pub struct Network {
    nodes: Vec<Node>,
    by_name: HashMap<String, NodeId>,
    /// Other names of layers.
    aliases: HashMap<String, NodeId>,
    modules: HashMap<NodeId, Vec<String>>,
    unavailable: Vec<Unavailable>,
    /// Names of what is unavailable.
    missing: HashMap<String, usize>,
    outputs: Vec<NodeId>,
    bounds: HashMap<NodeId, SizeBound>,
}

impl Network {
    /// A network that so far only has its image input `[C,H,W]`, under the name `input`.
    pub fn new(channels: usize, height: usize, width: usize) -> Self {
        let shape = Shape::from([channels, height, width]);
        let node = Node { name: "input".into(), op: Op::Input, inputs: Vec::new(), shape };
        let by_name = HashMap::from([(node.name.clone(), NodeId(0))]);
        Self {
            nodes: vec![node],
            by_name,
            aliases: HashMap::new(),
            modules: HashMap::new(),
            unavailable: Vec::new(),
            missing: HashMap::new(),
            outputs: Vec::new(),
            bounds: HashMap::new(),
        }
    }

    /// The image input.
    pub const INPUT: NodeId = NodeId(0);

    /// Adds a node behind its inputs and infers its shape. A constant is no layer: its name leads nowhere and takes no
    /// other node's.
    ///
    /// # Errors
    /// When the name is taken, an input does not exist, or the operation does not accept the inputs' shapes.
    pub fn push(&mut self, name: impl Into<String>, op: Op, inputs: &[NodeId]) -> Result<NodeId, String> {
        let name = name.into();
        let is_layer = !matches!(op, Op::Constant(_));
        if is_layer && self.by_name.contains_key(&name) {
            return Err(format!("{name}: two layers have this name"));
        }
        if let Some(missing) = inputs.iter().find(|id| id.0 >= self.nodes.len()) {
            return Err(format!("{name}: reads node {} before it exists", missing.0));
        }
        let shapes: Vec<&Shape> = inputs.iter().map(|&id| &self.node(id).shape).collect();
        let shape = op.infer(&shapes).map_err(|why| format!("{name} ({}): {why}", op.name()))?;
        let id = NodeId(self.nodes.len());
        if is_layer {
            self.by_name.insert(name.clone(), id);
        }
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

    /// The layer (or input) with this name, or with this other name, with or without a slash before it.
    pub fn find(&self, name: &str) -> Option<NodeId> {
        let named = |name: &str| self.by_name.get(name).or_else(|| self.aliases.get(name)).copied();
        named(name).or_else(|| named(name.trim_start_matches('/')))
    }

    /// Lets a layer be found by another name, too, unless that leads somewhere already.
    pub fn add_alias(&mut self, name: impl Into<String>, id: NodeId) {
        let name = name.into();
        if !self.by_name.contains_key(&name) {
            self.aliases.entry(name).or_insert(id);
        }
    }

    /// Lets a layer be found, and shown, by the path of the module whose output it is.
    pub fn add_module(&mut self, path: impl Into<String>, id: NodeId) {
        let path = path.into();
        self.add_alias(path.clone(), id);
        let is_other = self.nodes.get(id.0).is_some_and(|node| node.name != path);
        if is_other && self.find(&path) == Some(id) {
            self.modules.entry(id).or_default().push(path);
        }
    }

    /// Tells of a node that has no layer, and the names by which someone may look for it.
    pub fn add_unavailable(&mut self, unavailable: Unavailable, names: impl IntoIterator<Item = String>) {
        let index = self.unavailable.len();
        for name in names.into_iter().chain([unavailable.name.clone()]) {
            self.missing.entry(name).or_insert(index);
        }
        self.unavailable.push(unavailable);
    }

    /// The nodes of the imported file that have no layer here, in the file's order.
    pub fn unavailable(&self) -> &[Unavailable] {
        &self.unavailable
    }

    /// Why there is no layer of this name, when the imported file has such a node.
    pub fn why_unavailable(&self, name: &str) -> Option<&Unavailable> {
        let found = self.missing.get(name).or_else(|| self.missing.get(name.trim_start_matches('/')))?;
        self.unavailable.get(*found)
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
        self.nodes.iter().enumerate().filter(is_layer).map(|(i, node)| Layer {
            name: &node.name,
            op: node.op.name(),
            shape: &node.shape,
            modules: self.modules.get(&NodeId(i)).map_or(&[], Vec::as_slice),
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
