//! Which nodes the outputs depend on, and in which order they can be evaluated.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use super::error::{ImportError, UnsupportedNode};
use super::messages::{GraphProto, NodeProto};

/// The name under which a node is known to its user: its own, or that of its first output.
pub(super) fn label(node: &NodeProto) -> &str {
    let outputs = node.output.iter().map(String::as_str);
    std::iter::once(node.name.as_str()).chain(outputs).find(|name| !name.is_empty()).unwrap_or(&node.op_type)
}

/// The operation of a node, with its domain if that is not ONNX's own.
pub(super) fn operation(node: &NodeProto) -> String {
    match node.domain.as_str() {
        "" | "ai.onnx" => node.op_type.clone(),
        domain => format!("{domain}.{}", node.op_type),
    }
}

/// A node as it is listed when it cannot be lowered.
pub(super) fn unsupported(node: &NodeProto, reason: String) -> UnsupportedNode {
    UnsupportedNode { name: label(node).to_owned(), op: operation(node), reason }
}

/// Names of the tensors that a node reads.
pub(super) fn reads(node: &NodeProto) -> impl Iterator<Item = &str> {
    node.input.iter().map(String::as_str).filter(|name| !name.is_empty())
}

/// Indices of the nodes that the graph's outputs depend on, in the file's order where that order can be evaluated.
///
/// `given` are the names of initializers and inputs.
///
/// # Errors
/// [`ImportError::Graph`] for tensors that are made twice or never, and for cycles.
pub(super) fn evaluation(graph: &GraphProto, given: &HashSet<&str>) -> Result<Vec<usize>, ImportError> {
    let producers = producers(graph, given)?;
    let needed = needed(graph, given, &producers)?;

    let inputs = |node: usize| {
        let made = reads(&graph.node[node]).filter_map(|name| producers.get(name).copied());
        made.collect::<HashSet<usize>>()
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
            "has a cycle: {} reads its own output, directly or through other nodes",
            label(&graph.node[stuck])
        ))),
        None => Ok(order),
    }
}

fn producers<'g>(graph: &'g GraphProto, given: &HashSet<&str>) -> Result<HashMap<&'g str, usize>, ImportError> {
    let mut producers = HashMap::new();
    for (i, node) in graph.node.iter().enumerate() {
        for output in node.output.iter().filter(|name| !name.is_empty()) {
            if given.contains(output.as_str()) || producers.insert(output.as_str(), i).is_some() {
                return Err(ImportError::Graph(format!(
                    "tensor {output} is made twice, the last time by {}",
                    label(node)
                )));
            }
        }
    }
    Ok(producers)
}

fn needed(
    graph: &GraphProto,
    given: &HashSet<&str>,
    producers: &HashMap<&str, usize>,
) -> Result<Vec<usize>, ImportError> {
    let mut found = vec![false; graph.node.len()];
    let mut missing = Vec::new();
    let mut open: Vec<(&str, &str)> = graph.output.iter().map(|output| (output.name.as_str(), "an output")).collect();
    while let Some((tensor, reader)) = open.pop() {
        match producers.get(tensor) {
            Some(&node) if !found[node] => {
                found[node] = true;
                let node = &graph.node[node];
                open.extend(reads(node).map(|input| (input, label(node))));
            }
            Some(_) => {}
            None if given.contains(tensor) => {}
            None => missing.push(format!("{tensor} (read by {reader})")),
        }
    }
    if !missing.is_empty() {
        missing.sort();
        missing.dedup();
        return Err(ImportError::Graph(format!("nothing provides {}", missing.join(", "))));
    }
    Ok((0..found.len()).filter(|&i| found[i]).collect())
}
