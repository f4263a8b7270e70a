//! `MaxPool` and `AveragePool`.

use super::super::call::{Call, window_length};
use super::super::draft::{Draft, Id};
use super::windows;
use crate::network::{Op, SizeBound, Window};

/// <https://onnx.ai/onnx/operators/onnx__MaxPool.html>
pub(super) fn max_pool(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    let (input, window, bound) = pooled(draft, call)?;
    draft.push_bound(Op::MaxPool(window), &[input], bound)
}

/// <https://onnx.ai/onnx/operators/onnx__AveragePool.html>
pub(super) fn average_pool(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    let (input, window, bound) = pooled(draft, call)?;
    let count_padding = call.flag("count_include_pad")?;
    draft.push_bound(Op::AveragePool { window, count_padding }, &[input], bound)
}

fn pooled(draft: &Draft, call: &Call) -> Result<(Id, Window, Option<SizeBound>), String> {
    let (input, shape) = call.shaped(draft, 0)?;
    windows::feature_map(shape)?;
    let lengths = call.ints("kernel_shape")?.ok_or("has no kernel_shape")?;
    let lengths = lengths.iter().map(|&n| window_length(n, "kernel_shape")).collect::<Result<Vec<_>, _>>()?;
    let (window, bound) = windows::window(call, windows::kernel(&lengths)?, shape, call.flag("ceil_mode")?)?;
    let reaches_in = |i: usize| window.before()[i].max(window.after()[i]) < window.extent()[i];
    if !(reaches_in(0) && reaches_in(1)) {
        return Err("has windows that lie in the padding only".into());
    }
    Ok((input, window, bound))
}
