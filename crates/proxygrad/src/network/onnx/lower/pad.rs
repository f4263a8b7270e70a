//! `Pad`.

use super::super::graph_builder::GraphBuilder;
use super::super::image_tensor::ImageTensor;
use super::super::node_context::{NodeContext, distinct_axes, length};
use crate::network::{Op, PadMode};

/// <https://onnx.ai/onnx/operators/onnx__Pad.html>; parameters are attributes before opset 11, then inputs.
pub(super) fn pad(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let tensor = ctx.image_tensor(0)?;
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
        other => return Err(format!("mode {other} is not supported, only constant, reflect and edge")),
    };
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
    let (mut before, mut after) = (vec![0; rank], vec![0; rank]);
    for (i, &axis) in axes.iter().enumerate() {
        before[axis] = length(pads[i], "pads")?;
        after[axis] = length(pads[axes.len() + i], "pads")?;
    }
    if let Some(batch) = tensor.batch
        && before.remove(batch) + after.remove(batch) > 0
    {
        return Err("padding the batch axis is not supported".into());
    }
    if before.iter().chain(&after).all(|&n| n == 0) && !sized {
        return Ok(tensor);
    }
    let id = builder.push_sized(Op::Pad { before, after, mode }, &[tensor.id], sized)?;
    Ok(ImageTensor { id, ..tensor })
}
