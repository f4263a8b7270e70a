//! Lowering: chooses the kernel of an operation.

use std::sync::Arc;

use crate::engine::cpu::epilogue::Epilogue;
use crate::engine::cpu::kernel::{BackwardArgs, BackwardNeeds, ForwardArgs, Kernel, KernelConfig, ThreadCtx};
use crate::engine::cpu::kernels::activation::ActivationKernel;
use crate::engine::cpu::kernels::average_pool::{AveragePool, GlobalPool};
use crate::engine::cpu::kernels::binary::BinaryKernel;
use crate::engine::cpu::kernels::broadcast::{ScalarBroadcast, ScalarSelect};
use crate::engine::cpu::kernels::concat::{ChannelConcat, ScalarConcat};
use crate::engine::cpu::kernels::conv::{ConvAlgorithm, ConvKernel};
use crate::engine::cpu::kernels::dense::DenseKernel;
use crate::engine::cpu::kernels::elementwise::{AffineKernel, RowAffineKernel};
use crate::engine::cpu::kernels::gather::{AxisGather, ScalarConstant};
use crate::engine::cpu::kernels::local_response::ScalarLocalResponse;
use crate::engine::cpu::kernels::matmul::{ScalarDense, ScalarMatMul};
use crate::engine::cpu::kernels::max_pool::MaxPool;
use crate::engine::cpu::kernels::moves::MoveKernel;
use crate::engine::cpu::kernels::normalize::NormalizeKernel;
use crate::engine::cpu::kernels::product::MatMulKernel;
use crate::engine::cpu::kernels::quantize::ScalarDynamicQuantize;
use crate::engine::cpu::kernels::reduce::{ScalarReduce, reduction_needs};
use crate::engine::cpu::kernels::resize::ScalarResize;
use crate::engine::cpu::kernels::scalar::ScalarKernel;
use crate::engine::cpu::kernels::scalar_normalize::ScalarNormalize;
use crate::engine::cpu::kernels::softmax::SoftmaxKernel;
use crate::engine::cpu::kernels::unary::ScalarUnary;
use crate::engine::cpu::kernels::value_groups::GroupLayout;
use crate::engine::cpu::layout::Layout;
use crate::network::{Binary, Op, Reduce};

