//! Global pools and reductions.

use super::super::graph_builder::{BuilderId, GraphBuilder};
use super::super::image_tensor::ImageTensor;
use super::super::node_context::{NodeContext, axis};
use super::pool::{lp_exponent, lp_powers, lp_root};
use crate::network::{Binary, Op, Reduce, Unary};

/// <https://onnx.ai/onnx/operators/onnx__GlobalAveragePool.html>
pub(super) fn global_average_pool(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    global(builder, ctx, Reduce::Mean)
}

/// <https://onnx.ai/onnx/operators/onnx__GlobalMaxPool.html>
pub(super) fn global_max_pool(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    global(builder, ctx, Reduce::Max)
}

/// <https://onnx.ai/onnx/operators/onnx__ReduceMean.html>
pub(super) fn reduce_mean(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    reduce(builder, ctx, Reduce::Mean)
}

/// <https://onnx.ai/onnx/operators/onnx__ReduceSum.html>
pub(super) fn reduce_sum(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    reduce(builder, ctx, Reduce::Sum)
}

/// <https://onnx.ai/onnx/operators/onnx__ReduceMax.html>
pub(super) fn reduce_max(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    reduce(builder, ctx, Reduce::Max)
}

/// <https://onnx.ai/onnx/operators/onnx__ReduceMin.html>
pub(super) fn reduce_min(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    reduce(builder, ctx, Reduce::Min)
}

/// <https://onnx.ai/onnx/operators/onnx__ReduceProd.html>
pub(super) fn reduce_prod(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    reduce(builder, ctx, Reduce::Product)
}

/// <https://onnx.ai/onnx/operators/onnx__ReduceL1.html>
pub(super) fn reduce_l1(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    reduce(builder, ctx, Reduce::L1)
}

/// <https://onnx.ai/onnx/operators/onnx__ReduceL2.html>
pub(super) fn reduce_l2(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    reduce(builder, ctx, Reduce::L2)
}

/// <https://onnx.ai/onnx/operators/onnx__ReduceLogSumExp.html>
pub(super) fn reduce_log_sum_exp(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    reduce(builder, ctx, Reduce::LogSumExp)
}

/// <https://onnx.ai/onnx/operators/onnx__ReduceSumSquare.html>
pub(super) fn reduce_sum_square(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let input = ctx.image_tensor(0)?;
    let square = builder.push(Op::Binary(Binary::Mul), &[input.id, input.id])?;
    reduce_tensor(builder, ctx, ImageTensor { id: square, ..input }, Reduce::Sum)
}

/// <https://onnx.ai/onnx/operators/onnx__ReduceLogSum.html>
pub(super) fn reduce_log_sum(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let sum = reduce(builder, ctx, Reduce::Sum)?;
    Ok(ImageTensor { id: builder.push(Op::Unary(Unary::Log), &[sum.id])?, ..sum })
}

fn global(builder: &mut GraphBuilder, ctx: &NodeContext, kind: Reduce) -> Result<BuilderId, String> {
    let (input, shape) = ctx.dynamic_with_shape(builder, 0)?;
    let axes: Vec<usize> = (1..shape.len()).collect();
    if axes.is_empty() {
        return Err(format!("the input {shape} has no height and width"));
    }
    builder.push(Op::Reduce { kind, axes, keep: true }, &[input])
}

fn reduce(builder: &mut GraphBuilder, ctx: &NodeContext, kind: Reduce) -> Result<ImageTensor, String> {
    reduce_tensor(builder, ctx, ctx.image_tensor(0)?, kind)
}

/// Reduces a tensor of the shape of input 0. Axes are an attribute in older opsets and an input in newer ones.
fn reduce_tensor(
    builder: &mut GraphBuilder,
    ctx: &NodeContext,
    mut tensor: ImageTensor,
    kind: Reduce,
) -> Result<ImageTensor, String> {
    let rank = tensor.rank(builder);
    let given = ctx.ints_or_input("axes", 1)?.unwrap_or_default();
    if given.is_empty() && ctx.flag("noop_with_empty_axes")? {
        return Ok(tensor);
    }
    let mut axes = given.iter().map(|&value| axis(value, rank)).collect::<Result<Vec<_>, _>>()?;
    if axes.is_empty() {
        axes = (0..rank).collect();
    }
    axes.sort_unstable();
    axes.dedup();
    if tensor.batch.is_some_and(|batch| axes.contains(&batch)) {
        if ctx.batch != Some(1) {
            return Err("reducing over the batch axis is not supported".into());
        }
        tensor = tensor.with_batch(builder, None)?;
    }
    let keep = ctx.int("keepdims")?.is_none_or(|keep| keep != 0);
    let removed = |batch: usize| if keep { 0 } else { axes.iter().filter(|&&axis| axis < batch).count() };
    let batch = tensor.batch.map(|batch| batch - removed(batch));
    let axes = axes.into_iter().filter_map(|axis| tensor.node_axis(axis)).collect();
    Ok(ImageTensor { id: builder.push(Op::Reduce { kind, axes, keep }, &[tensor.id])?, batch })
}

/// <https://onnx.ai/onnx/operators/onnx__GlobalLpPool.html>
pub(super) fn global_lp_pool(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let input = ctx.dynamic(0)?;
    let axes: Vec<usize> = (1..builder.node(input).shape.len()).collect();
    let kind = match lp_exponent(ctx)? {
        1 => Reduce::L1,
        2 => Reduce::L2,
        p => {
            let powers = lp_powers(builder, input, p)?;
            let sums = builder.push(Op::Reduce { kind: Reduce::Sum, axes, keep: true }, &[powers])?;
            return lp_root(builder, sums, p);
        }
    };
    builder.push(Op::Reduce { kind, axes, keep: true }, &[input])
}
