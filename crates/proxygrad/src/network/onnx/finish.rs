//! From the draft to the network.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::call::Tensor;
use super::draft::{Draft, DraftOp, Id};
use super::error::{ImportError, UnsupportedNode};
use super::messages::GraphProto;
use super::modules::Modules;
use super::names::{Names, layer_name};
use super::order;
use super::walk::Walked;
use crate::network::{Network, NodeId, Op, Unavailable};

/// The network, and its connection to the file.
pub(super) struct Finished {
    pub network: Network,
    /// Name in the file of each of the network's outputs.
    pub output_names: Vec<String>,
    /// For each node of the network, the tensor of the file that it holds.
    pub tensor_names: Vec<Option<String>>,
}

/// Builds the network from the part of the draft that the file's outputs depend on, or that is read by nodes which could
/// not be lowered. `moved` tells where the values of each node of the draft are found.
///
/// # Errors
/// [`ImportError::Graph`] when a layer does not accept its inputs, which the draft has already checked.
pub(super) fn finish(
    graph: &GraphProto,
    walked: Walked<'_>,
    modules: &Modules<'_>,
    moved: &[Id],
) -> Result<Finished, ImportError> {
    let outputs: Vec<(Id, &str)> = walked.outputs(graph).into_iter().map(|(id, name)| (moved[id], name)).collect();
    let roots: Vec<Id> = walked.roots(graph).into_iter().map(|root| moved[root]).collect();
    let Walked { mut draft, order, tensors, failures, .. } = walked;
    let needed = draft.needed(&roots);
    let input = draft.node(Draft::INPUT).shape.feature_map().unwrap_or_default();
    let mut network = Network::new(input[0], input[1], input[2]);
    let mut names = chosen_names(&draft, &needed, &outputs, modules, &network.node(Network::INPUT).name);

    let mut ids = HashMap::from([(Draft::INPUT, Network::INPUT)]);
    let mut tensor_names = vec![None];
    for &id in needed.iter().filter(|&&id| id != Draft::INPUT) {
        let node = draft.node_mut(id);
        let DraftOp::Op(op) = node.op.clone() else { continue };
        let name = names.remove(&id).unwrap_or_else(|| node.name.clone());
        let inputs: Vec<NodeId> = node.inputs.iter().filter_map(|input| ids.get(input).copied()).collect();
        let added = network.push(name, op, &inputs).map_err(|error| ImportError::Graph(error.into()))?;
        if let Some(bound) = node.bound {
            network.bind_size(added, bound);
        }
        tensor_names.push(node.tensor.take());
        ids.insert(id, added);
    }
    let mut output_names: Vec<String> = outputs.iter().map(|(_, name)| (*name).to_owned()).collect();
    let mut output_ids: Vec<NodeId> = outputs.iter().filter_map(|(id, _)| ids.get(id).copied()).collect();
    if output_ids.is_empty() {
        output_ids = ends(&network);
        let name = |id: &NodeId| tensor_names.get(id.0).cloned().flatten();
        output_names = output_ids.iter().map(|id| name(id).unwrap_or_else(|| network.node(*id).name.clone())).collect();
    }
    network.set_outputs(output_ids);

    // Where something was folded into a layer, that no longer holds what it was before.
    let mut holds: HashMap<Id, Id> = HashMap::new();
    holds.extend(moved.iter().enumerate().map(|(id, &to)| (to, id)));
    let layer = |name: &str| match tensors.get(name) {
        Some(&Tensor::Map(id)) => {
            let layer = ids.get(&moved[id]).copied().filter(|&layer| layer != Network::INPUT);
            layer.map(|layer| (layer, holds.get(&moved[id]) == Some(&id)))
        }
        _ => None,
    };
    let made_by = |node: usize| graph.node[node].output.first().and_then(|name| layer(name)).map(|(layer, _)| layer);
    for &node in &order {
        if let Some(layer) = made_by(node) {
            network.add_alias(layer_name(order::label(&graph.node[node])), layer);
        }
    }
    for (path, node) in &modules.outputs {
        if let Some(layer) = made_by(*node) {
            network.add_module(path, layer);
        }
    }
    for name in order.iter().flat_map(|&node| &graph.node[node].output) {
        if let Some((layer, true)) = layer(name) {
            network.add_alias(layer_name(name), layer);
        }
    }
    let failed = |name: &str| if let Some(Tensor::Failed(cause)) = tensors.get(name) { Some(*cause) } else { None };
    add_unavailable(&mut network, graph, modules, &order, &failures, failed);
    Ok(Finished { network, output_names, tensor_names })
}

