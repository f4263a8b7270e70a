//! From the draft to the network.

use std::collections::HashMap;

use super::draft::{Draft, DraftOp, Id};
use super::error::ImportError;
use super::messages::GraphProto;
use super::names::Names;
use crate::network::{Network, NodeId};

/// Builds the network from the part of the draft that `outputs` depend on, and tells which tensor of the file each of
/// its nodes holds.
///
/// # Errors
/// [`ImportError::Graph`] when a layer does not accept its inputs, which the draft has already checked.
pub(super) fn finish(
    graph: &GraphProto,
    mut draft: Draft,
    outputs: &[Id],
) -> Result<(Network, Vec<Option<String>>), ImportError> {
    let needed = draft.needed(outputs);
    let input = draft.node(Draft::INPUT).shape.feature_map().unwrap_or_default();
    let mut network = Network::new(input[0], input[1], input[2]);
    let input_name = network.node(Network::INPUT).name.clone();
    let mut names = Names::new([input_name.as_str()]);
    let mut chosen: HashMap<Id, String> = HashMap::new();
    for (&id, output) in outputs.iter().zip(&graph.output) {
        chosen.entry(id).or_insert_with(|| names.claim(&output.name));
    }

    let mut ids = HashMap::from([(Draft::INPUT, Network::INPUT)]);
    let mut tensors = vec![None];
    for id in needed.into_iter().filter(|&id| id != Draft::INPUT) {
        let node = draft.node_mut(id);
        let DraftOp::Op(op) = node.op.clone() else { continue };
        let name = chosen.remove(&id).unwrap_or_else(|| names.claim(&node.name));
        let inputs: Vec<NodeId> = node.inputs.iter().filter_map(|input| ids.get(input).copied()).collect();
        let added = network.push(name, op, &inputs).map_err(ImportError::Graph)?;
        if let Some(bound) = node.bound {
            network.bind_size(added, bound);
        }
        tensors.push(node.tensor.take());
        ids.insert(id, added);
    }
    network.set_outputs(outputs.iter().filter_map(|id| ids.get(id).copied()).collect());
    Ok((network, tensors))
}
