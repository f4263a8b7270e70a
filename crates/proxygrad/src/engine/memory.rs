//! How much memory plans take, known before they are made.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::cpu::CpuMemory;
use super::subgraph::Subgraph;
use super::{CpuSettings, EngineError, Target};
use crate::network::{Network, NodeId, Op, Shape};

/// Bytes of memory that a [`Plan`](super::Plan) takes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Footprint {
    /// Whatever the batch: weights as they are laid out, tables, and what every thread works in.
    pub fixed: u64,
    /// For each image, kept from its way forward to its way back.
    pub kept: u64,
    /// For each image besides, once a backward pass was made with [`Gate::Soft`](super::Gate::Soft).
    pub recorded: u64,
    /// What up to so many images that are walked together share, whatever the batch. Batches are cut into groups of that
    /// many images at most.
    pub together: Vec<u64>,
}

impl Footprint {
    /// Bytes for batches of up to so many images, `soft` if backward passes are made with
    /// [`Gate::Soft`](super::Gate::Soft). What crosses the border, images, outputs and gradients, is not counted.
    pub fn bytes(&self, images: usize, soft: bool) -> u64 {
        let group = images.min(self.together.len()).max(1);
        let shared = self.together.get(group - 1).copied().unwrap_or(0);
        // All groups have memory for as many images as the first.
        let held = images.div_ceil(group) * group;
        let image = if soft { self.kept + self.recorded } else { self.kept };
        self.fixed.saturating_add(shared).saturating_add((held as u64).saturating_mul(image))
    }

    /// The larger of both, number by number.
    #[must_use]
    pub(super) fn max(self, other: Self) -> Self {
        Self {
            fixed: self.fixed.max(other.fixed),
            kept: self.kept.max(other.kept),
            recorded: self.recorded.max(other.recorded),
            together: self.together.iter().zip(&other.together).map(|(a, b)| *a.max(b)).collect(),
        }
    }
}

/// Tells the footprint of an engine's plans without making them. Clones share what they have found.
#[derive(Debug, Clone)]
pub struct MemoryModel {
    kind: Kind,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Cpu(CpuMemory),
    /// Plain tensor operations on values of so many bytes.
    Tensors(usize),
}

/// Footprints that were found, by network; the last used is the last.
type Known = Vec<(Weak<Network>, HashMap<Key, Footprint>)>;

/// What the footprint of a network's plan depends on: the layers with how many of their channels are looked at, and the
/// input.
type Key = (Vec<(NodeId, Option<usize>)>, Shape);

/// Most networks, and most footprints of each, that are remembered.
const NETWORKS: usize = 16;
const FOOTPRINTS: usize = 1024;

impl MemoryModel {
    /// Plans of the engine that [`open`](super::open) gives for a device of this name, which need not be there.
    pub fn of_device(name: &str, cpu: &CpuSettings) -> Self {
        match name {
            "cpu" => Self::cpu(CpuMemory::of(cpu)),
            _ => Self::tensors(size_of::<f32>()),
        }
    }

    pub(super) fn cpu(memory: CpuMemory) -> Self {
        Self { kind: Kind::Cpu(memory), known: Arc::default() }
    }

    /// Plans that keep the output of every layer as a tensor with values of so many bytes, as the reference engine's do.
    pub fn tensors(value: usize) -> Self {
        Self { kind: Kind::Tensors(value), known: Arc::default() }
    }

    /// Whether images live in main memory, where plain loops work on them.
    pub fn is_host(&self) -> bool {
        matches!(self.kind, Kind::Cpu(_))
    }

    /// Bytes of a value of images, outputs and gradients.
    pub fn value_bytes(&self) -> u64 {
        match self.kind {
            Kind::Cpu(_) => size_of::<f32>() as u64,
            Kind::Tensors(bytes) => bytes as u64,
        }
    }

