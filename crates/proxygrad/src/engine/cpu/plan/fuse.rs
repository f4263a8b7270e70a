//! Operator fusion: turns a subgraph into forward steps of the form `activation(kernel(inputs) + residual)`.

use std::sync::PoisonError;

use crate::engine::EngineError;
use crate::engine::cpu::breakpoints::FusedActivation;
use crate::engine::cpu::kernel::KernelConfig;
use crate::engine::cpu::kernel_cache::{CachedKernel, KernelKey, NetworkKernels};
use crate::engine::cpu::layout::Layout;
use crate::engine::cpu::lower::{lower, table_bytes};
use crate::engine::cpu::plan::layouts::layouts;
use crate::engine::cpu::plan::steps::{ForwardStep, ValueDraft, read_count};
use crate::engine::cpu::tune::ConvAlgorithms;
use crate::engine::subgraph::{Subgraph, SubgraphNode};
use crate::network::{Activation, Array, Binary, Network, Op};

/// The fused forward steps of a subgraph, and their values.
pub(crate) struct FusedGraph {
    pub(crate) steps: Vec<ForwardStep>,
    pub(crate) drafts: Vec<ValueDraft>,
    /// Values of the targets.
    pub(crate) targets: Vec<usize>,
    /// See [`ExecutionPlan`](super::ExecutionPlan).
    pub(crate) weight_bytes: usize,
    /// See [`ExecutionPlan`](super::ExecutionPlan).
    pub(crate) cached_kernels: Vec<KernelKey>,
}

/// How an operation is fused into the step that computes its input.
enum Fusion<'a> {
    /// As the residual sum.
    Residual,
    /// As the activation.
    Activation(&'a Activation),
    /// Not fused: it becomes a separate step.
    Separate,
}

impl<'a> Fusion<'a> {
    fn of(op: &'a Op) -> Self {
        match op {
            Op::Binary(Binary::Add) => Self::Residual,
            Op::Activation(activation) => Self::Activation(activation),
            Op::Input | Op::Constant(_) | Op::Conv(_) | Op::Dense { .. } | Op::MatMul | Op::Affine { .. } => {
                Self::Separate
            }
            Op::Unary(_) | Op::Binary(_) | Op::Select | Op::Concat { .. } => Self::Separate,
            Op::MaxPool(_) | Op::AveragePool { .. } | Op::Reduce { .. } | Op::Pad { .. } => Self::Separate,
            Op::Reshape(_) | Op::Transpose(_) | Op::Slice { .. } | Op::Gather { .. } | Op::Resize(_) => Self::Separate,
            Op::LocalResponse(_) | Op::Normalize(_) | Op::Softmax { .. } | Op::LogSoftmax { .. } => Self::Separate,
            Op::DynamicQuantize => Self::Separate,
        }
    }
}

/// A step whose inputs are still nodes.
struct FusedNodes {
    /// Node that the kernel computes.
    first: usize,
    /// Last node that was fused into the step.
    last: usize,
    residual: Option<usize>,
    step: ForwardStep,
}

