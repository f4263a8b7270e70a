//! Topological order of the file's nodes that the outputs depend on.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use super::error::ImportError;
use super::flatten::FlatGraph;
use super::proto::GraphProto;

/// Indices of the nodes that the graph's outputs depend on, in topological order; in the file's order where that is
/// one.
///
/// `given` are the names of initializers and inputs.
///
/// # Errors
/// [`ImportError::Graph`] for tensors that no node or more than one node computes, and for cycles.
pub(super) fn toposort(flat: &FlatGraph, given: &HashSet<&str>) -> Result<Vec<usize>, ImportError> {
    let graph = &flat.graph;
    let producers = producers(graph, given)?;
    let needed = ancestors_of_outputs(flat, given, &producers)?;

    let inputs = |node: usize| {
        let produced = flat.reads(node).filter_map(|name| producers.get(name).copied());
        produced.collect::<HashSet<usize>>()
    };
    let mut waiting: HashMap<usize, usize> = HashMap::with_capacity(needed.len());
    let mut readers: HashMap<usize, Vec<usize>> = HashMap::with_capacity(needed.len());
    let mut ready = BinaryHeap::new();
    for &node in &needed {
        let inputs = inputs(node);
        if inputs.is_empty() {
            ready.push(Reverse(node));
        }
        waiting.insert(node, inputs.len());
        for input in inputs {
            readers.entry(input).or_default().push(node);
        }
    }
    let mut order = Vec::with_capacity(needed.len());
    while let Some(Reverse(node)) = ready.pop() {
        order.push(node);
        waiting.remove(&node);
        for reader in readers.remove(&node).unwrap_or_default() {
            if let Some(missing) = waiting.get_mut(&reader) {
                *missing -= 1;
                if *missing == 0 {
                    ready.push(Reverse(reader));
                }
            }
        }
    }
    match waiting.keys().min() {
        Some(&stuck) => Err(ImportError::Graph(format!(
            "it has a cycle: {} depends on its own output",
            graph.node[stuck].display_name()
        ))),
        None => Ok(order),
    }
}

/// The node that computes each tensor.
fn producers<'g>(graph: &'g GraphProto, given: &HashSet<&str>) -> Result<HashMap<&'g str, usize>, ImportError> {
    let mut producers = HashMap::new();
    for (i, node) in graph.node.iter().enumerate() {
        for output in node.output.iter().filter(|name| !name.is_empty()) {
            if given.contains(output.as_str()) || producers.insert(output.as_str(), i).is_some() {
                return Err(ImportError::Graph(format!(
                    "tensor {output} is defined more than once, the last time by {}",
                    node.display_name()
                )));
            }
        }
    }
    Ok(producers)
}

fn ancestors_of_outputs(
    flat: &FlatGraph,
    given: &HashSet<&str>,
    producers: &HashMap<&str, usize>,
) -> Result<Vec<usize>, ImportError> {
    let graph = &flat.graph;
    let mut found = vec![false; graph.node.len()];
    let mut missing = Vec::new();
    let mut open: Vec<(&str, &str)> = graph.output.iter().map(|output| (output.name.as_str(), "an output")).collect();
    while let Some((tensor, reader)) = open.pop() {
        match producers.get(tensor) {
            Some(&node) if !found[node] => {
                found[node] = true;
                open.extend(flat.reads(node).map(|input| (input, graph.node[node].display_name())));
            }
            Some(_) => {}
            None if given.contains(tensor) => {}
            None => missing.push(format!("{tensor} (read by {reader})")),
        }
    }
    if !missing.is_empty() {
        missing.sort();
        missing.dedup();
        return Err(ImportError::Graph(format!("no node computes {}", missing.join(", "))));
    }
    Ok((0..found.len()).filter(|&i| found[i]).collect())
}