/// The kernel of an operation; None for the input, which has nothing to compute.
pub(crate) fn lower(
    op: &Op,
    inputs: &[&Layout],
    output: &Layout,
    config: KernelConfig,
    algorithms: [ConvAlgorithm; 2],
) -> Result<Option<Arc<dyn Kernel>>, String> {
    if let Some(needs) = scalar_needs(op, inputs, output).filter(|_| config.weightless) {
        return Ok(Some(Arc::new(WeightlessKernel(needs))));
    }
    Ok(Some(match op {
        Op::Input => return Ok(None),
        Op::Constant(array) => Arc::new(ScalarKernel(ScalarConstant::new(array, output))),
        Op::Conv(conv) => Arc::new(ConvKernel::new(conv, inputs[0], output, config, algorithms)),
        Op::Dense { weight, bias } if are_rows(inputs[0], output) => {
            let vectors = inputs[0].size()[0];
            Arc::new(DenseKernel::new(weight, bias.as_ref(), vectors, config))
        }
        Op::Dense { weight, bias } => {
            Arc::new(ScalarKernel(ScalarDense::new(weight, bias.as_ref(), inputs[0], output)))
        }
        Op::MatMul if are_rows(inputs[0], inputs[1]) && output.is_row_major() => {
            Arc::new(MatMulKernel::new(inputs[0], inputs[1], output, config))
        }
        Op::MatMul => Arc::new(ScalarKernel(ScalarMatMul::new(inputs[0], inputs[1], output))),
        Op::Affine { scale, shift } if is_per_channel(inputs[0]) => Arc::new(AffineKernel::new(scale, shift, 1)),
        Op::Affine { scale, shift } if inputs[0].is_row_major() => {
            Arc::new(RowAffineKernel::new(scale, shift, inputs[0]))
        }
        Op::Affine { scale, shift } => Arc::new(AffineKernel::new(scale, shift, inputs[0].strides()[0])),
        Op::Activation(activation) => Arc::new(ActivationKernel::new(activation, inputs[0])),
        Op::Unary(function) => Arc::new(ScalarKernel(ScalarUnary(*function))),
        Op::Binary(kind) if BinaryKernel::accepts(*kind, inputs, output) => {
            Arc::new(BinaryKernel::new(*kind, inputs, output))
        }
        Op::Binary(kind) => Arc::new(ScalarKernel(ScalarBroadcast::new(*kind, inputs[0], inputs[1], output))),
        Op::Select => Arc::new(ScalarKernel(ScalarSelect::new(inputs, output))),
        Op::Concat { axis: 0 } if output.is_channels_last() => Arc::new(ChannelConcat::new(inputs)),
        Op::Concat { axis } => Arc::new(ScalarKernel(ScalarConcat::new(*axis, inputs, output))),
        Op::MaxPool(window) => Arc::new(MaxPool::new(window, inputs[0], output)),
        Op::AveragePool { window, count_padding } => {
            Arc::new(AveragePool::new(window, *count_padding, inputs[0], output))
        }
        Op::Reduce { kind: kind @ (Reduce::Mean | Reduce::Sum), axes, .. }
            if axes.as_slice() == [1, 2] && inputs[0].is_channels_last() && is_per_channel(output) =>
        {
            let pixels = inputs[0][1] * inputs[0][2];
            let factor = if *kind == Reduce::Mean { 1.0 / pixels as f32 } else { 1.0 };
            Arc::new(GlobalPool { factor })
        }
        Op::Reduce { kind, axes, .. } => Arc::new(ScalarKernel(ScalarReduce::new(*kind, axes, inputs[0], output))),
        Op::Pad { before, mode, .. } => Arc::new(MoveKernel::pad(before, *mode, inputs[0], output)),
        Op::Reshape(_) => Arc::new(MoveKernel::reshape(inputs[0], output)),
        Op::Transpose(order) => Arc::new(MoveKernel::transpose(order, inputs[0], output)),
        Op::Slice { axis, start, step, .. } => Arc::new(MoveKernel::slice(*axis, *start, *step, inputs[0], output)),
        Op::Gather { axis, indices } => Arc::new(ScalarKernel(AxisGather::new(*axis, indices, inputs[0]))),
        Op::Resize(resize) => Arc::new(ScalarKernel(ScalarResize::new(resize, inputs[0], output))),
        Op::Normalize(normalize) => match GroupLayout::of(&normalize.axes, normalize.groups, inputs[0]) {
            Some(layout) => Arc::new(NormalizeKernel::new(normalize, layout, inputs[0], config.weightless)),
            None => Arc::new(ScalarKernel(ScalarNormalize::new(normalize, inputs[0]))),
        },
        Op::LocalResponse(norm) => Arc::new(ScalarKernel(ScalarLocalResponse::new(*norm, inputs[0]))),
        Op::Softmax { axis } => Arc::new(SoftmaxKernel::new(*axis, inputs[0], false)?),
        Op::LogSoftmax { axis } => Arc::new(SoftmaxKernel::new(*axis, inputs[0], true)?),
        Op::DynamicQuantize => Arc::new(ScalarKernel(ScalarDynamicQuantize)),
    }))
}

/// Whether the first axis is the channels of the pixels that vector code sees.
fn is_per_channel(layout: &Layout) -> bool {
    layout.is_channels_last() || layout.len() == 1
}

/// Whether the vectors along the last axis are contiguous in both tensors.
fn are_rows(input: &Layout, output: &Layout) -> bool {
    input.is_row_major() && output.is_row_major()
}

/// Placeholder for a scalar kernel in a plan without weights, so that its tables are not built.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WeightlessKernel(pub(crate) BackwardNeeds);

impl Kernel for WeightlessKernel {
    fn fuses_epilogue(&self) -> bool {
        false
    }

