//! Lowering of the file's graph: every node is folded or lowered, and all failures are collected.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::const_tensor::ConstTensor;
use super::error::{ImportError, UnsupportedNode};
use super::external_data::ExternalData;
use super::flatten::{FlatGraph, Guard};
use super::graph_builder::{BuilderId, BuilderNode, GraphBuilder};
use super::image_input::ImageInput;
use super::image_tensor::ImageTensor;
use super::node_context::{NodeContext, Operand};
use super::proto::{GraphProto, NodeProto, SparseTensorProto, TensorProto};
use super::stated_shapes::StatedShapes;
use super::toposort::toposort;
use super::{constant_folding, lower, sparse_tensor, stored_tensor};
use crate::network::Op;

/// Maximum elements of all weights and computed constants together, plus [`PER_BYTE`] for each byte of the file.
const MOST_COMPUTED: usize = 1 << 24;

/// See [`MOST_COMPUTED`]: enough for half-precision weights that are converted and transposed.
const PER_BYTE: usize = 4;

/// Maximum multiplications for constants that operations of the file compute.
const MOST_WORK: usize = 1 << 30;

/// The lowered graph.
#[derive(Debug)]
pub(super) struct LoweredGraph<'g> {
    /// Its nodes.
    pub builder: GraphBuilder,
    /// The image as the file's nodes read it.
    pub image: BuilderId,
    /// Indices of the file's nodes that the outputs depend on, in topological order.
    pub order: Vec<usize>,
    /// Every tensor that such a node computes or reads.
    pub tensors: HashMap<&'g str, Operand>,
    /// Inputs of nodes that could not be lowered.
    pub read_by_failed: BTreeSet<BuilderId>,
    /// The nodes that could not be lowered, by their index in the file.
    pub failures: BTreeMap<usize, UnsupportedNode>,
    /// Whether the file describes far more numbers than it holds.
    pub exhausted: bool,
}

impl LoweredGraph<'_> {
    /// The nodes that the network must compute: the outputs of the file, and the inputs of nodes that could not be
    /// lowered; without either, the nodes that no other one reads.
    pub fn roots(&self, graph: &GraphProto) -> Vec<BuilderId> {
        let mut roots: Vec<BuilderId> = self.outputs(graph).into_iter().map(|(id, _)| id).collect();
        let is_layer =
            |id: &BuilderId| *id > self.image && !matches!(self.builder.node(*id).op, Op::Constant(_) | Op::Input);
        roots.extend(self.read_by_failed.iter().copied().filter(is_layer));
        if roots.is_empty() {
            // Branches that could not be read may have been the only readers.
            let read: HashSet<BuilderId> = self.builder.nodes().iter().flat_map(|node| &node.inputs).copied().collect();
            let unread = (0..self.builder.nodes().len()).filter(|id| !read.contains(id));
            roots.extend(unread.filter(is_layer));
        }
        roots
    }

    /// The outputs that can be computed and depend on the image, with their names.
    pub fn outputs<'o>(&self, graph: &'o GraphProto) -> Vec<(BuilderId, &'o str)> {
        let names = graph.output.iter().map(|output| output.name.as_str());
        let id = |name: &str| match self.tensors.get(name) {
            Some(Operand::Dynamic(tensor)) if tensor.id != GraphBuilder::INPUT => Some(tensor.id),
            _ => None,
        };
        names.filter_map(|name| Some((id(name)?, name))).collect()
    }
}

