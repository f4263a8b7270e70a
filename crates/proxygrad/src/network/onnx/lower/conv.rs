//! `Conv`.

use super::super::call::{Call, length};
use super::super::draft::{Draft, Id};
use super::windows;
use crate::network::{Conv, Op};

/// <https://onnx.ai/onnx/operators/onnx__Conv.html> with constant weights.
pub(super) fn conv(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    let (input, shape) = call.shaped(draft, 0)?;
    let weight = call.required(1)?.array()?;
    let kernel = match *weight.shape() {
        [_, _, kh, kw] => [kh, kw],
        [_, _, _] => return Err("is a 1-D convolution; only 2-D convolutions are supported".into()),
        [_, _, _, _, _] => return Err("is a 3-D convolution; only 2-D convolutions are supported".into()),
        _ => return Err(format!("has weights {:?}; expected [O,C,kh,kw]", weight.shape())),
    };
    if let Some(stated) = windows::pair(call, "kernel_shape")?
        && stated != kernel
    {
        return Err(format!("has kernel_shape {stated:?}, but weights {:?}", weight.shape()));
    }
    let (window, bound) = windows::window(call, kernel, shape, false)?;
    let bias = call.value(2)?.map(|bias| bias.array()).transpose()?;
    if let Some(bias) = bias.as_ref().filter(|bias| bias.shape() != [weight.shape()[0]]) {
        return Err(format!("has a bias {:?} for {} output channels", bias.shape(), weight.shape()[0]));
    }
    let groups = call.int("group")?.map_or(Ok(1), |groups| length(groups, "group"))?;
    draft.push_bound(Op::Conv(Conv { weight, bias, window, groups }), &[input], bound)
}
