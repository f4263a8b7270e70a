//! Type casts, and operators that return their input.

use super::super::const_tensor::ConstData;
use super::super::graph_builder::{BuilderId, GraphBuilder};
use super::super::node_context::NodeContext;
use super::super::stored_tensor::data_type;

/// <https://onnx.ai/onnx/operators/onnx__Identity.html>
pub(super) fn identity(_: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    ctx.dynamic(0)
}

/// <https://onnx.ai/onnx/operators/onnx__Dropout.html> at inference.
pub(super) fn dropout(_: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let training = ctx
        .optional_constant(2)?
        .is_some_and(|mode| matches!(mode.data(), ConstData::Bool(flags) if flags.contains(&true)));
    if training { Err("it is in training mode; export the network for inference".into()) } else { ctx.dynamic(0) }
}

/// <https://onnx.ai/onnx/operators/onnx__Cast.html> between floating-point types, all of which are f32 here.
pub(super) fn cast(_: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let to = ctx.int("to")?.and_then(|to| i32::try_from(to).ok()).ok_or("the target type is missing or invalid")?;
    if !data_type::is_float(to) {
        return Err(format!("casting to {} is not supported, only to floating-point types", data_type::name(to)));
    }
    ctx.dynamic(0)
}
