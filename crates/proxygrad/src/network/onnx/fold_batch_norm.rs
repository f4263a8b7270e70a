//! Batch norm folding: batch normalizations and other constant factors and summands become part of the layer before
//! them.

use super::graph_builder::{BuilderId, BuilderNode, GraphBuilder};
use crate::network::{Array, Binary, Conv, Op, Shape};

/// Folds every node that only scales and shifts by constants into the convolution, dense layer, normalization or affine
/// node before it, where no other node reads that one. Only the part of the graph that `roots` depend on is considered.
/// Returns, for each node, the node that holds its values now.
pub(super) fn fold_batch_norm(builder: &mut GraphBuilder, roots: &[BuilderId]) -> Vec<BuilderId> {
    let mut readers = builder.reader_counts(roots);
    let mut moved_to: Vec<BuilderId> = (0..builder.nodes().len()).collect();
    for id in 0..builder.nodes().len() {
        let inputs: Vec<BuilderId> = builder.node(id).inputs.iter().map(|&input| moved_to[input]).collect();
        builder.node_mut(id).inputs = inputs;
        let Some(ScaleAndShift { before, scale, shift }) = ScaleAndShift::of(builder, id) else { continue };
        if readers[id] == 0 || readers[before] != 1 || builder.node(id).bound.is_some() {
            continue;
        }
        let Some(folded) = fold_into(builder.node(before), &scale, &shift) else { continue };
        let tensor = builder.node_mut(id).tensor.take();
        let node = builder.node_mut(before);
        (node.op, node.tensor) = (folded, tensor);
        readers[before] = readers[id];
        moved_to[id] = before;
    }
    moved_to
}

/// `scale * before + shift` with finite constants along one axis of `before`, which they do not add values to.
struct ScaleAndShift {
    before: BuilderId,
    scale: Array,
    shift: Array,
}

impl ScaleAndShift {
    /// What a node does, if it is of this form.
    fn of(builder: &GraphBuilder, id: BuilderId) -> Option<Self> {
        let node = builder.node(id);
        let number = |value: f32| Array::new([], [value]).ok();
        let map = |array: &Array, f: fn(f32) -> f32| {
            Array::new(array.shape(), array.data().iter().map(|&value| f(value)).collect::<Vec<_>>()).ok()
        };
        let constant = |id: BuilderId| match &builder.node(id).op {
            Op::Constant(array) => Some(array),
            _ => None,
        };
        let (before, scale, shift) = match (&node.op, node.inputs.as_slice()) {
            (Op::Affine { scale, shift }, &[before]) => {
                let mut axes = vec![1; node.shape.len()];
                *axes.first_mut()? = scale.len();
                (before, scale.reshape(axes.clone()).ok()?, shift.reshape(axes).ok()?)
            }
            (Op::Binary(kind), &[a, b]) => match (kind, constant(a), constant(b)) {
                (Binary::Add, Some(array), None) => (b, number(1.0)?, array.clone()),
                (Binary::Add, None, Some(array)) => (a, number(1.0)?, array.clone()),
                (Binary::Sub, Some(array), None) => (b, number(-1.0)?, array.clone()),
                (Binary::Sub, None, Some(array)) => (a, number(1.0)?, map(array, |value| -value)?),
                (Binary::Mul, Some(array), None) => (b, array.clone(), number(0.0)?),
                (Binary::Mul, None, Some(array)) => (a, array.clone(), number(0.0)?),
                (Binary::Div, None, Some(array)) => (a, map(array, |value| 1.0 / value)?, number(0.0)?),
                _ => return None,
            },
            _ => return None,
        };
        let is_fit = |array: &Array| {
            let is_finite = array.data().iter().all(|value| value.is_finite());
            is_finite && array.shape().iter().filter(|&&length| length != 1).count() <= 1
        };
        let fits = builder.node(before).shape == node.shape && is_fit(&scale) && is_fit(&shift);
        fits.then_some(Self { before, scale, shift })
    }
}

/// `scale * op + shift` as one operation; `None` if there is no such operation.
fn fold_into(node: &BuilderNode, scale: &Array, shift: &Array) -> Option<Op> {
    let along = |axis: usize| Some([along(scale, &node.shape, axis)?, along(shift, &node.shape, axis)?]);
    match &node.op {
        Op::Conv(conv) => {
            let [scale, shift] = along(0)?;
            let (weight, bias) = (scale_rows(&conv.weight, &scale)?, fold_bias(conv.bias.as_ref(), &scale, &shift));
            Some(Op::Conv(Conv { weight, bias: Some(bias), ..conv.clone() }))
        }
        Op::Dense { weight, bias } => {
            let [scale, shift] = along(node.shape.len().checked_sub(1)?)?;
            let bias = Some(fold_bias(bias.as_ref(), &scale, &shift));
            Some(Op::Dense { weight: scale_rows(weight, &scale)?, bias })
        }
        Op::Affine { scale: first, shift: bias } => {
            let [scale, shift] = along(0)?;
            Some(Op::Affine { scale: scale_rows(first, &scale)?, shift: fold_bias(Some(bias), &scale, &shift) })
        }
        Op::Normalize(normalize) => normalize.then_affine(scale, shift).map(Op::Normalize),
        Op::Input
        | Op::Constant(_)
        | Op::MatMul
        | Op::Activation(_)
        | Op::Unary(_)
        | Op::Binary(_)
        | Op::Select
        | Op::Concat { .. }
        | Op::MaxPool(_)
        | Op::AveragePool { .. }
        | Op::Reduce { .. }
        | Op::Pad { .. }
        | Op::Reshape(_)
        | Op::Transpose(_)
        | Op::Slice { .. }
        | Op::Gather { .. }
        | Op::Resize(_)
        | Op::Softmax { .. }
        | Op::LogSoftmax { .. }
        | Op::LocalResponse(_)
        | Op::DynamicQuantize => None,
    }
}

/// The values of a constant that broadcasts over `shape`, along one axis; `None` if it varies along another one.
fn along(array: &Array, shape: &Shape, axis: usize) -> Option<Vec<f32>> {
    let missing = shape.len().checked_sub(array.shape().len())?;
    let length = axis.checked_sub(missing).map_or(1, |axis| array.shape()[axis]);
    match array.len() {
        1 => Some(vec![array.data()[0]; shape[axis]]),
        all if all == length => Some(array.data().to_vec()),
        _ => None,
    }
}

/// Weights whose first axis is the output channel, times one factor per channel.
fn scale_rows(weight: &Array, scale: &[f32]) -> Option<Array> {
    let per_channel = weight.len().checked_div(scale.len())?;
    let rows = weight.data().chunks(per_channel.max(1)).zip(scale);
    let data: Vec<f32> = rows.flat_map(|(row, &factor)| row.iter().map(move |w| w * factor)).collect();
    Array::new(weight.shape(), data).ok()
}

/// `scale * bias + shift`
fn fold_bias(bias: Option<&Array>, scale: &[f32], shift: &[f32]) -> Array {
    let bias = |i: usize| bias.map_or(0.0, |bias| bias.data()[i]);
    let both = scale.iter().zip(shift).enumerate();
    // The product is exact in f64, so the sum is rounded only once.
    let data: Vec<f32> = both.map(|(i, (&a, &b))| (f64::from(a) * f64::from(bias(i)) + f64::from(b)) as f32).collect();
    Array::vector(data)
}
