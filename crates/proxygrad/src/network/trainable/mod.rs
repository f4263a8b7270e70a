//! Networks that can be trained: the weights are parameters by name, and batch normalization is a node of its own.
//!
//! A [`TrainableNetwork`] describes the operations, [`Parameters`] hold the values. Both together become a [`Network`]
//! with frozen weights, in which batch normalizations are folded into the convolutions before them.

mod architecture;
mod fine_tuning;
mod freeze;
mod initialization;
mod parameters;

pub use architecture::{Family, TrainableArchitecture};
pub use initialization::Initialization;
pub use parameters::{ParameterError, Parameters};

use super::error::{GraphError, ShapeError};
use super::graph::{Network, NodeId};
use super::op::{Conv, Op, infer_conv, infer_dense};
use super::{Activation, Array, Axis, Binary, Reduce, Shape, Window};

/// Index of a tensor in [`TrainableNetwork::tensors`] and [`Parameters`].
pub type TensorId = usize;

/// A network whose weights are parameters: a directed acyclic graph with one image input and one output, the logits
/// `[K]`.
///
/// # Examples
/// ```
/// use proxygrad::network::trainable::{Initialization, TrainableArchitecture};
///
/// let network = "resnet8".parse::<TrainableArchitecture>()?.build([1, 28, 28], 10)?;
/// let parameters = network.initialize(Initialization::He, 0);
/// let frozen = network.freeze(&parameters)?;
/// assert_eq!(frozen.node(frozen.outputs()[0]).shape[..], [10]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct TrainableNetwork {
    nodes: Vec<TrainableNode>,
    tensors: Vec<TensorSpec>,
}

/// One operation of a [`TrainableNetwork`].
#[derive(Debug, Clone)]
pub struct TrainableNode {
    /// Unique name, the path of the module in PyTorch: `layer1.0.conv1`.
    pub name: String,
    /// What is computed.
    pub op: TrainableOp,
    /// Indices of the nodes that it reads, all smaller than its own.
    pub inputs: Vec<usize>,
    /// Shape of the output without the batch axis.
    pub shape: Shape,
}

/// An operation whose weights are tensors of [`Parameters`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum TrainableOp {
    /// 2-D convolution, as [`Op::Conv`].
    Conv {
        /// `[O, C/groups, kh, kw]`.
        weight: TensorId,
        /// `[O]`.
        bias: Option<TensorId>,
        /// The sliding window.
        window: Window,
        /// Number of independent groups of channels.
        groups: usize,
    },
    /// `weight * x + bias` of a vector, as [`Op::Dense`].
    Dense {
        /// `[O, I]`.
        weight: TensorId,
        /// `[O]`.
        bias: Option<TensorId>,
    },
    /// `scale * x + shift` per channel, as [`Op::Affine`].
    Affine {
        /// `[C]`.
        scale: TensorId,
        /// `[C]`.
        shift: TensorId,
    },
    /// Batch normalization: with the mean and variance of the batch in training, with the running ones at inference
    /// (Ioffe & Szegedy, "Batch Normalization", arXiv:1502.03167, algorithms 1 and 2).
    BatchNorm(BatchNorm),
    /// An operation without parameters.
    Fixed(Op),
}

/// Tensors and settings of a batch normalization.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchNorm {
    /// `[C]`, the factor.
    pub scale: TensorId,
    /// `[C]`, the offset.
    pub shift: TensorId,
    /// `[C]`, the running mean.
    pub mean: TensorId,
    /// `[C]`, the running variance (unbiased).
    pub variance: TensorId,
    /// Added to the variance.
    pub epsilon: f32,
    /// Weight of a batch in the running statistics.
    pub momentum: f32,
}

/// A tensor of a trainable network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Unique name as in a PyTorch state dict: `layer1.0.bn1.running_mean`.
    pub name: String,
    /// Lengths of its axes.
    pub shape: Vec<usize>,
    /// What it is.
    pub role: TensorRole,
    /// Whether it keeps its values: see [`TrainableNetwork::freeze_layers`].
    pub frozen: bool,
}