/// Lowering in progress.
pub(super) struct Lowering<'g> {
    pub(super) flat: &'g FlatGraph,
    pub(super) batch: Option<usize>,
    pub(super) files: &'g ExternalData,
    pub(super) builder: GraphBuilder,
    initializers: HashMap<&'g str, &'g TensorProto>,
    sparse: HashMap<&'g str, &'g SparseTensorProto>,
    pub(super) tensors: HashMap<&'g str, Operand>,
    /// Names of the tensors that are read.
    read: HashSet<&'g str>,
    /// Number of elements that may still be computed.
    pub(super) element_budget: usize,
    /// Number of multiplications that may still be spent on constants.
    work_left: usize,
    exhausted: bool,
    read_by_failed: BTreeSet<BuilderId>,
    failures: BTreeMap<usize, UnsupportedNode>,
    /// The nodes of branches that are not taken.
    skipped: HashSet<usize>,
    /// Tensors that cannot be computed, but whose shape or values are known.
    pub(super) assumed: HashMap<&'g str, Operand>,
    pub(super) stated_shapes: StatedShapes<'g>,
}

/// Lowers all nodes that the outputs depend on. `constants` are values of further inputs; `file_bytes` is the size of the model including its external data.
///
/// # Errors
/// [`ImportError::Graph`] when the nodes do not form a graph.
pub(super) fn lower_graph<'g>(
    flat: &'g FlatGraph,
    input: &'g ImageInput,
    constants: HashMap<&'g str, ConstTensor>,
    files: &'g ExternalData,
    file_bytes: usize,
) -> Result<LoweredGraph<'g>, ImportError> {
    let graph = &flat.graph;
    let initializers: HashMap<&str, &TensorProto> = graph.initializer.iter().map(|t| (t.name.as_str(), t)).collect();
    let named = |sparse: &'g SparseTensorProto| Some((sparse.values.as_ref()?.name.as_str(), sparse));
    let sparse: HashMap<&str, &SparseTensorProto> = graph.sparse_initializer.iter().filter_map(named).collect();
    let mut given: HashSet<&str> = initializers.keys().chain(sparse.keys()).copied().collect();
    given.insert(&input.name);
    given.extend(constants.keys());
    let order = toposort(flat, &given)?;

    let mut read: HashSet<&str> = order.iter().flat_map(|&i| flat.reads(i)).collect();
    read.extend(graph.output.iter().map(|output| output.name.as_str()));
    let mut builder = GraphBuilder::new(input.size);
    let image = match input.channels_last {
        true => builder.push(Op::Transpose(vec![1, 2, 0]), &[GraphBuilder::INPUT]).map_err(ImportError::Graph)?,
        false => GraphBuilder::INPUT,
    };
    let mut tensors: HashMap<&str, Operand> =
        constants.into_iter().map(|(name, tensor)| (name, Operand::Constant(tensor))).collect();
    tensors.insert(&input.name, Operand::Dynamic(ImageTensor::batch_first(image)));
    let mut lowering = Lowering {
        flat,
        batch: input.batch,
        files,
        builder,
        initializers,
        sparse,
        tensors,
        read,
        element_budget: MOST_COMPUTED.saturating_add(file_bytes.saturating_mul(PER_BYTE)),
        work_left: MOST_WORK,
        exhausted: false,
        read_by_failed: BTreeSet::new(),
        failures: BTreeMap::new(),
        skipped: HashSet::new(),
        assumed: HashMap::new(),
        stated_shapes: StatedShapes::new(graph, input),
    };
    for &index in &order {
        lowering.add_node(index);
    }
    // Branches that are not taken are not part of the network.
    let order = order.into_iter().filter(|index| !lowering.skipped.contains(index)).collect();
    let Lowering { builder, tensors, read_by_failed, failures, exhausted, .. } = lowering;
    Ok(LoweredGraph { builder, image, order, tensors, read_by_failed, failures, exhausted })
}

