//! Pools: `MaxPool`, `AveragePool` and `LpPool` over lines, maps and volumes.

use super::super::graph_builder::{BuilderId, GraphBuilder};
use super::super::node_context::{NodeContext, window_length};
use super::window::{self, Place};
use crate::network::{Axis, Op, SizeBound, Unary, Window};

/// How the values of a window are combined.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Max,
    Average { count_padding: bool },
}

/// <https://onnx.ai/onnx/operators/onnx__MaxPool.html>
pub(super) fn max_pool(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    pool(builder, ctx, ctx.dynamic(0)?, Kind::Max)
}

/// <https://onnx.ai/onnx/operators/onnx__AveragePool.html>
pub(super) fn average_pool(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    pool(builder, ctx, ctx.dynamic(0)?, Kind::Average { count_padding: ctx.flag("count_include_pad")? })
}

/// <https://onnx.ai/onnx/operators/onnx__LpPool.html>: `sum(|x|^p)^(1/p)` of each window, as an average of powers.
pub(super) fn lp_pool(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    if ctx.flag("ceil_mode")? {
        return Err("ceil_mode is not supported".into());
    }
    let exponent = lp_exponent(ctx)?;
    let powers = lp_powers(builder, ctx.dynamic(0)?, exponent)?;
    let means = pool(builder, ctx, powers, Kind::Average { count_padding: true })?;
    let area: usize = kernel_lengths(ctx)?.iter().fold(1, |area, &length| area.saturating_mul(length));
    let sums = super::activation::times(builder, ctx, means, area as f32, "the area of the window")?;
    lp_root(builder, sums, exponent)
}

/// The exponent `p` of a norm.
pub(super) fn lp_exponent(ctx: &NodeContext) -> Result<i64, String> {
    match ctx.int("p")?.unwrap_or(2) {
        p if p >= 1 => Ok(p),
        p => Err(format!("p is {p}; expected a number from 1 on")),
    }
}

/// `|x|^p`
pub(super) fn lp_powers(builder: &mut GraphBuilder, input: BuilderId, exponent: i64) -> Result<BuilderId, String> {
    let absolute = if exponent % 2 == 0 { input } else { builder.push(Op::Unary(Unary::Abs), &[input])? };
    match exponent {
        1 => Ok(absolute),
        p => builder.push(Op::Unary(Unary::Power(p as f64)), &[absolute]),
    }
}

/// `x^(1/p)`
pub(super) fn lp_root(builder: &mut GraphBuilder, input: BuilderId, exponent: i64) -> Result<BuilderId, String> {
    match exponent {
        1 => Ok(input),
        2 => builder.push(Op::Unary(Unary::Sqrt), &[input]),
        p => builder.push(Op::Unary(Unary::Power(1.0 / p as f64)), &[input]),
    }
}

fn kernel_lengths(ctx: &NodeContext) -> Result<Vec<usize>, String> {
    let lengths = ctx.ints("kernel_shape")?.ok_or("kernel_shape is missing")?;
    lengths.iter().map(|&length| window_length(length, "kernel_shape")).collect()
}

/// Pools `input` over its last axes.
fn pool(builder: &mut GraphBuilder, ctx: &NodeContext, input: BuilderId, kind: Kind) -> Result<BuilderId, String> {
    let lengths = kernel_lengths(ctx)?;
    if let [depth, height, width] = lengths[..] {
        return pool_volume(builder, ctx, input, [depth, height, width], kind);
    }
    let (input, is_line) = window::planar(builder, input, lengths.len())?;
    let window = pooled(builder, ctx, input, window::kernel(&lengths)?, Place::whole(lengths.len()))?;
    let output = push(builder, input, window, kind)?;
    window::line(builder, output, is_line)
}

/// Pools a volume `[C,D,H,W]`: first along its depth, then its planes. Windows are boxes, so that both are pools of the
/// same kind.
fn pool_volume(
    builder: &mut GraphBuilder,
    ctx: &NodeContext,
    input: BuilderId,
    [depth, height, width]: [usize; 3],
    kind: Kind,
) -> Result<BuilderId, String> {
    let shape = builder.node(input).shape.clone();
    let &[channels, _, rows, columns] = &shape[..] else {
        return Err(format!("a 3-dimensional kernel does not fit an input of shape {shape}"));
    };
    let sized = (2..4).any(|axis| builder.depends_on_image_size(input, axis));
    let flat = builder.push_reshape(input, vec![Axis::Copy(0), Axis::Copy(1), Axis::Infer], false)?;
    let window = pooled(builder, ctx, flat, [depth, 1], Place { axes: 3, vertical: Some(0), horizontal: None })?;
    let flat = push(builder, flat, window, kind)?;
    let planes = vec![Axis::Infer, Axis::Exact(rows), Axis::Exact(columns)];
    let planes = builder.push_reshape(flat, planes, sized)?;
    let window =
        pooled(builder, ctx, planes, [height, width], Place { axes: 3, vertical: Some(1), horizontal: Some(2) })?;
    let output = push(builder, planes, window, kind)?;
    let volume = vec![Axis::Exact(channels), Axis::Infer, Axis::Copy(1), Axis::Copy(2)];
    builder.push_reshape(output, volume, false)
}

fn push(
    builder: &mut GraphBuilder,
    input: BuilderId,
    (window, bound): (Window, Option<SizeBound>),
    kind: Kind,
) -> Result<BuilderId, String> {
    if window == Window::new([1, 1]) {
        return Ok(input);
    }
    let op = match kind {
        Kind::Max => Op::MaxPool(window),
        Kind::Average { count_padding } => Op::AveragePool { window, count_padding },
    };
    builder.push_bound(op, &[input], bound)
}

/// The window of a pool with the given kernel, along two axes of the node.
fn pooled(
    builder: &GraphBuilder,
    ctx: &NodeContext,
    input: BuilderId,
    kernel: [usize; 2],
    place: Place,
) -> Result<(Window, Option<SizeBound>), String> {
    let shape = &builder.node(input).shape;
    let (window, bound) = window::window(ctx, kernel, shape, ctx.flag("ceil_mode")?, place)?;
    let reaches_in = |i: usize| window.before()[i].max(window.after()[i]) < window.extent()[i];
    if !(reaches_in(0) && reaches_in(1)) {
        return Err("some windows cover only padding".into());
    }
    Ok((window, bound))
}
