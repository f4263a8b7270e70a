//! Operations of a network, and shape inference.
//!
//! The importer lowers every exporter's dialect to this set; an engine implements exactly this set. Axes never count
//! the batch: axis 0 is the channel axis of `[C,H,W]`.

use std::sync::Arc;

use super::activation::Activation;
use super::array::Array;
use super::elementwise::{Binary, Unary};
use super::error::ShapeError;
use super::local_response::LocalResponse;
use super::normalize::Normalize;
use super::resize::Resize;
use super::shape::Shape;
use super::window::Window;

/// Maximum number of values of one tensor of one image: 4 GiB in f32.
const MAX_ELEMENTS: usize = 1 << 30;

/// Maximum number of axes of a tensor, not counting the batch.
const MAX_AXES: usize = 15;

/// One operation with its weights.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Op {
    /// The image, `[C,H,W]`.
    Input,
    /// A tensor that does not depend on the image; broadcasts over the batch.
    Constant(Array),
    /// 2-D convolution (cross-correlation) of a `[C,H,W]` map.
    Conv(Conv),
    /// `weight * x + bias` of every vector along the last axis: `[..., I]` becomes `[..., O]`.
    Dense {
        /// `[O,I]`.
        weight: Array,
        /// `[O]`.
        bias: Option<Array>,
    },
    /// Matrix products of two inputs, `[..., M, K]` times `[..., K, N]`; the axes before the matrices are broadcast.
    MatMul,
    /// `scale * x + shift` per channel: a batch normalization that could not be folded into a convolution.
    Affine {
        /// `[C]`.
        scale: Array,
        /// `[C]`.
        shift: Array,
    },
    /// An elementwise nonlinearity; the only operation whose backward rule a gate replaces.
    Activation(Activation),
    /// An elementwise function that is no activation.
    Unary(Unary),
    /// Elementwise arithmetic or a comparison on two inputs, with broadcasting.
    Binary(Binary),
    /// Elementwise selection from three inputs, with broadcasting: the second where the first, which gets no gradient,
    /// is not 0, else the third.
    Select,
    /// Concatenation along `axis`.
    Concat {
        /// Axis along which the inputs are joined.
        axis: usize,
    },
    /// Largest value of each window; padding counts as minus infinity.
    MaxPool(Window),
    /// Mean of each window.
    AveragePool {
        /// The sliding window.
        window: Window,
        /// Whether padding is included in the divisor.
        count_padding: bool,
    },
    /// Reduction of whole axes, such as global pooling.
    Reduce {
        /// How the values are combined.
        kind: Reduce,
        /// Axes that are reduced, ascending.
        axes: Vec<usize>,
        /// Whether reduced axes are kept with length 1.
        keep: bool,
    },
    /// A border around the tensor.
    Pad {
        /// Values added before each axis.
        before: Vec<usize>,
        /// Values added after each axis.
        after: Vec<usize>,
        /// Values of the border.
        mode: PadMode,
    },
    /// The same values in another shape.
    Reshape(Vec<Axis>),
    /// Axes in another order: output axis `i` is input axis `order[i]`.
    Transpose(Vec<usize>),
    /// Every `step`-th index of `start..end` along `axis`.
    Slice {
        /// Sliced axis.
        axis: usize,
        /// First index.
        start: usize,
        /// One past the last index; larger values mean the axis' end.
        end: usize,
        /// Distance between two selected indices, at least 1.
        step: usize,
    },
    /// The given indices of `axis`, in this order, any number of times each.
    Gather {
        /// Axis that is indexed.
        axis: usize,
        /// Index in the input of each index in the output.
        indices: Arc<[u32]>,
    },
    /// Interpolation of a `[C,H,W]` map to another height and width.
    Resize(Resize),
    /// Layer, group, instance and root mean square normalization, and division by an L1 or L2 norm.
    Normalize(Normalize),
    /// Local response normalization across channels.
    LocalResponse(LocalResponse),
    /// `exp(x) / sum(exp(x))` along `axis`.
    Softmax {
        /// Normalized axis.
        axis: usize,
    },
    /// `x - log(sum(exp(x)))` along `axis`: the logarithm of a softmax.
    LogSoftmax {
        /// Normalized axis.
        axis: usize,
    },
    /// The nearest of 256 levels between the smallest and the largest value of an image, see
    /// [`DynamicLevels`](super::DynamicLevels). The derivative is passed straight through as 1.
    DynamicQuantize,
}

