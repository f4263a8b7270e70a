//! The network graph: nodes in topological order, layers by name, and the subgraph below a target.

use std::collections::HashMap;

use super::error::GraphError;
use super::layout::Views;
use super::op::Op;
use super::shape::Shape;
use super::unavailable::Unavailable;

/// Index of a node in its [`Network`]; a node only reads nodes with smaller ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub usize);

/// One operation of the graph.
#[derive(Debug, Clone)]
pub struct Node {
    /// The layer's name; unique in the network, except that the nodes of a layer's view have its name too.
    pub name: String,
    /// The operation.
    pub op: Op,
    /// The nodes that it reads, in the operation's order.
    pub inputs: Vec<NodeId>,
    /// Shape of the output at the network's own input size, without the batch axis.
    pub shape: Shape,
}

/// Input sizes for which parameters of a node are valid that were computed from a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SizeBound {
    /// Only for the network's own input size.
    Exact,
    /// For maps whose height and width, divided by these numbers, leave the same remainders as at the network's own
    /// input size: SAME padding of a strided window.
    Remainder([usize; 2]),
}

/// A layer as shown to users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer<'a> {
    /// Name that units refer to.
    pub name: &'a str,
    /// Operation: `conv`, `relu`, `max-pool`, …
    pub op: &'static str,
    /// Output shape without the batch axis: `[C,H,W]` or `[K]`. Of tokens, the patches `[C,H,W]`.
    pub shape: &'a Shape,
    /// Tokens besides the patches, each a layer `[C]` of its own named `LAYER@TOKEN`: `class`, `token1`, …
    pub tokens: &'a [String],
    /// Paths of the PyTorch modules whose output this is (`layer1.0.bn2`), if the file has them; they are names of the
    /// layer too.
    pub modules: &'a [String],
}

/// A convolutional network with frozen weights: a directed acyclic graph with one image input.
///
/// # Examples
/// ```
/// use proxygrad::network::{Activation, Array, Network, Op, Reduce};
///
/// let mut network = Network::new(3, 8, 8);
/// let mean = Op::Reduce { kind: Reduce::Mean, axes: vec![1, 2], keep: false };
/// let pool = network.push("pool", mean, &[Network::INPUT])?;
/// let dense = Op::Dense { weight: Array::new([2, 3], vec![0.5; 6])?, bias: None };
/// let dense = network.push("dense", dense, &[pool])?;
/// let logits = network.push("logits", Op::Activation(Activation::Relu), &[dense])?;
/// network.set_outputs(vec![logits]);
///
/// assert_eq!(network.node(logits).shape[..], [2]);
/// assert_eq!(network.find("logits"), Some(logits));
/// let error = network.push("logits", Op::Transpose(vec![0]), &[logits]).unwrap_err();
/// assert_eq!(error.to_string(), "logits: two layers have this name");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Network {
    nodes: Vec<Node>,
    by_name: HashMap<String, NodeId>,
    /// Alternative names of layers.
    aliases: HashMap<String, NodeId>,
    modules: HashMap<NodeId, Vec<String>>,
    unavailable: Vec<Unavailable>,
    /// Index in `unavailable` by name.
    missing: HashMap<String, usize>,
    outputs: Vec<NodeId>,
    bounds: HashMap<NodeId, SizeBound>,
    views: Views,
}