impl<'g> Lowering<'g> {
    fn add_node(&mut self, index: usize) {
        let node = &self.flat.graph.node[index];
        let first = self.builder.nodes().len();
        let (outputs, cause) = match self.lower_or_fold(index, node) {
            Ok(NodeResult::Outputs(outputs)) => (Some(outputs), index),
            Ok(NodeResult::DependsOn(cause)) => {
                self.builder.truncate(first);
                match self.check_behind_failure(index, node) {
                    Ok(()) => (None, cause),
                    Err(reason) => {
                        self.fail(index, reason);
                        (None, index)
                    }
                }
            }
            Ok(NodeResult::Skipped) => {
                self.skipped.insert(index);
                return;
            }
            Err(reason) => {
                self.fail(index, reason);
                (None, index)
            }
        };
        let computed = outputs.is_some();
        if !computed {
            if cause == index {
                self.builder.truncate(first);
                self.assume_outputs(node);
            }
            let read = node.inputs().filter_map(|name| match self.tensors.get(name) {
                Some(Operand::Dynamic(tensor)) => Some(tensor.id),
                _ => None,
            });
            self.read_by_failed.extend(read);
        }
        let mut outputs = outputs.unwrap_or_default().into_iter();
        for (i, name) in node.output.iter().enumerate() {
            let output = outputs.next();
            if output.is_none() && computed && self.read.contains(name.as_str()) {
                self.fail(index, format!("output number {i}, {name}, is not supported but is read"));
            }
            self.tensors.insert(name, output.unwrap_or(Operand::Unavailable(cause)));
        }
    }

    fn lower_or_fold(&mut self, index: usize, node: &'g NodeProto) -> Result<NodeResult, String> {
        let info = &self.flat.nodes[index];
        if let Some(result) = self.branch_result(info.guard) {
            return Ok(result);
        }
        if let Some(why) = &info.refused {
            return Err(why.clone());
        }
        if node.is_standard() && node.op_type == "If" {
            return self.choose_branch(node);
        }
        let (fold, lower) = (constant_folding::of_node(node), lower::of_node(node));
        if fold.is_none() && lower.is_none() {
            let domain = if node.is_standard() { "" } else { &node.domain };
            return Err(lower::unsupported(domain, &node.op_type).into());
        }

        let inputs = node.input.iter().map(|name| self.input(name)).collect::<Result<Vec<_>, _>>()?;
        let cause =
            |input: &Option<Operand>| if let Some(Operand::Unavailable(cause)) = input { Some(*cause) } else { None };
        if let Some(cause) = inputs.iter().find_map(cause) {
            return Ok(NodeResult::DependsOn(cause));
        }
        let is_dynamic = inputs.iter().any(|input| matches!(input, Some(Operand::Dynamic(_))));
        let (opset, batch, files) = (info.opset, self.batch, self.files);
        let ctx = NodeContext { node, opset, inputs, batch, most_elements: self.element_budget, files };
        if !is_dynamic && let Some(fold) = fold {
            let outputs = fold(&ctx)?;
            self.charge_elements(outputs.iter().map(ConstTensor::len).sum())?;
            return Ok(NodeResult::Outputs(outputs.into_iter().map(Operand::Constant).collect()));
        }
        let Some(lower) = lower else {
            return Err("the operation is only supported on constants, but its input depends on the image".into());
        };
        if !is_dynamic {
            let outputs = constant_folding::evaluate(&ctx, lower, &mut self.work_left)?;
            self.charge_elements(outputs.iter().map(ConstTensor::len).sum())?;
            return Ok(NodeResult::Outputs(outputs.into_iter().map(Operand::Constant).collect()));
        }
        let first = self.builder.nodes().len();
        self.builder.set_file_node(index, node.display_name());
        let outputs = lower.outputs(&mut self.builder, &ctx)?;
        let added = &self.builder.nodes()[first..];
        if !added.iter().all(BuilderNode::is_finite) {
            return Err("the weights contain infinite or NaN values".into());
        }
        self.charge_elements(added.iter().map(BuilderNode::parameter_count).sum())?;
        for (output, name) in outputs.iter().zip(&node.output) {
            if let Operand::Dynamic(tensor) = output
                && tensor.id >= first
            {
                self.builder.node_mut(tensor.id).tensor = Some(name.clone());
            }
        }
        Ok(NodeResult::Outputs(outputs))
    }

