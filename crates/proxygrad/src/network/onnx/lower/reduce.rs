//! Global pools and reductions.

use super::super::call::{Call, image_axis};
use super::super::draft::{Draft, Id};
use crate::network::{Op, Reduce};

/// <https://onnx.ai/onnx/operators/onnx__GlobalAveragePool.html>
pub(super) fn global_average_pool(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    global(draft, call, Reduce::Mean)
}

/// <https://onnx.ai/onnx/operators/onnx__GlobalMaxPool.html>
pub(super) fn global_max_pool(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    global(draft, call, Reduce::Max)
}

/// <https://onnx.ai/onnx/operators/onnx__ReduceMean.html>
pub(super) fn reduce_mean(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    reduce(draft, call, Reduce::Mean)
}

/// <https://onnx.ai/onnx/operators/onnx__ReduceSum.html>
pub(super) fn reduce_sum(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    reduce(draft, call, Reduce::Sum)
}

/// <https://onnx.ai/onnx/operators/onnx__ReduceMax.html>
pub(super) fn reduce_max(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    reduce(draft, call, Reduce::Max)
}

fn global(draft: &mut Draft, call: &Call, kind: Reduce) -> Result<Id, String> {
    let (input, shape) = call.shaped(draft, 0)?;
    let axes: Vec<usize> = (1..shape.len()).collect();
    if axes.is_empty() {
        return Err(format!("pools over the height and width of {shape}"));
    }
    draft.push(Op::Reduce { kind, axes, keep: true }, &[input])
}

/// The axes are an attribute in older opsets and an input in newer ones.
fn reduce(draft: &mut Draft, call: &Call, kind: Reduce) -> Result<Id, String> {
    let (input, shape) = call.shaped(draft, 0)?;
    let axes = call.ints_or_input("axes", 1)?.unwrap_or_default();
    if axes.is_empty() {
        return match call.flag("noop_with_empty_axes")? {
            true => Ok(input),
            false => Err("reduces over the images of a batch".into()),
        };
    }
    let mut axes = axes.iter().map(|&a| image_axis(a, shape)).collect::<Result<Vec<_>, _>>()?;
    axes.sort_unstable();
    axes.dedup();
    let keep = call.int("keepdims")?.is_none_or(|keep| keep != 0);
    draft.push(Op::Reduce { kind, axes, keep }, &[input])
}
