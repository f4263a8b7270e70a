//! Layout assignment: in which order each tensor of a subgraph is kept in memory.
//!
//! Only tensors of three axes leave a choice. Convolutions, pools and resizing work on feature maps `[C,H,W]` whose
//! channels are contiguous; in tokens, heads and maps `[H,W,C]` the last axis is. Operations that go through a tensor
//! value by value use the same order for all their tensors. So the tensors that such operations connect share one
//! layout, channels-last where one of them is read or written by an operation on feature maps, else row-major.

use std::collections::HashSet;

use crate::engine::cpu::layout::Layout;
use crate::engine::subgraph::Subgraph;
use crate::network::{Network, Op};

/// The layout of every node's output.
pub(crate) fn layouts(network: &Network, subgraph: &Subgraph) -> Vec<Layout> {
    let nodes = &subgraph.nodes;
    let mut groups = Groups { parents: (0..nodes.len()).collect() };
    let (mut maps, mut flat) = (Vec::new(), Vec::new());
    for (n, node) in nodes.iter().enumerate() {
        let op = node.op(network);
        // One slope for each index of the first axis, which is that of the channels of feature maps and vectors only.
        if matches!(op, Op::Activation(activation) if activation.channel_parameters().is_some()) {
            flat.push(n);
        }
        match op {
            Op::Input => maps.push(n),
            Op::Conv(_) | Op::MaxPool(_) | Op::AveragePool { .. } | Op::Resize(_) => {
                maps.extend(node.inputs.iter().copied().chain([n]));
            }
            Op::Activation(_)
            | Op::Affine { .. }
            | Op::Unary(_)
            | Op::Normalize(_)
            | Op::LocalResponse(_)
            | Op::Softmax { .. }
            | Op::LogSoftmax { .. }
            | Op::DynamicQuantize => {
                for &input in node.inputs.iter().filter(|&&input| nodes[input].shape == node.shape) {
                    groups.join(n, input);
                }
            }
            // Also inputs that repeat along some axes, such as one factor per channel.
            Op::Binary(_) | Op::Select => {
                let same_rank = |&&input: &&usize| nodes[input].shape.len() == node.shape.len();
                node.inputs.iter().filter(same_rank).for_each(|&input| groups.join(n, input));
            }
            Op::Concat { .. }
            | Op::Pad { .. }
            | Op::Slice { .. }
            | Op::Gather { .. }
            | Op::Reduce { keep: true, .. } => {
                node.inputs.iter().for_each(|&input| groups.join(n, input));
            }
            Op::Constant(_)
            | Op::Dense { .. }
            | Op::MatMul
            | Op::Reduce { keep: false, .. }
            | Op::Reshape(_)
            | Op::Transpose(_) => {}
        }
    }
    let [maps, flat] = [maps, flat].map(|found| found.into_iter().map(|n| groups.of(n)).collect::<HashSet<usize>>());
    let layout = |n: usize| {
        let (shape, group) = (nodes[n].shape.clone(), groups.of(n));
        match (maps.contains(&group), flat.contains(&group)) {
            (true, _) if shape.len() == 3 => Layout::channels_last(shape),
            (_, true) if shape.len() > 1 => Layout::flat(shape),
            _ => Layout::row_major(shape),
        }
    };
    (0..nodes.len()).map(layout).collect()
}

/// Disjoint sets of nodes.
struct Groups {
    /// Another node of the same set, or the node itself.
    parents: Vec<usize>,
}

impl Groups {
    /// The node that stands for the set of a node.
    fn of(&self, mut node: usize) -> usize {
        while self.parents[node] != node {
            node = self.parents[node];
        }
        node
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.of(a), self.of(b));
        // The smaller index stays, so that paths stay short in a chain of nodes.
        self.parents[a.max(b)] = a.min(b);
    }
}