/// Parameters of a convolution.
#[derive(Debug, Clone)]
pub struct Conv {
    /// `[O, C/groups, kh, kw]`.
    pub weight: Array,
    /// `[O]`.
    pub bias: Option<Array>,
    /// The sliding window; its kernel is `[kh, kw]`.
    pub window: Window,
    /// Number of independent groups of channels; `C` of them for a depthwise convolution.
    pub groups: usize,
}

/// Ways to reduce an axis to one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reduce {
    /// Arithmetic mean.
    Mean,
    /// Sum.
    Sum,
    /// Largest value.
    Max,
    /// Smallest value.
    Min,
    /// Product.
    Product,
    /// Sum of absolute values.
    L1,
    /// Square root of the sum of squares. Where it is 0, so is its gradient.
    L2,
    /// Logarithm of the sum of exponentials.
    LogSumExp,
}

/// Values of a border.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum PadMode {
    /// One value everywhere.
    Constant(f32),
    /// The tensor reflected at its edge, without repeating the edge.
    Reflect,
    /// The edge value repeated.
    Edge,
}

/// One axis of a [`Op::Reshape`] target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// The length of the input's axis with this index.
    Copy(usize),
    /// This length.
    Exact(usize),
    /// The length that keeps the number of values; at most one axis.
    Infer,
}

