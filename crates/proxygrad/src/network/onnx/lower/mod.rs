//! Lowering: one node of the file becomes operations of a network; one file per family of operators.

mod activation;
mod batch_norm;
mod broadcast;
mod cast;
mod conv;
mod conv_transpose;
mod dense;
mod depth_space;
mod einsum;
mod elementwise;
mod expand;
pub(super) mod normalize;
mod pad;
mod pool;
mod positions;
mod quantize;
mod reduce;
mod reshape;
mod resize;
mod select;
mod shape;
mod slice;
mod softmax;
mod transpose;
mod window;

use super::graph_builder::{BuilderId, GraphBuilder};
use super::image_tensor::ImageTensor;
use super::node_context::{NodeContext, Operand};
use super::unary_functions::unary_function;

/// Adds the operations of one node to the builder and returns its outputs, or why that is impossible.
type Lower<T> = fn(&mut GraphBuilder, &NodeContext) -> Result<T, String>;

/// How a node is lowered.
#[derive(Clone, Copy)]
pub(super) enum LowerFn {
    /// Operators on tensors `[N,...]`: their inputs are given with the batch axis first, and so is the output.
    BatchFirst(Lower<BuilderId>),
    /// Functions of each value of the first input, wherever its batch axis is; other inputs are constant.
    Elementwise(Lower<BuilderId>),
    /// Operators with one output, which depends on the image; any tensor may have its batch axis anywhere.
    One(Lower<ImageTensor>),
    /// All other operators; any tensor may have its batch axis anywhere.
    Many(Lower<Vec<Operand>>),
}

impl LowerFn {
    /// The node's outputs.
    ///
    /// # Errors
    /// The reason why the node cannot be lowered.
    pub fn outputs(self, builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<Vec<Operand>, String> {
        let tensor = match self {
            Self::BatchFirst(lower) => {
                let ctx = with_inputs(ctx, |tensor| tensor.with_batch(builder, Some(0)))?;
                ImageTensor::batch_first(lower(builder, &ctx)?)
            }
            Self::Elementwise(lower) => {
                let batch = ctx.image_tensor(0)?.batch;
                let ctx = with_inputs(ctx, |tensor| Ok(ImageTensor::batch_first(tensor.id)))?;
                ImageTensor { id: lower(builder, &ctx)?, batch }
            }
            Self::One(lower) => lower(builder, ctx)?,
            Self::Many(lower) => return lower(builder, ctx),
        };
        Ok(vec![Operand::Dynamic(tensor)])
    }
}

/// The node with other tensors in place of its inputs that depend on the image.
fn with_inputs<'a>(
    ctx: &NodeContext<'a>,
    mut change: impl FnMut(ImageTensor) -> Result<ImageTensor, String>,
) -> Result<NodeContext<'a>, String> {
    let mut changed = ctx.clone();
    for input in changed.inputs.iter_mut().flatten() {
        if let Operand::Dynamic(tensor) = input {
            *tensor = change(*tensor)?;
        }
    }
    Ok(changed)
}

/// The lowering of an operator with an input that depends on the image; `None` if it is not supported.
pub(super) fn lookup(op_type: &str) -> Option<LowerFn> {
    batch_first(op_type)
        .map(LowerFn::BatchFirst)
        .or_else(|| elementwise(op_type).map(LowerFn::Elementwise))
        .or_else(|| one(op_type).map(LowerFn::One))
        .or_else(|| many(op_type).map(LowerFn::Many))
}

fn batch_first(op_type: &str) -> Option<Lower<BuilderId>> {
    Some(match op_type {
        "Conv" => conv::conv,
        "ConvTranspose" => conv_transpose::conv_transpose,
        "DepthToSpace" => depth_space::depth_to_space,
        "SpaceToDepth" => depth_space::space_to_depth,
        "BatchNormalization" => batch_norm::batch_normalization,
        "InstanceNormalization" => normalize::instance_normalization,
        "GroupNormalization" => normalize::group_normalization,
        "LRN" => normalize::lrn,

        "MaxPool" => pool::max_pool,
        "AveragePool" => pool::average_pool,
        "GlobalAveragePool" => reduce::global_average_pool,
        "GlobalMaxPool" => reduce::global_max_pool,

        "Resize" => resize::resize,
        "Upsample" => resize::upsample,
        _ => return None,
    })
}

