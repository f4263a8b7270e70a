//! Slices of tensors, and their concatenation.

use super::super::const_tensor::ConstTensor;
use super::super::graph_builder::{BuilderId, GraphBuilder};
use super::super::image_tensor::ImageTensor;
use super::super::node_context::{NodeContext, Operand, axis, distinct_axes, length};
use super::broadcast::{Aligned, AlignedOperand, align};
use super::positions::read_positions;
use crate::network::{Axis, Op};

/// Smallest end that means the end of the axis, regardless of its length.
const OPEN_END: i64 = i32::MAX as i64;

/// <https://onnx.ai/onnx/operators/onnx__Slice.html> ; parameters are attributes before opset 10.
pub(super) fn slice(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let tensor = ctx.image_tensor(0)?;
    let (mut input, rank) = (tensor.id, tensor.rank(builder));
    let starts = ctx.ints_or_input("starts", 1)?.ok_or("starts is missing")?;
    let ends = ctx.ints_or_input("ends", 2)?.ok_or("ends is missing")?;
    let axes = match ctx.ints_or_input("axes", 3)? {
        Some(axes) => distinct_axes(axes, rank)?,
        None => (0..starts.len().min(rank)).collect(),
    };
    let steps = ctx.optional_constant(4)?.map(ConstTensor::ints).transpose()?;
    let steps = steps.map_or_else(|| vec![1; starts.len()], <[i64]>::to_vec);
    if [ends.len(), axes.len(), steps.len()].iter().any(|&n| n != starts.len()) {
        return Err("starts, ends, axes and steps have different lengths".into());
    }
    let sized = (1..ctx.inputs.len())
        .any(|i| ctx.optional_constant(i).is_ok_and(|value| value.is_some_and(ConstTensor::depends_on_image_size)));
    for (i, &axis) in axes.iter().enumerate() {
        let step = match (length(steps[i], "steps"), tensor.node_axis(axis)) {
            (Ok(0), _) => return Err("step 0 is not allowed".into()),
            (Ok(step), _) => step,
            (Err(_), Some(axis)) if steps[i] < 0 => {
                input = slice_backwards(builder, input, axis, [starts[i], ends[i]], steps[i], sized)?;
                continue;
            }
            (Err(why), _) => return Err(why),
        };
        match tensor.node_axis(axis) {
            Some(axis) => input = slice_axis(builder, input, axis, [starts[i], ends[i]], step, sized)?,
            None if covers_batch([starts[i], ends[i]], ctx.batch) => {}
            None => return Err("slicing the batch axis is not supported".into()),
        }
    }
    Ok(ImageTensor { id: input, ..tensor })
}

/// Whether a slice of the batch axis keeps all images: those of a batch of one, or of the batch that the file was
/// exported with.
fn covers_batch([start, end]: [i64; 2], batch: Option<usize>) -> bool {
    let length = batch.map_or(1, |batch| i64::try_from(batch).unwrap_or(i64::MAX));
    (start == 0 || start <= -length) && end >= length
}

/// Slices one axis; bounds may count from its end.
fn slice_axis(
    builder: &mut GraphBuilder,
    input: BuilderId,
    axis: usize,
    bounds: [i64; 2],
    step: usize,
    sized: bool,
) -> Result<BuilderId, String> {
    let total = builder.node(input).shape[axis];
    let [start, end] = bounds.map(|bound| {
        let counted = if bound < 0 { bound.saturating_add(total as i64).max(0) } else { bound };
        usize::try_from(counted).unwrap_or(usize::MAX)
    });
    let is_size_dependent = builder.depends_on_image_size(input, axis);
    let open = end >= total && (!is_size_dependent || bounds[1] >= OPEN_END);
    let end = if open { usize::MAX } else { end };
    if start == 0 && open && step == 1 {
        return Ok(input);
    }
    let counts_back = is_size_dependent && bounds.iter().any(|&bound| bound < 0);
    builder.push_sized(Op::Slice { axis, start, end, step }, &[input], sized || counts_back)
}

/// Slices one axis from its end to its start.
fn slice_backwards(
    builder: &mut GraphBuilder,
    input: BuilderId,
    axis: usize,
    [start, end]: [i64; 2],
    step: i64,
    sized: bool,
) -> Result<BuilderId, String> {
    let total = builder.node(input).shape[axis] as i64;
    let counted = |bound: i64| if bound < 0 { bound.saturating_add(total) } else { bound };
    let (start, end) = (counted(start).clamp(-1, total - 1), counted(end).clamp(-1, total - 1));
    let step = usize::try_from(step.unsigned_abs()).unwrap_or(usize::MAX);
    let indices: Vec<u32> = (end + 1..=start).rev().step_by(step).map(|index| index as u32).collect();
    let sized = sized || builder.depends_on_image_size(input, axis);
    builder.push_sized(Op::Gather { axis, indices: indices.into() }, &[input], sized)
}

