//! The walk over the graph of the file: every node is folded or lowered, and every failure is collected.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::call::{Call, Tensor};
use super::draft::{Draft, DraftNode, Id};
use super::error::{ImportError, UnsupportedNode};
use super::input::ImageInput;
use super::messages::{GraphProto, NodeProto, TensorProto};
use super::value::Value;
use super::{fold, lower, order, tensor};
use crate::network::Op;

/// Most elements of all weights and computed constants together, beside [`PER_BYTE`] for each byte of the file.
const MOST_COMPUTED: usize = 1 << 24;

/// See [`MOST_COMPUTED`]: enough for half-precision weights that are converted and transposed.
const PER_BYTE: usize = 4;

/// The drafted graph.
#[derive(Debug)]
pub(super) struct Walked {
    /// Its nodes.
    pub draft: Draft,
    /// The drafted outputs, in the order of the file's.
    pub outputs: Vec<Id>,
    /// Number of nodes of the file that the outputs depend on.
    pub total: usize,
    /// The nodes that could not be lowered, by their index in the file. If there are any, outputs are missing.
    pub failures: BTreeMap<usize, UnsupportedNode>,
}

struct Walk<'g> {
    graph: &'g GraphProto,
    opset: i64,
    batch: Option<usize>,
    draft: Draft,
    initializers: HashMap<&'g str, &'g TensorProto>,
    tensors: HashMap<&'g str, Tensor>,
    /// Names of the tensors that something reads.
    read: HashSet<&'g str>,
    /// Number of elements that may still be computed.
    room: usize,
    failures: BTreeMap<usize, UnsupportedNode>,
}

/// Lowers all nodes that the outputs depend on.
///
/// # Errors
/// [`ImportError::Graph`] when the nodes form no graph.
pub(super) fn walk(
    graph: &GraphProto,
    opset: i64,
    input: &ImageInput,
    file_bytes: usize,
) -> Result<Walked, ImportError> {
    let initializers: HashMap<&str, &TensorProto> = graph.initializer.iter().map(|t| (t.name.as_str(), t)).collect();
    let mut given: HashSet<&str> = initializers.keys().copied().collect();
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
        draft,
        initializers,
        tensors: HashMap::from([(input.name.as_str(), Tensor::Map(image))]),
        read,
        room: MOST_COMPUTED.saturating_add(file_bytes.saturating_mul(PER_BYTE)),
        failures: BTreeMap::new(),
    };
    for &index in &order {
        walk.visit(index);
    }
    let outputs = walk.outputs()?;
    Ok(Walked { draft: walk.draft, outputs, total: order.len(), failures: walk.failures })
}

impl<'g> Walk<'g> {
    fn visit(&mut self, index: usize) {
        let node = &self.graph.node[index];
        let outputs = match self.evaluate(index, node) {
            Ok(outputs) => outputs,
            Err(reason) => {
                self.fail(index, reason);
                None
            }
        };
        let failed = outputs.is_none();
        let mut outputs = outputs.unwrap_or_default().into_iter();
        for (i, name) in node.output.iter().enumerate() {
            let output = outputs.next();
            if output.is_none() && !failed && self.read.contains(name.as_str()) {
                self.fail(index, format!("its output number {i}, {name}, is read, which is not supported"));
            }
            self.tensors.insert(name, output.unwrap_or(Tensor::Failed));
        }
    }

    /// The outputs of a node, or `None` when it reads the output of a node that failed.
    fn evaluate(&mut self, index: usize, node: &'g NodeProto) -> Result<Option<Vec<Tensor>>, String> {
        let known = matches!(node.domain.as_str(), "" | "ai.onnx");
        let fold = fold::fold(&node.op_type).filter(|_| known);
        let lower = lower::lower(&node.op_type).filter(|_| known);
        if fold.is_none() && lower.is_none() {
            return Err("the operation is not supported".into());
        }

        let inputs = node.input.iter().map(|name| self.input(name)).collect::<Result<Vec<_>, _>>()?;
        if inputs.iter().any(|input| matches!(input, Some(Tensor::Failed))) {
            return Ok(None);
        }
        let depends = inputs.iter().any(|input| matches!(input, Some(Tensor::Map(_))));
        let call = Call { node, opset: self.opset, inputs, batch: self.batch, room: self.room };
        if !depends && let Some(fold) = fold {
            let values = fold(&call)?;
            self.charge(values.iter().map(Value::len).sum())?;
            return Ok(Some(values.into_iter().map(Tensor::Value).collect()));
        }
        let Some(lower) = lower else {
            return Err("is only supported on constants, but its input depends on the image".into());
        };
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
        Ok(Some(outputs))
    }

    /// Refuses files that describe far more numbers than they hold: one matrix that a thousand nodes transpose.
    fn charge(&mut self, elements: usize) -> Result<(), String> {
        self.room = self.room.checked_sub(elements).ok_or("needs more memory than weights of this file should")?;
        Ok(())
    }

    fn input(&mut self, name: &'g str) -> Result<Option<Tensor>, String> {
        if name.is_empty() {
            return Ok(None);
        }
        if let Some(tensor) = self.tensors.get(name) {
            return Ok(Some(tensor.clone()));
        }
        let Some(stored) = self.initializers.get(name) else { return Ok(Some(Tensor::Failed)) };
        let value = tensor::read(stored).map_err(|why| format!("its input {name} {why}"))?;
        self.tensors.insert(name, Tensor::Value(value.clone()));
        Ok(Some(Tensor::Value(value)))
    }

    fn fail(&mut self, index: usize, reason: String) {
        self.failures.insert(index, order::unsupported(&self.graph.node[index], reason));
    }

    /// The drafted outputs; those that failed are left out.
    fn outputs(&mut self) -> Result<Vec<Id>, ImportError> {
        let mut outputs = Vec::with_capacity(self.graph.output.len());
        for output in &self.graph.output {
            match self.tensors.get(output.name.as_str()) {
                Some(Tensor::Map(Draft::INPUT)) => {
                    return Err(ImportError::Graph(format!("output {} is the image itself", output.name)));
                }
                Some(Tensor::Map(id)) => outputs.push(*id),
                Some(Tensor::Failed) => {}
                Some(Tensor::Value(_)) | None => {
                    return Err(ImportError::Graph(format!("output {} does not depend on the image", output.name)));
                }
            }
        }
        Ok(outputs)
    }
}
