//! Convolution kernels, and which algorithm computes which layer. Weights get no gradient.

pub(crate) mod depthwise;
pub(crate) mod depthwise_rows;
pub(crate) mod implicit_gemm;
pub(crate) mod pixel_block;
pub(crate) mod pointwise;
pub(crate) mod weights;
pub(crate) mod winograd;

use self::depthwise::{Depthwise, is_depthwise};
use self::implicit_gemm::ImplicitGemm;
use self::pointwise::Pointwise;
use self::weights::ConvWeights;
use self::winograd::cost::{best_size, supported_sizes};
use self::winograd::packed::Winograd;
use self::winograd::transforms::TileSize;
use crate::engine::cpu::activation_mask::CHANNELS_PER_BYTE;
use crate::engine::cpu::epilogue::Epilogue;
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::kernel::{BackwardArgs, Direction, ForwardArgs, Kernel, KernelConfig, RowKernel, ThreadCtx};
use crate::network::{self, Array, Shape};

/// A convolution, forward and backward.
pub(crate) struct ConvKernel {
    forward: Implementation,
    backward: Implementation,
    bias: Option<Array>,
    /// Whether the channels of every group start at a byte of an activation mask.
    mask_aligned: bool,
}

/// What computes one direction.
enum Implementation {
    Pointwise(Pointwise),
    Winograd(Winograd),
    Depthwise(Depthwise),
    ImplicitGemm(ImplicitGemm),
}

/// An algorithm for convolutions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub(crate) enum ConvAlgorithm {
    /// Direct convolution: pointwise, depthwise or implicit GEMM.
    Direct,
    /// Winograd's minimal filtering with a tile size.
    Winograd(TileSize),
}

impl ConvAlgorithm {
    /// The algorithms that support a convolution. All give the same values within the precision of f32.
    pub(crate) fn all(conv: &network::Conv) -> Vec<Self> {
        let sizes = if is_depthwise(conv) { &[] } else { supported_sizes(conv) };
        sizes.iter().map(|&size| Self::Winograd(size)).chain([Self::Direct]).collect()
    }

    /// The algorithm that is probably fastest, for maps of height and width `inside` before and `outside` after the
    /// convolution.
    pub(crate) fn estimate(conv: &network::Conv, direction: Direction, [inside, outside]: [[usize; 2]; 2]) -> Self {
        if is_depthwise(conv) {
            return Self::Direct;
        }
        best_size(conv, direction, inside, outside).map_or(Self::Direct, Self::Winograd)
    }
}

impl ConvKernel {
    pub(crate) fn new(
        conv: &network::Conv,
        input: &Shape,
        output: &Shape,
        config: KernelConfig,
        [ahead, back]: [ConvAlgorithm; 2],
    ) -> Self {
        let (inside, outside) = ([input[1], input[2]], [output[1], output[2]]);
        let weights = ConvWeights::new(conv);
        let (forward, backward) = if is_depthwise(conv) {
            let forward = Depthwise::forward(conv, outside, config);
            (Implementation::Depthwise(forward), Implementation::Depthwise(Depthwise::backward(conv, inside, config)))
        } else if is_pointwise(conv) {
            let (from, to) = (weights.inputs, weights.outputs);
            let forward = Pointwise::new(from, to, config, |c, line| {
                line.iter_mut().enumerate().for_each(|(o, value)| *value = weights.weight(0, o, c, 0));
            });
            let backward = Pointwise::new(to, from, config, |o, line| {
                line.iter_mut().enumerate().for_each(|(c, value)| *value = weights.weight(0, o, c, 0));
            });
            (Implementation::Pointwise(forward), Implementation::Pointwise(backward))
        } else {
            let forward = match ahead {
                ConvAlgorithm::Direct => None,
                ConvAlgorithm::Winograd(size) => Winograd::forward(conv, size, config).map(Implementation::Winograd),
            };
            let backward = match back {
                ConvAlgorithm::Direct => None,
                ConvAlgorithm::Winograd(size) => Winograd::backward(conv, size, config).map(Implementation::Winograd),
            };
            let direct = || Implementation::ImplicitGemm(ImplicitGemm::forward(conv, inside, outside, config));
            let forward = forward.unwrap_or_else(direct);
            let direct = || Implementation::ImplicitGemm(ImplicitGemm::backward(conv, inside, outside, config));
            (forward, backward.unwrap_or_else(direct))
        };
        let mask_aligned = conv.groups == 1 || is_depthwise(conv) || weights.outputs.is_multiple_of(CHANNELS_PER_BYTE);
        Self { forward, backward, bias: conv.bias.clone(), mask_aligned }
    }
}