    /// The footprint of a plan; see [`Engine::plan`](super::Engine::plan). On the CPU it is exact, but for convolution
    /// methods that are chosen by measurement, where it is that of the most expensive; elsewhere it is at least what a
    /// plan takes on its device.
    ///
    /// # Errors
    /// When there can be no such plan.
    pub fn footprint(
        &self,
        network: &Arc<Network>,
        targets: &[Target],
        input: &Shape,
    ) -> Result<Footprint, EngineError> {
        let looked_at = targets.iter().map(|target| (target.layer, target.channels.as_ref().map(BTreeSet::len)));
        let key: Key = (looked_at.collect(), input.clone());
        if let Some(found) = self.recall(network, &key) {
            return Ok(found);
        }
        let found = match self.kind {
            Kind::Cpu(memory) => memory.footprint(network, targets, input)?,
            Kind::Tensors(bytes) => of_tensors(network, targets, input, bytes as u64)?,
        };
        self.remember(network, key, &found);
        Ok(found)
    }

    fn recall(&self, network: &Arc<Network>, key: &Key) -> Option<Footprint> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let of_network = known.iter().find(|(held, _)| is(held, network));
        of_network.and_then(|(_, footprints)| footprints.get(key).cloned())
    }

    fn remember(&self, network: &Arc<Network>, key: Key, found: &Footprint) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(held, _)| held.strong_count() > 0);
        let at = known.iter().position(|(held, _)| is(held, network));
        let mut footprints = at.map(|at| known.remove(at).1).unwrap_or_default();
        if footprints.len() >= FOOTPRINTS {
            footprints.clear();
        }
        footprints.insert(key, found.clone());
        known.push((Arc::downgrade(network), footprints));
        let surplus = known.len().saturating_sub(NETWORKS);
        known.drain(..surplus);
    }
}

fn is(held: &Weak<Network>, network: &Arc<Network>) -> bool {
    held.strong_count() > 0 && std::ptr::eq(held.as_ptr(), Arc::as_ptr(network))
}

/// The reference engine keeps the output of every node until the next pass, gathers the windows of a convolution into one
/// matrix at a time, and holds at most a gradient for every node.
fn of_tensors(network: &Network, targets: &[Target], input: &Shape, value: u64) -> Result<Footprint, EngineError> {
    let subgraph = Subgraph::new(network, targets, input)?;
    let (mut weights, mut values, mut matrix) = (0u64, 0u64, 0u64);
    for node in &subgraph.nodes {
        let op = node.op(network);
        let (from, to) = (subgraph.input_shapes(node), node.shape.elements() as u64);
        let read: u64 = from.iter().map(|shape| shape.elements() as u64).sum();
        values = values.saturating_add(to);
        let window = match op {
            Op::Conv(conv) => {
                // There and back.
                weights = weights.saturating_add(2 * conv.weight.len() as u64);
                conv.window.kernel.iter().product::<usize>() as u64
            }
            Op::MaxPool(window) | Op::AveragePool { window, .. } => window.kernel.iter().product::<usize>() as u64,
            Op::Dense { weight, .. } => {
                weights = weights.saturating_add(2 * weight.len() as u64);
                1
            }
            Op::Input
            | Op::Constant(_)
            | Op::Affine { .. }
            | Op::Activation(_)
            | Op::Binary(_)
            | Op::Concat { .. }
            | Op::Reduce { .. }
            | Op::Pad { .. }
            | Op::Reshape(_)
            | Op::Transpose(_)
            | Op::Slice { .. }
            | Op::Resize(_)
            | Op::Softmax { .. }
            | Op::LogSoftmax { .. } => 1,
        };
        // Columns, what is made of them, and indices of eight bytes at most.
        matrix = matrix.max(3 * window.saturating_mul(read.max(to)) + 2 * (read + to));
        weights = weights.saturating_add(4 * window.saturating_mul(read.max(to)));
    }
    let bytes = |values: u64| value.saturating_mul(values);
    let kept = bytes(values.saturating_mul(2).saturating_add(matrix));
    Ok(Footprint { fixed: bytes(weights), kept, recorded: 0, together: vec![0] })
}
