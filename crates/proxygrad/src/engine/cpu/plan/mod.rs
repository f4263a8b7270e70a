//! Execution plan of a subgraph: fused forward steps, backward steps, row tiling, and a placement in memory for each
//! tensor.
//!
//! A gradient is complete once every reader of its value has contributed. The last contribution also applies the gate
//! of the value's activation, for which the forward pass left one or two bits per value
//! ([`ActivationMask`](super::activation_mask::ActivationMask)), so a gate costs no extra pass over memory.
//!
//! Tensors that the backward pass reads are kept for the whole batch. All other values and gradients live in memory
//! that the micro-batches use one after another.

pub(crate) mod footprint;
pub(crate) mod fuse;
pub(crate) mod fused_groups;
pub(crate) mod layouts;
pub(crate) mod lifetimes;
pub(crate) mod memory;
pub(crate) mod row_tiling;
pub(crate) mod schedule;
pub(crate) mod steps;

use std::collections::BTreeMap;

use self::fuse::{FusedGraph, concat_in_place, fuse};
use self::lifetimes::{Lifetimes, Placed};
use self::row_tiling::{FusedGroup, RowTiling, TilingLimits};
use self::schedule::BackwardSchedule;
use self::steps::{BackwardStep, ForwardStep, Placement, Value, ValueDraft};
use crate::engine::cpu::breakpoints::FusedActivation;
use crate::engine::cpu::buffer::CACHE_LINE;
use crate::engine::cpu::kernel::KernelConfig;
use crate::engine::cpu::kernel_cache::{KernelKey, NetworkKernels};
use crate::engine::cpu::tune::ConvAlgorithms;
use crate::engine::subgraph::Subgraph;
use crate::engine::{EngineError, scale_of};
use crate::network::{Network, NodeId};

/// What the executor runs.
pub(crate) struct ExecutionPlan {
    pub(crate) forward_steps: Vec<ForwardStep>,
    /// The image, and the result of every forward step.
    pub(crate) values: Vec<Value>,
    pub(crate) backward_steps: Vec<BackwardStep>,
    /// Partition of the forward steps into groups that run together.
    pub(crate) forward_groups: Vec<FusedGroup>,
    /// Partition of the backward steps into groups.
    pub(crate) backward_groups: Vec<FusedGroup>,
    /// Values of the targets.
    pub(crate) targets: Vec<usize>,
    /// Gradient with respect to the image, None if no target depends on it.
    pub(crate) gradient: Option<Placement>,
    /// Values per image in [`Arena::Saved`](steps::Arena::Saved).
    pub(crate) saved_len: usize,
    /// Values per image in [`Arena::Transient`](steps::Arena::Transient).
    pub(crate) transient_len: usize,
    /// Values of private memory per thread: for a kernel, followed by the row buffers of a fused group.
    pub(crate) scratch_len: [usize; 2],
    /// Pre-activations per image.
    pub(crate) record_len: usize,
    /// Bytes of the kernels' weights and tables.
    pub(crate) weight_bytes: usize,
    /// The kernels that are shared through the [`KernelCache`](super::kernel_cache::KernelCache).
    pub(crate) cached_kernels: Vec<KernelKey>,
}

