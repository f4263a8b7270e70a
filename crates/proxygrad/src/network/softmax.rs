//! Layers whose values come from a softmax.

use std::collections::BTreeSet;

use super::activation::Activation;
use super::elementwise::{Binary, Unary};
use super::graph::{Network, NodeId};
use super::op::Op;

impl Network {
    /// Whether every value of a layer comes from a softmax: the layer is a softmax, or reads one that has since only
    /// been scaled or shifted by constants, clipped, rounded, interpolated, reordered, sliced or concatenated, or the
    /// logarithm of one. A softmax that weights other values, as attention does, does not count.
    pub fn is_softmax(&self, layer: NodeId) -> bool {
        let mut waiting = vec![layer];
        let mut seen = BTreeSet::new();
        while let Some(id) = waiting.pop() {
            if !seen.insert(id) {
                continue;
            }
            let node = self.node(id);
            let is_constant = |input: &NodeId| matches!(self.node(*input).op, Op::Constant(_));
            match &node.op {
                Op::Softmax { .. } | Op::LogSoftmax { .. } => {}
                Op::Reshape(_)
                | Op::Transpose(_)
                | Op::Slice { .. }
                | Op::Gather { .. }
                | Op::Concat { .. }
                | Op::Affine { .. }
                | Op::Resize(_)
                | Op::Activation(Activation::Clip { .. })
                | Op::Unary(Unary::Log | Unary::RoundTo(_))
                | Op::DynamicQuantize => waiting.extend(&node.inputs),
                Op::Binary(op) => match node.inputs.as_slice() {
                    [values, constant] if is_constant(constant) && is_scaling(*op) => waiting.push(*values),
                    [constant, values] if is_constant(constant) && is_scaling(*op) && *op != Binary::Div => {
                        waiting.push(*values);
                    }
                    _ => return false,
                },
                Op::Input
                | Op::Constant(_)
                | Op::Conv(_)
                | Op::Dense { .. }
                | Op::MatMul
                | Op::Activation(_)
                | Op::Unary(_)
                | Op::Select
                | Op::MaxPool(_)
                | Op::AveragePool { .. }
                | Op::Reduce { .. }
                | Op::Pad { .. }
                | Op::Normalize(_)
                | Op::LocalResponse(_) => return false,
            }
        }
        true
    }
}

/// Whether an operation on a tensor and a constant scales or shifts the tensor.
fn is_scaling(op: Binary) -> bool {
    matches!(op, Binary::Add | Binary::Sub | Binary::Mul | Binary::Div)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::network::{Array, Axis, Reduce};

    #[test]
    fn a_softmax_is_one_until_it_weights_something() {
        let mut network = Network::new(4, 6, 6);
        let mut push = |name: &str, op: Op, inputs: &[NodeId]| network.push(name, op, inputs).unwrap();
        let mean = push("mean", Op::Reduce { kind: Reduce::Mean, axes: vec![1, 2], keep: true }, &[Network::INPUT]);
        let attention = push("attention", Op::Softmax { axis: 0 }, &[mean]);
        let half = |start| Op::Slice { axis: 0, start, end: start + 2, step: 1 };
        let (first, second) = (push("first", half(0), &[attention]), push("second", half(2), &[attention]));
        let joined = push("joined", Op::Concat { axis: 0 }, &[first, second]);
        let mixed = push("mixed", Op::Concat { axis: 0 }, &[attention, mean]);
        let weighed = push("weighed", Op::Binary(Binary::Mul), &[Network::INPUT, attention]);
        let pooled = push("pooled", Op::Reduce { kind: Reduce::Mean, axes: vec![1, 2], keep: false }, &[weighed]);
        let gate = push("gate", Op::Activation(Activation::Sigmoid), &[pooled]);
        let probability = push("probability", Op::Softmax { axis: 0 }, &[pooled]);
        let constant = push("constant", Op::Constant(Array::vector(vec![100.0; 4])), &[]);
        let percent = push("percent", Op::Binary(Binary::Mul), &[constant, probability]);
        let shifted = push("shifted", Op::Binary(Binary::Sub), &[percent, constant]);
        let odds = push("odds", Op::Binary(Binary::Div), &[constant, probability]);
        let flat = push("flat", Op::Reshape(vec![Axis::Exact(2), Axis::Infer]), &[shifted]);
        let turned = push("turned", Op::Transpose(vec![1, 0]), &[flat]);
        let clip = Op::Activation(Activation::Clip { min: 1e-7, max: 1.0 });
        let clipped = push("clipped", clip, &[first]);
        let logarithm = push("logarithm", Op::Unary(Unary::Log), &[clipped]);
        let rounded = push("rounded", Op::Unary(Unary::RoundTo(0.1)), &[probability]);
        let quantized = push("quantized", Op::DynamicQuantize, &[rounded]);
        let exponential = push("exponential", Op::Unary(Unary::Exp), &[probability]);
        for id in [attention, first, joined, probability, percent, shifted, flat, turned, logarithm, quantized] {
            assert!(network.is_softmax(id), "{}", network.node(id).name);
        }
        for id in [Network::INPUT, mean, mixed, weighed, pooled, gate, constant, odds, exponential] {
            assert!(!network.is_softmax(id), "{}", network.node(id).name);
        }
    }
}