impl Op {
    /// Name as in layer listings: `conv`, `relu`, `max-pool`, …
    pub fn name(&self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Constant(_) => "constant",
            Self::Conv(conv) if conv.groups > 1 && conv.weight.shape().get(1) == Some(&1) => "depthwise-conv",
            Self::Conv(_) => "conv",
            Self::Dense { .. } => "dense",
            Self::MatMul => "matmul",
            Self::Affine { .. } => "affine",
            Self::Activation(activation) => activation.name(),
            Self::Unary(function) => function.name(),
            Self::Binary(kind) => kind.name(),
            Self::Select => "select",
            Self::Concat { .. } => "concat",
            Self::MaxPool(_) => "max-pool",
            Self::AveragePool { .. } => "average-pool",
            Self::Reduce { kind: Reduce::Mean, .. } => "mean",
            Self::Reduce { kind: Reduce::Sum, .. } => "sum",
            Self::Reduce { kind: Reduce::Max, .. } => "max",
            Self::Reduce { kind: Reduce::Min, .. } => "min",
            Self::Reduce { kind: Reduce::Product, .. } => "product",
            Self::Reduce { kind: Reduce::L1, .. } => "l1",
            Self::Reduce { kind: Reduce::L2, .. } => "l2",
            Self::Reduce { kind: Reduce::LogSumExp, .. } => "log-sum-exp",
            Self::Pad { .. } => "pad",
            Self::Reshape(_) => "reshape",
            Self::Transpose(_) => "transpose",
            Self::Slice { .. } => "slice",
            Self::Gather { .. } => "gather",
            Self::Resize(_) => "resize",
            Self::Normalize(normalize) => normalize.name(),
            Self::LocalResponse(_) => "local-response-norm",
            Self::Softmax { .. } => "softmax",
            Self::LogSoftmax { .. } => "log-softmax",
            Self::DynamicQuantize => "dynamic-quantize",
        }
    }

    /// Whether it is a softmax or its logarithm.
    pub fn is_softmax(&self) -> bool {
        matches!(self, Self::Softmax { .. } | Self::LogSoftmax { .. })
    }

    /// Infers the shape of the output from the shapes of the inputs.
    ///
    /// # Errors
    /// When the operation does not accept these inputs, or its output would be empty or too large.
    pub fn infer(&self, inputs: &[&Shape]) -> Result<Shape, ShapeError> {
        let shape = self.infer_unchecked(inputs)?;
        match shape.elements() {
            0 => Err(ShapeError::Output(format!("outputs an empty tensor {shape}"))),
            elements if elements > MAX_ELEMENTS => {
                Err(ShapeError::Output(format!("outputs {shape}, more than {MAX_ELEMENTS} values")))
            }
            _ if shape.len() > MAX_AXES => Err(ShapeError::Output(format!("outputs a tensor of {} axes", shape.len()))),
            _ => Ok(shape),
        }
    }

    fn infer_unchecked(&self, inputs: &[&Shape]) -> Result<Shape, ShapeError> {
        let arity = match self {
            Self::Input | Self::Constant(_) => 0,
            Self::Binary(_) | Self::MatMul => 2,
            Self::Select => 3,
            Self::Concat { .. } => inputs.len().max(1),
            Self::Conv(_)
            | Self::Dense { .. }
            | Self::Affine { .. }
            | Self::Activation(_)
            | Self::Unary(_)
            | Self::MaxPool(_)
            | Self::AveragePool { .. }
            | Self::Reduce { .. }
            | Self::Pad { .. }
            | Self::Reshape(_)
            | Self::Transpose(_)
            | Self::Slice { .. }
            | Self::Gather { .. }
            | Self::Resize(_)
            | Self::Normalize(_)
            | Self::LocalResponse(_)
            | Self::Softmax { .. }
            | Self::LogSoftmax { .. }
            | Self::DynamicQuantize => 1,
        };
        if inputs.len() != arity {
            return Err(ShapeError::Arity { expected: arity, found: inputs.len() });
        }
        match self {
            Self::Input => Err(ShapeError::Parameter("is only allowed as the first node of a network".into())),
            Self::Constant(array) => Ok(array.shape().to_vec().into()),
            Self::Conv(conv) => conv.infer(inputs[0]),
            Self::Dense { weight, bias } => infer_dense(weight.shape(), bias.as_ref().map(Array::len), inputs[0]),
            Self::MatMul => infer_mat_mul(inputs[0], inputs[1]),
            Self::Affine { scale, shift } => {
                let channels = inputs[0].channels();
                if scale.len() != channels || shift.len() != channels {
                    let (scales, shifts) = (scale.len(), shift.len());
                    let why = format!("has {scales} scales and {shifts} shifts for {channels} channels");
                    return Err(ShapeError::Weights(why));
                }
                Ok(inputs[0].clone())
            }
            Self::Activation(activation) => activation.check(inputs[0]).map(|()| inputs[0].clone()),
            Self::Unary(_) | Self::DynamicQuantize => Ok(inputs[0].clone()),
            Self::Binary(_) => broadcast(inputs[0], inputs[1]),
            Self::Select => broadcast(inputs[0], &broadcast(inputs[1], inputs[2])?),
            Self::Concat { axis } => infer_concat(*axis, inputs),
            Self::MaxPool(window) | Self::AveragePool { window, .. } => {
                let map = feature_map(inputs[0])?;
                let [height, width] = infer_window(window, map)?;
                Ok([map[0], height, width].into())
            }
            Self::Reduce { axes, keep, .. } => infer_reduce(axes, *keep, inputs[0]),
            Self::Pad { before, after, mode } => infer_pad(before, after, *mode, inputs[0]),
            Self::Reshape(target) => infer_reshape(target, inputs[0]),
            Self::Transpose(order) => {
                let mut sorted = order.clone();
                sorted.sort_unstable();
                if !sorted.iter().copied().eq(0..inputs[0].len()) {
                    let why = format!("order {order:?} does not permute the axes of {}", inputs[0]);
                    return Err(ShapeError::Parameter(why));
                }
                Ok(order.iter().map(|&axis| inputs[0][axis]).collect::<Vec<_>>().into())
            }
            Self::Slice { axis, start, end, step } => infer_slice(*axis, *start, *end, *step, inputs[0]),
            Self::Gather { axis, indices } => infer_gather(*axis, indices, inputs[0]),
            Self::Resize(resize) => {
                let [channels, height, width] = feature_map(inputs[0])?;
                let [height, width] = resize.output([height, width])?;
                Ok([channels, height, width].into())
            }
            Self::Normalize(normalize) => normalize.infer(inputs[0]),
            Self::LocalResponse(norm) => norm.infer(inputs[0]),
            Self::Softmax { axis } | Self::LogSoftmax { axis } => {
                check_axis(*axis, inputs[0])?;
                Ok(inputs[0].clone())
            }
        }
    }
}

impl Conv {
    /// Number of input channels.
    pub fn in_channels(&self) -> usize {
        self.weight.shape()[1] * self.groups
    }

    /// Number of output channels.
    pub fn out_channels(&self) -> usize {
        self.weight.shape()[0]
    }

    fn infer(&self, input: &Shape) -> Result<Shape, ShapeError> {
        infer_conv(self.weight.shape(), self.bias.as_ref().map(Array::len), &self.window, self.groups, input)
    }
}