/// <https://onnx.ai/onnx/operators/onnx__Split.html>: sizes are an attribute or input, or the parts are equal.
pub(super) fn split(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<Vec<Operand>, String> {
    let tensor = ctx.image_tensor(0)?;
    let axis = tensor.image_axis(builder, ctx.int("axis")?.unwrap_or(0))?;
    let (input, total) = (tensor.id, builder.node(tensor.id).shape[axis]);
    let sizes: Vec<usize> = match ctx.ints_or_input("split", 1)? {
        Some(sizes) => sizes.iter().map(|&n| length(n, "split")).collect::<Result<_, _>>()?,
        None => {
            let stated = ctx.int("num_outputs")?.and_then(|n| usize::try_from(n).ok());
            let parts = stated.unwrap_or(ctx.node.output.len()).clamp(1, total);
            let size = total.div_ceil(parts);
            (0..parts).map(|i| size.min(total.saturating_sub(i * size))).collect()
        }
    };
    if sizes.iter().sum::<usize>() != total || sizes.len() != ctx.node.output.len() {
        return Err(format!(
            "an axis of length {total} cannot be split into {} parts of {sizes:?}",
            ctx.node.output.len()
        ));
    }
    let sized = builder.depends_on_image_size(input, axis)
        || ctx.optional_constant(1)?.is_some_and(ConstTensor::depends_on_image_size);
    let mut outputs = Vec::with_capacity(sizes.len());
    let mut start = 0;
    for size in sizes {
        let op = Op::Slice { axis, start, end: start + size, step: 1 };
        let id = builder.push_sized(op, &[input], sized)?;
        outputs.push(Operand::Dynamic(ImageTensor { id, ..tensor }));
        start += size;
    }
    Ok(outputs)
}

/// <https://onnx.ai/onnx/operators/onnx__Gather.html> with constant indices, whose shape takes the place of the axis.
pub(super) fn gather(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let mut tensor = ctx.image_tensor(0)?;
    let file_axis = axis(ctx.int("axis")?.unwrap_or(0), tensor.rank(builder))?;
    let value = ctx.constant(1)?;
    if tensor.batch == Some(file_axis) {
        if ctx.batch.is_some_and(|batch| batch > 1) || value.ints()?.iter().any(|i| !matches!(i, 0 | -1)) {
            return Err("selecting images of the batch is not supported".into());
        }
        tensor = tensor.with_batch(builder, None)?;
    }
    let (input, axis) = (tensor.id, tensor.image_axis(builder, file_axis as i64)?);
    let shape = &builder.node(input).shape;
    let (total, rank) = (shape[axis] as i64, shape.len());
    let found = value.ints()?;
    let counts_back = builder.depends_on_image_size(input, axis) && found.iter().any(|&i| i < 0);
    let sized = value.depends_on_image_size() || counts_back;
    let indices: Vec<i64> = found.iter().map(|&i| if i < 0 { i.saturating_add(total) } else { i }).collect();
    if indices.is_empty() {
        return Err("the list of indices is empty".into());
    }
    if let Some(outside) = indices.iter().find(|&&i| !(0..total).contains(&i)) {
        return Err(format!("index {outside} is outside of an axis of length {total}"));
    }
    let indices: Vec<u32> = indices.into_iter().map(|index| index as u32).collect();
    let part = match (rank, evenly_spaced(&indices)) {
        (_, Some((start, end, step))) => builder.push_sized(Op::Slice { axis, start, end, step }, &[input], sized)?,
        // A map that was flattened is read in another order of its axes.
        (1, _) if tensor.batch.is_none() && value.shape().len() > 1 => {
            let target = value.shape().to_vec();
            let id = read_positions(builder, input, indices, &target, sized)?;
            let batch = (target[0] == 1).then_some(0);
            return ImageTensor { id, batch: None }.with_batch(builder, batch);
        }
        _ => builder.push_sized(Op::Gather { axis, indices: indices.into() }, &[input], sized)?,
    };
    let added = value.shape().len();
    let batch = tensor.batch.map(|batch| if file_axis < batch { batch + added - 1 } else { batch });
    if added == 1 {
        return Ok(ImageTensor { id: part, batch });
    }
    let before = (0..axis).map(Axis::Copy);
    let indexed = value.shape().iter().map(|&length| Axis::Exact(length));
    let target = before.chain(indexed).chain((axis + 1..rank).map(Axis::Copy)).collect();
    Ok(ImageTensor { id: builder.push_reshape(part, target, false)?, batch })
}

/// First index, one past the last, and step, if the indices ascend evenly.
fn evenly_spaced(indices: &[u32]) -> Option<(usize, usize, usize)> {
    let (&first, &last) = (indices.first()?, indices.last()?);
    let step = indices.get(1).map_or(Some(1), |second| second.checked_sub(first))?.max(1);
    let is_even = indices.windows(2).all(|pair| pair[0].checked_add(step) == Some(pair[1]));
    is_even.then_some((first as usize, last as usize + 1, step as usize))
}

/// <https://onnx.ai/onnx/operators/onnx__Concat.html>
pub(super) fn concat(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let operands: Vec<&Operand> = (0..ctx.inputs.len())
        .map(|i| ctx.input(i).ok_or_else(|| format!("input number {i} is missing")))
        .collect::<Result<_, _>>()?;
    let tensor = operands.iter().find_map(|input| match input {
        Operand::Dynamic(tensor) => Some(*tensor),
        _ => None,
    });
    let rank = tensor.ok_or("no input depends on the image")?.rank(builder);
    let file_axis = axis(ctx.int("axis")?.ok_or("axis is missing")?, rank)?;
    let Aligned { operands, batch } = align(builder, ctx, &operands, |axis| axis != file_axis)?;
    let axis = batch.map_or(file_axis, |batch| file_axis - usize::from(batch < file_axis));
    let sized = operands.iter().any(AlignedOperand::is_sized);
    let inputs = operands.into_iter().map(|operand| operand.into_node(builder)).collect::<Result<Vec<_>, _>>()?;
    let id = match inputs.as_slice() {
        &[only] => only,
        _ => builder.push_sized(Op::Concat { axis }, &inputs, sized)?,
    };
    Ok(ImageTensor { id, batch })
}
