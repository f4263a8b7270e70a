//! Reshaping.

use super::super::const_tensor::Provenance;
use super::super::graph_builder::GraphBuilder;
use super::super::image_tensor::ImageTensor;
use super::super::node_context::{NodeContext, axis, distinct_axes};
use crate::network::{Axis, Op, Shape};

/// One axis of the file's target shape.
#[derive(Debug, Clone, Copy)]
struct Target {
    /// Its length, where `Copy` counts the axes of the node.
    axis: Axis,
    /// Whether the file says that it is the batch axis.
    is_batch: bool,
    /// Whether its length was computed from the image size.
    sized: bool,
}

impl Target {
    fn new(axis: Axis) -> Self {
        Self { axis, is_batch: false, sized: false }
    }
}

/// <https://onnx.ai/onnx/operators/onnx__Flatten.html>
pub(super) fn flatten(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let tensor = ctx.image_tensor(0)?;
    let rank = tensor.rank(builder);
    let from = match ctx.int("axis")?.unwrap_or(1) {
        axis if axis == rank as i64 => rank,
        from => axis(from, rank)?,
    };
    let outer = Target {
        axis: Axis::Exact(Shape::from(tensor.file_shape(builder)[..from].to_vec()).elements()),
        is_batch: false,
        sized: (0..from).any(|axis| tensor.depends_on_image_size(builder, axis)),
    };
    let targets = match from == rank {
        true => [Target::new(Axis::Infer), Target::new(Axis::Exact(1))],
        false => [outer, Target::new(Axis::Infer)],
    };
    reshape_to(builder, tensor, &targets)
}

/// <https://onnx.ai/onnx/operators/onnx__Reshape.html>
pub(super) fn reshape(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let tensor = ctx.image_tensor(0)?;
    let rank = tensor.rank(builder);
    let zero_copies = !ctx.flag("allowzero")?;
    let mut targets = Vec::new();
    for (i, (value, provenance)) in ctx.constant(1)?.int_dims()?.into_iter().enumerate() {
        let (axis, copies_batch) = match (value, usize::try_from(value)) {
            (-1, _) => (Axis::Infer, false),
            (0, _) if zero_copies && i < rank => match tensor.node_axis(i) {
                Some(axis) => (Axis::Copy(axis), false),
                None => (Axis::Exact(1), true),
            },
            (_, Ok(length)) => (Axis::Exact(length), false),
            _ => return Err(format!("the target shape contains {value}")),
        };
        let is_batch = copies_batch || provenance == Provenance::Batch;
        targets.push(Target { axis, is_batch, sized: provenance == Provenance::ImageSize });
    }
    if let Some(batch) = ctx.batch.filter(|&batch| batch > 1) {
        divide_by_batch(builder, tensor, &mut targets, batch)?;
    }
    reshape_to(builder, tensor, &targets)
}

/// Number of values of one image before the batch axis.
fn values_before_batch(builder: &GraphBuilder, tensor: ImageTensor) -> Option<usize> {
    let shape = &builder.node(tensor.id).shape;
    tensor.batch.map(|batch| shape.iter().take(batch).product())
}

/// Turns the target shape of a file that was exported with a fixed batch into that for a batch of one.
///
/// # Errors
/// When it is unclear which axis contains the batch.
fn divide_by_batch(
    builder: &GraphBuilder,
    tensor: ImageTensor,
    targets: &mut [Target],
    batch: usize,
) -> Result<(), String> {
    let shape = &builder.node(tensor.id).shape;
    let length = |target: &Target| match target.axis {
        Axis::Copy(axis) => shape.get(axis).copied(),
        Axis::Exact(_) if target.is_batch => Some(batch),
        Axis::Exact(length) => Some(length),
        Axis::Infer => None,
    };
    let all = shape.elements().saturating_mul(batch);
    let known = Shape::from(targets.iter().filter_map(length).collect::<Vec<_>>()).elements();
    let names_batch = targets.iter().any(|target| target.is_batch);
    let is_inferred = targets.iter().any(|target| target.axis == Axis::Infer);
    let is_for_one = known == shape.elements() && !is_inferred;
    if names_batch || is_for_one {
        return Ok(());
    }
    let inferred = all.checked_div(known).unwrap_or(0);
    let unclear = || format!("it is unclear where the images of the batch of {batch} are; export a batch of one");
    let before = values_before_batch(builder, tensor).ok_or_else(unclear)?;
    let mut outer = 1usize;
    for target in targets.iter_mut() {
        let length = length(target).unwrap_or(inferred);
        let next = outer.saturating_mul(length);
        // The first axis that reaches beyond the values before the batch contains it.
        if next > before {
            let is_batch = outer == before && length == batch;
            return match target.axis {
                Axis::Infer if inferred % batch == 0 => Ok(()),
                Axis::Exact(length) if length % batch == 0 && (is_batch || !is_inferred) => {
                    *target = Target { axis: Axis::Exact(length / batch), is_batch, sized: target.sized };
                    Ok(())
                }
                _ => Err(unclear()),
            };
        }
        outer = next;
    }
    Err(unclear())
}

