//! The walk over the graph of the file: every node is folded or lowered, and every failure is collected.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::call::{Call, Tensor};
use super::draft::{Draft, DraftNode, DraftOp, Id};
use super::error::{ImportError, UnsupportedNode};
use super::external::ExternalData;
use super::input::ImageInput;
use super::messages::{GraphProto, NodeProto, SparseTensorProto, TensorProto};
use super::value::Value;
use super::{fold, lower, order, sparse, tensor};
use crate::network::Op;

/// Most elements of all weights and computed constants together, beside [`PER_BYTE`] for each byte of the file.
const MOST_COMPUTED: usize = 1 << 24;

/// See [`MOST_COMPUTED`]: enough for half-precision weights that are converted and transposed.
const PER_BYTE: usize = 4;

/// The drafted graph.
#[derive(Debug)]
pub(super) struct Walked<'g> {
    /// Its nodes.
    pub draft: Draft,
    /// The image as the file's nodes read it.
    pub image: Id,
    /// Indices in the file of the nodes that the outputs depend on, in the order in which they can be computed.
    pub order: Vec<usize>,
    /// What became of every tensor that such a node makes.
    pub tensors: HashMap<&'g str, Tensor>,
    /// What nodes read that could not be lowered.
    pub read_by_failed: BTreeSet<Id>,
    /// The nodes that could not be lowered, by their index in the file.
    pub failures: BTreeMap<usize, UnsupportedNode>,
    /// Whether the file describes far more numbers than it holds.
    pub exhausted: bool,
}

impl Walked<'_> {
    /// What the network has to compute: the outputs of the file, and what the nodes that could not be lowered read.
    pub fn roots(&self, graph: &GraphProto) -> Vec<Id> {
        let mut roots: Vec<Id> = self.outputs(graph).into_iter().map(|(id, _)| id).collect();
        let is_layer = |id: &Id| *id > self.image && !matches!(self.draft.node(*id).op, DraftOp::Op(Op::Constant(_)));
        roots.extend(self.read_by_failed.iter().copied().filter(is_layer));
        roots
    }

    /// The outputs that can be computed and depend on the image, with their names.
    pub fn outputs<'o>(&self, graph: &'o GraphProto) -> Vec<(Id, &'o str)> {
        let names = graph.output.iter().map(|output| output.name.as_str());
        let id = |name: &str| match self.tensors.get(name) {
            Some(Tensor::Map(id)) if *id != Draft::INPUT => Some(*id),
            _ => None,
        };
        names.filter_map(|name| Some((id(name)?, name))).collect()
    }

    /// Marks what a node of the draft computes, and everything that depends on it, as failed because of the node `cause`
    /// of the file. `broken` are such nodes with their causes.
    pub fn spread_failure(&mut self, mut broken: BTreeMap<Id, usize>) {
        if broken.is_empty() {
            return;
        }
        for (id, node) in self.draft.nodes().iter().enumerate() {
            if !broken.contains_key(&id)
                && let Some(&cause) = node.inputs.iter().find_map(|input| broken.get(input))
            {
                broken.insert(id, cause);
            }
        }
        for tensor in self.tensors.values_mut() {
            if let Tensor::Map(id) = tensor
                && let Some(&cause) = broken.get(id)
            {
                *tensor = Tensor::Failed(cause);
            }
        }
        let read = broken.keys().flat_map(|&id| &self.draft.node(id).inputs).copied();
        self.read_by_failed.extend(read.collect::<Vec<_>>());
        self.read_by_failed.retain(|id| !broken.contains_key(id));
    }
}

struct Walk<'g> {
    graph: &'g GraphProto,
    opset: i64,
    batch: Option<usize>,
    files: &'g ExternalData,
    draft: Draft,
    initializers: HashMap<&'g str, &'g TensorProto>,
    sparse: HashMap<&'g str, &'g SparseTensorProto>,
    tensors: HashMap<&'g str, Tensor>,
    /// Names of the tensors that something reads.
    read: HashSet<&'g str>,
    /// Number of elements that may still be computed.
    room: usize,
    exhausted: bool,
    read_by_failed: BTreeSet<Id>,
    failures: BTreeMap<usize, UnsupportedNode>,
}

/// Lowers all nodes that the outputs depend on. `file_bytes` is the size of the model with its other files.
///
/// # Errors
/// [`ImportError::Graph`] when the nodes form no graph.
pub(super) fn walk<'g>(
    graph: &'g GraphProto,
    opset: i64,
    input: &'g ImageInput,
    files: &'g ExternalData,
    file_bytes: usize,
) -> Result<Walked<'g>, ImportError> {
    let initializers: HashMap<&str, &TensorProto> = graph.initializer.iter().map(|t| (t.name.as_str(), t)).collect();
    let named = |sparse: &'g SparseTensorProto| Some((sparse.values.as_ref()?.name.as_str(), sparse));
    let sparse: HashMap<&str, &SparseTensorProto> = graph.sparse_initializer.iter().filter_map(named).collect();
    let mut given: HashSet<&str> = initializers.keys().chain(sparse.keys()).copied().collect();
    given.insert(&input.name);
    let order = order::evaluation(graph, &given)?;

    let mut read: HashSet<&str> = order.iter().flat_map(|&i| order::reads(&graph.node[i])).collect();
    read.extend(graph.output.iter().map(|output| output.name.as_str()));
    let mut draft = Draft::new(input.size);
    let image = match input.channels_last {
        true => draft.push(Op::Transpose(vec![1, 2, 0]), &[Draft::INPUT]).map_err(ImportError::Graph)?,
        false => Draft::INPUT,
    };
    let mut walk = Walk {
        graph,
        opset,
        batch: input.batch,
        files,
        draft,
        initializers,
        sparse,
        tensors: HashMap::from([(input.name.as_str(), Tensor::Map(image))]),
        read,
        room: MOST_COMPUTED.saturating_add(file_bytes.saturating_mul(PER_BYTE)),
        exhausted: false,
        read_by_failed: BTreeSet::new(),
        failures: BTreeMap::new(),
    };
    for &index in &order {
        walk.visit(index);
    }
    let Walk { draft, tensors, read_by_failed, failures, exhausted, .. } = walk;
    Ok(Walked { draft, image, order, tensors, read_by_failed, failures, exhausted })
}

