//! Errors of the importer.

use std::fmt;

use super::proto::NodeProto;
use crate::network::Unavailable;

/// Why an ONNX file cannot be imported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The bytes are not an ONNX model.
    #[error("not an ONNX model: the file {0}")]
    Format(String),
    /// The version of the operator set is missing or outside of [`OPSETS`](super::OPSETS).
    #[error("{}", opset_message(*.0))]
    Opset(Option<i64>),
    /// The files that hold the weights cannot be used.
    #[error("cannot read external data: {0}")]
    ExternalData(String),
    /// The network does not have exactly one image input.
    #[error("unsupported network input: {0}")]
    Input(String),
    /// The file does not fix the image size and the caller did not specify one.
    #[error("the network input {input} has no fixed size ({axes}); specify an input size [C,H,W]")]
    DynamicInput {
        /// Name of the input.
        input: String,
        /// The dynamic axes, such as `height "h", width`.
        axes: String,
    },
    /// The nodes do not form a graph that can be evaluated.
    #[error("invalid graph: {0}")]
    Graph(String),
    /// No layer can be computed, because of unsupported nodes.
    #[error("{}", unsupported_message(.nodes, *.total))]
    Unsupported {
        /// Every unsupported node; the message groups them by operation and reason.
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
    /// Operator, with its domain if that is not ONNX's own.
    pub op: String,
    /// Why it could not be lowered.
    pub reason: String,
}

impl UnsupportedNode {
    pub(super) fn new(node: &NodeProto, reason: String) -> Self {
        Self { name: node.display_name().to_owned(), op: node.qualified_op(), reason }
    }
}

/// `rnn1 (LSTM): the operation is not supported`
impl fmt::Display for UnsupportedNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, op, reason } = self;
        write!(f, "{name} ({op}): {reason}")
    }
}

fn opset_message(version: Option<i64>) -> String {
    let export = format!("export the network with an opset from {} to {}", super::OPSETS.start(), super::OPSETS.end());
    match version {
        Some(version) => format!("opset {version} is not supported; {export}"),
        None => format!("the file does not declare an ONNX opset; {export}"),
    }
}

fn unsupported_message(nodes: &[UnsupportedNode], total: usize) -> String {
    let mut text = format!("{} of the network's {total} nodes are not supported:", nodes.len());
    let unavailable = |node: &UnsupportedNode| {
        let UnsupportedNode { name, op, reason } = node.clone();
        Unavailable { name, op, reason, depends_on: None }
    };
    for line in Unavailable::summary(&nodes.iter().map(unavailable).collect::<Vec<_>>()) {
        text.push_str(&format!("\n  {line}"));
    }
    text
}