/// Reshapes to `targets` for a batch of one, and finds the batch axis of the result.
fn reshape_to(builder: &mut GraphBuilder, tensor: ImageTensor, targets: &[Target]) -> Result<ImageTensor, String> {
    let node = builder.node(tensor.id);
    let mut axes: Vec<Axis> = targets.iter().map(|target| target.axis).collect();
    let lengths = Op::Reshape(axes.clone()).infer(&[&node.shape])?;
    let batch = batch_axis(targets, &lengths, values_before_batch(builder, tensor));
    let mut sized: Vec<bool> = targets.iter().map(|target| target.sized).collect();
    if let Some(batch) = batch {
        axes.remove(batch);
        sized.remove(batch);
    }
    generalize(&mut axes, &node.shape);
    let sized = axes.iter().zip(sized).any(|(axis, sized)| sized && matches!(axis, Axis::Exact(_)));
    Ok(ImageTensor { id: builder.push_reshape(tensor.id, axes, sized)?, batch })
}

/// The axis of length 1 that takes the place of the batch: the one that the file says, or else one that has as many
/// values before it as the batch had. `lengths` are those of all axes.
fn batch_axis(targets: &[Target], lengths: &Shape, before: Option<usize>) -> Option<usize> {
    let free: Vec<usize> = (0..targets.len()).filter(|&axis| lengths[axis] == 1).collect();
    let in_place = |&axis: &usize| match before {
        Some(before) => lengths[..axis].iter().product::<usize>() == before,
        None => axis == 0,
    };
    let find = |accept: &dyn Fn(&usize) -> bool| free.iter().copied().find(|axis| accept(axis));
    find(&|axis| targets[*axis].is_batch && in_place(axis))
        .or_else(|| find(&|axis| targets[*axis].is_batch))
        .or_else(|| find(&|axis| targets[*axis].axis == Axis::Infer && (before.is_none() || in_place(axis))))
        .or_else(|| find(&in_place))
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

/// <https://onnx.ai/onnx/operators/onnx__Squeeze.html>. Without axes every axis of length 1 is removed, but not the batch
/// unless the file fixes its length to 1.
pub(super) fn squeeze(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let tensor = ctx.image_tensor(0)?;
    let shape = tensor.file_shape(builder);
    let removed: Vec<usize> = match ctx.ints_or_input("axes", 1)? {
        Some(axes) => distinct_axes(axes, shape.len())?,
        None => {
            let is_kept = |axis: usize| Some(axis) == tensor.batch && ctx.batch != Some(1);
            (0..shape.len()).filter(|&axis| shape[axis] == 1 && !is_kept(axis)).collect()
        }
    };
    if let Some(&long) = removed.iter().find(|&&axis| shape[axis] != 1) {
        return Err(format!("axis {long} of {shape} cannot be removed, because its length is not 1"));
    }
    let kept: Vec<usize> = (0..shape.len()).filter(|axis| !removed.contains(axis)).collect();
    let batch = kept.iter().position(|&axis| Some(axis) == tensor.batch);
    let own = kept.iter().filter_map(|&axis| tensor.node_axis(axis)).map(Axis::Copy).collect();
    Ok(ImageTensor { id: builder.push_reshape(tensor.id, own, false)?, batch })
}

/// <https://onnx.ai/onnx/operators/onnx__Unsqueeze.html>
pub(super) fn unsqueeze(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let tensor = ctx.image_tensor(0)?;
    let axes = ctx.ints_or_input("axes", 1)?.ok_or("axes is missing")?;
    let rank = tensor.rank(builder) + axes.len();
    let added = distinct_axes(axes, rank)?;
    let mut own = 0..rank - added.len();
    // Without a batch axis, the first new one takes its place.
    let position = |axis: usize, from: Option<usize>| match tensor.batch {
        None => added.iter().min() == Some(&axis),
        batch => from.is_some() && from == batch,
    };
    let (mut batch, mut target) = (None, Vec::with_capacity(rank));
    for axis in 0..rank {
        let from = if added.contains(&axis) { None } else { own.next() };
        if position(axis, from) {
            batch = Some(axis);
        } else {
            target.push(from.and_then(|from| tensor.node_axis(from)).map_or(Axis::Exact(1), Axis::Copy));
        }
    }
    Ok(ImageTensor { id: builder.push_reshape(tensor.id, target, false)?, batch })
}
