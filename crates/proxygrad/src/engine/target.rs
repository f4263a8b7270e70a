//! What a plan computes.

use std::collections::BTreeSet;

use crate::network::NodeId;

/// A layer that a plan computes, and what of it is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The layer.
    pub layer: NodeId,
    /// The channels that are looked at; all of them where none are named. What only others are computed from may be left
    /// out: they may hold 0 in the output, and seeds are 0 there.
    pub channels: Option<BTreeSet<usize>>,
}

impl Target {
    /// Some channels of a layer.
    pub fn channels(layer: NodeId, channels: impl IntoIterator<Item = usize>) -> Self {
        Self { layer, channels: Some(channels.into_iter().collect()) }
    }

    /// All of each layer.
    pub fn whole(layers: &[NodeId]) -> Vec<Self> {
        layers.iter().copied().map(Self::from).collect()
    }
}

impl From<NodeId> for Target {
    fn from(layer: NodeId) -> Self {
        Self { layer, channels: None }
    }
}