impl<'g> Walk<'g> {
    fn visit(&mut self, index: usize) {
        let node = &self.graph.node[index];
        let first = self.draft.nodes().len();
        let (outputs, cause) = match self.evaluate(index, node) {
            Ok(Evaluated::Outputs(outputs)) => (Some(outputs), index),
            Ok(Evaluated::DependsOn(cause)) => (None, cause),
            Err(reason) => {
                self.fail(index, reason);
                (None, index)
            }
        };
        let computed = outputs.is_some();
        if !computed {
            self.draft.truncate(first);
            let read = order::reads(node).filter_map(|name| match self.tensors.get(name) {
                Some(Tensor::Map(id)) => Some(*id),
                _ => None,
            });
            self.read_by_failed.extend(read);
        }
        let mut outputs = outputs.unwrap_or_default().into_iter();
        for (i, name) in node.output.iter().enumerate() {
            let output = outputs.next();
            if output.is_none() && computed && self.read.contains(name.as_str()) {
                self.fail(index, format!("its output number {i}, {name}, is read, which is not supported"));
            }
            self.tensors.insert(name, output.unwrap_or(Tensor::Failed(cause)));
        }
    }

    fn evaluate(&mut self, index: usize, node: &'g NodeProto) -> Result<Evaluated, String> {
        let known = matches!(node.domain.as_str(), "" | "ai.onnx");
        let fold = fold::fold(&node.op_type).filter(|_| known);
        let lower = lower::lower(&node.op_type).filter(|_| known);
        if fold.is_none() && lower.is_none() {
            return Err("the operation is not supported".into());
        }

        let inputs = node.input.iter().map(|name| self.input(name)).collect::<Result<Vec<_>, _>>()?;
        let failed = |input: &Option<Tensor>| if let Some(Tensor::Failed(cause)) = input { Some(*cause) } else { None };
        if let Some(cause) = inputs.iter().find_map(failed) {
            return Ok(Evaluated::DependsOn(cause));
        }
        let depends = inputs.iter().any(|input| matches!(input, Some(Tensor::Map(_))));
        let call = Call { node, opset: self.opset, inputs, batch: self.batch, room: self.room, files: self.files };
        if !depends && let Some(fold) = fold {
            let values = fold(&call)?;
            self.charge(values.iter().map(Value::len).sum())?;
            return Ok(Evaluated::Outputs(values.into_iter().map(Tensor::Value).collect()));
        }
        let Some(lower) = lower else {
            return Err("is only supported on constants, but its input depends on the image".into());
        };
        if !depends {
            return Err("is only supported on tensors that depend on the image, but its inputs are constant".into());
        }
        let first = self.draft.nodes().len();
        self.draft.begin(index, order::label(node));
        let outputs = lower.outputs(&mut self.draft, &call)?;
        let added = &self.draft.nodes()[first..];
        if !added.iter().all(DraftNode::is_finite) {
            return Err("has weights that are not finite numbers".into());
        }
        self.charge(added.iter().map(DraftNode::parameters).sum())?;
        for (output, name) in outputs.iter().zip(&node.output) {
            if let Tensor::Map(id) = output
                && *id >= first
            {
                self.draft.node_mut(*id).tensor = Some(name.clone());
            }
        }
        Ok(Evaluated::Outputs(outputs))
    }

    /// Refuses files that describe far more numbers than they hold: one matrix that a thousand nodes transpose.
    fn charge(&mut self, elements: usize) -> Result<(), String> {
        let left = self.room.checked_sub(elements);
        self.exhausted |= left.is_none();
        self.room = left.ok_or("needs more memory than weights of this file should")?;
        Ok(())
    }

    fn input(&mut self, name: &'g str) -> Result<Option<Tensor>, String> {
        if name.is_empty() {
            return Ok(None);
        }
        if let Some(tensor) = self.tensors.get(name) {
            return Ok(Some(tensor.clone()));
        }
        let named = |why| format!("its input {name} {why}");
        let value = if let Some(stored) = self.initializers.get(name) {
            let value = tensor::read(stored, self.files).map_err(named)?;
            // Many tensors can be said to lie at the same place.
            let elsewhere = stored.data_location == tensor::EXTERNAL;
            self.charge(if elsewhere { value.len() } else { 0 })?;
            value
        } else if let Some(stored) = self.sparse.get(name) {
            let value = sparse::read(stored, self.files, self.room).map_err(named)?;
            self.charge(value.len())?;
            value
        } else {
            return Err(format!("reads {name}, which nothing provides"));
        };
        self.tensors.insert(name, Tensor::Value(value.clone()));
        Ok(Some(Tensor::Value(value)))
    }

    fn fail(&mut self, index: usize, reason: String) {
        self.failures.insert(index, order::unsupported(&self.graph.node[index], reason));
    }
}

/// What became of a node.
enum Evaluated {
    /// Its outputs.
    Outputs(Vec<Tensor>),
    /// It reads an output of a node that could not be lowered, or depends on one: the index of that node.
    DependsOn(usize),
}