    /// The result of all nodes of a branch that is not computed; `None` if it is.
    fn branch_result(&mut self, guard: Option<usize>) -> Option<NodeResult> {
        let Guard { condition, value, node, outer } = &self.flat.guards[guard?];
        if let Some(result) = self.branch_result(*outer) {
            return Some(result);
        }
        match self.input(condition) {
            Ok(Some(Operand::Unavailable(cause))) => Some(NodeResult::DependsOn(cause)),
            Ok(Some(Operand::Constant(condition))) => match condition.truth() {
                Ok(truth) => (truth != *value).then_some(NodeResult::Skipped),
                Err(_) => Some(NodeResult::DependsOn(*node)),
            },
            // The reason is that of the `If`.
            _ => Some(NodeResult::DependsOn(*node)),
        }
    }

    /// Results of an `If`: those of the branch that its condition chooses.
    fn choose_branch(&mut self, node: &'g NodeProto) -> Result<NodeResult, String> {
        let condition = match node.input.first().map(|name| self.input(name)).transpose()?.flatten() {
            Some(Operand::Constant(condition)) => condition,
            Some(Operand::Unavailable(cause)) => return Ok(NodeResult::DependsOn(cause)),
            Some(Operand::Dynamic(_)) => {
                return Err("its condition depends on the values of the image, so no branch can be chosen".into());
            }
            None => return Err("it has no condition".into()),
        };
        let results = node.output.len();
        let skipped = if condition.truth()? { 1 } else { 1 + results };
        let mut outputs = Vec::with_capacity(results);
        for name in node.input.iter().skip(skipped).take(results) {
            match self.input(name)?.ok_or("a branch has a result without a name")? {
                Operand::Unavailable(cause) => return Ok(NodeResult::DependsOn(cause)),
                output => outputs.push(output),
            }
        }
        if condition.depends_on_image_size() {
            for output in &mut outputs {
                match output {
                    Operand::Dynamic(tensor) => self.builder.bind_to_size(tensor.id),
                    Operand::Constant(tensor) => *tensor = tensor.clone().of_image_size(),
                    Operand::Unavailable(_) => {}
                }
            }
        }
        Ok(NodeResult::Outputs(outputs))
    }

    /// Rejects files that describe far more numbers than they hold, such as one matrix that a thousand nodes transpose.
    pub(super) fn charge_elements(&mut self, elements: usize) -> Result<(), String> {
        let left = self.element_budget.checked_sub(elements);
        self.exhausted |= left.is_none();
        self.element_budget = left.ok_or("it needs more memory than the weights of a file of this size should")?;
        Ok(())
    }

    pub(super) fn input(&mut self, name: &'g str) -> Result<Option<Operand>, String> {
        if name.is_empty() {
            return Ok(None);
        }
        if let Some(operand) = self.tensors.get(name) {
            return Ok(Some(operand.clone()));
        }
        let named = |why| format!("input {name} {why}");
        let tensor = if let Some(stored) = self.initializers.get(name) {
            let tensor = stored_tensor::read(stored, self.files).map_err(named)?;
            // Many tensors can refer to the same bytes of an external file.
            let is_external = stored.data_location == stored_tensor::EXTERNAL;
            self.charge_elements(if is_external { tensor.len() } else { 0 })?;
            tensor
        } else if let Some(stored) = self.sparse.get(name) {
            let tensor = sparse_tensor::read(stored, self.files, self.element_budget).map_err(named)?;
            self.charge_elements(tensor.len())?;
            tensor
        } else {
            return Err(format!("no node computes input {name}"));
        };
        self.tensors.insert(name, Operand::Constant(tensor.clone()));
        Ok(Some(Operand::Constant(tensor)))
    }

    fn fail(&mut self, index: usize, reason: String) {
        self.failures.insert(index, UnsupportedNode::new(&self.flat.graph.node[index], reason));
    }
}

/// Result of lowering or folding a node.
enum NodeResult {
    /// Its outputs.
    Outputs(Vec<Operand>),
    /// It reads a tensor that depends on an unsupported node: that node's index.
    DependsOn(usize),
    /// It belongs to a branch that is not taken.
    Skipped,
}
