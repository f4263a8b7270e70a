//! Builds the network from the lowered graph: layers, their names and aliases, and the nodes without a layer.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::error::{ImportError, UnsupportedNode};
use super::graph_builder::{BuilderId, GraphBuilder};
use super::image_tensor::ImageTensor;
use super::layer_names::{UniqueNames, layer_name};
use super::lower_graph::LoweredGraph;
use super::module_paths::ModulePaths;
use super::node_context::Operand;
use super::proto::GraphProto;
use crate::network::{Network, NodeId, Op, Unavailable};

/// The network, and how it relates to the file.
pub(super) struct BuiltNetwork {
    pub network: Network,
    /// Name in the file of each of the network's outputs.
    pub output_names: Vec<String>,
    /// For each node of the network, the tensor of the file with the same values.
    pub tensor_names: Vec<Option<String>>,
}

/// Builds the part of the graph that the file's outputs depend on, or that unsupported nodes read. `moved_to` maps each
/// node of the graph to the one that holds its values.
///
/// # Errors
/// [`ImportError::Graph`] when a layer does not accept its inputs, which the builder has already checked.
pub(super) fn build(
    graph: &GraphProto,
    lowered: LoweredGraph<'_>,
    modules: &ModulePaths<'_>,
    moved_to: &[BuilderId],
) -> Result<BuiltNetwork, ImportError> {
    let outputs = lowered.outputs(graph).into_iter().map(|(id, name)| (moved_to[id], name));
    let outputs: Vec<(BuilderId, &str)> = outputs.collect();
    let roots: Vec<BuilderId> = lowered.roots(graph).into_iter().map(|root| moved_to[root]).collect();
    let LoweredGraph { mut builder, order, tensors, failures, .. } = lowered;
    let needed = builder.ancestors(&roots);
    let input = builder.node(GraphBuilder::INPUT).shape.feature_map().unwrap_or_default();
    let mut network = Network::new(input[0], input[1], input[2]);
    let mut names = layer_names(&builder, &needed, &outputs, modules, moved_to, &network.node(Network::INPUT).name);

    let mut ids = HashMap::from([(GraphBuilder::INPUT, Network::INPUT)]);
    let mut tensor_names = vec![None];
    for &id in needed.iter().filter(|&&id| id != GraphBuilder::INPUT) {
        let node = builder.node_mut(id);
        let op = node.op.clone();
        let name = names.remove(&id).unwrap_or_else(|| node.name.clone());
        let inputs: Vec<NodeId> = node.inputs.iter().filter_map(|input| ids.get(input).copied()).collect();
        let added = network.push(name, op, &inputs).map_err(|error| ImportError::Graph(error.to_string()))?;
        if let Some(bound) = node.bound {
            network.bind_size(added, bound);
        }
        tensor_names.push(node.tensor.take());
        ids.insert(id, added);
    }
    let mut output_names: Vec<String> = outputs.iter().map(|(_, name)| (*name).to_owned()).collect();
    let mut output_ids: Vec<NodeId> = outputs.iter().filter_map(|(id, _)| ids.get(id).copied()).collect();
    if output_ids.is_empty() {
        output_ids = unread_layers(&network);
        let name = |id: &NodeId| tensor_names.get(id.0).cloned().flatten();
        output_names = output_ids.iter().map(|id| name(id).unwrap_or_else(|| network.node(*id).name.clone())).collect();
    }
    network.set_outputs(output_ids);

    // A layer holds the values of the last node that was folded into it.
    let mut holds: HashMap<BuilderId, BuilderId> = HashMap::new();
    holds.extend(moved_to.iter().enumerate().map(|(id, &to)| (to, id)));
    let layer = |name: &str| match tensors.get(name) {
        Some(&Operand::Dynamic(ImageTensor { id, .. })) => {
            let layer = ids.get(&moved_to[id]).copied().filter(|&layer| layer != Network::INPUT);
            layer.map(|layer| (layer, holds.get(&moved_to[id]) == Some(&id)))
        }
        _ => None,
    };
    let layer_of = |node: usize| graph.node[node].output.first().and_then(|name| layer(name)).map(|(layer, _)| layer);
    for &node in &order {
        if let Some(layer) = layer_of(node) {
            network.add_alias(layer_name(graph.node[node].display_name()), layer);
        }
    }
    for (path, node) in &modules.outputs {
        if let Some(layer) = layer_of(*node) {
            network.add_module(path, layer);
        }
    }
    for name in order.iter().flat_map(|&node| &graph.node[node].output) {
        if let Some((layer, true)) = layer(name) {
            network.add_alias(layer_name(name), layer);
        }
    }
    let cause = |name: &str| match tensors.get(name) {
        Some(Operand::Unavailable(cause)) => Some(*cause),
        _ => None,
    };
    add_unavailable(&mut network, graph, modules, &order, &failures, cause);
    network.add_views();
    tensor_names.resize(network.nodes().len(), None);
    Ok(BuiltNetwork { network, output_names, tensor_names })
}

