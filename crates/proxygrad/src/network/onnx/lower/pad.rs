//! `Pad`.

use super::super::call::{Call, distinct_axes, length};
use super::super::draft::{Draft, Id};
use crate::network::{Op, PadMode};

/// <https://onnx.ai/onnx/operators/onnx__Pad.html>; parameters are attributes before opset 11, and inputs since.
pub(super) fn pad(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    let (input, shape) = call.shaped(draft, 0)?;
    let mode = match call.text("mode", "constant")? {
        "constant" => {
            let value = call.value(2)?.map_or_else(|| call.float("value", 0.0), |value| value.scalar())?;
            if value.is_nan() {
                return Err("adds a border that is not a number".into());
            }
            PadMode::Constant(value)
        }
        "reflect" => PadMode::Reflect,
        "edge" => PadMode::Edge,
        other => return Err(format!("has mode {other}; only constant, reflect and edge are supported")),
    };
    let rank = shape.len() + 1;
    let pads = call.ints_or_input("pads", 1)?.ok_or("has no pads")?;
    let sized = call.value(1)?.is_some_and(|pads| pads.is_sized());
    let axes = match call.value(3)? {
        Some(axes) => distinct_axes(axes.ints()?, rank)?,
        None => (0..rank).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return Err(format!("has {} pads for {} axes", pads.len(), axes.len()));
    }
    let (mut before, mut after) = (vec![0; rank], vec![0; rank]);
    for (i, &axis) in axes.iter().enumerate() {
        before[axis] = length(pads[i], "pads")?;
        after[axis] = length(pads[axes.len() + i], "pads")?;
    }
    if before.remove(0) + after.remove(0) > 0 {
        return Err("adds images to the batch".into());
    }
    if before.iter().chain(&after).all(|&n| n == 0) && !sized {
        return Ok(input);
    }
    draft.push_sized(Op::Pad { before, after, mode }, &[input], sized)
}