/// Whether each output pixel depends on one input pixel, at the same position.
fn is_pointwise(conv: &network::Conv) -> bool {
    let window = &conv.window;
    conv.groups == 1 && window.kernel == [1, 1] && window.stride == [1, 1] && window.padding.is_none()
}

impl Implementation {
    fn run(&self, ctx: &ThreadCtx<'_>, source: FeatureMap, epilogue: &Epilogue<'_>) {
        match self {
            Self::Pointwise(pointwise) => pointwise.run(ctx, source, epilogue),
            Self::Winograd(winograd) => winograd.run(ctx, source, epilogue),
            Self::Depthwise(depthwise) => depthwise.run(ctx, source, epilogue),
            Self::ImplicitGemm(gemm) => gemm.run(ctx, source, epilogue),
        }
    }

    fn row_kernel(&self) -> Option<&dyn RowKernel> {
        match self {
            Self::Pointwise(pointwise) => Some(pointwise),
            Self::Depthwise(depthwise) => Some(depthwise),
            Self::ImplicitGemm(gemm) => Some(gemm),
            Self::Winograd(_) => None,
        }
    }

    /// Bytes of the weights.
    fn bytes(&self) -> usize {
        match self {
            Self::Pointwise(pointwise) => pointwise.bytes(),
            Self::Winograd(winograd) => winograd.bytes(),
            Self::Depthwise(depthwise) => depthwise.bytes(),
            Self::ImplicitGemm(gemm) => gemm.bytes(),
        }
    }

    fn scratch_len(&self) -> usize {
        match self {
            Self::Pointwise(pointwise) => pointwise.scratch_len(),
            Self::Winograd(winograd) => winograd.scratch_len(),
            Self::Depthwise(_) => 0,
            Self::ImplicitGemm(gemm) => gemm.scratch_len(),
        }
    }

    fn shared_len(&self, images: usize, size: [usize; 2], threads: usize) -> usize {
        if let Self::Winograd(winograd) = self { winograd.shared_len(images, size, threads) } else { 0 }
    }
}

impl Kernel for ConvKernel {
    /// Groups must not share a byte of an activation mask.
    fn fuses_epilogue(&self) -> bool {
        self.mask_aligned
    }

    fn weight_bytes(&self) -> usize {
        self.forward.bytes() + self.backward.bytes()
    }

    fn scratch_len(&self) -> usize {
        self.forward.scratch_len().max(self.backward.scratch_len())
    }

    fn shared_len(&self, images: usize, [inside, outside]: [[usize; 2]; 2], threads: usize) -> usize {
        self.forward.shared_len(images, outside, threads).max(self.backward.shared_len(images, inside, threads))
    }

    fn bias(&self) -> Option<&[f32]> {
        self.bias.as_ref().map(Array::data)
    }

    fn row_kernel(&self, direction: Direction) -> Option<&dyn RowKernel> {
        match direction {
            Direction::Forward => self.forward.row_kernel(),
            Direction::Backward => self.backward.row_kernel(),
        }
    }

    fn forward(&self, ctx: &ThreadCtx<'_>, args: &ForwardArgs<'_>, epilogue: &Epilogue<'_>) {
        self.forward.run(ctx, args.inputs[0], epilogue);
    }

    fn backward(&self, ctx: &ThreadCtx<'_>, _: usize, args: &BackwardArgs<'_>, epilogue: &Epilogue<'_>) {
        match &self.backward {
            Implementation::Pointwise(pointwise) => pointwise.run_gradient(ctx, args.gradient, epilogue),
            other => other.run(ctx, args.gradient, epilogue),
        }
    }
}
