//! Batch norm folding: batch normalizations and other per-channel factors and summands become part of the layer before
//! them.

use super::graph_builder::{BuilderId, BuilderNode, BuilderOp, GraphBuilder};
use crate::network::{Array, Conv, Op};

/// Folds every affine node into the convolution, dense layer or affine node before it, where no other node reads that
/// one. Only the part of the graph that `roots` depend on is considered. Returns, for each node, the node that holds
/// its values now.
pub(super) fn fold_batch_norm(builder: &mut GraphBuilder, roots: &[BuilderId]) -> Vec<BuilderId> {
    let mut readers = builder.reader_counts(roots);
    let mut moved_to: Vec<BuilderId> = (0..builder.nodes().len()).collect();
    for id in 0..builder.nodes().len() {
        let inputs: Vec<BuilderId> = builder.node(id).inputs.iter().map(|&input| moved_to[input]).collect();
        builder.node_mut(id).inputs.clone_from(&inputs);
        let (BuilderOp::Op(Op::Affine { scale, shift }), &[before]) = (&builder.node(id).op, inputs.as_slice()) else {
            continue;
        };
        if readers[id] == 0 || readers[before] != 1 || builder.node(id).bound.is_some() {
            continue;
        }
        let Some(folded) = fold_into(builder.node(before), scale.data(), shift.data()) else { continue };
        let tensor = builder.node_mut(id).tensor.take();
        let node = builder.node_mut(before);
        (node.op, node.tensor) = (BuilderOp::Op(folded), tensor);
        readers[before] = readers[id];
        moved_to[id] = before;
    }
    moved_to
}

/// `scale * op + shift` as one operation; `None` if there is no such operation.
fn fold_into(node: &BuilderNode, scale: &[f32], shift: &[f32]) -> Option<Op> {
    let BuilderOp::Op(op) = &node.op else { return None };
    match op {
        Op::Conv(conv) => Some(Op::Conv(Conv {
            weight: scale_rows(&conv.weight, scale)?,
            bias: Some(fold_bias(conv.bias.as_ref(), scale, shift)),
            ..conv.clone()
        })),
        Op::Dense { weight, bias } => {
            let bias = Some(fold_bias(bias.as_ref(), scale, shift));
            Some(Op::Dense { weight: scale_rows(weight, scale)?, bias })
        }
        Op::Affine { scale: first, shift: bias } => {
            Some(Op::Affine { scale: scale_rows(first, scale)?, shift: fold_bias(Some(bias), scale, shift) })
        }
        Op::Normalize(normalize) => {
            let mut axes = vec![1; node.shape.len()];
            *axes.first_mut()? = scale.len();
            let array = |values: &[f32]| Array::new(axes.clone(), values).ok();
            normalize.then_affine(&array(scale)?, &array(shift)?).map(Op::Normalize)
        }
        Op::Input
        | Op::Constant(_)
        | Op::MatMul
        | Op::Activation(_)
        | Op::Binary(_)
        | Op::Concat { .. }
        | Op::MaxPool(_)
        | Op::AveragePool { .. }
        | Op::Reduce { .. }
        | Op::Pad { .. }
        | Op::Reshape(_)
        | Op::Transpose(_)
        | Op::Slice { .. }
        | Op::Resize(_)
        | Op::Softmax { .. }
        | Op::LogSoftmax { .. } => None,
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
