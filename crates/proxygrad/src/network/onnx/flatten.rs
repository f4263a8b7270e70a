//! Flattening: the functions that a file defines, and the branches of `If`, become part of one list of nodes.
//!
//! A call of a function is replaced by the nodes of the function, and an `Identity` that has the name of the call. The
//! nodes of both branches of an `If` join the list under a [`Guard`]; the `If` itself then reads the results of both,
//! and lowering decides which of them it returns.

use std::collections::{HashMap, HashSet};

use prost::Message;

use super::OPSETS;
use super::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto, ValueInfoProto,
};

/// Deepest nesting of calls and branches.
const MAX_DEPTH: usize = 40;

/// Maximum number of nodes that calls are replaced by.
const MOST_NODES: usize = 50_000;

/// Maximum number of bytes of these nodes, plus [`PER_BYTE`] for each byte of the file.
const MOST_BYTES: usize = 1 << 26;

/// See [`MOST_BYTES`].
const PER_BYTE: usize = 4;

/// The nodes of a file as one list.
#[derive(Debug)]
pub(super) struct FlatGraph {
    /// The graph, without calls of functions and without branches.
    pub graph: GraphProto,
    /// For each node, what the graph does not say.
    pub nodes: Vec<NodeInfo>,
    /// The branches.
    pub guards: Vec<Guard>,
}

/// Where a node comes from.
#[derive(Debug, Clone)]
pub(super) struct NodeInfo {
    /// Opset that defines the operation.
    pub opset: i64,
    /// The branch that the node belongs to: an index into [`FlatGraph::guards`].
    pub guard: Option<usize>,
    /// Why the node cannot be replaced by the function that it calls, or has no usable branches.
    pub refused: Option<String>,
}

/// A branch of an `If`: its nodes are only computed if the condition has a value.
#[derive(Debug)]
pub(super) struct Guard {
    /// Name of the condition's tensor.
    pub condition: String,
    /// The value.
    pub value: bool,
    /// Index of the `If`.
    pub node: usize,
    /// The branch that the `If` itself belongs to.
    pub outer: Option<usize>,
}

impl FlatGraph {
    /// Names of the tensors that must be known before a node: those it reads, and the conditions of its branches.
    pub fn reads(&self, node: usize) -> impl Iterator<Item = &str> {
        let outer = |&guard: &usize| self.guards[guard].outer;
        let guards = std::iter::successors(self.nodes[node].guard, outer);
        let conditions = guards.map(|guard| self.guards[guard].condition.as_str());
        self.graph.node[node].inputs().chain(conditions.filter(|name| !name.is_empty()))
    }
}

/// Flattens the graph of `model`, which is left without one. `opset` is that of the model, `file_bytes` its size.
pub(super) fn flatten(model: &mut ModelProto, opset: i64, file_bytes: usize) -> FlatGraph {
    let mut graph = model.graph.take().unwrap_or_default();
    let nodes = std::mem::take(&mut graph.node);
    let functions = functions(&model.functions);
    let is_flat = functions.is_empty() && !nodes.iter().any(|node| node.op_type == "If");
    let mut flattener = Flattener {
        names: if is_flat { FreshNames::default() } else { taken_names(&graph, &nodes) },
        functions: &functions,
        nodes: Vec::with_capacity(nodes.len()),
        infos: Vec::with_capacity(nodes.len()),
        guards: Vec::new(),
        graph,
        calls: Vec::new(),
        depth: 0,
        nodes_left: MOST_NODES,
        bytes_left: MOST_BYTES.saturating_add(file_bytes.saturating_mul(PER_BYTE)),
    };
    let frame = Frame { opset, ..Frame::default() };
    for node in nodes {
        flattener.add(node, &frame);
    }
    let Flattener { mut graph, nodes, infos, guards, .. } = flattener;
    graph.node = nodes;
    FlatGraph { graph, nodes: infos, guards }
}

/// Domain, name and overload of a function.
type FunctionKey<'f> = (&'f str, &'f str, &'f str);

/// A function of the file, and its size.
struct Function<'f> {
    index: usize,
    proto: &'f FunctionProto,
    bytes: usize,
    /// How many names and attributes its nodes have.
    mentions: usize,
}

fn functions(functions: &[FunctionProto]) -> HashMap<FunctionKey<'_>, Function<'_>> {
    let mut found = HashMap::with_capacity(functions.len());
    for (index, proto) in functions.iter().enumerate() {
        let (bytes, mentions) = (proto.encoded_len(), mentions(&proto.node));
        let key = key(&proto.domain, &proto.name, &proto.overload);
        found.insert(key, Function { index, proto, bytes, mentions });
    }
    found
}

fn mentions(nodes: &[NodeProto]) -> usize {
    let branches =
        |node: &NodeProto| node.attribute.iter().flat_map(|a| &a.g).map(|g| mentions(&g.node)).sum::<usize>();
    let own = |node: &NodeProto| 1 + node.input.len() + node.output.len() + node.attribute.len();
    nodes.iter().map(|node| own(node) + branches(node)).sum()
}