    fn backward_needs(&self) -> BackwardNeeds {
        self.0
    }

    fn forward(&self, _: &ThreadCtx<'_>, _: &ForwardArgs<'_>, _: &Epilogue<'_>) {}

    fn backward(&self, _: &ThreadCtx<'_>, _: usize, _: &BackwardArgs<'_>, _: &Epilogue<'_>) {}
}

/// What the backward pass of an operation reads, if a [`ScalarKernel`] computes it.
pub(crate) fn scalar_needs(op: &Op, inputs: &[&Layout], output: &Layout) -> Option<BackwardNeeds> {
    let none = BackwardNeeds::default();
    match op {
        Op::Affine { .. } => None,
        Op::Concat { axis: 0 } if output.is_channels_last() => None,
        Op::Reduce { kind: Reduce::Mean | Reduce::Sum, axes, .. }
            if axes[..] == [1, 2] && inputs[0].is_channels_last() && is_per_channel(output) =>
        {
            None
        }
        Op::Unary(_) => Some(BackwardNeeds { inputs: true, output: false }),
        Op::Binary(kind) if BinaryKernel::accepts(*kind, inputs, output) => None,
        Op::Binary(kind) => Some(BackwardNeeds { inputs: kind.reads_inputs(), output: *kind == Binary::Div }),
        Op::Select => Some(BackwardNeeds { inputs: true, output: false }),
        Op::Reduce { kind, .. } => Some(reduction_needs(*kind)),
        Op::Normalize(normalize) => {
            let scalar = GroupLayout::of(&normalize.axes, normalize.groups, inputs[0]).is_none();
            scalar.then_some(BackwardNeeds { inputs: true, output: false })
        }
        Op::LocalResponse(_) => Some(BackwardNeeds { inputs: true, output: false }),
        Op::Softmax { .. } | Op::LogSoftmax { .. } => None,
        Op::MatMul if are_rows(inputs[0], inputs[1]) && output.is_row_major() => None,
        Op::MatMul => Some(BackwardNeeds { inputs: true, output: false }),
        Op::Dense { .. } if are_rows(inputs[0], output) => None,
        Op::Dense { .. } | Op::Constant(_) | Op::Concat { .. } | Op::Pad { .. } | Op::Reshape(_) => Some(none),
        Op::Transpose(_) | Op::Slice { .. } | Op::Gather { .. } | Op::Resize(_) => Some(none),
        Op::DynamicQuantize => Some(none),
        Op::Input | Op::Conv(_) | Op::Activation(_) => None,
        Op::MaxPool(_) | Op::AveragePool { .. } => None,
    }
}

/// Upper bound of the bytes of the index tables of a [`ScalarKernel`].
pub(crate) fn table_bytes(op: &Op, inputs: &[&Layout], output: &Layout) -> usize {
    if scalar_needs(op, inputs, output).is_none() {
        return 0;
    }
    if let Op::Resize(resize) = op {
        // The taps of every row and column, an index and a weight each.
        let taps = |axis: usize| resize.most_taps(axis, inputs[0][axis + 1], output[axis + 1]);
        let bytes = |axis: usize| size_of::<Vec<(usize, f64)>>() + taps(axis) * size_of::<(usize, f64)>();
        return (0..2).map(|axis| output[axis + 1] * bytes(axis)).sum();
    }
    if let Op::Normalize(_) = op {
        // For each value its group, a factor and a summand.
        return output.elements() * (size_of::<u32>() + 2 * size_of::<f32>());
    }
    if matches!(op, Op::Unary(_) | Op::Gather { .. } | Op::DynamicQuantize) {
        return 0;
    }
    if let Op::Select = op {
        // For each value an index of each input.
        return inputs.len() * output.elements() * size_of::<u32>();
    }
    let longest = inputs.iter().map(|shape| shape.elements()).chain([output.elements()]).max().unwrap_or(0);
    // For each value an index, of both inputs if there are two.
    2 * longest * size_of::<u32>()
}