fn elementwise(op_type: &str) -> Option<Lower<BuilderId>> {
    Some(match op_type {
        "Relu" => activation::relu,
        "LeakyRelu" => activation::leaky_relu,
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

        "QuantizeLinear" => quantize::quantize_linear,
        "DequantizeLinear" => quantize::dequantize_linear,
        "Neg" => elementwise::neg,
        "Log" => elementwise::log,

        "Identity" => cast::identity,
        "Dropout" => cast::dropout,
        "Cast" => cast::cast,

        "Not" => select::not,
        other if unary_function(other).is_some() => elementwise::function,
        _ => return None,
    })
}

fn one(op_type: &str) -> Option<Lower<ImageTensor>> {
    Some(match op_type {
        "Gemm" => dense::gemm,
        "MatMul" => dense::mat_mul,
        "Einsum" => einsum::einsum,
        "LayerNormalization" => normalize::layer_normalization,
        "RMSNormalization" | "SimplifiedLayerNormalization" => normalize::rms_normalization,
        "LpNormalization" => normalize::lp_normalization,
        "MeanVarianceNormalization" => normalize::mean_variance_normalization,
        "PRelu" => activation::prelu,
        "Softmax" => softmax::softmax,
        "LogSoftmax" => softmax::log_softmax,

        "Add" => elementwise::add,
        "Sub" => elementwise::sub,
        "Mul" => elementwise::mul,
        "Div" => elementwise::div,
        "Sum" => elementwise::sum,
        "Mean" => elementwise::mean,
        "Pow" => elementwise::pow,
        "Max" => elementwise::max,
        "Min" => elementwise::min,
        "Expand" => expand::expand,

        "Less" => select::less,
        "LessOrEqual" => select::less_or_equal,
        "Greater" => select::greater,
        "GreaterOrEqual" => select::greater_or_equal,
        "Equal" => select::equal,
        "And" => select::and,
        "Or" => select::or,
        "Xor" => select::xor,
        "Where" => select::r#where,

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

        "Flatten" => reshape::flatten,
        "Reshape" => reshape::reshape,
        "Squeeze" => reshape::squeeze,
        "Unsqueeze" => reshape::unsqueeze,
        "Transpose" => transpose::transpose,
        "Slice" => slice::slice,
        "Gather" => slice::gather,
        "GatherND" | "GatherElements" | "Tile" => positions::of_first_input,
        "ScatterND" | "ScatterElements" => positions::of_first_and_third_input,
        "Concat" => slice::concat,
        _ => return None,
    })
}

fn many(op_type: &str) -> Option<Lower<Vec<Operand>>> {
    Some(match op_type {
        "Split" => slice::split,
        "Shape" => shape::shape,
        "Size" => shape::size,
        _ => return None,
    })
}

/// Why an operator has no lowering.
pub(super) fn unsupported(op_type: &str) -> &'static str {
    match op_type {
        "QLinearConv" | "QLinearMatMul" | "ConvInteger" | "MatMulInteger" | "DynamicQuantizeLinear" => {
            "arithmetic with integers is not supported; export the quantized network in QDQ format \
             (QuantizeLinear and DequantizeLinear)"
        }
        "Loop" | "Scan" => "loops are not supported; export the network by tracing, which unrolls them",
        name if name.starts_with("Sequence") || matches!(name, "SplitToSequence" | "ConcatFromSequence") => {
            "sequences of tensors are not supported"
        }
        name if name.starts_with("Optional") => "optional tensors are not supported",
        _ => "the operation is not supported",
    }
}
