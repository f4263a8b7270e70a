//! Constant folding: nodes whose inputs are all constant are computed at import; one file per family of operators.
//! Operators without a function here are computed as the operations that they are lowered to (`operation`).

mod arithmetic;
mod batch_norm;
mod broadcast;
mod cast;
mod create;
mod indexing;
mod layout;
mod logic;
mod operation;
mod patterns;
mod quantization;
mod reduce;

use super::const_tensor::ConstTensor;
use super::node_context::NodeContext;
use super::proto::{CONTRIBUTED, NodeProto};

pub(super) use operation::evaluate;
pub(super) use patterns::eye;
pub(super) use quantization::quantized_range;

/// Computes the outputs of one node, or returns why that is impossible.
pub(super) type FoldFn = fn(&NodeContext) -> Result<Vec<ConstTensor>, String>;

/// The function that computes a node on constants; `None` if that is not supported.
pub(super) fn of_node(node: &NodeProto) -> Option<FoldFn> {
    // ONNX Runtime has its own versions of these two, for more types of integers.
    let is_quantization = matches!(node.op_type.as_str(), "QuantizeLinear" | "DequantizeLinear");
    let is_known = node.is_standard() || (node.domain == CONTRIBUTED && is_quantization);
    lookup(&node.op_type).filter(|_| is_known)
}

/// The function that computes an operator on constants; `None` if that is not supported.
pub(super) fn lookup(op_type: &str) -> Option<FoldFn> {
    Some(match op_type {
        "Constant" => create::constant,
        "ConstantOfShape" => create::constant_of_shape,
        "Range" => create::range,
        "EyeLike" => patterns::eye_like,
        "Trilu" => patterns::trilu,
        "CumSum" => patterns::cum_sum,
        "OneHot" => patterns::one_hot,
        "NonZero" => patterns::non_zero,
        "Shape" => create::shape,
        "Size" => create::size,

        "Identity" => cast::identity,
        "CastLike" => cast::cast_like,
        "Cast" => cast::cast,

        "Add" => arithmetic::add,
        "Sub" => arithmetic::sub,
        "Mul" => arithmetic::mul,
        "Div" => arithmetic::div,
        "Mod" => arithmetic::modulo,
        "Pow" => arithmetic::pow,
        "Min" => arithmetic::min,
        "Max" => arithmetic::max,
        "Neg" => arithmetic::neg,
        "Abs" => arithmetic::abs,
        "Sum" => arithmetic::sum,
        "Mean" => arithmetic::mean,
        "Sign" => arithmetic::sign,
        "Clip" => arithmetic::clip,
        "DequantizeLinear" => quantization::dequantize_linear,
        "QuantizeLinear" => quantization::quantize_linear,
        "BatchNormalization" => batch_norm::batch_normalization,
        "Dropout" => cast::dropout,

        "Equal" => logic::equal,
        "Less" => logic::less,
        "Greater" => logic::greater,
        "LessOrEqual" => logic::less_or_equal,
        "GreaterOrEqual" => logic::greater_or_equal,
        "Not" => logic::not,
        "IsNaN" => logic::is_nan,
        "IsInf" => logic::is_inf,
        "And" => logic::and,
        "Or" => logic::or,
        "Xor" => logic::xor,
        "Where" => logic::r#where,

        "ReduceSum" => reduce::sum,
        "ReduceProd" => reduce::product,
        "ReduceMean" => reduce::mean,
        "ReduceL1" => reduce::l1,
        "ReduceL2" => reduce::l2,
        "ReduceSumSquare" => reduce::sum_of_squares,
        "ReduceMax" => reduce::max,
        "ReduceMin" => reduce::min,
        "ReduceLogSum" => reduce::log_sum,
        "ReduceLogSumExp" => reduce::log_sum_exp,

        "Concat" => layout::concat,
        "Expand" => layout::expand,
        "Flatten" => layout::flatten,
        "Gather" => layout::gather,
        "GatherND" => indexing::gather_nd,
        "GatherElements" => indexing::gather_elements,
        "ScatterND" => indexing::scatter_nd,
        "ScatterElements" | "Scatter" => indexing::scatter_elements,
        "Reshape" => layout::reshape,
        "Slice" => layout::slice,
        "Split" => layout::split,
        "Squeeze" => layout::squeeze,
        "Tile" => layout::tile,
        "Transpose" => layout::transpose,
        "Unsqueeze" => layout::unsqueeze,
        _ => return None,
    })
}
