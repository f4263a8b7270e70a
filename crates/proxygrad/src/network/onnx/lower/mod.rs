//! Lowering: one node of the file becomes operations of a network; one file per family of operators.

mod activation;
mod batch_norm;
mod broadcast;
mod cast;
mod conv;
mod dense;
mod elementwise;
mod expand;
pub(super) mod normalize;
mod pad;
mod pool;
mod reduce;
mod reshape;
mod resize;
mod shape;
mod slice;
mod softmax;
mod window;

use super::graph_builder::{BuilderId, GraphBuilder};
use super::node_context::{NodeContext, Operand};

/// Adds the operations of one node to the builder, or returns why that is impossible.
#[derive(Clone, Copy)]
pub(super) enum LowerFn {
    /// Operators with one output, which depends on the image.
    One(fn(&mut GraphBuilder, &NodeContext) -> Result<BuilderId, String>),
    /// All other operators.
    Many(fn(&mut GraphBuilder, &NodeContext) -> Result<Vec<Operand>, String>),
}

impl LowerFn {
    /// The node's outputs.
    ///
    /// # Errors
    /// The reason why the node cannot be lowered.
    pub fn outputs(self, builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<Vec<Operand>, String> {
        match self {
            Self::One(lower) => lower(builder, ctx).map(|id| vec![Operand::Dynamic(id)]),
            Self::Many(lower) => lower(builder, ctx),
        }
    }
}

/// The lowering of an operator with an input that depends on the image; `None` if it is not supported.
pub(super) fn lookup(op_type: &str) -> Option<LowerFn> {
    let one: fn(&mut GraphBuilder, &NodeContext) -> Result<BuilderId, String> = match op_type {
        "Conv" => conv::conv,
        "Gemm" => dense::gemm,
        "MatMul" => dense::mat_mul,
        "BatchNormalization" => batch_norm::batch_normalization,
        "LayerNormalization" => normalize::layer_normalization,
        "InstanceNormalization" => normalize::instance_normalization,
        "GroupNormalization" => normalize::group_normalization,
        "RMSNormalization" | "SimplifiedLayerNormalization" => normalize::rms_normalization,
        "LRN" => normalize::lrn,
        "LpNormalization" => normalize::lp_normalization,
        "MeanVarianceNormalization" => normalize::mean_variance_normalization,

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
        "ReduceMin" => reduce::reduce_min,
        "ReduceProd" => reduce::reduce_prod,
        "ReduceL1" => reduce::reduce_l1,
        "ReduceL2" => reduce::reduce_l2,
        "ReduceSumSquare" => reduce::reduce_sum_square,
        "ReduceLogSum" => reduce::reduce_log_sum,
        "ReduceLogSumExp" => reduce::reduce_log_sum_exp,

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

        "Identity" => cast::identity,
        "Dropout" => cast::dropout,
        "Cast" => cast::cast,

        "Split" => return Some(LowerFn::Many(slice::split)),
        "Shape" => return Some(LowerFn::Many(shape::shape)),
        "Size" => return Some(LowerFn::Many(shape::size)),
        _ => return None,
    };
    Some(LowerFn::One(one))
}
