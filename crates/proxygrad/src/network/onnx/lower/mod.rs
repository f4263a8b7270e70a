//! Lowering: one node of the file becomes operations of a network; one file per family of operators.

mod activation;
mod attention;
mod batch_norm;
mod broadcast;
mod cast;
mod col2im;
mod composed;
mod contributed;
mod conv;
mod conv_transpose;
pub(super) mod cumulative;
mod dense;
mod depth_space;
mod einsum;
mod elementwise;
mod expand;
mod integers;
pub(super) mod normalize;
mod pad;
mod pool;
mod positions;
mod quantize;
mod reduce;
mod reshape;
mod resize;
mod rotary;
mod select;
mod shape;
mod slice;
mod softmax;
mod transpose;
mod window;

use super::graph_builder::{BuilderId, GraphBuilder};
use super::image_tensor::ImageTensor;
use super::node_context::{NodeContext, Operand};
use super::proto::{CONTRIBUTED, NodeProto};
use super::unary_functions::unary_function;
use crate::network::Op;

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
            Self::BatchFirst(lower) => batch_first_outputs(builder, ctx, lower)?,
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

/// Maximum number of maps of one image that are computed one by one.
const MOST_MAPS: usize = 64;

/// The output of an operator on tensors `[N,...]`. If the axis of its batch holds several maps of one image, such as
/// windows, every map is computed alone.
fn batch_first_outputs(
    builder: &mut GraphBuilder,
    ctx: &NodeContext,
    lower: Lower<BuilderId>,
) -> Result<ImageTensor, String> {
    let tensor = ctx.image_tensor(0)?;
    let shape = tensor.file_shape(builder);
    let maps = shape.first().copied().unwrap_or(1);
    if maps == 1 {
        let ctx = with_inputs(ctx, |tensor| tensor.with_batch(builder, Some(0)))?;
        return Ok(ImageTensor::batch_first(lower(builder, &ctx)?));
    }
    if maps > MOST_MAPS {
        return Err(format!(
            "axis 0 of {shape} is not the batch, but holds {maps} maps of one image; at most {MOST_MAPS} are supported"
        ));
    }
    let all = tensor.with_batch(builder, None)?.id;
    let sized = builder.depends_on_image_size(all, 0);
    let mut outputs = Vec::with_capacity(maps);
    for start in 0..maps {
        let map = builder.push(Op::Slice { axis: 0, start, end: start + 1, step: 1 }, &[all])?;
        let map = ImageTensor { id: map, batch: None }.with_batch(builder, Some(0))?;
        let output = lower(builder, &with_inputs(ctx, |_| Ok(map))?)?;
        outputs.push(ImageTensor::batch_first(output).with_batch(builder, None)?.id);
    }
    Ok(ImageTensor { id: builder.push_sized(Op::Concat { axis: 0 }, &outputs, sized)?, batch: None })
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

/// The lowering of a node with an input that depends on the image; `None` if it is not supported.
pub(super) fn of_node(node: &NodeProto) -> Option<LowerFn> {
    match node.domain.as_str() {
        CONTRIBUTED => contributed::contributed(&node.op_type),
        _ => lookup(&node.op_type).filter(|_| node.is_standard()),
    }
}

/// The lowering of an operator of ONNX itself.
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
        "QLinearConv" => integers::q_linear_conv,
        "ConvInteger" => integers::conv_integer,
        "ConvTranspose" => conv_transpose::conv_transpose,
        "Col2Im" => col2im::col2im,
        "DepthToSpace" => depth_space::depth_to_space,
        "SpaceToDepth" => depth_space::space_to_depth,
        "InstanceNormalization" => normalize::instance_normalization,
        "GroupNormalization" => normalize::group_normalization,
        "LRN" => normalize::lrn,

        "MaxPool" => pool::max_pool,
        "AveragePool" => pool::average_pool,
        "LpPool" => pool::lp_pool,
        "GlobalLpPool" => reduce::global_lp_pool,
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
        "Celu" => activation::celu,
        "Swish" => activation::swish,
        "Softsign" => activation::softsign,
        "ThresholdedRelu" => activation::thresholded_relu,
        "Shrink" => activation::shrink,

        "QuantizeLinear" => quantize::quantize_linear,
        "DequantizeLinear" => quantize::dequantize_linear,
        "Neg" => elementwise::neg,
        "Log" => elementwise::log,

        "Identity" => cast::identity,
        "Dropout" => cast::dropout,
        "Cast" => cast::cast,

        "Not" => select::not,
        "IsNaN" => select::is_nan,
        "IsInf" => select::is_inf,
        other if unary_function(other).is_some() => elementwise::function,
        _ => return None,
    })
}

fn one(op_type: &str) -> Option<Lower<ImageTensor>> {
    Some(match op_type {
        "Gemm" => dense::gemm,
        "MatMul" => dense::mat_mul,
        "QLinearMatMul" => integers::q_linear_mat_mul,
        "MatMulInteger" => integers::mat_mul_integer,
        "Attention" => attention::attention,
        "RotaryEmbedding" => rotary::rotary_embedding,
        "Einsum" => einsum::einsum,
        "BatchNormalization" => batch_norm::batch_normalization,
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
        "CumSum" => cumulative::cum_sum,
        "Trilu" => cumulative::trilu,

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
        "EyeLike" => shape::eye_like,
        "DynamicQuantizeLinear" => integers::dynamic_quantize_linear,
        _ => return None,
    })
}

/// Whether an operator that is refused has an output of the shape of its first input, so that what follows can still be
/// checked.
pub(super) fn keeps_shape(op_type: &str) -> bool {
    let others = [
        "BatchNormalization",
        "Bernoulli",
        "GroupNormalization",
        "Hardmax",
        "InstanceNormalization",
        "LayerNormalization",
        "LogSoftmax",
        "LpNormalization",
        "LRN",
        "MeanVarianceNormalization",
        "PRelu",
        "RandomNormalLike",
        "RandomUniformLike",
        "RMSNormalization",
        "RotaryEmbedding",
        "Softmax",
        "Trilu",
    ];
    elementwise(op_type).is_some() || others.contains(&op_type)
}

/// Why an operator of this domain has no lowering.
pub(super) fn unsupported(domain: &str, op_type: &str) -> &'static str {
    match op_type {
        _ if domain == "com.microsoft.nchwc" => {
            "ONNX Runtime writes this operation for one kind of processor; save the network with its extended \
             optimizations at most, or without"
        }
        _ if !domain.is_empty() => "the operation is not supported",
        "Loop" | "Scan" => "loops are not supported; export the network by tracing, which unrolls them",
        name if name.starts_with("Sequence") || matches!(name, "SplitToSequence" | "ConcatFromSequence") => {
            "sequences of tensors are not supported"
        }
        name if name.starts_with("Optional") => "optional tensors are not supported",
        _ => "the operation is not supported",
    }
}