/// Shape of the output of a convolution with weights of this shape and this number of biases.
pub(super) fn infer_conv(
    weight: &[usize],
    biases: Option<usize>,
    window: &Window,
    groups: usize,
    input: &Shape,
) -> Result<Shape, ShapeError> {
    let map @ [channels, ..] = feature_map(input)?;
    let &[out, per_group, kh, kw] = weight else {
        return Err(ShapeError::Weights(format!("needs weights [O,C,kh,kw], not {weight:?}")));
    };
    if [kh, kw] != window.kernel {
        let why = format!("has weights of {kh}x{kw} for a window of {:?}", window.kernel);
        return Err(ShapeError::Weights(why));
    }
    if groups == 0 || per_group.saturating_mul(groups) != channels || out % groups != 0 {
        return Err(ShapeError::Weights(format!(
            "has weights {weight:?} in {groups} groups, which do not fit {channels} input channels"
        )));
    }
    if biases.is_some_and(|biases| biases != out) {
        return Err(ShapeError::Weights(format!("needs {out} biases")));
    }
    let [height, width] = infer_window(window, map)?;
    Ok([out, height, width].into())
}

fn feature_map(shape: &Shape) -> Result<[usize; 3], ShapeError> {
    let expected = || ShapeError::Input { expected: "a feature map [C,H,W]".into(), found: shape.to_string() };
    shape.feature_map().ok_or_else(expected)
}

/// Height and width of the output of a window that slides over a map `[C,H,W]`.
fn infer_window(window: &Window, [channels, height, width]: [usize; 3]) -> Result<[usize; 2], ShapeError> {
    let sum = |i: usize, size: usize| size.saturating_add(window.before()[i]).saturating_add(window.after()[i]);
    let padded = Shape::from([channels, sum(0, height), sum(1, width)]);
    if padded.elements() > MAX_ELEMENTS {
        return Err(ShapeError::Output(format!("pads its input to {padded}, more than {MAX_ELEMENTS} values")));
    }
    window.output([height, width])
}

fn check_axis(axis: usize, shape: &Shape) -> Result<(), ShapeError> {
    if axis < shape.len() { Ok(()) } else { Err(ShapeError::Axis { axis, shape: shape.clone() }) }
}

/// Shape of the output of a dense layer with weights of this shape and this number of biases.
pub(super) fn infer_dense(weight: &[usize], biases: Option<usize>, input: &Shape) -> Result<Shape, ShapeError> {
    let &[out, features] = weight else {
        return Err(ShapeError::Weights(format!("needs weights [O,I], not {weight:?}")));
    };
    let Some((&found, positions)) = input.split_last() else {
        let expected = format!("vectors of {features} values");
        return Err(ShapeError::Input { expected, found: input.to_string() });
    };
    if features != found {
        let expected = format!("{features} values along the last axis");
        return Err(ShapeError::Input { expected, found: input.to_string() });
    }
    if biases.is_some_and(|biases| biases != out) {
        return Err(ShapeError::Weights(format!("needs {out} biases")));
    }
    Ok([positions, &[out]].concat().into())
}

/// See [`Op::MatMul`].
fn infer_mat_mul(a: &Shape, b: &Shape) -> Result<Shape, ShapeError> {
    let misfit = || ShapeError::MatMul(a.clone(), b.clone());
    let ([outer_a @ .., rows, inner], [outer_b @ .., height, columns]) = (&a[..], &b[..]) else {
        return Err(misfit());
    };
    if inner != height {
        return Err(misfit());
    }
    let outer = broadcast(&outer_a.to_vec().into(), &outer_b.to_vec().into()).map_err(|_| misfit())?;
    Ok([&outer[..], &[*rows, *columns]].concat().into())
}

/// NumPy broadcasting: shapes are aligned at the last axis, and axes of length 1 repeat.
pub(crate) fn broadcast(a: &Shape, b: &Shape) -> Result<Shape, ShapeError> {
    let rank = a.len().max(b.len());
    let axis = |shape: &Shape, i: usize| (i + shape.len()).checked_sub(rank).map_or(1, |i| shape[i]);
    (0..rank)
        .map(|i| match (axis(a, i), axis(b, i)) {
            (x, y) if x == y => Ok(x),
            (1, y) => Ok(y),
            (x, 1) => Ok(x),
            _ => Err(ShapeError::Broadcast(a.clone(), b.clone())),
        })
        .collect::<Result<Vec<_>, _>>()
        .map(Shape::from)
}

