//! The network while it is being imported: like [`Network`](crate::network::Network), but open to rewriting.

use std::collections::HashSet;

use super::elementary::Elementary;
use crate::network::{Activation, Array, Op, Shape, SizeBound};

/// Index of a drafted node; nodes only read nodes with smaller ids.
pub(super) type Id = usize;

/// What a drafted node computes.
#[derive(Debug, Clone)]
pub(super) enum DraftOp {
    /// An operation that networks have.
    Op(Op),
    /// A function that networks only have as a part of a known activation.
    Elementary(Elementary),
}

/// One operation.
#[derive(Debug, Clone)]
pub(super) struct DraftNode {
    /// The name it would like.
    pub name: String,
    /// Name of its output in the file, when it has one there.
    pub tensor: Option<String>,
    /// What is computed.
    pub op: DraftOp,
    /// What it reads.
    pub inputs: Vec<Id>,
    /// Shape at the network's own input size, without the batch axis.
    pub shape: Shape,
    /// Shape for an image of another height and width, if the node works there. Tells which axes depend on the size.
    pub elsewhere: Option<Shape>,
    /// For which input sizes the parameters hold, if not for all.
    pub bound: Option<SizeBound>,
    /// The node that this one merely repeats along axes of length 1, so that elementwise operations can read that.
    pub expands: Option<Id>,
    /// Index in the file of the node that it was lowered from.
    pub source: usize,
}

impl DraftNode {
    /// Number of constant values that the node may hold a copy of.
    pub fn parameters(&self) -> usize {
        match &self.op {
            DraftOp::Op(Op::Conv(conv)) => conv.weight.len(),
            DraftOp::Op(Op::Dense { weight, .. }) => weight.len(),
            DraftOp::Op(Op::Affine { scale, shift }) => scale.len() + shift.len(),
            DraftOp::Op(Op::Constant(array)) => array.len(),
            _ => 0,
        }
    }

    /// Whether all weights are finite: those of a network whose training diverged are not.
    pub fn is_finite(&self) -> bool {
        let finite = |array: &Array| array.data().iter().all(|v| v.is_finite());
        let both = |weight: &Array, bias: Option<&Array>| finite(weight) && bias.is_none_or(finite);
        match &self.op {
            DraftOp::Op(Op::Conv(conv)) => both(&conv.weight, conv.bias.as_ref()),
            DraftOp::Op(Op::Dense { weight, bias }) => both(weight, bias.as_ref()),
            DraftOp::Op(Op::Affine { scale, shift }) => both(scale, Some(shift)),
            DraftOp::Op(Op::Activation(Activation::PRelu { slopes })) => finite(slopes),
            _ => true,
        }
    }
}

/// The nodes drafted so far.
#[derive(Debug)]
pub(super) struct Draft {
    nodes: Vec<DraftNode>,
    /// Index and name of the node of the file that is being lowered.
    source: (usize, String),
}

impl Draft {
    /// The image input.
    pub const INPUT: Id = 0;

    /// A draft that only has its image input.
    pub fn new([channels, height, width]: [usize; 3]) -> Self {
        // Another size for which every axis that depends on the height or width has another length, however deep.
        let elsewhere = Shape::from([channels, 2 * height + 512, 3 * width + 512]);
        let input = DraftNode {
            name: String::new(),
            tensor: None,
            op: DraftOp::Op(Op::Input),
            inputs: Vec::new(),
            shape: [channels, height, width].into(),
            elsewhere: Some(elsewhere),
            bound: None,
            expands: None,
            source: usize::MAX,
        };
        Self { nodes: vec![input], source: (usize::MAX, String::new()) }
    }

    /// Names the node of the file that the next nodes are lowered from.
    pub fn begin(&mut self, source: usize, name: &str) {
        self.source = (source, name.into());
    }

    /// Forgets all nodes but the first `count`.
    pub fn truncate(&mut self, count: usize) {
        self.nodes.truncate(count);
    }

