//! Batch normalizations and other per-channel factors and summands become a part of the layer before them.

use super::draft::{Draft, DraftOp, Id};
use crate::network::{Array, Conv, Op};

/// Folds every affine node into the convolution, dense layer or affine node that it alone reads, in the part of the draft
/// that `roots` depend on. Tells for each node where its values are found now: perhaps in the layer before.
pub(super) fn fold(draft: &mut Draft, roots: &[Id]) -> Vec<Id> {
    let mut readers = draft.readers(roots);
    let mut moved: Vec<Id> = (0..draft.nodes().len()).collect();
    for id in 0..draft.nodes().len() {
        let inputs: Vec<Id> = draft.node(id).inputs.iter().map(|&input| moved[input]).collect();
        draft.node_mut(id).inputs.clone_from(&inputs);
        let (DraftOp::Op(Op::Affine { scale, shift }), &[before]) = (&draft.node(id).op, inputs.as_slice()) else {
            continue;
        };
        if readers[id] == 0 || readers[before] != 1 || draft.node(id).bound.is_some() {
            continue;
        }
        let Some(folded) = folded(&draft.node(before).op, scale.data(), shift.data()) else { continue };
        let tensor = draft.node_mut(id).tensor.take();
        let node = draft.node_mut(before);
        (node.op, node.tensor) = (DraftOp::Op(folded), tensor);
        readers[before] = readers[id];
        moved[id] = before;
    }
    moved
}

/// `scale * op + shift` as one operation.
fn folded(op: &DraftOp, scale: &[f32], shift: &[f32]) -> Option<Op> {
    match op {
        DraftOp::Op(Op::Conv(conv)) => Some(Op::Conv(Conv {
            weight: scaled(&conv.weight, scale)?,
            bias: Some(moved(conv.bias.as_ref(), scale, shift)),
            ..conv.clone()
        })),
        DraftOp::Op(Op::Dense { weight, bias }) => {
            let bias = Some(moved(bias.as_ref(), scale, shift));
            Some(Op::Dense { weight: scaled(weight, scale)?, bias })
        }
        DraftOp::Op(Op::Affine { scale: first, shift: then }) => {
            Some(Op::Affine { scale: scaled(first, scale)?, shift: moved(Some(then), scale, shift) })
        }
        _ => None,
    }
}

/// Weights whose first axis is the output channel, times one factor per channel.
fn scaled(weight: &Array, scale: &[f32]) -> Option<Array> {
    let per_channel = weight.len().checked_div(scale.len())?;
    let rows = weight.data().chunks(per_channel.max(1)).zip(scale);
    let data: Vec<f32> = rows.flat_map(|(row, &factor)| row.iter().map(move |w| w * factor)).collect();
    Array::new(weight.shape(), data).ok()
}

fn moved(bias: Option<&Array>, scale: &[f32], shift: &[f32]) -> Array {
    let bias = |i: usize| bias.map_or(0.0, |bias| bias.data()[i]);
    let both = scale.iter().zip(shift).enumerate();
    // A product in f64 is exact, so that the sum is rounded once.
    let data: Vec<f32> = both.map(|(i, (&a, &b))| (f64::from(a) * f64::from(bias(i)) + f64::from(b)) as f32).collect();
    Array::vector(data)
}