fn infer_concat(axis: usize, inputs: &[&Shape]) -> Result<Shape, ShapeError> {
    let Some((first, rest)) = inputs.split_first() else {
        return Err(ShapeError::Arity { expected: 1, found: 0 });
    };
    check_axis(axis, first)?;
    let mut joined = first.to_vec();
    for shape in rest {
        let fits = shape.len() == first.len() && (0..first.len()).all(|i| i == axis || shape[i] == first[i]);
        if !fits {
            return Err(ShapeError::Concat { first: (*first).clone(), other: (*shape).clone(), axis });
        }
        joined[axis] = joined[axis].saturating_add(shape[axis]);
    }
    Ok(joined.into())
}

fn infer_reduce(axes: &[usize], keep: bool, input: &Shape) -> Result<Shape, ShapeError> {
    for &axis in axes {
        check_axis(axis, input)?;
    }
    let kept = input.iter().enumerate().filter_map(|(i, &length)| match (axes.contains(&i), keep) {
        (false, _) => Some(length),
        (true, true) => Some(1),
        (true, false) => None,
    });
    Ok(kept.collect::<Vec<_>>().into())
}

fn infer_pad(before: &[usize], after: &[usize], mode: PadMode, input: &Shape) -> Result<Shape, ShapeError> {
    if before.len() != input.len() || after.len() != input.len() {
        return Err(ShapeError::Parameter(format!("pads {} axes of {input}", before.len())));
    }
    let mut reaches = input.iter().zip(before.iter().zip(after).map(|(b, a)| b.max(a)));
    let too_far = |(length, reach): (&usize, &usize)| match mode {
        PadMode::Constant(_) => false,
        PadMode::Reflect => reach >= length,
        PadMode::Edge => *length == 0 && *reach > 0,
    };
    if reaches.any(too_far) {
        let why = format!("cannot mirror {before:?}/{after:?} values of {input}");
        return Err(ShapeError::Parameter(why));
    }
    let sum = |(n, (b, a)): (&usize, (&usize, &usize))| n.saturating_add(*b).saturating_add(*a);
    Ok(input.iter().zip(before.iter().zip(after)).map(sum).collect::<Vec<_>>().into())
}

fn infer_reshape(target: &[Axis], input: &Shape) -> Result<Shape, ShapeError> {
    let mut lengths = Vec::with_capacity(target.len());
    let mut inferred = None;
    for (i, axis) in target.iter().enumerate() {
        lengths.push(match *axis {
            Axis::Copy(from) => {
                *input.get(from).ok_or_else(|| ShapeError::Axis { axis: from, shape: input.clone() })?
            }
            Axis::Exact(length) => length,
            Axis::Infer if inferred.replace(i).is_none() => 1,
            Axis::Infer => return Err(ShapeError::Parameter("can infer only one axis".into())),
        });
    }
    let known = Shape::from(lengths.clone()).elements();
    if let Some(i) = inferred {
        lengths[i] = input.elements().checked_div(known).unwrap_or(0);
    }
    let shape = Shape::from(lengths);
    if shape.elements() != input.elements() {
        return Err(ShapeError::Reshape { from: input.clone(), to: shape });
    }
    Ok(shape)
}

fn infer_slice(axis: usize, start: usize, end: usize, step: usize, input: &Shape) -> Result<Shape, ShapeError> {
    check_axis(axis, input)?;
    let end = end.min(input[axis]);
    if step == 0 || start >= end {
        return Err(ShapeError::Parameter(format!("selects nothing: {start}..{end} in steps of {step}")));
    }
    let mut shape = input.to_vec();
    shape[axis] = (end - start).div_ceil(step);
    Ok(shape.into())
}

fn infer_gather(axis: usize, indices: &[u32], input: &Shape) -> Result<Shape, ShapeError> {
    check_axis(axis, input)?;
    if let Some(outside) = indices.iter().find(|&&index| index as usize >= input[axis]) {
        return Err(ShapeError::Parameter(format!("reads index {outside} of axis {axis} of {input}")));
    }
    let mut shape = input.to_vec();
    shape[axis] = indices.len();
    Ok(shape.into())
}
