//! Why a file cannot be imported.

use std::fmt;

/// Why an ONNX file cannot be imported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// The bytes are not an ONNX model.
    #[error("not an ONNX model: the file {0}")]
    Format(String),
    /// The version of the operation set is missing or outside of [`OPSETS`](super::OPSETS).
    #[error("opset {0} is not supported; export the network with an opset from 7 to 28")]
    Opset(String),
    /// The files that hold the weights cannot be used.
    #[error("the network's weights in other files: {0}")]
    ExternalData(String),
    /// The network does not have exactly one image input.
    #[error("the network's input: {0}")]
    Input(String),
    /// The file leaves the image's size open and the caller gave none.
    #[error("the network's input {input} has no fixed size: {axes}; give an input size [C,H,W]")]
    DynamicInput {
        /// Name of the input.
        input: String,
        /// The open axes: `height ("h")`, …
        axes: String,
    },
    /// The nodes do not form a graph that can be evaluated.
    #[error("the network's graph: {0}")]
    Graph(String),
    /// No layer can be computed, because of nodes that have no equivalent here.
    #[error("{}", list(.nodes, *.total))]
    Unsupported {
        /// Every node that could not be lowered.
        nodes: Vec<UnsupportedNode>,
        /// Number of nodes that the network's outputs depend on.
        total: usize,
    },
}

/// A node that could not be lowered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsupportedNode {
    /// The node's name in the file, or that of its first output.
    pub name: String,
    /// Operation, with its domain if that is not ONNX's own.
    pub op: String,
    /// Why it could not be lowered.
    pub reason: String,
}

/// `conv1 (Conv): is a 1-D convolution`
impl fmt::Display for UnsupportedNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, op, reason } = self;
        write!(f, "{name} ({op}): {reason}")
    }
}

fn list(nodes: &[UnsupportedNode], total: usize) -> String {
    let mut text = format!("{} of the network's {total} nodes cannot be imported:", nodes.len());
    for node in nodes {
        text.push_str(&format!("\n  {node}"));
    }
    text
}
