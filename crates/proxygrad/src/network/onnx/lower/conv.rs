//! `Conv`.

use super::super::graph_builder::{BuilderId, GraphBuilder};
use super::super::node_context::{NodeContext, length};
use super::window::{self, Place};
use crate::network::{Conv, Op};

/// <https://onnx.ai/onnx/operators/onnx__Conv.html> with constant weights.
pub(super) fn conv(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let weight = ctx.constant(1)?.array()?;
    let (input, is_line) = window::planar(builder, ctx.dynamic(0)?, weight.shape().len().saturating_sub(2))?;
    let shape = &builder.node(input).shape;
    let weight = window::planar_kernel(weight)?;
    let &[_, _, kh, kw] = weight.shape() else {
        return Err(format!("the weights have shape {:?}; expected [O,C,kh,kw]", weight.shape()));
    };
    let kernel = [kh, kw];
    if let Some(stated) = window::pair(ctx, "kernel_shape")?
        && stated != kernel
    {
        return Err(format!("kernel_shape is {stated:?}, but the weights have shape {:?}", weight.shape()));
    }
    let (window, bound) = window::window(ctx, kernel, shape, false, Place::whole(if is_line { 1 } else { 2 }))?;
    let bias = ctx.optional_constant(2)?.map(|bias| bias.array()).transpose()?;
    if let Some(bias) = bias.as_ref().filter(|bias| bias.shape() != [weight.shape()[0]]) {
        return Err(format!("the bias has shape {:?} for {} output channels", bias.shape(), weight.shape()[0]));
    }
    let groups = ctx.int("group")?.map_or(Ok(1), |groups| length(groups, "group"))?;
    let output = builder.push_bound(Op::Conv(Conv { weight, bias, window, groups }), &[input], bound)?;
    window::line(builder, output, is_line)
}