/// Registers the nodes without a layer; `cause` maps a tensor to the unsupported node that it depends on.
fn add_unavailable(
    network: &mut Network,
    graph: &GraphProto,
    modules: &ModulePaths<'_>,
    order: &[usize],
    failures: &BTreeMap<usize, UnsupportedNode>,
    cause: impl Fn(&str) -> Option<usize>,
) {
    let declared: HashSet<&str> = graph.output.iter().map(|output| output.name.as_str()).collect();
    let mut paths: HashMap<usize, Vec<&String>> = HashMap::new();
    for (path, node) in &modules.outputs {
        paths.entry(*node).or_default().push(path);
    }
    for &index in order {
        let node = &graph.node[index];
        let names = node.output.iter().filter(|name| !name.is_empty());
        let Some((output, cause)) = names.clone().find_map(|name| Some((name, cause(name)?))) else { continue };
        let Some(failure) = failures.get(&cause) else { continue };
        let own = node.display_name();
        // Some outputs of a node may be available and others not.
        let is_first = Some(output) == node.output.first();
        let name = if declared.contains(output.as_str()) || !is_first { output } else { own };
        let mut aliases: Vec<String> = names.map(|name| layer_name(name)).collect();
        aliases.push(layer_name(own));
        aliases.extend(paths.remove(&index).unwrap_or_default().into_iter().cloned());
        let unavailable = Unavailable {
            name: layer_name(name),
            op: node.qualified_op(),
            depends_on: (cause != index).then(|| failure.name.clone()),
            reason: failure.reason.clone(),
        };
        network.add_unavailable(unavailable, aliases);
    }
}

/// Names of the layers, in order of precedence: the file's name of an output, the path of the module or the name of the
/// file's node whose output the layer computes, and names of intermediate results.
fn layer_names(
    builder: &GraphBuilder,
    needed: &[BuilderId],
    outputs: &[(BuilderId, &str)],
    modules: &ModulePaths<'_>,
    moved_to: &[BuilderId],
    input: &str,
) -> HashMap<BuilderId, String> {
    // A module whose last node was folded into another one, such as the bias of a dense layer.
    let mut folded: HashMap<BuilderId, &String> = HashMap::new();
    for (id, &to) in moved_to.iter().enumerate().filter(|(id, to)| id != *to) {
        if let Some(path) = modules.node_paths.get(&builder.node(id).file_node) {
            folded.insert(to, path);
        }
    }
    let mut names = UniqueNames::new([input]);
    let mut chosen: HashMap<BuilderId, String> = HashMap::new();
    for &(id, output) in outputs {
        chosen.entry(id).or_insert_with(|| names.claim(output));
    }
    let is_layer = |id: &BuilderId| !matches!(builder.node(*id).op, Op::Input | Op::Constant(_));
    let layers = needed.iter().copied().filter(is_layer);
    let (results, intermediates): (Vec<_>, Vec<_>) = layers.partition(|&id| builder.node(id).tensor.is_some());
    for id in results.into_iter().chain(intermediates) {
        let node = builder.node(id);
        let path = modules.node_paths.get(&node.file_node).or_else(|| folded.get(&id).copied());
        let preferred = path.unwrap_or(&node.name);
        chosen.entry(id).or_insert_with(|| names.claim(preferred));
    }
    chosen
}

/// The layers that no other layer reads.
fn unread_layers(network: &Network) -> Vec<NodeId> {
    let mut read = vec![false; network.nodes().len()];
    for input in network.nodes().iter().flat_map(|node| &node.inputs) {
        read[input.0] = true;
    }
    let is_unread = |id: &NodeId| !read[id.0] && !matches!(network.node(*id).op, Op::Input | Op::Constant(_));
    (0..read.len()).map(NodeId).filter(is_unread).collect()
}
