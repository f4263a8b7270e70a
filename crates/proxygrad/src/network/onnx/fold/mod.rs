//! Folding: nodes whose inputs are all known are computed at once. A file per family of operations.

mod arithmetic;
mod broadcast;
mod convert;
mod create;
mod layout;
mod normalize;
mod product;
mod reduce;
mod select;

use super::call::Call;
use super::value::Value;

/// Computes the outputs of one node, or says why that cannot be done.
pub(super) type Fold = fn(&Call) -> Result<Vec<Value>, String>;

/// How an operation is computed on constants; `None` when that is not supported.
pub(super) fn fold(op_type: &str) -> Option<Fold> {
    Some(match op_type {
        "Constant" => create::constant,
        "ConstantOfShape" => create::constant_of_shape,
        "Range" => create::range,
        "Shape" => create::shape,
        "Size" => create::size,

        "Identity" => convert::identity,
        "CastLike" => convert::cast_like,
        "Cast" => convert::cast,

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
        "Floor" => arithmetic::floor,
        "Ceil" => arithmetic::ceil,
        "Sum" => arithmetic::sum,
        "Mean" => arithmetic::mean,
        "Sqrt" => arithmetic::sqrt,
        "Log" => arithmetic::log,
        "Erf" => arithmetic::erf,
        "Sign" => arithmetic::sign,
        "Round" => arithmetic::round,
        "Relu" => arithmetic::relu,
        "Sigmoid" => arithmetic::sigmoid,
        "Tanh" => arithmetic::tanh,
        "Exp" => arithmetic::exp,
        "Reciprocal" => arithmetic::reciprocal,
        "Clip" => arithmetic::clip,
        "MatMul" => product::mat_mul,
        "BatchNormalization" => normalize::batch_normalization,
        "Dropout" => normalize::dropout,

        "Equal" => select::equal,
        "Less" => select::less,
        "Greater" => select::greater,
        "Not" => select::not,
        "And" => select::and,
        "Or" => select::or,
        "Where" => select::r#where,

        "ReduceSum" => reduce::sum,
        "ReduceProd" => reduce::product,
        "ReduceMean" => reduce::mean,
        "ReduceL1" => reduce::l1,
        "ReduceL2" => reduce::l2,
        "ReduceSumSquare" => reduce::sum_of_squares,
        "ReduceMax" => reduce::max,
        "ReduceMin" => reduce::min,

        "Concat" => layout::concat,
        "Expand" => layout::expand,
        "Flatten" => layout::flatten,
        "Gather" => layout::gather,
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
