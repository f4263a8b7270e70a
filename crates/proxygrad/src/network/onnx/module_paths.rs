//! Module paths of the exported network (`layer1.0.conv1`), and the node that computes each module's output.
//!
//! PyTorch's exporters record module paths in three places: the metadata of a node (`pkg.torch.onnx.name_scopes`: `['',
//! 'layer1', 'layer1.0', 'layer1.0.conv1', 'conv2d_1']`), the name of a node (`/layer1/layer1.0/conv1/Conv`) and the
//! names of weights (`layer1.0.conv1.weight`). The output of a module is that of its last node.

use std::collections::HashMap;

use super::layer_names::LONGEST_NAME;
use super::lower_graph::LoweredGraph;
use super::node_context::Operand;
use super::proto::{GraphProto, ModelProto, NodeProto};

/// Metadata key for the path of a node, from the outermost module to the node itself.
const SCOPES: &str = "pkg.torch.onnx.name_scopes";
/// Longest metadata value that is read, in bytes.
const LONGEST_SCOPES: usize = 1 << 14;
/// Maximum number of nested modules.
const MAX_DEPTH: usize = 32;

/// The modules recorded in a file.
#[derive(Debug, Default)]
pub(super) struct ModulePaths<'g> {
    /// Module paths, each with the index in the file of the node that computes its output; innermost modules first.
    pub outputs: Vec<(String, usize)>,
    /// The module path that names a node, by its index in the file; only for files that number their nodes.
    pub node_paths: HashMap<usize, String>,
    /// For each weight, or constant computed from one, the path of its module.
    weights: HashMap<&'g str, &'g str>,
}

impl<'g> ModulePaths<'g> {
    /// Collects the modules of a file's nodes.
    pub fn find(model: &ModelProto, graph: &'g GraphProto, lowered: &LoweredGraph<'_>) -> Self {
        let mut modules = Self::default();
        let weight = |name: &'g str| Some((name, name.strip_suffix(".weight")?));
        modules.weights = graph.initializer.iter().filter_map(|stored| weight(&stored.name)).collect();

        let mut last: HashMap<String, usize> = HashMap::new();
        let mut scopes: HashMap<usize, Vec<String>> = HashMap::new();
        let mut weighted: Vec<(&str, usize)> = Vec::new();
        for &index in &lowered.order {
            let node = &graph.node[index];
            let path = node.input.iter().find_map(|input| modules.weights.get(input.as_str()).copied());
            let output = node.output.first().and_then(|output| lowered.tensors.get(output.as_str()));
            if let Some(Operand::Constant(_)) | None = output {
                let outputs = node.output.iter().map(String::as_str);
                modules.weights.extend(path.into_iter().flat_map(|path| outputs.clone().map(move |name| (name, path))));
                continue;
            }
            let paths = scopes_of(node);
            last.extend(paths.iter().map(|path| (path.clone(), index)));
            scopes.insert(index, paths);
            weighted.extend(path.map(|path| (path, index)));
        }
        let numbered = is_numbered(model, graph);
        // A batch normalization that the exporter folded leaves no node inside the convolution's module.
        for &(path, index) in weighted.iter().rev() {
            if is_path(path) && !last.contains_key(path) {
                last.insert(path.to_owned(), index);
                modules.set_node_path(numbered, path, index);
            }
        }
        for (&index, paths) in &scopes {
            if let Some(innermost) = paths.last().filter(|path| last.get(*path) == Some(&index)) {
                modules.set_node_path(numbered, innermost, index);
            }
        }
        modules.outputs = last.into_iter().collect();
        // The innermost module has the longest path.
        modules.outputs.sort_by(|(a, i), (b, j)| i.cmp(j).then(b.len().cmp(&a.len())).then(a.cmp(b)));
        modules
    }

    fn set_node_path(&mut self, numbered: bool, path: &str, index: usize) {
        if numbered {
            self.node_paths.entry(index).or_insert_with(|| path.to_owned());
        }
    }
}

/// Whether node names are only numbered (`node_Conv_45`), as PyTorch's exporter does since 2.9.
fn is_numbered(model: &ModelProto, graph: &GraphProto) -> bool {
    let scopes = |node: &NodeProto| node.metadata_props.iter().any(|entry| entry.key == SCOPES);
    let numbered = |node: &NodeProto| node.name.starts_with("node_");
    graph.node.iter().any(scopes) || (model.producer_name == "pytorch" && graph.node.iter().any(numbered))
}

/// Paths of the modules that contain a node, outermost first.
fn scopes_of(node: &NodeProto) -> Vec<String> {
    match node.metadata_props.iter().find(|entry| entry.key == SCOPES) {
        Some(entry) => scopes_from_list(&entry.value),
        None => scopes_from_name(&node.name),
    }
}

/// Scopes in a list as Python prints it, whose last entry is the node's own name.
fn scopes_from_list(list: &str) -> Vec<String> {
    if list.len() > LONGEST_SCOPES {
        return Vec::new();
    }
    let mut texts = Vec::new();
    let mut rest = list;
    while let Some(start) = rest.find(['\'', '"']) {
        let (quote, after) = rest[start..].split_at(1);
        let Some((text, remaining)) = after.split_once(quote) else { break };
        texts.push(text.trim_start_matches("L['self'].").trim_start_matches("L['self']"));
        rest = remaining;
    }
    texts.pop();
    texts.into_iter().filter(|path| is_path(path)).take(MAX_DEPTH).map(str::to_owned).collect()
}

/// Scopes in a name such as `/features/features.0/features.0.1/act/Relu`: a part that begins with the previous part
/// replaces it; the last part is the operation.
fn scopes_from_name(name: &str) -> Vec<String> {
    let Some(name) = name.strip_prefix('/').filter(|name| name.len() <= LONGEST_NAME * 4) else { return Vec::new() };
    let mut parts: Vec<&str> = name.split('/').collect();
    parts.pop();
    let mut paths: Vec<String> = Vec::new();
    let mut previous = "";
    for part in parts.into_iter().take(MAX_DEPTH) {
        let path = match paths.last() {
            None => part.to_owned(),
            Some(outer) => match part.strip_prefix(previous).filter(|rest| rest.starts_with('.')) {
                Some(rest) => format!("{outer}{rest}"),
                None => format!("{outer}.{part}"),
            },
        };
        if !is_path(&path) {
            break;
        }
        previous = part;
        paths.push(path);
    }
    paths
}

/// Whether a string can be a module path: names separated by dots.
fn is_path(text: &str) -> bool {
    let named = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'));
    text.len() <= LONGEST_NAME && text.split('.').all(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_from_lists_and_from_names() {
        let list = r#"['', 'layer1', 'layer1.0', "L['self'].layer1.0.conv1", 'conv2d_1']"#;
        assert_eq!(scopes_from_list(list), ["layer1", "layer1.0", "layer1.0.conv1"]);
        for none in ["", "[]", "['']", "['', 'add']", "['unclosed", "['a:b', 'x']", "\"'"] {
            assert!(scopes_from_list(none).is_empty(), "{none}");
        }
        assert_eq!(scopes_from_name("/layer3/layer3.0/conv1/Conv"), ["layer3", "layer3.0", "layer3.0.conv1"]);
        assert_eq!(
            scopes_from_name("/features/features.1/conv/conv.0/conv.0.0/Conv"),
            ["features", "features.1", "features.1.conv", "features.1.conv.0", "features.1.conv.0.0"]
        );
        for none in ["layer1/Relu", "/Relu", "", "/", "//Relu", "/a b/Relu"] {
            assert!(scopes_from_name(none).is_empty(), "{none}");
        }
    }
}