impl ExecutionPlan {
    pub(crate) fn new(
        network: &Network,
        subgraph: &Subgraph,
        config: KernelConfig,
        algorithms: &ConvAlgorithms,
        kernels: &NetworkKernels,
        limits: TilingLimits,
    ) -> Result<Self, EngineError> {
        let FusedGraph { mut steps, mut drafts, targets, weight_bytes, cached_kernels } =
            fuse(network, subgraph, config, algorithms, kernels)?;
        concat_in_place(&mut steps, &mut drafts);
        let mut lifetimes = Lifetimes::new(&steps, &drafts);
        let BackwardSchedule { backward_steps, gradient } =
            BackwardSchedule::new(&steps, &drafts, &targets, &mut lifetimes);
        let forward_groups = fused_groups::forward(&steps, &drafts, limits);
        let backward_groups = fused_groups::backward(&steps, &drafts, &backward_steps, limits);
        lifetimes.merge(&forward_groups, &backward_groups);
        let placed = lifetimes.place();
        for (s, step) in steps.iter_mut().enumerate() {
            step.saved = lifetimes.saved[s].map(|lifetime| placed.at[lifetime].1);
        }
        let (values, record_len) = values(&drafts, &lifetimes, &placed);
        let settle = |placement: Placement| {
            let (arena, offset) = placed.at[placement.offset];
            Placement { arena, offset, ..placement }
        };
        let kernels = || steps.iter().filter_map(|step| step.kernel.as_ref());
        let kernel_len = kernels().map(|kernel| kernel.scratch_len()).max().unwrap_or(0).next_multiple_of(CACHE_LINE);
        let tilings = forward_groups.iter().chain(&backward_groups).filter_map(|group| group.tiling.as_ref());
        let scratch_len = [kernel_len, tilings.map(RowTiling::scratch_len).max().unwrap_or(0)];
        Ok(Self {
            backward_steps: backward_steps.into_iter().map(|step| step.placed(settle)).collect(),
            gradient: gradient.map(settle),
            forward_steps: steps,
            values,
            forward_groups,
            backward_groups,
            targets,
            saved_len: placed.saved_len,
            transient_len: placed.transient_len,
            scratch_len,
            record_len,
            weight_bytes,
            cached_kernels,
        })
    }

    /// Values that the threads share while they work on micro-batches of at most this many images.
    pub(crate) fn shared_len(&self, images: usize, threads: usize) -> usize {
        let size = |value: usize| self.values[value].layout.size();
        let shared = self.forward_steps.iter().enumerate().filter_map(|(s, step)| {
            let sizes = [size(*step.inputs.first()?), size(s + 1)];
            let kernel = step.kernel.as_ref()?;
            (1..=images).map(|images| kernel.shared_len(images, sizes, threads)).max()
        });
        shared.max().unwrap_or(0)
    }

    /// See [`Plan::set_scales`](crate::engine::Plan::set_scales).
    pub(crate) fn set_scales(&mut self, scales: &BTreeMap<NodeId, f32>) {
        for step in &mut self.forward_steps {
            step.scale = scale_of(scales, step.node);
        }
        for v in 0..self.values.len() {
            if self.values[v].inverse_scales.is_empty() {
                continue;
            }
            let own = [v];
            let parts = if self.values[v].parts.is_empty() { &own[..] } else { &self.values[v].parts };
            let base = self.values[v].placement.first;
            let slices: Vec<(usize, usize, f32)> = parts
                .iter()
                .map(|&part| {
                    let part = &self.values[part];
                    (part.placement.first - base, part.layout.pixel_len(), 1.0 / scale_of(scales, part.node))
                })
                .collect();
            for (first, channels, inverse) in slices {
                self.values[v].inverse_scales[first..first + channels].fill(inverse);
            }
        }
    }
}

/// The values with their placements, and the number of pre-activations per image.
fn values(drafts: &[ValueDraft], lifetimes: &Lifetimes, placed: &Placed) -> (Vec<Value>, usize) {
    let mut record_len = 0;
    let records = drafts.iter().map(|draft| {
        let start = record_len;
        if matches!(draft.activation, Some(FusedActivation::Linear(_))) && draft.within.is_none() {
            record_len += draft.layout.elements();
        }
        start
    });
    let records: Vec<usize> = records.collect();
    let value = |(v, draft): (usize, &ValueDraft)| {
        let (root, first) = draft.within.unwrap_or((v, 0));
        let (arena, offset) = placed.at[root];
        let parts = drafts.iter().enumerate().filter(|(_, part)| part.within.is_some_and(|(whole, _)| whole == v));
        Value {
            layout: draft.layout.clone(),
            placement: Placement { arena, offset, first, pixel_stride: drafts[root].layout.pixel_len() },
            activation: draft.activation.clone(),
            kept: lifetimes.kept[root].map_or(0, |lifetime| placed.at[lifetime].1),
            record: records[root],
            parts: parts.map(|(part, _)| part).collect(),
            node: draft.node,
            inverse_scales: vec![1.0; if draft.activation.is_some() { draft.layout.pixel_len() } else { 0 }],
        }
    };
    (drafts.iter().enumerate().map(value).collect(), record_len)
}
