//! `MaxPool` and `AveragePool`.

use super::super::graph_builder::{BuilderId, GraphBuilder};
use super::super::node_context::{NodeContext, window_length};
use super::window;
use crate::network::{Op, SizeBound, Window};

/// <https://onnx.ai/onnx/operators/onnx__MaxPool.html>
pub(super) fn max_pool(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let axes = ctx.ints("kernel_shape")?.map_or(2, <[i64]>::len);
    let (input, is_line) = window::planar(builder, ctx.dynamic(0)?, axes)?;
    let (window, bound) = pooled(builder, ctx, input)?;
    let output = builder.push_bound(Op::MaxPool(window), &[input], bound)?;
    window::line(builder, output, is_line)
}

/// <https://onnx.ai/onnx/operators/onnx__AveragePool.html>
pub(super) fn average_pool(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let axes = ctx.ints("kernel_shape")?.map_or(2, <[i64]>::len);
    let (input, is_line) = window::planar(builder, ctx.dynamic(0)?, axes)?;
    let (window, bound) = pooled(builder, ctx, input)?;
    let count_padding = ctx.flag("count_include_pad")?;
    let output = builder.push_bound(Op::AveragePool { window, count_padding }, &[input], bound)?;
    window::line(builder, output, is_line)
}

fn pooled(builder: &GraphBuilder, ctx: &NodeContext, input: BuilderId) -> Result<(Window, Option<SizeBound>), String> {
    let shape = &builder.node(input).shape;
    window::feature_map(shape)?;
    let lengths = ctx.ints("kernel_shape")?.ok_or("kernel_shape is missing")?;
    let lengths = lengths.iter().map(|&n| window_length(n, "kernel_shape")).collect::<Result<Vec<_>, _>>()?;
    let (window, bound) = window::window(ctx, window::kernel(&lengths)?, shape, ctx.flag("ceil_mode")?)?;
    let reaches_in = |i: usize| window.before()[i].max(window.after()[i]) < window.extent()[i];
    if !(reaches_in(0) && reaches_in(1)) {
        return Err("some windows cover only padding".into());
    }
    Ok((window, bound))
}
