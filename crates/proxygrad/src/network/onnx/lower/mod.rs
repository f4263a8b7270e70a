//! Lowering: one node of the file becomes operations of a network. A file per family of operations.

mod activation;
mod broadcast;
mod conv;
mod dense;
mod elementwise;
mod expand;
mod norm;
mod pad;
mod pool;
mod reduce;
mod reshape;
mod resize;
mod shape;
mod slice;
mod softmax;
mod windows;

use super::call::{Call, Tensor};
use super::draft::{Draft, Id};

/// Adds the operations of one node to the draft, or says why that cannot be done.
#[derive(Clone, Copy)]
pub(super) enum Lower {
    /// Operations with one output that depends on the image.
    One(fn(&mut Draft, &Call) -> Result<Id, String>),
    /// All others.
    Many(fn(&mut Draft, &Call) -> Result<Vec<Tensor>, String>),
}

impl Lower {
    /// The node's outputs.
    ///
    /// # Errors
    /// Why the node cannot be lowered, as a phrase.
    pub fn outputs(self, draft: &mut Draft, call: &Call) -> Result<Vec<Tensor>, String> {
        match self {
            Self::One(lower) => lower(draft, call).map(|id| vec![Tensor::Map(id)]),
            Self::Many(lower) => lower(draft, call),
        }
    }
}

/// How an operation is lowered when one of its inputs depends on the image; `None` for unknown operations.
pub(super) fn lower(op_type: &str) -> Option<Lower> {
    let one: fn(&mut Draft, &Call) -> Result<Id, String> = match op_type {
        "Conv" => conv::conv,
        "Gemm" => dense::gemm,
        "MatMul" => dense::mat_mul,
        "BatchNormalization" => norm::batch_normalization,

        "Relu" => activation::relu,
        "LeakyRelu" => activation::leaky_relu,
        "PRelu" => activation::prelu,
        "Clip" => activation::clip,
        "HardSigmoid" => activation::hard_sigmoid,
        "HardSwish" => activation::hard_swish,
        "Sigmoid" => activation::sigmoid,
        "Tanh" => activation::tanh,
        "Elu" => activation::elu,
        "Selu" => activation::selu,
        "Mish" => activation::mish,
        "Softplus" => activation::softplus,
        "Gelu" => activation::gelu,
        "Softmax" => softmax::softmax,
        "LogSoftmax" => softmax::log_softmax,

        "Add" => elementwise::add,
        "Sub" => elementwise::sub,
        "Mul" => elementwise::mul,
        "Div" => elementwise::div,
        "Sum" => elementwise::sum,
        "Max" => elementwise::max,
        "Min" => elementwise::min,
        "Neg" => elementwise::neg,
        "Pow" => elementwise::pow,
        "Erf" => elementwise::erf,
        "Exp" => elementwise::exp,
        "Log" => elementwise::log,
        "Sqrt" => elementwise::sqrt,
        "Abs" => elementwise::abs,
        "Reciprocal" => elementwise::reciprocal,
        "Expand" => expand::expand,

        "MaxPool" => pool::max_pool,
        "AveragePool" => pool::average_pool,
        "GlobalAveragePool" => reduce::global_average_pool,
        "GlobalMaxPool" => reduce::global_max_pool,
        "ReduceMean" => reduce::reduce_mean,
        "ReduceSum" => reduce::reduce_sum,
        "ReduceMax" => reduce::reduce_max,

        "Pad" => pad::pad,
        "Resize" => resize::resize,
        "Upsample" => resize::upsample,

        "Flatten" => reshape::flatten,
        "Reshape" => reshape::reshape,
        "Squeeze" => reshape::squeeze,
        "Unsqueeze" => reshape::unsqueeze,
        "Transpose" => reshape::transpose,
        "Slice" => slice::slice,
        "Gather" => slice::gather,
        "Concat" => slice::concat,

        "Identity" => shape::identity,
        "Dropout" => shape::dropout,
        "Cast" => shape::cast,

        "Split" => return Some(Lower::Many(slice::split)),
        "Shape" => return Some(Lower::Many(shape::shape)),
        "Size" => return Some(Lower::Many(shape::size)),
        _ => return None,
    };
    Some(Lower::One(one))
}