fn key<'f>(domain: &'f str, name: &'f str, overload: &'f str) -> FunctionKey<'f> {
    (if domain == "ai.onnx" { "" } else { domain }, name, overload)
}

/// The names that the graph itself uses.
fn taken_names(graph: &GraphProto, nodes: &[NodeProto]) -> FreshNames {
    let infos = graph.input.iter().chain(&graph.output).map(|info: &ValueInfoProto| &info.name);
    let stored = graph.initializer.iter().map(|tensor| &tensor.name);
    let sparse = graph.sparse_initializer.iter().filter_map(|sparse| Some(&sparse.values.as_ref()?.name));
    let tensors = nodes.iter().flat_map(|node| node.input.iter().chain(&node.output));
    FreshNames { taken: infos.chain(stored).chain(sparse).chain(tensors).cloned().collect(), suffix: 1 }
}

/// Names for tensors of functions and branches.
#[derive(Default)]
struct FreshNames {
    taken: HashSet<String>,
    suffix: usize,
}

impl FreshNames {
    /// A free name: `wanted` itself, or `wanted` followed by a number.
    fn claim(&mut self, wanted: String) -> String {
        let mut name = wanted.clone();
        while !self.taken.insert(name.clone()) {
            self.suffix += 1;
            name = format!("{wanted}_{}", self.suffix);
        }
        name
    }
}

/// The nodes that share names: those of the graph, of one call of a function, or of one branch.
#[derive(Default)]
struct Frame<'s> {
    opset: i64,
    guard: Option<usize>,
    /// Prefix of the names of nodes and tensors.
    prefix: String,
    /// Names of the tensors in the flat graph.
    names: HashMap<String, String>,
    /// Attributes of the call.
    attributes: HashMap<&'s str, &'s AttributeProto>,
    /// The nodes around a branch.
    outer: Option<&'s Frame<'s>>,
}

impl Frame<'_> {
    /// Name of a tensor in the flat graph.
    fn resolve(&self, name: &str) -> String {
        let mut frame = self;
        loop {
            match (frame.names.get(name), frame.outer) {
                _ if name.is_empty() => return String::new(),
                (Some(name), _) => return name.clone(),
                (None, Some(outer)) => frame = outer,
                (None, None) => return format!("{}{name}", frame.prefix),
            }
        }
    }

    /// An attribute of the call.
    fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        match (self.attributes.get(name), self.outer) {
            (Some(attribute), _) => Some(attribute),
            (None, Some(outer)) => outer.attribute(name),
            (None, None) => None,
        }
    }
}

struct Flattener<'f> {
    functions: &'f HashMap<FunctionKey<'f>, Function<'f>>,
    graph: GraphProto,
    nodes: Vec<NodeProto>,
    infos: Vec<NodeInfo>,
    guards: Vec<Guard>,
    names: FreshNames,
    /// The functions that are being replaced.
    calls: Vec<usize>,
    depth: usize,
    nodes_left: usize,
    bytes_left: usize,
}