    /// All nodes.
    pub fn nodes(&self) -> &[DraftNode] {
        &self.nodes
    }

    /// The node with this id.
    pub fn node(&self, id: Id) -> &DraftNode {
        &self.nodes[id]
    }

    /// The node with this id.
    pub fn node_mut(&mut self, id: Id) -> &mut DraftNode {
        &mut self.nodes[id]
    }

    /// Adds an operation.
    ///
    /// # Errors
    /// When it does not accept its inputs.
    pub fn push(&mut self, op: Op, inputs: &[Id]) -> Result<Id, String> {
        self.push_bound(op, inputs, None)
    }

    /// Adds an operation whose parameters were computed from the size of the image if `sized`.
    ///
    /// # Errors
    /// When it does not accept its inputs.
    pub fn push_sized(&mut self, op: Op, inputs: &[Id], sized: bool) -> Result<Id, String> {
        self.push_bound(op, inputs, sized.then_some(SizeBound::Exact))
    }

    /// Adds an operation whose parameters hold for the sizes of `bound`.
    ///
    /// # Errors
    /// When it does not accept its inputs.
    pub fn push_bound(&mut self, op: Op, inputs: &[Id], bound: Option<SizeBound>) -> Result<Id, String> {
        let shapes: Vec<&Shape> = inputs.iter().map(|&id| &self.nodes[id].shape).collect();
        let shape = op.infer(&shapes)?;
        let elsewhere: Option<Vec<&Shape>> = inputs.iter().map(|&id| self.nodes[id].elsewhere.as_ref()).collect();
        let elsewhere = elsewhere.filter(|_| bound != Some(SizeBound::Exact));
        let elsewhere = elsewhere.and_then(|shapes| op.infer(&shapes).ok());
        Ok(self.add(DraftOp::Op(op), inputs, shape, elsewhere, bound))
    }

    /// Adds a constant that elementwise operations read.
    ///
    /// # Errors
    /// When it is empty.
    pub fn push_constant(&mut self, array: Array) -> Result<Id, String> {
        self.push(Op::Constant(array), &[])
    }

    /// Adds a function that must become a part of a known activation.
    pub fn push_elementary(&mut self, function: Elementary, input: Id) -> Id {
        let DraftNode { shape, elsewhere, .. } = self.nodes[input].clone();
        self.add(DraftOp::Elementary(function), &[input], shape, elsewhere, None)
    }

    fn add(
        &mut self,
        op: DraftOp,
        inputs: &[Id],
        shape: Shape,
        elsewhere: Option<Shape>,
        bound: Option<SizeBound>,
    ) -> Id {
        let (source, name) = self.source.clone();
        let inputs = inputs.to_vec();
        self.nodes.push(DraftNode { name, tensor: None, op, inputs, shape, elsewhere, bound, expands: None, source });
        self.nodes.len() - 1
    }

    /// Whether the length of `axis` depends on the size of the image.
    pub fn varies(&self, id: Id, axis: usize) -> bool {
        let DraftNode { shape, elsewhere, .. } = &self.nodes[id];
        elsewhere.as_ref().is_some_and(|elsewhere| elsewhere.get(axis) != shape.get(axis))
    }

    /// For each node, how many times it is read by a node that `outputs` depend on; being an output counts.
    pub fn readers(&self, outputs: &[Id]) -> Vec<usize> {
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

    /// The nodes that `outputs` depend on, ascending.
    pub fn needed(&self, outputs: &[Id]) -> Vec<Id> {
        let readers = self.readers(outputs);
        (0..self.nodes.len()).filter(|&id| readers[id] > 0).collect()
    }

    /// The nodes that would have to be computed between `sources` (excluded) and `id` (included); `None` when there
    /// are more than `most`.
    pub fn between(&self, id: Id, source: Id, most: usize) -> Option<HashSet<Id>> {
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