pub(crate) fn fuse(
    network: &Network,
    subgraph: &Subgraph,
    config: KernelConfig,
    algorithms: &ConvAlgorithms,
    kernels: &NetworkKernels,
) -> Result<FusedGraph, EngineError> {
    let nodes = &subgraph.nodes;
    let op = |node: usize| nodes[node].op(network);
    let layouts = layouts(network, subgraph);
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (n, node) in nodes.iter().enumerate() {
        for &input in &node.inputs {
            readers[input].push(n);
        }
    }
    // The one node that reads another, if that is no target.
    let only_reader = |node: usize| match readers[node].as_slice() {
        &[reader] if !subgraph.is_target(node) => Some(reader),
        _ => None,
    };
    let mut absorbed = vec![false; nodes.len()];
    let mut fused: Vec<FusedNodes> = Vec::new();
    let (mut weight_bytes, mut cached_kernels) = (0, Vec::new());
    for n in 0..nodes.len() {
        if absorbed[n] {
            continue;
        }
        let (key, made) = cached_or_lowered(network, &nodes[n], (&layouts, n), config, algorithms, kernels)?;
        let Some(CachedKernel { kernel, bytes }) = made else { continue };
        weight_bytes += bytes;
        cached_kernels.extend(key);
        let (mut last, mut residual, mut fused_activation) = (n, None, None);
        while kernel.fuses_epilogue() {
            let Some(reader) = only_reader(last) else { break };
            match Fusion::of(op(reader)) {
                Fusion::Residual if residual.is_none() && matches!(op(n), Op::Conv(_) | Op::Dense { .. }) => {
                    let other = nodes[reader].inputs.iter().copied().find(|&input| input != last);
                    // Of two layers the later one adds the result of the earlier one.
                    let Some(other) = other.filter(|&other| other < last) else { break };
                    if nodes[other].shape != nodes[last].shape {
                        break;
                    }
                    residual = Some(other);
                    absorbed[reader] = true;
                    last = reader;
                }
                Fusion::Activation(activation) => {
                    // Of a tensor that is neither a map nor a vector the first axis is not that of channels in memory.
                    let channels = activation.channel_parameters().map(Array::len);
                    if channels.is_some_and(|channels| channels != layouts[reader].pixel_len()) {
                        break;
                    }
                    fused_activation = Some(FusedActivation::of(activation));
                    absorbed[reader] = true;
                    last = reader;
                    break;
                }
                Fusion::Residual | Fusion::Separate => break,
            }
        }
        let (node, inputs) = (nodes[n].id, Vec::new());
        let kernel = Some(kernel);
        let step =
            ForwardStep { kernel, inputs, residual: None, activation: fused_activation, saved: None, node, scale: 1.0 };
        fused.push(FusedNodes { first: n, last, residual, step });
    }
    fused.sort_by_key(|fused| fused.last);
    let mut value_of = vec![0; nodes.len()];
    for (s, fused) in fused.iter().enumerate() {
        value_of[fused.last] = s + 1;
    }
    let draft = |node: usize, activation: Option<FusedActivation>| ValueDraft {
        node: nodes[node].id,
        layout: layouts[node].clone(),
        activation: activation.filter(|_| nodes[node].needs_gradient),
        needs_gradient: nodes[node].needs_gradient,
        is_target: subgraph.is_target(node),
        within: None,
    };
    let mut drafts = vec![draft(0, None)];
    let mut steps = Vec::with_capacity(fused.len());
    for FusedNodes { first, last, residual, step } in fused {
        drafts.push(draft(last, step.activation.clone()));
        let inputs = nodes[first].inputs.iter().map(|&input| value_of[input]).collect();
        steps.push(ForwardStep { inputs, residual: residual.map(|node| value_of[node]), ..step });
    }
    let targets = subgraph.targets.iter().map(|target| value_of[target.node]).collect();
    Ok(FusedGraph { steps, drafts, targets, weight_bytes, cached_kernels })
}

/// The kernel of a node, and its key where the cache holds it. No kernel for the input.
fn cached_or_lowered(
    network: &Network,
    node: &SubgraphNode,
    (layouts, n): (&[Layout], usize),
    config: KernelConfig,
    algorithms: &ConvAlgorithms,
    kernels: &NetworkKernels,
) -> Result<(Option<KernelKey>, Option<CachedKernel>), EngineError> {
    let algorithms = algorithms.for_node(node.id);
    let inputs: Vec<&Layout> = node.inputs.iter().map(|&input| &layouts[input]).collect();
    let own: Vec<Layout> = inputs.iter().copied().chain([&layouts[n]]).cloned().collect();
    // A layer with fewer channels than in the network belongs to this plan alone.
    let key = node.pruned.is_none().then_some((node.id, own, algorithms));
    let cache = || kernels.lock().unwrap_or_else(PoisonError::into_inner);
    let known = key.as_ref().and_then(|key| cache().get(key).cloned());
    if known.is_some() {
        return Ok((key, known));
    }
    let op = node.op(network);
    let kernel = lower(op, &inputs, &layouts[n], config, algorithms).map_err(EngineError::Mismatch)?;
    let Some(kernel) = kernel else { return Ok((None, None)) };
    let bytes = kernel.weight_bytes() + table_bytes(op, &inputs, &layouts[n]);
    let made = CachedKernel { kernel, bytes };
    if let Some(key) = &key {
        cache().insert(key.clone(), made.clone());
    }
    Ok((key, Some(made)))
}

/// Lets the parts of a concatenation be computed in place, as channel slices of it, where nothing else reads them.
pub(crate) fn concat_in_place(steps: &mut [ForwardStep], drafts: &mut [ValueDraft]) {
    for s in 0..steps.len() {
        let joined = steps[s].kernel.as_ref().and_then(|kernel| kernel.concat_offsets().map(<[usize]>::to_vec));
        let Some(first_channels) = joined else { continue };
        if drafts[s + 1].activation.is_some() {
            continue;
        }
        let parts = steps[s].inputs.clone();
        let fits = parts.iter().all(|&part| {
            part > 0
                && read_count(steps, part) == 1
                && !drafts[part].is_target
                && drafts[part].needs_gradient
                && drafts[part].within.is_none()
                && drafts[part].activation == drafts[parts[0]].activation
                && drafts[part].activation.as_ref().is_none_or(FusedActivation::is_uniform)
                && steps[part - 1].kernel.as_ref().is_some_and(|kernel| kernel.fuses_epilogue())
        });
        if !fits {
            continue;
        }
        for (&part, first) in parts.iter().zip(first_channels) {
            drafts[part].within = Some((s + 1, first));
        }
        drafts[s + 1].activation = drafts[parts[0]].activation.clone();
        steps[s].kernel = None;
    }
}
