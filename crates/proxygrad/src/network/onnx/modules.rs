//! Modules of the network that a file was exported from: which layer is the output of which.
//!
//! PyTorch's exporters leave paths of modules (`layer1.0.conv1`) in three places: the metadata of a node
//! (`pkg.torch.onnx.name_scopes`: `['', 'layer1', 'layer1.0', 'layer1.0.conv1', 'conv2d_1']`), the name of a node
//! (`/layer1/layer1.0/conv1/Conv`) and the names of weights (`layer1.0.conv1.weight`). The output of a module is that of
//! the last node inside of it.

use std::collections::HashMap;

use super::call::Tensor;
use super::messages::{GraphProto, ModelProto, NodeProto};
use super::names::LONGEST_NAME;
use super::walk::Walked;

/// Key of the metadata with the path of a node, from the outermost module to the node itself.
const SCOPES: &str = "pkg.torch.onnx.name_scopes";
/// Longest metadata that are read, in bytes.
const LONGEST_SCOPES: usize = 1 << 14;
/// Most modules that a node may be inside of.
const DEEPEST: usize = 32;

/// The modules that a file tells of.
#[derive(Debug, Default)]
pub(super) struct Modules<'g> {
    /// Paths of modules with the node, by its index in the file, whose output theirs is; innermost modules first.
    pub outputs: Vec<(String, usize)>,
    /// The path under which a node is listed, for files that number their nodes.
    pub listed: HashMap<usize, String>,
    /// For each weight, or constant made of one, the path of the module that it belongs to.
    weights: HashMap<&'g str, &'g str>,
}

impl<'g> Modules<'g> {
    /// The modules that the nodes of a file belong to.
    pub fn find(model: &ModelProto, graph: &'g GraphProto, walked: &Walked<'_>) -> Self {
        let mut modules = Self::default();
        let weight = |name: &'g str| Some((name, name.strip_suffix(".weight")?));
        modules.weights = graph.initializer.iter().filter_map(|stored| weight(&stored.name)).collect();

        let mut last: HashMap<String, usize> = HashMap::new();
        let mut scopes: HashMap<usize, Vec<String>> = HashMap::new();
        let mut weighted: Vec<(&str, usize)> = Vec::new();
        for &index in &walked.order {
            let node = &graph.node[index];
            let path = node.input.iter().find_map(|input| modules.weights.get(input.as_str()).copied());
            let made = node.output.first().and_then(|output| walked.tensors.get(output.as_str()));
            if let Some(Tensor::Value(_)) | None = made {
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
        // A batch normalization that the exporter has folded leaves no node inside of the convolution's module.
        for &(path, index) in weighted.iter().rev() {
            if is_path(path) && !last.contains_key(path) {
                last.insert(path.to_owned(), index);
                modules.list(numbered, path, index);
            }
        }
        for (&index, paths) in &scopes {
            if let Some(innermost) = paths.last().filter(|path| last.get(*path) == Some(&index)) {
                modules.list(numbered, innermost, index);
            }
        }
        modules.outputs = last.into_iter().collect();
        // The longest path is the innermost module's.
        modules.outputs.sort_by(|(a, i), (b, j)| i.cmp(j).then(b.len().cmp(&a.len())).then(a.cmp(b)));
        modules
    }

    fn list(&mut self, numbered: bool, path: &str, index: usize) {
        if numbered {
            self.listed.entry(index).or_insert_with(|| path.to_owned());
        }
    }
}

/// Whether the names of the file's nodes say nothing: today's exporter of PyTorch numbers them (`node_Conv_45`).
fn is_numbered(model: &ModelProto, graph: &GraphProto) -> bool {
    let scopes = |node: &NodeProto| node.metadata_props.iter().any(|entry| entry.key == SCOPES);
    let numbered = |node: &NodeProto| node.name.starts_with("node_");
    graph.node.iter().any(scopes) || (model.producer_name == "pytorch" && graph.node.iter().any(numbered))
}

/// Paths of the modules that a node is inside of, outermost first.
fn scopes_of(node: &NodeProto) -> Vec<String> {
    match node.metadata_props.iter().find(|entry| entry.key == SCOPES) {
        Some(entry) => listed_scopes(&entry.value),
        None => named_scopes(&node.name),
    }
}

/// From a list as Python prints it; the last text is the node's own name.
fn listed_scopes(list: &str) -> Vec<String> {
    if list.len() > LONGEST_SCOPES {
        return Vec::new();
    }
    let mut texts = Vec::new();
    let mut rest = list;
    while let Some(start) = rest.find(['\'', '"']) {
        let (quote, after) = rest[start..].split_at(1);
        let Some((text, behind)) = after.split_once(quote) else { break };
        texts.push(text.trim_start_matches("L['self'].").trim_start_matches("L['self']"));
        rest = behind;
    }
    texts.pop();
    texts.into_iter().filter(|path| is_path(path)).take(DEEPEST).map(str::to_owned).collect()
}

/// From a name such as `/features/features.0/features.0.1/act/Relu`: a part that begins with the part before it replaces
/// that; the last one is the operation.
fn named_scopes(name: &str) -> Vec<String> {
    let Some(name) = name.strip_prefix('/').filter(|name| name.len() <= LONGEST_NAME * 4) else { return Vec::new() };
    let mut parts: Vec<&str> = name.split('/').collect();
    parts.pop();
    let mut paths: Vec<String> = Vec::new();
    let mut before = "";
    for part in parts.into_iter().take(DEEPEST) {
        let path = match paths.last() {
            None => part.to_owned(),
            Some(outer) => match part.strip_prefix(before).filter(|rest| rest.starts_with('.')) {
                Some(rest) => format!("{outer}{rest}"),
                None => format!("{outer}.{part}"),
            },
        };
        if !is_path(&path) {
            break;
        }
        before = part;
        paths.push(path);
    }
    paths
}

/// Whether a text can be the path of a module: names with dots between them.
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
        assert_eq!(listed_scopes(list), ["layer1", "layer1.0", "layer1.0.conv1"]);
        for none in ["", "[]", "['']", "['', 'add']", "['unclosed", "['a:b', 'x']", "\"'"] {
            assert!(listed_scopes(none).is_empty(), "{none}");
        }
        assert_eq!(named_scopes("/layer3/layer3.0/conv1/Conv"), ["layer3", "layer3.0", "layer3.0.conv1"]);
        assert_eq!(
            named_scopes("/features/features.1/conv/conv.0/conv.0.0/Conv"),
            ["features", "features.1", "features.1.conv", "features.1.conv.0", "features.1.conv.0.0"]
        );
        for none in ["layer1/Relu", "/Relu", "", "/", "//Relu", "/a b/Relu"] {
            assert!(named_scopes(none).is_empty(), "{none}");
        }
    }
}
