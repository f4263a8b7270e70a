//! The same values under another shape, or in another order of axes.

use super::super::call::{Call, axis, distinct_axes, image_axis};
use super::super::draft::{Draft, DraftOp, Id};
use super::super::value::{Dim, Origin};
use crate::network::{Axis, Op, Shape};

/// <https://onnx.ai/onnx/operators/onnx__Flatten.html> to one vector per image.
pub(super) fn flatten(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    let (input, shape) = call.shaped(draft, 0)?;
    let rank = shape.len() + 1;
    let from = match call.int("axis")?.unwrap_or(1) {
        axis if axis == rank as i64 => rank,
        from => axis(from, rank)?,
    };
    let outer_varies = (1..from).any(|axis| shape[axis - 1] != 1 || draft.varies(input, axis - 1));
    if from == 0 || outer_varies {
        return Err(format!("has axis {from}, which does not give one vector per image"));
    }
    draft.push(Op::Reshape(vec![Axis::Infer]), &[input])
}

/// <https://onnx.ai/onnx/operators/onnx__Reshape.html> that leaves the batch axis first.
pub(super) fn reshape(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    let (input, shape) = call.shaped(draft, 0)?;
    let target = call.required(1)?.int_dims()?;
    let Some((&first, rest)) = target.split_first() else { return Err("removes the batch axis".into()) };
    let zero_copies = !call.flag("allowzero")?;
    let mut axes = Vec::with_capacity(rest.len());
    for (i, &(value, origin)) in rest.iter().enumerate() {
        axes.push(match (value, usize::try_from(value)) {
            _ if origin >= Origin::Batch => return Err("makes the length of an axis depend on the batch".into()),
            (-1, _) => Axis::Infer,
            (0, _) if zero_copies && i < shape.len() => Axis::Copy(i),
            (_, Ok(length)) => Axis::Exact(length),
            _ => return Err(format!("has a target axis of {value}")),
        });
    }
    keeps_batch(first, &axes, shape, zero_copies, call.batch)?;
    generalize(&mut axes, shape);
    let exact = axes.iter().zip(rest).filter(|(axis, _)| matches!(axis, Axis::Exact(_)));
    let sized = exact.into_iter().any(|(_, &(_, origin))| origin == Origin::Size);
    draft.push_sized(Op::Reshape(axes), &[input], sized)
}

/// Whether the first axis of a reshape's target is the batch again.
fn keeps_batch(
    (value, origin): Dim,
    rest: &[Axis],
    shape: &Shape,
    zero_copies: bool,
    batch: Option<usize>,
) -> Result<(), String> {
    let kept = match value {
        _ if origin == Origin::Batch => true,
        _ if origin == Origin::Mixed => false,
        0 => zero_copies,
        -1 => Op::Reshape(rest.to_vec()).infer(&[shape]).is_ok_and(|_| !rest.contains(&Axis::Infer)),
        // Exported for one image: the axis stays the batch when the values of an image stay together.
        value => value == 1 || usize::try_from(value).ok() == batch,
    };
    if kept { Ok(()) } else { Err(format!("moves values of {shape} across the images of a batch")) }
}

/// Fixed lengths that merely repeat an axis of the input become copies of it, and a single other one is inferred, so that
/// the network also works at other image sizes.
fn generalize(axes: &mut [Axis], shape: &Shape) {
    let Ok(output) = Op::Reshape(axes.to_vec()).infer(&[shape]) else { return };
    let (mut i, mut j, mut read, mut written) = (0, 0, 1, 1);
    while i < shape.len() && j < output.len() {
        if read == written && shape[i] == output[j] {
            if matches!(axes[j], Axis::Exact(_)) {
                axes[j] = Axis::Copy(i);
            }
            (read, written) = (read * shape[i], written * output[j]);
            (i, j) = (i + 1, j + 1);
        } else if (read, output[j]) == (written, 1) || written < read {
            written *= output[j];
            j += 1;
        } else {
            read *= shape[i];
            i += 1;
        }
    }
    let exact: Vec<usize> = (0..axes.len()).filter(|&j| matches!(axes[j], Axis::Exact(n) if n != 1)).collect();
    if let (&[only], false) = (exact.as_slice(), axes.contains(&Axis::Infer)) {
        axes[only] = Axis::Infer;
    }
}

/// <https://onnx.ai/onnx/operators/onnx__Squeeze.html>; without axes, every axis of length 1 but the batch goes.
pub(super) fn squeeze(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    let (input, shape) = call.shaped(draft, 0)?;
    let removed: Vec<usize> = match call.ints_or_input("axes", 1)? {
        Some(axes) => axes.iter().map(|&a| image_axis(a, shape)).collect::<Result<_, _>>()?,
        None => (0..shape.len()).filter(|&i| shape[i] == 1).collect(),
    };
    if let Some(&long) = removed.iter().find(|&&i| shape[i] != 1) {
        return Err(format!("removes axis {} of {shape}, whose length is not 1", long + 1));
    }
    let kept = (0..shape.len()).filter(|i| !removed.contains(i)).map(Axis::Copy).collect();
    draft.push(Op::Reshape(kept), &[input])
}

/// <https://onnx.ai/onnx/operators/onnx__Unsqueeze.html> behind the batch axis.
pub(super) fn unsqueeze(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    let (input, shape) = call.shaped(draft, 0)?;
    let axes = call.ints_or_input("axes", 1)?.ok_or("has no axes")?;
    let rank = shape.len() + 1 + axes.len();
    let added = distinct_axes(axes, rank)?;
    if added.contains(&0) {
        return Err("adds an axis in front of the batch".into());
    }
    let mut copied = (0..shape.len()).map(Axis::Copy);
    let axes = (1..rank).filter_map(|i| if added.contains(&i) { Some(Axis::Exact(1)) } else { copied.next() });
    draft.push(Op::Reshape(axes.collect()), &[input])
}

/// <https://onnx.ai/onnx/operators/onnx__Transpose.html> that leaves the batch axis first.
pub(super) fn transpose(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    let (input, shape) = call.shaped(draft, 0)?;
    let order = call.ints("perm")?.ok_or("reverses all axes, so that the batch is no longer the first")?;
    match order.split_first() {
        Some((0, rest)) => {
            let order = rest.iter().map(|&a| image_axis(a, shape)).collect::<Result<Vec<_>, _>>()?;
            transposed(draft, input, order)
        }
        _ => Err(format!("has perm {order:?}, which moves the batch axis")),
    }
}

/// Axes in another order; one transposition takes the place of two in a row, and none that of two that undo each other.
fn transposed(draft: &mut Draft, input: Id, order: Vec<usize>) -> Result<Id, String> {
    let (source, order) = match &draft.node(input).op {
        DraftOp::Op(Op::Transpose(first)) if order.iter().all(|&axis| axis < first.len()) => {
            (draft.node(input).inputs[0], order.iter().map(|&axis| first[axis]).collect())
        }
        _ => (input, order),
    };
    if order.len() == draft.node(source).shape.len() && order.iter().copied().eq(0..order.len()) {
        return Ok(source);
    }
    draft.push(Op::Transpose(order), &[source])
}
