//! `DepthToSpace` and `SpaceToDepth` as reshapes and transpositions.

use super::super::graph_builder::{BuilderId, GraphBuilder};
use super::super::node_context::{NodeContext, window_length};
use super::window::feature_map;
use crate::network::{Axis, Op};

/// <https://onnx.ai/onnx/operators/onnx__DepthToSpace.html>
pub(super) fn depth_to_space(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let (input, shape) = ctx.dynamic_with_shape(builder, 0)?;
    let ([channels, ..], block) = (feature_map(shape)?, block_size(ctx)?);
    let area = block.checked_mul(block).filter(|&area| channels % area == 0);
    let area = area.ok_or_else(|| format!("{channels} channels cannot be divided into blocks of {block} x {block}"))?;
    let [split, inner] = [Axis::Exact(block), Axis::Exact(channels / area)];
    let (parts, order) = match ctx.text("mode", "DCR")? {
        "DCR" => ([split, split, inner], [2, 3, 0, 4, 1]),
        "CRD" => ([inner, split, split], [0, 3, 1, 4, 2]),
        other => return Err(format!("mode is {other}; expected DCR or CRD")),
    };
    let split = [&parts[..], &[Axis::Copy(1), Axis::Copy(2)]].concat();
    let split = builder.push_reshape(input, split, false)?;
    let turned = builder.push(Op::Transpose(order.to_vec()), &[split])?;
    joined(builder, turned)
}

/// <https://onnx.ai/onnx/operators/onnx__SpaceToDepth.html>
pub(super) fn space_to_depth(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let (input, shape) = ctx.dynamic_with_shape(builder, 0)?;
    let ([channels, height, width], block) = (feature_map(shape)?, block_size(ctx)?);
    if height % block != 0 || width % block != 0 {
        return Err(format!("a map of {height} x {width} cannot be divided into blocks of {block} x {block}"));
    }
    let rows = vec![Axis::Copy(0), Axis::Infer, Axis::Exact(block), Axis::Copy(2)];
    let rows = builder.push(Op::Reshape(rows), &[input])?;
    let columns = vec![Axis::Copy(0), Axis::Copy(1), Axis::Copy(2), Axis::Infer, Axis::Exact(block)];
    let split = builder.push(Op::Reshape(columns), &[rows])?;
    let turned = builder.push(Op::Transpose(vec![2, 4, 0, 1, 3]), &[split])?;
    let area = block.checked_mul(block).and_then(|area| area.checked_mul(channels)).ok_or("the block is too large")?;
    builder.push_reshape(turned, vec![Axis::Exact(area), Axis::Copy(3), Axis::Copy(4)], false)
}

/// `[C,H,a,W,b]` as a map `[C,H*a,W*b]`.
pub(super) fn joined(builder: &mut GraphBuilder, parts: BuilderId) -> Result<BuilderId, String> {
    let rows = builder.push(Op::Reshape(vec![Axis::Copy(0), Axis::Infer, Axis::Copy(3), Axis::Copy(4)]), &[parts])?;
    builder.push(Op::Reshape(vec![Axis::Copy(0), Axis::Copy(1), Axis::Infer]), &[rows])
}

fn block_size(ctx: &NodeContext) -> Result<usize, String> {
    let block = ctx.int("blocksize")?.ok_or("blocksize is missing")?;
    Some(window_length(block, "blocksize")?).filter(|&block| block > 0).ok_or_else(|| "blocksize is 0".into())
}