/// Tells the network of the nodes that have no layer; `failed` gives, for a tensor, the node that cannot be computed.
fn add_unavailable(
    network: &mut Network,
    graph: &GraphProto,
    modules: &Modules<'_>,
    order: &[usize],
    failures: &BTreeMap<usize, UnsupportedNode>,
    failed: impl Fn(&str) -> Option<usize>,
) {
    let declared: HashSet<&str> = graph.output.iter().map(|output| output.name.as_str()).collect();
    let mut paths: HashMap<usize, Vec<&String>> = HashMap::new();
    for (path, node) in &modules.outputs {
        paths.entry(*node).or_default().push(path);
    }
    for &index in order {
        let node = &graph.node[index];
        let names = node.output.iter().filter(|name| !name.is_empty());
        let Some((output, cause)) = names.clone().find_map(|name| Some((name, failed(name)?))) else { continue };
        let Some(failure) = failures.get(&cause) else { continue };
        let own = order::label(node);
        // A node may have one output that can be computed and another that cannot.
        let first = Some(output) == node.output.first();
        let name = if declared.contains(output.as_str()) || !first { output } else { own };
        let mut aliases: Vec<String> = names.map(|name| layer_name(name)).collect();
        aliases.push(layer_name(own));
        aliases.extend(paths.remove(&index).unwrap_or_default().into_iter().cloned());
        let unavailable = Unavailable {
            name: layer_name(name),
            op: order::operation(node),
            depends_on: (cause != index).then(|| failure.name.clone()),
            reason: failure.reason.clone(),
        };
        network.add_unavailable(unavailable, aliases);
    }
}

/// Names of the layers: an output has the file's name for it, the node that makes a tensor of the file has its own, and
/// what it is computed from has to step back.
fn chosen_names(
    draft: &Draft,
    needed: &[Id],
    outputs: &[(Id, &str)],
    modules: &Modules<'_>,
    input: &str,
) -> HashMap<Id, String> {
    let mut names = Names::new([input]);
    let mut chosen: HashMap<Id, String> = HashMap::new();
    for &(id, output) in outputs {
        chosen.entry(id).or_insert_with(|| names.claim(output));
    }
    let is_layer = |id: &Id| !matches!(draft.node(*id).op, DraftOp::Op(Op::Input | Op::Constant(_)));
    let layers = needed.iter().copied().filter(is_layer);
    let (results, steps): (Vec<Id>, Vec<Id>) = layers.partition(|&id| draft.node(id).tensor.is_some());
    for id in results.into_iter().chain(steps) {
        let node = draft.node(id);
        let listed = modules.listed.get(&node.source).unwrap_or(&node.name);
        chosen.entry(id).or_insert_with(|| names.claim(listed));
    }
    chosen
}

/// The layers that no other one reads.
fn ends(network: &Network) -> Vec<NodeId> {
    let mut read = vec![false; network.nodes().len()];
    for input in network.nodes().iter().flat_map(|node| &node.inputs) {
        read[input.0] = true;
    }
    let is_end = |id: &NodeId| !read[id.0] && !matches!(network.node(*id).op, Op::Input | Op::Constant(_));
    (0..read.len()).map(NodeId).filter(is_end).collect()
}