/// What a tensor of a trainable network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TensorRole {
    /// Weights of a convolution or dense layer.
    Weight,
    /// Bias of a convolution or dense layer.
    Bias,
    /// Factor of a normalization.
    Scale,
    /// Offset of a normalization.
    Shift,
    /// Running mean of a batch normalization; not trained.
    RunningMean,
    /// Running variance of a batch normalization; not trained.
    RunningVariance,
}

impl TensorRole {
    /// Whether it has a gradient; the others are statistics.
    pub fn has_gradient(self) -> bool {
        !matches!(self, Self::RunningMean | Self::RunningVariance)
    }
}

impl TensorSpec {
    /// Whether an optimizer changes it.
    pub fn is_trained(&self) -> bool {
        self.role.has_gradient() && !self.frozen
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl TrainableNetwork {
    /// A network with only its image input `[C,H,W]`.
    pub fn new(input: [usize; 3]) -> Self {
        let node = TrainableNode {
            name: "input".into(),
            op: TrainableOp::Fixed(Op::Input),
            inputs: Vec::new(),
            shape: input.into(),
        };
        Self { nodes: vec![node], tensors: Vec::new() }
    }

    /// The image input.
    pub const INPUT: usize = 0;

    /// All nodes in topological order: the image input first, the logits last.
    pub fn nodes(&self) -> &[TrainableNode] {
        &self.nodes
    }

    /// All tensors.
    pub fn tensors(&self) -> &[TensorSpec] {
        &self.tensors
    }

    /// Shape `[C,H,W]` of the image.
    pub fn input_shape(&self) -> &Shape {
        &self.nodes[Self::INPUT].shape
    }

    /// Number of logits.
    pub fn classes(&self) -> usize {
        self.nodes.last().map_or(0, |node| node.shape.elements())
    }

    /// Number of trained values.
    pub fn parameter_count(&self) -> usize {
        self.tensors.iter().filter(|tensor| tensor.is_trained()).map(TensorSpec::len).sum()
    }

    fn tensor(&mut self, name: String, shape: &[usize], role: TensorRole) -> TensorId {
        self.tensors.push(TensorSpec { name, shape: shape.to_vec(), role, frozen: false });
        self.tensors.len() - 1
    }

    /// Adds a node and infers its shape, or returns why its inputs do not fit.
    fn push(&mut self, name: &str, op: TrainableOp, inputs: &[usize]) -> Result<usize, GraphError> {
        if self.nodes.iter().any(|node| node.name == name) {
            return Err(GraphError::NameTaken { name: name.into() });
        }
        if let Some(&input) = inputs.iter().find(|&&input| input >= self.nodes.len()) {
            return Err(GraphError::MissingInput { name: name.into(), input: NodeId(input) });
        }
        let shapes: Vec<&Shape> = inputs.iter().map(|&input| &self.nodes[input].shape).collect();
        let fail = |op: &'static str, source: ShapeError| GraphError::Shape { name: name.into(), op, source };
        let shape = match &op {
            TrainableOp::Fixed(fixed) => fixed.infer(&shapes).map_err(|source| fail(fixed.name(), source))?,
            TrainableOp::BatchNorm(_) | TrainableOp::Affine { .. } => shapes[0].clone(),
            TrainableOp::Conv { weight, bias, window, groups } => {
                let biases = bias.map(|id| self.tensors[id].len());
                infer_conv(&self.tensors[*weight].shape, biases, window, *groups, shapes[0])
                    .map_err(|source| fail("Conv", source))?
            }
            TrainableOp::Dense { weight, bias } => {
                let biases = bias.map(|id| self.tensors[id].len());
                infer_dense(&self.tensors[*weight].shape, biases, shapes[0]).map_err(|source| fail("Dense", source))?
            }
        };
        self.nodes.push(TrainableNode { name: name.into(), op, inputs: inputs.to_vec(), shape });
        Ok(self.nodes.len() - 1)
    }

    /// Adds an operation without parameters.
    ///
    /// # Errors
    /// When the name is taken or the operation does not accept the inputs' shapes.
    pub fn fixed(&mut self, name: &str, op: Op, inputs: &[usize]) -> Result<usize, GraphError> {
        self.push(name, TrainableOp::Fixed(op), inputs)
    }

    /// Adds a convolution with `outputs` channels, with tensors `{name}.weight` and, with `bias`, `{name}.bias`.
    ///
    /// # Errors
    /// As [`TrainableNetwork::fixed`].
    pub fn conv(
        &mut self,
        name: &str,
        outputs: usize,
        window: Window,
        bias: bool,
        input: usize,
    ) -> Result<usize, GraphError> {
        let channels = self.nodes.get(input).map_or(0, |node| node.shape.channels());
        let [kh, kw] = window.kernel;
        let weight = self.tensor(format!("{name}.weight"), &[outputs, channels, kh, kw], TensorRole::Weight);
        let bias = bias.then(|| self.tensor(format!("{name}.bias"), &[outputs], TensorRole::Bias));
        self.push(name, TrainableOp::Conv { weight, bias, window, groups: 1 }, &[input])
    }

    /// Adds a dense layer with `outputs` outputs, with tensors `{name}.weight` and `{name}.bias`.
    ///
    /// # Errors
    /// As [`TrainableNetwork::fixed`].
    pub fn dense(&mut self, name: &str, outputs: usize, input: usize) -> Result<usize, GraphError> {
        let inputs = self.nodes.get(input).map_or(0, |node| node.shape.elements());
        let weight = self.tensor(format!("{name}.weight"), &[outputs, inputs], TensorRole::Weight);
        let bias = Some(self.tensor(format!("{name}.bias"), &[outputs], TensorRole::Bias));
        self.push(name, TrainableOp::Dense { weight, bias }, &[input])
    }

    /// Adds a batch normalization with PyTorch's settings (epsilon 1e-5, momentum 0.1) and tensors `{name}.weight`,
    /// `.bias`, `.running_mean` and `.running_var`.
    ///
    /// # Errors
    /// As [`TrainableNetwork::fixed`].
    pub fn batch_norm(&mut self, name: &str, input: usize) -> Result<usize, GraphError> {
        let channels = self.nodes.get(input).map_or(0, |node| node.shape.channels());
        let parts = [
            ("weight", TensorRole::Scale),
            ("bias", TensorRole::Shift),
            ("running_mean", TensorRole::RunningMean),
            ("running_var", TensorRole::RunningVariance),
        ];
        let [scale, shift, mean, variance] =
            parts.map(|(part, role)| self.tensor(format!("{name}.{part}"), &[channels], role));
        let norm = BatchNorm { scale, shift, mean, variance, epsilon: 1e-5, momentum: 0.1 };
        self.push(name, TrainableOp::BatchNorm(norm), &[input])
    }

    /// Adds an activation.
    ///
    /// # Errors
    /// As [`TrainableNetwork::fixed`].
    pub fn activation(&mut self, name: &str, activation: Activation, input: usize) -> Result<usize, GraphError> {
        self.fixed(name, Op::Activation(activation), &[input])
    }

    /// Adds the sum of two tensors.
    ///
    /// # Errors
    /// As [`TrainableNetwork::fixed`].
    pub fn add(&mut self, name: &str, inputs: [usize; 2]) -> Result<usize, GraphError> {
        self.fixed(name, Op::Binary(Binary::Add), &inputs)
    }

    /// Adds the mean of each channel, `[C,H,W]` to `[C]`.
    ///
    /// # Errors
    /// As [`TrainableNetwork::fixed`].
    pub fn global_average(&mut self, name: &str, input: usize) -> Result<usize, GraphError> {
        self.fixed(name, Op::Reduce { kind: Reduce::Mean, axes: vec![1, 2], keep: false }, &[input])
    }

    /// Adds a flattening to a vector.
    ///
    /// # Errors
    /// As [`TrainableNetwork::fixed`].
    pub fn flatten(&mut self, name: &str, input: usize) -> Result<usize, GraphError> {
        self.fixed(name, Op::Reshape(vec![Axis::Infer]), &[input])
    }
}

impl TrainableOp {
    /// The inference operation with the values that `values` returns for its tensors; a batch normalization has none.
    pub(crate) fn with_values<E>(&self, values: impl Fn(TensorId) -> Result<Array, E>) -> Result<Op, E> {
        let optional = |id: &Option<TensorId>| id.map(&values).transpose();
        Ok(match self {
            Self::Conv { weight, bias, window, groups } => {
                Op::Conv(Conv { weight: values(*weight)?, bias: optional(bias)?, window: *window, groups: *groups })
            }
            Self::Dense { weight, bias } => Op::Dense { weight: values(*weight)?, bias: optional(bias)? },
            Self::Affine { scale, shift } => Op::Affine { scale: values(*scale)?, shift: values(*shift)? },
            Self::BatchNorm(norm) => Op::Affine { scale: values(norm.scale)?, shift: values(norm.shift)? },
            Self::Fixed(op) => op.clone(),
        })
    }

    /// The tensors that it reads.
    pub fn tensors(&self) -> Vec<TensorId> {
        match self {
            Self::Conv { weight, bias, .. } | Self::Dense { weight, bias } => {
                std::iter::once(*weight).chain(*bias).collect()
            }
            Self::Affine { scale, shift } => vec![*scale, *shift],
            Self::BatchNorm(norm) => vec![norm.scale, norm.shift, norm.mean, norm.variance],
            Self::Fixed(_) => Vec::new(),
        }
    }
}

impl TrainableNetwork {
    /// Makes the weights of a network trainable: those of convolutions, dense layers of vectors, and scales and shifts
    /// per channel below its first output. Other operations and constants stay as they are.
    ///
    /// # Errors
    /// When the network has no output, or its output is not a vector of logits.
    pub fn from_network(network: &Network) -> Result<(Self, Parameters), GraphError> {
        let mut values = Vec::new();
        let [channels, height, width] = network.input_shape().feature_map().unwrap_or([1, 1, 1]);
        let mut trainable = Self::new([channels, height, width]);
        let outputs: Vec<NodeId> = network.outputs().iter().copied().take(1).collect();
        let mut index = std::collections::HashMap::from([(Network::INPUT, Self::INPUT)]);
        for id in network.below(&outputs) {
            if id == Network::INPUT {
                continue;
            }
            let node = network.node(id);
            let inputs: Vec<usize> = node.inputs.iter().map(|input| index[input]).collect();
            let mut tensor = |part: &str, array: &Array, role| {
                values.push(array.data().to_vec());
                trainable.tensor(format!("{}.{part}", node.name), array.shape(), role)
            };
            let rank = node.inputs.first().map_or(0, |&input| network.node(input).shape.len());
            let (is_vector, is_map) = (rank == 1, rank == 3);
            let op = match &node.op {
                Op::Conv(conv) => TrainableOp::Conv {
                    weight: tensor("weight", &conv.weight, TensorRole::Weight),
                    bias: conv.bias.as_ref().map(|bias| tensor("bias", bias, TensorRole::Bias)),
                    window: conv.window,
                    groups: conv.groups,
                },
                Op::Dense { weight, bias } if is_vector => TrainableOp::Dense {
                    weight: tensor("weight", weight, TensorRole::Weight),
                    bias: bias.as_ref().map(|bias| tensor("bias", bias, TensorRole::Bias)),
                },
                Op::Affine { scale, shift } if is_vector || is_map => TrainableOp::Affine {
                    scale: tensor("weight", scale, TensorRole::Scale),
                    shift: tensor("bias", shift, TensorRole::Shift),
                },
                op => TrainableOp::Fixed(op.clone()),
            };
            index.insert(id, trainable.push_unnamed(&node.name, op, &inputs)?);
        }
        match trainable.nodes.last() {
            Some(node) if node.shape.len() == 1 && trainable.nodes.len() > 1 => {
                let parameters = Parameters::new(values);
                Ok((trainable, parameters))
            }
            _ => Err(GraphError::Trainable("a network to train needs an output of logits [K]".into())),
        }
    }

    /// As `push`; a name that is taken, which constants may have, gets a suffix.
    fn push_unnamed(&mut self, name: &str, op: TrainableOp, inputs: &[usize]) -> Result<usize, GraphError> {
        let taken = |name: &str| self.nodes.iter().any(|node| node.name == name);
        let mut candidates = std::iter::once(name.to_owned()).chain((2..).map(|i| format!("{name}_{i}")));
        let free = candidates.find(|name| !taken(name)).unwrap_or_default();
        self.push(&free, op, inputs)
    }
}
