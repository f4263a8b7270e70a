//! Activation fusion: groups of elementwise nodes that compute a known activation become that activation, so that a
//! gate sees one operation.
//!
//! Exporters write `x * sigmoid(x)`, `0.5 * x * (1 + erf(x / sqrt(2)))` and the like in many forms. Instead of matching
//! patterns, the function that a group computes from one tensor is evaluated at some points and compared with the known
//! activations.

use std::collections::{HashMap, HashSet};

use super::graph_builder::{BuilderId, GraphBuilder};
use super::lower_graph::LoweredGraph;
use super::proto::GraphProto;
use crate::network::{Activation, Op};

/// Maximum number of nodes of one group.
const LARGEST_GROUP: usize = 16;

/// Activations that are fused: those without parameters, and hard sigmoids in the two usual forms (PyTorch, Keras).
const FUSED: [Activation; 9] = [
    Activation::Silu,
    Activation::QuickGelu,
    Activation::HardSwish,
    Activation::Gelu { tanh: false },
    Activation::Gelu { tanh: true },
    Activation::Mish,
    Activation::Softplus,
    Activation::HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 },
    Activation::HardSigmoid { alpha: 0.2, beta: 0.5 },
];

/// Replaces groups that compute a known activation, unless their inner values are read elsewhere.
pub(super) fn fuse_activations(graph: &GraphProto, lowered: &mut LoweredGraph<'_>) {
    let readers = lowered.builder.reader_counts(&lowered.roots(graph));
    fuse_groups(&mut lowered.builder, &readers);
}

fn fuse_groups(builder: &mut GraphBuilder, readers: &[usize]) {
    let sources = elementwise_sources(builder);
    let mut fused = HashSet::new();
    // Backwards from the outputs, so that the largest group is found first.
    for id in (0..builder.nodes().len()).rev().filter(|&id| readers[id] > 0) {
        if fused.contains(&id) {
            continue;
        }
        for &source in &sources[id] {
            let Some(group) = builder.subgraph_between(id, source, LARGEST_GROUP) else { break };
            if group.len() < 2 || !is_closed(builder, &group, id, readers) {
                continue;
            }
            if let Some(activation) = matching_activation(builder, id, source) {
                let node = builder.node_mut(id);
                node.op = Op::Activation(activation);
                node.inputs = vec![source];
                fused.extend(group);
                break;
            }
        }
    }
}

/// For each node, the nodes of which it is an elementwise function, nearest first.
fn elementwise_sources(builder: &GraphBuilder) -> Vec<Vec<BuilderId>> {
    let mut sources: Vec<Vec<BuilderId>> = Vec::with_capacity(builder.nodes().len());
    for id in 0..builder.nodes().len() {
        let node = builder.node(id);
        let through = |input: BuilderId| std::iter::once(input).chain(sources[input].iter().copied());
        let same_shape = node.inputs.iter().all(|&input| builder.node(input).shape == node.shape);
        sources.push(match *node.inputs.as_slice() {
            [input] if is_unary(&node.op) && same_shape => through(input).take(LARGEST_GROUP).collect(),
            [a, b] if matches!(node.op, Op::Binary(_)) && same_shape => {
                let others: HashSet<BuilderId> = through(b).collect();
                through(a).filter(|source| others.contains(source)).take(LARGEST_GROUP).collect()
            }
            _ => Vec::new(),
        });
    }
    sources
}

/// Whether the operation applies one function to all values of one tensor.
fn is_unary(op: &Op) -> bool {
    match op {
        Op::Unary(_) => true,
        Op::Activation(activation) => activation.channel_parameters().is_none(),
        Op::Affine { scale, shift } => is_uniform(scale.data()) && is_uniform(shift.data()),
        Op::Input
        | Op::Constant(_)
        | Op::Conv(_)
        | Op::Dense { .. }
        | Op::MatMul
        | Op::Binary(_)
        | Op::Select
        | Op::Concat { .. }
        | Op::MaxPool(_)
        | Op::AveragePool { .. }
        | Op::Reduce { .. }
        | Op::Pad { .. }
        | Op::Reshape(_)
        | Op::Transpose(_)
        | Op::Slice { .. }
        | Op::Gather { .. }
        | Op::Resize(_)
        | Op::Normalize(_)
        | Op::LocalResponse(_)
        | Op::Softmax { .. }
        | Op::LogSoftmax { .. }
        | Op::DynamicQuantize => false,
    }
}

fn is_uniform(values: &[f32]) -> bool {
    values.windows(2).all(|pair| pair[0] == pair[1])
}

/// Whether only `exit` is read outside of the group.
fn is_closed(builder: &GraphBuilder, group: &HashSet<BuilderId>, exit: BuilderId, readers: &[usize]) -> bool {
    let mut inside: HashMap<BuilderId, usize> = HashMap::new();
    for &id in group {
        for &input in &builder.node(id).inputs {
            *inside.entry(input).or_default() += 1;
        }
    }
    group.iter().all(|id| *id == exit || inside.get(id) == Some(&readers[*id]))
}

/// The known activation that the group between `source` and `exit` computes.
fn matching_activation(builder: &GraphBuilder, exit: BuilderId, source: BuilderId) -> Option<Activation> {
    let agrees = |activation: &Activation, x: f64| {
        let found = evaluate(builder, exit, &mut HashMap::from([(source, x)]));
        (activation.value(x, 0) - found).abs() <= 2e-6 * (1.0 + x.abs())
    };
    // Two points rule out nearly every group.
    let mut near = FUSED.into_iter().filter(|activation| agrees(activation, 0.75) && agrees(activation, -1.25));
    near.find(|activation| (-80..=80).all(|i| agrees(activation, f64::from(i) / 8.0 + 0.01)))
}

/// Value of a node of a group, given that of the source in `values`; NaN for operations that are not elementwise.
fn evaluate(builder: &GraphBuilder, id: BuilderId, values: &mut HashMap<BuilderId, f64>) -> f64 {
    if let Some(&value) = values.get(&id) {
        return value;
    }
    let node = builder.node(id);
    let inputs: Vec<f64> = node.inputs.iter().map(|&input| evaluate(builder, input, values)).collect();
    let result = match (&node.op, inputs.as_slice()) {
        (Op::Unary(function), &[x]) => function.value(x),
        (Op::Activation(activation), &[x]) => activation.value(x, 0),
        (Op::Affine { scale, shift }, &[x]) => match (scale.data().first(), shift.data().first()) {
            (Some(&scale), Some(&shift)) => f64::from(scale) * x + f64::from(shift),
            _ => f64::NAN,
        },
        (Op::Binary(binary), &[a, b]) => binary.value(a, b),
        // `is_unary` decides which operations occur in groups.
        _ => f64::NAN,
    };
    values.insert(id, result);
    result
}
