//! Which method computes each convolution.

use std::collections::HashMap;

use super::Heading;
use super::conv::Method;
use crate::engine::subgraph::Subgraph;
use crate::network::{Network, NodeId, Op};

/// The methods of a network's convolutions, forward and backward.
#[derive(Debug, Clone, Default)]
pub(super) struct Methods(pub(super) HashMap<NodeId, [Method; 2]>);

impl Methods {
    /// Chosen by the shapes alone.
    pub(super) fn estimate(network: &Network, subgraph: &Subgraph) -> Self {
        let choice = |node: &crate::engine::subgraph::SubgraphNode| {
            let Op::Conv(conv) = &network.node(node.id).op else { return None };
            let input = subgraph.input_shapes(node)[0];
            let sizes = [[input[1], input[2]], [node.shape[1], node.shape[2]]];
            Some((node.id, [Heading::Forward, Heading::Backward].map(|heading| Method::estimate(conv, heading, sizes))))
        };
        Self(subgraph.nodes.iter().filter_map(choice).collect())
    }

    /// Those of a node.
    pub(super) fn of(&self, node: NodeId) -> [Method; 2] {
        self.0.get(&node).copied().unwrap_or([Method::Direct; 2])
    }
}