impl Network {
    /// A network with only its image input `[C,H,W]`, named `input`.
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
            views: Views::default(),
        }
    }

    /// The image input.
    pub const INPUT: NodeId = NodeId(0);

    /// Adds a node and infers its shape. A constant is not a layer: it cannot be found by its name, which other nodes
    /// may have too.
    ///
    /// # Errors
    /// When the name is taken, an input does not exist, or the operation does not accept the inputs' shapes.
    pub fn push(&mut self, name: impl Into<String>, op: Op, inputs: &[NodeId]) -> Result<NodeId, GraphError> {
        let name = name.into();
        let is_layer = !matches!(op, Op::Constant(_));
        if is_layer && self.by_name.contains_key(&name) {
            return Err(GraphError::NameTaken { name });
        }
        let id = self.push_unlisted(name, op, inputs)?;
        if is_layer {
            self.by_name.insert(self.node(id).name.clone(), id);
        }
        Ok(id)
    }

    /// Adds a node that cannot be found by its name, which other nodes may have too.
    ///
    /// # Errors
    /// When an input does not exist, or the operation does not accept the inputs' shapes.
    pub(super) fn push_unlisted(
        &mut self,
        name: impl Into<String>,
        op: Op,
        inputs: &[NodeId],
    ) -> Result<NodeId, GraphError> {
        let name = name.into();
        if let Some(&input) = inputs.iter().find(|id| id.0 >= self.nodes.len()) {
            return Err(GraphError::MissingInput { name, input });
        }
        let shapes: Vec<&Shape> = inputs.iter().map(|&id| &self.node(id).shape).collect();
        let shape = match op.infer(&shapes) {
            Ok(shape) => shape,
            Err(source) => return Err(GraphError::Shape { name, op: op.name(), source }),
        };
        let id = NodeId(self.nodes.len());
        self.nodes.push(Node { name, op, inputs: inputs.to_vec(), shape });
        Ok(id)
    }

    /// Restricts a node to the input sizes that its parameters are valid for; [`Network::shapes_at`] rejects all
    /// others.
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

    /// The layer of class logits: the first output, or the input of a softmax there; `None` if it is not a vector `[K]`.
    pub fn logits(&self) -> Option<NodeId> {
        let mut id = *self.outputs().first()?;
        while self.node(id).op.is_softmax() {
            id = *self.node(id).inputs.first()?;
        }
        (self.node(id).shape.len() == 1).then_some(id)
    }

    /// All nodes in topological order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node with this id.
    ///
    /// # Panics
    /// When the id belongs to another, larger network.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// The layer (or input) with this name or alias, with or without a leading slash, or the token `LAYER@TOKEN` of a
    /// layer. A layer that is stored channels-last or as tokens is found as its view `[C,H,W]`.
    pub fn find(&self, name: &str) -> Option<NodeId> {
        match (self.stored(name), name.rsplit_once('@')) {
            (Some(id), _) => Some(self.views.main(id)),
            (None, Some((layer, token))) => self.views.token(self.stored(layer)?, token),
            (None, None) => None,
        }
    }

    /// The layer (or input) with this name or alias, with or without a leading slash, as it is computed.
    pub fn stored(&self, name: &str) -> Option<NodeId> {
        let named = |name: &str| self.by_name.get(name).or_else(|| self.aliases.get(name)).copied();
        named(name).or_else(|| named(name.trim_start_matches('/')))
    }

    /// Tokens of a layer besides its patches: see [`Layer::tokens`].
    pub fn tokens(&self, layer: &str) -> &[String] {
        self.stored(layer).map_or(&[], |id| self.views.tokens(id))
    }

    /// The node that shows a layer with its channels first: the layer itself, or its view.
    pub fn shown(&self, layer: NodeId) -> NodeId {
        self.views.main(layer)
    }

    pub(super) fn views_mut(&mut self) -> &mut Views {
        &mut self.views
    }

    /// Adds an alternative name of a layer, unless a layer has that name already.
    pub fn add_alias(&mut self, name: impl Into<String>, id: NodeId) {
        let name = name.into();
        if !self.by_name.contains_key(&name) {
            self.aliases.entry(name).or_insert(id);
        }
    }

    /// Adds the path of the module whose output a layer is, to be found by and shown.
    pub fn add_module(&mut self, path: impl Into<String>, id: NodeId) {
        let path = path.into();
        self.add_alias(path.clone(), id);
        let is_other = self.nodes.get(id.0).is_some_and(|node| node.name != path);
        if is_other && self.stored(&path) == Some(id) {
            self.modules.entry(id).or_default().push(path);
        }
    }

    /// Records a node that has no layer, with the names that users may look for.
    pub fn add_unavailable(&mut self, unavailable: Unavailable, names: impl IntoIterator<Item = String>) {
        let index = self.unavailable.len();
        for name in names.into_iter().chain([unavailable.name.clone()]) {
            self.missing.entry(name).or_insert(index);
        }
        self.unavailable.push(unavailable);
    }

    /// The nodes of the imported file that have no layer, in the file's order.
    pub fn unavailable(&self) -> &[Unavailable] {
        &self.unavailable
    }

    /// Why there is no layer with this name although the imported file has such a node.
    pub fn why_unavailable(&self, name: &str) -> Option<&Unavailable> {
        let found = self.missing.get(name).or_else(|| self.missing.get(name.trim_start_matches('/')))?;
        self.unavailable.get(*found)
    }

    /// Input size `[C,H,W]`.
    pub fn input_shape(&self) -> &Shape {
        &self.node(Self::INPUT).shape
    }

    /// The layers whose output can be maximized, in topological order: every node except the input and constants.
    pub fn layers(&self) -> impl Iterator<Item = Layer<'_>> {
        let is_layer = |(id, node): &(usize, &Node)| {
            !matches!(node.op, Op::Input | Op::Constant(_)) && !self.views.contains(NodeId(*id))
        };
        self.nodes.iter().enumerate().filter(is_layer).map(|(i, node)| Layer {
            name: &node.name,
            op: node.op.name(),
            shape: &self.node(self.views.main(NodeId(i))).shape,
            tokens: self.views.tokens(NodeId(i)),
            modules: self.modules.get(&NodeId(i)).map_or(&[], Vec::as_slice),
        })
    }

    /// The nodes that the `targets` depend on, including the targets, in topological order.
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

    /// Shapes of all nodes in `order` (from [`Network::below`]) for another input size `[C,H,W]`.
    ///
    /// # Errors
    /// When an operation does not work at that size, for example a dense layer after a flatten, or one whose parameters
    /// were computed from another size.
    pub fn shapes_at(&self, input: &Shape, order: &[NodeId]) -> Result<HashMap<NodeId, Shape>, GraphError> {
        let mut shapes: HashMap<NodeId, Shape> = HashMap::with_capacity(order.len());
        for &id in order {
            let node = self.node(id);
            let shape = if id == Self::INPUT {
                input.clone()
            } else {
                let inputs: Vec<&Shape> = node.inputs.iter().map(|input| &shapes[input]).collect();
                self.check_bound(id, input, &inputs)?;
                let error = |source| GraphError::Shape { name: node.name.clone(), op: node.op.name(), source };
                node.op.infer(&inputs).map_err(error)?
            };
            shapes.insert(id, shape);
        }
        Ok(shapes)
    }

    /// Whether the parameters of a node are valid for an image of shape `input`, where the node reads `inputs`.
    fn check_bound(&self, id: NodeId, input: &Shape, inputs: &[&Shape]) -> Result<(), GraphError> {
        let node = self.node(id);
        let valid = match self.bounds.get(&id) {
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
        if valid {
            return Ok(());
        }
        Err(GraphError::InputSize {
            name: node.name.clone(),
            op: node.op.name(),
            expected: self.input_shape().clone(),
            found: input.clone(),
        })
    }
}
