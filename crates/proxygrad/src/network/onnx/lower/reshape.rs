//! Reshaping and transposing.

use super::super::const_tensor::{Dim, Provenance};
use super::super::graph_builder::{BuilderId, BuilderOp, GraphBuilder};
use super::super::node_context::{NodeContext, axis, distinct_axes, image_axis};
use crate::network::{Axis, Op, Shape};

/// <https://onnx.ai/onnx/operators/onnx__Flatten.html> to one vector per image.
pub(super) fn flatten(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let (input, shape) = ctx.dynamic_with_shape(builder, 0)?;
    let rank = shape.len() + 1;
    let from = match ctx.int("axis")?.unwrap_or(1) {
        axis if axis == rank as i64 => rank,
        from => axis(from, rank)?,
    };
    let outer_varies = (1..from).any(|axis| shape[axis - 1] != 1 || builder.depends_on_image_size(input, axis - 1));
    if from == 0 || outer_varies {
        return Err(format!("axis {from} does not result in one vector per image"));
    }
    builder.push(Op::Reshape(vec![Axis::Infer]), &[input])
}

/// <https://onnx.ai/onnx/operators/onnx__Reshape.html> that keeps the batch axis first.
pub(super) fn reshape(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let (input, shape) = ctx.dynamic_with_shape(builder, 0)?;
    let target = ctx.constant(1)?.int_dims()?;
    let Some((&first, rest)) = target.split_first() else { return Err("it would remove the batch axis".into()) };
    let zero_copies = !ctx.flag("allowzero")?;
    let mut axes = Vec::with_capacity(rest.len());
    for (i, &(value, provenance)) in rest.iter().enumerate() {
        axes.push(match (value, usize::try_from(value)) {
            _ if provenance >= Provenance::Batch => {
                return Err("the length of an axis would depend on the batch size".into());
            }
            (-1, _) => Axis::Infer,
            (0, _) if zero_copies && i < shape.len() => Axis::Copy(i),
            (_, Ok(length)) => Axis::Exact(length),
            _ => return Err(format!("the target shape contains {value}")),
        });
    }
    check_batch_axis(first, &axes, shape, zero_copies, ctx.batch)?;
    generalize(&mut axes, shape);
    let exact = axes.iter().zip(rest).filter(|(axis, _)| matches!(axis, Axis::Exact(_)));
    let sized = exact.into_iter().any(|(_, &(_, provenance))| provenance == Provenance::ImageSize);
    builder.push_sized(Op::Reshape(axes), &[input], sized)
}

/// Checks that the first axis of a reshape's target is the batch.
fn check_batch_axis(
    (value, provenance): Dim,
    rest: &[Axis],
    shape: &Shape,
    zero_copies: bool,
    batch: Option<usize>,
) -> Result<(), String> {
    let kept = match value {
        _ if provenance == Provenance::Batch => true,
        _ if provenance == Provenance::BatchDerived => false,
        0 => zero_copies,
        -1 => Op::Reshape(rest.to_vec()).infer(&[shape]).is_ok_and(|_| !rest.contains(&Axis::Infer)),
        // Exported for a fixed batch: the axis is the batch if the values of each image stay together.
        value => value == 1 || usize::try_from(value).ok() == batch,
    };
    if kept { Ok(()) } else { Err(format!("it would move values of {shape} between the images of a batch")) }
}

/// Makes a reshape independent of the image size: fixed lengths that equal an axis of the input become copies of it,
/// and a single remaining one is inferred.
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

/// <https://onnx.ai/onnx/operators/onnx__Squeeze.html>; without axes, every axis of length 1 but the batch is removed.
pub(super) fn squeeze(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let (input, shape) = ctx.dynamic_with_shape(builder, 0)?;
    let removed: Vec<usize> = match ctx.ints_or_input("axes", 1)? {
        Some(axes) => axes.iter().map(|&a| image_axis(a, shape)).collect::<Result<_, _>>()?,
        None => (0..shape.len()).filter(|&i| shape[i] == 1).collect(),
    };
    if let Some(&long) = removed.iter().find(|&&i| shape[i] != 1) {
        return Err(format!("axis {} of {shape} cannot be removed, because its length is not 1", long + 1));
    }
    let kept = (0..shape.len()).filter(|i| !removed.contains(i)).map(Axis::Copy).collect();
    builder.push(Op::Reshape(kept), &[input])
}

/// <https://onnx.ai/onnx/operators/onnx__Unsqueeze.html> after the batch axis.
pub(super) fn unsqueeze(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let (input, shape) = ctx.dynamic_with_shape(builder, 0)?;
    let axes = ctx.ints_or_input("axes", 1)?.ok_or("axes is missing")?;
    let rank = shape.len() + 1 + axes.len();
    let added = distinct_axes(axes, rank)?;
    if added.contains(&0) {
        return Err("it would insert an axis before the batch axis".into());
    }
    let mut copied = (0..shape.len()).map(Axis::Copy);
    let axes = (1..rank).filter_map(|i| if added.contains(&i) { Some(Axis::Exact(1)) } else { copied.next() });
    builder.push(Op::Reshape(axes.collect()), &[input])
}

/// <https://onnx.ai/onnx/operators/onnx__Transpose.html> that keeps the batch axis first.
pub(super) fn transpose(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let (input, shape) = ctx.dynamic_with_shape(builder, 0)?;
    let order = ctx.ints("perm")?.ok_or("perm is missing, so the batch axis would become the last")?;
    match order.split_first() {
        Some((0, rest)) => {
            let order = rest.iter().map(|&a| image_axis(a, shape)).collect::<Result<Vec<_>, _>>()?;
            push_transpose(builder, input, order)
        }
        _ => Err(format!("perm {order:?} moves the batch axis")),
    }
}

/// Transposes `input`. Two transpositions in a row become one, or none if they cancel.
fn push_transpose(builder: &mut GraphBuilder, input: BuilderId, order: Vec<usize>) -> Result<BuilderId, String> {
    let (source, order) = match &builder.node(input).op {
        BuilderOp::Op(Op::Transpose(first)) if order.iter().all(|&axis| axis < first.len()) => {
            (builder.node(input).inputs[0], order.iter().map(|&axis| first[axis]).collect())
        }
        _ => (input, order),
    };
    if order.len() == builder.node(source).shape.len() && order.iter().copied().eq(0..order.len()) {
        return Ok(source);
    }
    builder.push(Op::Transpose(order), &[source])
}