impl Flattener<'_> {
    /// Adds a node of `frame`, whose tensors still have the names that they have there.
    fn add(&mut self, mut node: NodeProto, frame: &Frame<'_>) {
        let named = |names: &mut Vec<String>| names.iter_mut().for_each(|name| *name = frame.resolve(name));
        named(&mut node.input);
        named(&mut node.output);
        if !node.name.is_empty() {
            node.name.insert_str(0, &frame.prefix);
        }
        for attribute in std::mem::take(&mut node.attribute) {
            if attribute.ref_attr_name.is_empty() {
                node.attribute.push(attribute);
            } else if let Some(given) = frame.attribute(&attribute.ref_attr_name) {
                node.attribute.push(AttributeProto { name: attribute.name, ..given.clone() });
            }
        }
        let functions = self.functions;
        let function = functions.get(&key(&node.domain, &node.op_type, &node.overload));
        let refused = match function.map(|function| self.call(&node, function, frame)) {
            Some(Ok(())) => return,
            Some(Err(why)) => Some(why),
            None => None,
        };
        if refused.is_none() && node.is_standard() && node.op_type == "If" {
            return self.add_if(node, frame);
        }
        self.push(node, frame, refused);
    }

    fn push(&mut self, node: NodeProto, frame: &Frame<'_>, refused: Option<String>) {
        self.nodes.push(node);
        self.infos.push(NodeInfo { opset: frame.opset, guard: frame.guard, refused });
    }

    /// Adds the nodes of the function that `call` calls.
    fn call(&mut self, call: &NodeProto, function: &Function<'_>, frame: &Frame<'_>) -> Result<(), String> {
        let proto = function.proto;
        if self.calls.contains(&function.index) {
            return Err(format!("the function {} calls itself", proto.name));
        }
        if self.depth >= MAX_DEPTH {
            return Err(format!("functions and branches are nested more than {MAX_DEPTH} deep"));
        }
        if call.input.len() > proto.input.len() || call.output.len() > proto.output.len() {
            return Err(format!(
                "it has {} inputs and {} outputs, but the function {} has {} and {}",
                call.input.len(),
                call.output.len(),
                proto.name,
                proto.input.len(),
                proto.output.len()
            ));
        }
        let own = proto.opset_import.iter().find(|set| matches!(set.domain.as_str(), "" | "ai.onnx"));
        let opset = own.map_or(frame.opset, |set| set.version);
        if !OPSETS.contains(&opset) {
            return Err(format!("the function {} needs opset {opset}, which is not supported", proto.name));
        }
        let prefix = format!("{}/", call.display_name());
        let attributes: HashMap<&str, &AttributeProto> =
            proto.attribute_proto.iter().chain(&call.attribute).map(|a| (a.name.as_str(), a)).collect();
        let values: usize = call.attribute.iter().map(Message::encoded_len).sum();
        let bytes = function.bytes.saturating_add(function.mentions.saturating_mul(prefix.len() + values));
        self.bytes_left = self.bytes_left.checked_sub(bytes).ok_or(TOO_LARGE)?;
        self.nodes_left = self.nodes_left.checked_sub(proto.node.len() + proto.output.len()).ok_or(TOO_LARGE)?;

        let given = call.input.iter().map(String::as_str).chain(std::iter::repeat(""));
        let mut names: HashMap<String, String> = proto.input.iter().cloned().zip(given.map(str::to_owned)).collect();
        for name in proto.node.iter().flat_map(|node| &node.output).filter(|name| !name.is_empty()) {
            names.insert(name.clone(), self.names.claim(format!("{prefix}{name}")));
        }
        let inner = Frame { opset, guard: frame.guard, prefix, names, attributes, outer: None };
        self.calls.push(function.index);
        self.depth += 1;
        for node in &proto.node {
            self.add(node.clone(), &inner);
        }
        self.depth -= 1;
        self.calls.pop();
        for (name, result) in proto.output.iter().zip(&call.output).filter(|(_, result)| !result.is_empty()) {
            let identity = NodeProto {
                input: vec![inner.resolve(name)],
                output: vec![result.clone()],
                name: call.name.clone(),
                op_type: "Identity".into(),
                metadata_props: call.metadata_props.clone(),
                ..NodeProto::default()
            };
            self.push(identity, frame, None);
        }
        Ok(())
    }

    /// Adds an `If`, which reads its condition, the results of its `then_branch` and those of its `else_branch`, and
    /// the nodes of both.
    fn add_if(&mut self, mut node: NodeProto, frame: &Frame<'_>) {
        let mut branch = |name: &str| {
            let attribute = node.attribute.iter_mut().find(|attribute| attribute.name == name)?;
            attribute.g.take().filter(|graph| graph.output.len() == node.output.len())
        };
        let (Some(then), Some(other)) = (branch("then_branch"), branch("else_branch")) else {
            let why = "it needs two branches with as many results as it has itself".to_owned();
            return self.push(node, frame, Some(why));
        };
        if self.depth >= MAX_DEPTH {
            let why = format!("functions and branches are nested more than {MAX_DEPTH} deep");
            return self.push(node, frame, Some(why));
        }
        node.attribute.clear();
        node.input.resize(1, String::new());
        let index = self.nodes.len();
        let condition = node.input[0].clone();
        self.push(node, frame, None);
        for (value, branch) in [(true, then), (false, other)] {
            self.guards.push(Guard { condition: condition.clone(), value, node: index, outer: frame.guard });
            let results = self.add_branch(*branch, self.guards.len() - 1, frame);
            self.nodes[index].input.extend(results);
        }
    }

    /// Adds the nodes and constants of a branch and returns the names of its results.
    fn add_branch(&mut self, branch: GraphProto, guard: usize, frame: &Frame<'_>) -> Vec<String> {
        let GraphProto { node, mut initializer, mut sparse_initializer, output, .. } = branch;
        let mut names = HashMap::new();
        let sparse = |sparse: &SparseTensorProto| sparse.values.as_ref().map(|values| values.name.clone());
        let stored = initializer.iter().map(|tensor| tensor.name.clone());
        let computed = node.iter().flat_map(|node| &node.output).cloned();
        for name in stored.chain(sparse_initializer.iter().filter_map(sparse)).chain(computed) {
            if !name.is_empty() {
                let claimed = self.names.claim(format!("{}{name}", frame.prefix));
                names.insert(name, claimed);
            }
        }
        let inner = Frame {
            opset: frame.opset,
            guard: Some(guard),
            prefix: frame.prefix.clone(),
            names,
            attributes: HashMap::new(),
            outer: Some(frame),
        };
        let rename = |tensor: &mut TensorProto| tensor.name = inner.resolve(&tensor.name);
        initializer.iter_mut().for_each(rename);
        sparse_initializer.iter_mut().filter_map(|sparse| sparse.values.as_mut()).for_each(rename);
        self.graph.initializer.append(&mut initializer);
        self.graph.sparse_initializer.append(&mut sparse_initializer);
        self.depth += 1;
        for node in node {
            self.add(node, &inner);
        }
        self.depth -= 1;
        output.iter().map(|output| inner.resolve(&output.name)).collect()
    }
}

const TOO_LARGE: &str = "replacing the calls of functions would need far more memory than the file";
