//! Activations that were exported in pieces are put together again, so that a gate sees one activation.
//!
//! Exporters write `x * sigmoid(x)`, `0.5 * x * (1 + erf(x / sqrt(2)))` and the like in many orders. Instead of matching
//! each, the function that a group of elementwise nodes computes from one tensor is evaluated at some points and compared
//! with the known activations.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::draft::{Draft, DraftOp, Id};
use super::messages::GraphProto;
use super::order;
use super::walk::Walked;
use crate::network::{Activation, Binary, Op};

/// Most nodes of one group.
const LARGEST_GROUP: usize = 16;

/// The known activations without parameters of their own, and hard sigmoids in the two usual forms (PyTorch, Keras).
const KNOWN: [Activation; 8] = [
    Activation::Silu,
    Activation::HardSwish,
    Activation::Gelu { tanh: false },
    Activation::Gelu { tanh: true },
    Activation::Mish,
    Activation::Softplus,
    Activation::HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 },
    Activation::HardSigmoid { alpha: 0.2, beta: 0.5 },
];

/// Replaces groups of nodes that compute a known activation by it. A group whose inner values are read elsewhere stays.
/// What networks do not have, and what is no part of such a group, becomes a failure.
pub(super) fn activations(graph: &GraphProto, walked: &mut Walked<'_>) {
    let readers = walked.draft.readers(&walked.roots(graph));
    let absorbed = put_together(&mut walked.draft, &readers);
    let mut left = BTreeMap::new();
    for (id, node) in walked.draft.nodes().iter().enumerate() {
        let is_left = readers[id] > 0 && !absorbed.contains(&id);
        if let (DraftOp::Elementary(_), Some(source), true) = (&node.op, graph.node.get(node.source), is_left) {
            let reason = "is only supported inside of a known activation, such as GELU, Mish or softplus";
            walked.failures.insert(node.source, order::unsupported(source, reason.into()));
            left.insert(id, node.source);
        }
    }
    walked.spread_failure(left);
}

/// Replaces the groups and returns all their nodes.
fn put_together(draft: &mut Draft, readers: &[usize]) -> HashSet<Id> {
    let sources = sources(draft);
    let mut absorbed = HashSet::new();
    // From the outputs on, so that the largest group is found first.
    for id in (0..draft.nodes().len()).rev().filter(|&id| readers[id] > 0) {
        if absorbed.contains(&id) {
            continue;
        }
        for &source in &sources[id] {
            let Some(group) = draft.between(id, source, LARGEST_GROUP) else { break };
            if group.len() < 2 || !is_closed(draft, &group, id, readers) {
                continue;
            }
            if let Some(activation) = known(draft, id, source) {
                let node = draft.node_mut(id);
                node.op = DraftOp::Op(Op::Activation(activation));
                node.inputs = vec![source];
                absorbed.extend(group);
                break;
            }
        }
    }
    absorbed
}

/// For each node the tensors, nearest first, that it is an elementwise function of.
fn sources(draft: &Draft) -> Vec<Vec<Id>> {
    let mut sources: Vec<Vec<Id>> = Vec::with_capacity(draft.nodes().len());
    for id in 0..draft.nodes().len() {
        let node = draft.node(id);
        let through = |input: Id| std::iter::once(input).chain(sources[input].iter().copied());
        let same_shape = node.inputs.iter().all(|&input| draft.node(input).shape == node.shape);
        sources.push(match *node.inputs.as_slice() {
            [input] if is_unary(&node.op) && same_shape => through(input).take(LARGEST_GROUP).collect(),
            [a, b] if matches!(node.op, DraftOp::Op(Op::Binary(_))) && same_shape => {
                let others: HashSet<Id> = through(b).collect();
                through(a).filter(|source| others.contains(source)).take(LARGEST_GROUP).collect()
            }
            _ => Vec::new(),
        });
    }
    sources
}

/// Whether the operation computes the same function of one tensor in all channels.
fn is_unary(op: &DraftOp) -> bool {
    match op {
        DraftOp::Elementary(_) => true,
        DraftOp::Op(Op::Activation(Activation::PRelu { slopes })) => slopes.len() == 1,
        DraftOp::Op(Op::Activation(_)) => true,
        DraftOp::Op(Op::Affine { scale, shift }) => is_uniform(scale.data()) && is_uniform(shift.data()),
        DraftOp::Op(_) => false,
    }
}

fn is_uniform(values: &[f32]) -> bool {
    values.windows(2).all(|pair| pair[0] == pair[1])
}

/// Whether only `exit` is read outside of the group.
fn is_closed(draft: &Draft, group: &HashSet<Id>, exit: Id, readers: &[usize]) -> bool {
    let mut inside: HashMap<Id, usize> = HashMap::new();
    for &id in group {
        for &input in &draft.node(id).inputs {
            *inside.entry(input).or_default() += 1;
        }
    }
    group.iter().all(|id| *id == exit || inside.get(id) == Some(&readers[*id]))
}

/// The known activation that the group between `source` and `exit` computes.
fn known(draft: &Draft, exit: Id, source: Id) -> Option<Activation> {
    let agrees = |activation: &Activation, x: f64| {
        let found = value(draft, exit, &mut HashMap::from([(source, x)]));
        (activation.value(x, 0) - found).abs() <= 2e-6 * (1.0 + x.abs())
    };
    // Two points rule nearly every group out.
    let mut near = KNOWN.into_iter().filter(|activation| agrees(activation, 0.75) && agrees(activation, -1.25));
    near.find(|activation| (-80..=80).all(|i| agrees(activation, f64::from(i) / 8.0 + 0.01)))
}

/// Value of a node of a group; `values` holds that of the source.
fn value(draft: &Draft, id: Id, values: &mut HashMap<Id, f64>) -> f64 {
    if let Some(&value) = values.get(&id) {
        return value;
    }
    let node = draft.node(id);
    let inputs: Vec<f64> = node.inputs.iter().map(|&input| value(draft, input, values)).collect();
    let result = match (&node.op, inputs.as_slice()) {
        (DraftOp::Elementary(function), &[x]) => function.value(x),
        (DraftOp::Op(Op::Activation(activation)), &[x]) => activation.value(x, 0),
        (DraftOp::Op(Op::Affine { scale, shift }), &[x]) => match (scale.data().first(), shift.data().first()) {
            (Some(&scale), Some(&shift)) => f64::from(scale) * x + f64::from(shift),
            _ => f64::NAN,
        },
        (DraftOp::Op(Op::Binary(Binary::Add)), &[a, b]) => a + b,
        (DraftOp::Op(Op::Binary(Binary::Sub)), &[a, b]) => a - b,
        (DraftOp::Op(Op::Binary(Binary::Mul)), &[a, b]) => a * b,
        (DraftOp::Op(Op::Binary(Binary::Div)), &[a, b]) => a / b,
        _ => f64::NAN,
    };
    values.insert(id, result);
    result
}
