//! `Pad`.

use super::super::graph_builder::{BuilderId, GraphBuilder};
use super::super::image_tensor::ImageTensor;
use super::super::node_context::{NodeContext, distinct_axes, length};
use crate::network::{Op, PadMode};

/// <https://onnx.ai/onnx/operators/onnx__Pad.html>; parameters are attributes before opset 11, then inputs. Negative
/// pads remove values.
pub(super) fn pad(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let tensor = ctx.image_tensor(0)?;
    let rank = tensor.rank(builder);
    let pads = ctx.ints_or_input("pads", 1)?.ok_or("pads is missing")?;
    let sized = ctx.optional_constant(1)?.is_some_and(|pads| pads.depends_on_image_size());
    let axes = match ctx.optional_constant(3)? {
        Some(axes) => distinct_axes(axes.ints()?, rank)?,
        None => (0..rank).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return Err(format!("{} pads are given for {} axes", pads.len(), axes.len()));
    }
    let mut borders = vec![[0; 2]; rank];
    for (i, &axis) in axes.iter().enumerate() {
        borders[axis] = [pads[i], pads[axes.len() + i]];
    }
    if let Some(batch) = tensor.batch
        && borders.remove(batch) != [0, 0]
    {
        return Err("padding the batch axis is not supported".into());
    }
    let cropped = cropped(builder, tensor.id, &borders, sized)?;
    let positive = |side: usize| borders.iter().map(move |border| length(border[side].max(0), "pads"));
    let before = positive(0).collect::<Result<Vec<_>, _>>()?;
    let after = positive(1).collect::<Result<Vec<_>, _>>()?;
    if before.iter().chain(&after).all(|&n| n == 0) && !sized {
        return Ok(ImageTensor { id: cropped, ..tensor });
    }
    let mode = match ctx.text("mode", "constant")? {
        "constant" => {
            let value = ctx.optional_constant(2)?.map_or_else(|| ctx.float("value", 0.0), |value| value.scalar())?;
            if value.is_nan() {
                return Err("the padding value is NaN".into());
            }
            PadMode::Constant(value)
        }
        "reflect" => PadMode::Reflect,
        "edge" => PadMode::Edge,
        "wrap" => return Ok(ImageTensor { id: wrapped(builder, ctx, cropped, [&before, &after], sized)?, ..tensor }),
        other => return Err(format!("mode {other} is not supported, only constant, reflect, edge and wrap")),
    };
    let id = builder.push_sized(Op::Pad { before, after, mode }, &[cropped], sized)?;
    Ok(ImageTensor { id, ..tensor })
}

/// The tensor without the values that negative pads remove.
fn cropped(
    builder: &mut GraphBuilder,
    input: BuilderId,
    borders: &[[i64; 2]],
    sized: bool,
) -> Result<BuilderId, String> {
    let mut output = input;
    for (axis, border) in borders.iter().enumerate().filter(|(_, border)| border.iter().any(|&pad| pad < 0)) {
        let own = builder.node(output).shape[axis];
        let [start, removed] = border.map(|pad| if pad < 0 { pad.saturating_neg() } else { 0 });
        let (start, removed) = (length(start, "pads")?, length(removed, "pads")?);
        let Some(end) = own.checked_sub(removed).filter(|&end| end > start) else {
            return Err(format!("negative pads remove all {own} values of an axis"));
        };
        // An end that is counted from the end of an axis of another length would be another number.
        let sized = sized || (removed > 0 && builder.depends_on_image_size(output, axis));
        let end = if removed == 0 { usize::MAX } else { end };
        output = builder.push_sized(Op::Slice { axis, start, end, step: 1 }, &[output], sized)?;
    }
    Ok(output)
}

/// The tensor with a border of the values from the other side.
fn wrapped(
    builder: &mut GraphBuilder,
    ctx: &NodeContext,
    input: BuilderId,
    [before, after]: [&[usize]; 2],
    sized: bool,
) -> Result<BuilderId, String> {
    let mut output = input;
    for (axis, (&before, &after)) in before.iter().zip(after).enumerate().filter(|(_, pads)| *pads != (&0, &0)) {
        let own = builder.node(output).shape[axis];
        let count = ctx.checked_elements(&[own.saturating_add(before).saturating_add(after)])?;
        let skipped = own - before % own;
        let indices = (0..count).map(|i| ((i + skipped) % own) as u32).collect();
        let sized = sized || builder.depends_on_image_size(output, axis);
        output = builder.push_sized(Op::Gather { axis, indices }, &[output], sized)?;
    }
    Ok(output)
}
