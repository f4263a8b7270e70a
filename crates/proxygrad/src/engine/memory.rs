//! Memory model: predicts the memory of a plan before it is created.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::cpu::CpuMemory;
use super::subgraph::Subgraph;
use super::{CpuSettings, EngineError, Target};
use crate::network::{Array, Network, NodeId, Normalize, Op, Shape};

/// Memory of a [`Plan`](super::Plan) in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Footprint {
    /// Independent of the batch: packed weights, tables and per-thread workspace.
    pub fixed: u64,
    /// Per image: values kept from the forward to the backward pass.
    pub kept: u64,
    /// Per image, in addition, after a backward pass with [`Gate::Soft`](super::Gate::Soft).
    pub recorded: u64,
    /// Shared by the images of a group, by group size minus one. Batches are split into groups of at most
    /// `together.len()` images.
    pub together: Vec<u64>,
}

impl Footprint {
    /// Bytes for batches of up to this many images; `soft` if backward passes use [`Gate::Soft`](super::Gate::Soft).
    /// Does not include the images, outputs and gradients themselves.
    pub fn bytes(&self, images: usize, soft: bool) -> u64 {
        let group = images.min(self.together.len()).max(1);
        let shared = self.together.get(group - 1).copied().unwrap_or(0);
        // All groups have memory for the images of a full group.
        let held = images.div_ceil(group) * group;
        let image = if soft { self.kept + self.recorded } else { self.kept };
        self.fixed.saturating_add(shared).saturating_add((held as u64).saturating_mul(image))
    }

    /// The elementwise maximum.
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

/// Predicts the [`Footprint`] of an engine's plans without creating them. Clones share a cache.
#[derive(Debug, Clone)]
pub struct MemoryModel {
    kind: Kind,
    cache: Arc<Mutex<Cache>>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Cpu(CpuMemory),
    /// Tensor operations on values of this many bytes.
    Tensors(usize),
}

/// Footprints by network, most recently used last.
type Cache = Vec<(Weak<Network>, HashMap<Key, Footprint>)>;

/// Cache key of a plan: target layers with their number of read channels, and the input.
type Key = (Vec<(NodeId, Option<usize>)>, Shape);

/// Maximum number of cached networks, and of cached footprints per network.
const MAX_NETWORKS: usize = 16;
const MAX_FOOTPRINTS: usize = 1024;

impl MemoryModel {
    /// The model of the engine that [`open`](super::open) returns for this device name; the device need not exist.
    pub fn of_device(name: &str, cpu: &CpuSettings) -> Self {
        match name {
            "cpu" => Self::cpu(CpuMemory::of(cpu)),
            "cpu+bf16" => Self::cpu(CpuMemory::of(&CpuSettings { bf16: true, ..cpu.clone() })),
            _ => Self::tensors(size_of::<f32>()),
        }
    }

    pub(super) fn cpu(memory: CpuMemory) -> Self {
        Self { kind: Kind::Cpu(memory), cache: Arc::default() }
    }

    /// The model of the reference engine: plans keep the output of every layer as a tensor with values of this many
    /// bytes.
    pub fn tensors(value: usize) -> Self {
        Self { kind: Kind::Tensors(value), cache: Arc::default() }
    }

    /// Whether images are in host memory.
    pub fn is_host(&self) -> bool {
        matches!(self.kind, Kind::Cpu(_))
    }

    /// Bytes per value of images, outputs and gradients.
    pub fn value_bytes(&self) -> u64 {
        match self.kind {
            Kind::Cpu(_) => size_of::<f32>() as u64,
            Kind::Tensors(bytes) => bytes as u64,
        }
    }

    /// The footprint of a plan; see [`Engine::plan`](super::Engine::plan). On the CPU it is exact, except that it
    /// assumes the most expensive convolution algorithm where the choice is measured; on other devices it is an upper
    /// bound.
    ///
    /// # Errors
    /// As [`Engine::plan`](super::Engine::plan).
    pub fn footprint(
        &self,
        network: &Arc<Network>,
        targets: &[Target],
        input: &Shape,
    ) -> Result<Footprint, EngineError> {
        let layers = targets.iter().map(|target| (target.layer, target.channels.as_ref().map(BTreeSet::len)));
        let key: Key = (layers.collect(), input.clone());
        if let Some(found) = self.cached(network, &key) {
            return Ok(found);
        }
        let found = match self.kind {
            Kind::Cpu(memory) => memory.footprint(network, targets, input)?,
            Kind::Tensors(bytes) => of_tensors(network, targets, input, bytes as u64)?,
        };
        self.store(network, key, &found);
        Ok(found)
    }

    fn cached(&self, network: &Arc<Network>, key: &Key) -> Option<Footprint> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let of_network = cache.iter().find(|(held, _)| is_same(held, network));
        of_network.and_then(|(_, footprints)| footprints.get(key).cloned())
    }

    fn store(&self, network: &Arc<Network>, key: Key, found: &Footprint) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.retain(|(held, _)| held.strong_count() > 0);
        let at = cache.iter().position(|(held, _)| is_same(held, network));
        let mut footprints = at.map(|at| cache.remove(at).1).unwrap_or_default();
        if footprints.len() >= MAX_FOOTPRINTS {
            footprints.clear();
        }
        footprints.insert(key, found.clone());
        cache.push((Arc::downgrade(network), footprints));
        let surplus = cache.len().saturating_sub(MAX_NETWORKS);
        cache.drain(..surplus);
    }
}

fn is_same(held: &Weak<Network>, network: &Arc<Network>) -> bool {
    held.strong_count() > 0 && std::ptr::eq(held.as_ptr(), Arc::as_ptr(network))
}

/// Upper bound for the reference engine, which keeps the output and at most one gradient of every node, and gathers the
/// windows of one convolution at a time into a matrix.
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
                // Forward and backward.
                weights = weights.saturating_add(2 * conv.weight.len() as u64);
                conv.window.kernel.iter().product::<usize>() as u64
            }
            Op::MaxPool(window) | Op::AveragePool { window, .. } => window.kernel.iter().product::<usize>() as u64,
            Op::Dense { weight, .. } => {
                weights = weights.saturating_add(2 * weight.len() as u64);
                1
            }
            // As many tensors as the window has channels are summed one after the other.
            Op::LocalResponse(_) => 1,
            Op::Normalize(Normalize { scale, shift, .. }) => {
                let values = [scale, shift].into_iter().flatten().map(Array::len).sum::<usize>();
                weights = weights.saturating_add(values as u64);
                1
            }
            Op::Input
            | Op::Constant(_)
            | Op::MatMul
            | Op::Affine { .. }
            | Op::Activation(_)
            | Op::Unary(_)
            | Op::Binary(_)
            | Op::Select
            | Op::Concat { .. }
            | Op::Reduce { .. }
            | Op::Pad { .. }
            | Op::Reshape(_)
            | Op::Transpose(_)
            | Op::Slice { .. }
            | Op::Gather { .. }
            | Op::Resize(_)
            | Op::Softmax { .. }
            | Op::LogSoftmax { .. }
            | Op::DynamicQuantize => 1,
        };
        // Columns, their product, and indices of at most eight bytes.
        matrix = matrix.max(3 * window.saturating_mul(read.max(to)) + 2 * (read + to));
        weights = weights.saturating_add(4 * window.saturating_mul(read.max(to)));
    }
    let bytes = |values: u64| value.saturating_mul(values);
    let kept = bytes(values.saturating_mul(2).saturating_add(matrix));
    Ok(Footprint { fixed: bytes(weights), kept, recorded: 0, together: vec![0] })
}
