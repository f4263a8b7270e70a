//! Errors of building a network: arrays, shapes and graphs.

use super::graph::NodeId;
use super::shape::Shape;

/// Data that does not fit the shape of an [`Array`](super::Array).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a tensor of shape {shape:?} cannot hold {values} values")]
pub struct ArrayError {
    /// The shape asked for.
    pub shape: Vec<usize>,
    /// Number of values given.
    pub values: usize,
}

/// Why an operation does not accept its inputs. Displayed as a phrase that follows the operation's name: "needs 64
/// values, not 32".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShapeError {
    /// Wrong number of inputs.
    #[error("takes {expected} inputs, not {found}")]
    Arity {
        /// Number of inputs that the operation takes.
        expected: usize,
        /// Number of inputs given.
        found: usize,
    },
    /// An input has the wrong number of axes or the wrong length.
    #[error("needs {expected}, not {found}")]
    Input {
        /// What the operation needs, as a phrase: `a feature map [C,H,W]`.
        expected: String,
        /// What it got, as a phrase.
        found: String,
    },
    /// Weights do not fit the inputs or each other.
    #[error("{0}")]
    Weights(String),
    /// A parameter is out of range.
    #[error("{0}")]
    Parameter(String),
    /// An axis that the input does not have.
    #[error("axis {axis} does not exist in {shape}")]
    Axis {
        /// The axis, not counting the batch.
        axis: usize,
        /// The input.
        shape: Shape,
    },
    /// A window larger than its padded input.
    #[error("has a window of {window:?}, larger than its input of {input:?}")]
    Window {
        /// Height and width of the window, dilation included.
        window: [usize; 2],
        /// Height and width of the input.
        input: [usize; 2],
    },
    /// Two shapes that cannot be broadcast.
    #[error("cannot broadcast {0} with {1}")]
    Broadcast(Shape, Shape),
    /// Two shapes whose matrices cannot be multiplied.
    #[error(
        "cannot multiply {0} by {1}: expected [..., M, K] and [..., K, N] with axes before the matrices that broadcast"
    )]
    MatMul(Shape, Shape),
    /// Two shapes that cannot be concatenated.
    #[error("cannot concatenate {first} and {other} along axis {axis}")]
    Concat {
        /// The first input.
        first: Shape,
        /// The input that does not fit.
        other: Shape,
        /// Axis along which they are joined.
        axis: usize,
    },
    /// A shape with another number of values.
    #[error("cannot view {from} as {to}")]
    Reshape {
        /// The input.
        from: Shape,
        /// The shape asked for.
        to: Shape,
    },
    /// A height and width that cannot be resized to another.
    #[error("cannot resize {from:?} to {to:?}")]
    Resize {
        /// Height and width of the input.
        from: [usize; 2],
        /// Height and width asked for.
        to: [usize; 2],
    },
    /// An output that is empty or too large.
    #[error("{0}")]
    Output(String),
}

/// Why a graph cannot be built, or cannot run at some input size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// The name of a new layer is taken.
    #[error("{name}: two layers have this name")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// A node reads one that does not exist.
    #[error("{name}: reads node {} before it exists", input.0)]
    MissingInput {
        /// The node that reads.
        name: String,
        /// What it reads.
        input: NodeId,
    },
    /// An operation does not accept its inputs.
    #[error("{name} ({op}): {source}")]
    Shape {
        /// Name of the node.
        name: String,
        /// Name of its operation.
        op: &'static str,
        /// What does not fit.
        source: ShapeError,
    },
    /// The parameters of a node were computed for another input size.
    #[error("{name} ({op}): its parameters were computed for an input of {expected} and do not fit {found}")]
    InputSize {
        /// Name of the node.
        name: String,
        /// Name of its operation.
        op: &'static str,
        /// The network's own input.
        expected: Shape,
        /// The input asked for.
        found: Shape,
    },
    /// A network and its parameters cannot be trained or frozen.
    #[error("{0}")]
    Trainable(String),
}

/// Importers collect their reasons as text.
impl From<ArrayError> for String {
    fn from(error: ArrayError) -> Self {
        error.to_string()
    }
}

/// Importers collect their reasons as text.
impl From<ShapeError> for String {
    fn from(error: ShapeError) -> Self {
        error.to_string()
    }
}

/// Importers collect their reasons as text.
impl From<GraphError> for String {
    fn from(error: GraphError) -> Self {
        error.to_string()
    }
}
