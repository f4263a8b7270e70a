//! EfficientNet-Lite (Tan & Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
//! arXiv:1905.11946): without squeeze-and-excitation, with ReLU6 instead of swish; stem, head and the number of blocks
//! in the first and last stage are not scaled.

use super::blueprint::Blueprint;
use super::weights::Weights;
use super::{Architecture, Family};
use crate::network::{Activation, Network, NodeId, Op, Padding, Reduce, Window};

/// Sizes of EfficientNet-Lite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EfficientNetLite {
    /// 224 pixels, 16 blocks.
    Lite0,
    /// 240 pixels, 21 blocks.
    Lite1,
    /// 260 pixels, 21 wider blocks.
    Lite2,
}

/// A stage of the unscaled network: blocks of the same shape, the first of which may downsample.
struct Stage {
    blocks: usize,
    kernel: usize,
    stride: usize,
    expansion: usize,
    outputs: usize,
}

const fn stage(blocks: usize, kernel: usize, stride: usize, expansion: usize, outputs: usize) -> Stage {
    Stage { blocks, kernel, stride, expansion, outputs }
}

/// Table 1 of the paper.
const STAGES: [Stage; 7] = [
    stage(1, 3, 1, 1, 16),
    stage(2, 3, 2, 6, 24),
    stage(2, 5, 2, 6, 40),
    stage(3, 3, 2, 6, 80),
    stage(3, 5, 1, 6, 112),
    stage(4, 5, 2, 6, 192),
    stage(1, 3, 1, 6, 320),
];
const STEM: usize = 32;
const HEAD: usize = 1280;
const EPSILON: f64 = 1e-3;
const RELU6: Activation = Activation::Clip { min: 0.0, max: 6.0 };

impl EfficientNetLite {
    /// Height and width of the input, in pixels.
    pub fn side(self) -> usize {
        match self {
            Self::Lite0 => 224,
            Self::Lite1 => 240,
            Self::Lite2 => 260,
        }
    }

    /// The architecture of this size: `efficientnet-lite0` and so on.
    pub fn architecture(self) -> Architecture {
        let name = match self {
            Self::Lite0 => "efficientnet-lite0",
            Self::Lite1 => "efficientnet-lite1",
            Self::Lite2 => "efficientnet-lite2",
        };
        Architecture { name, input: [3, self.side(), self.side()], family: Family::EfficientNetLite(self) }
    }

    /// Channels scaled in width (by 1.1 for Lite2), rounded to a multiple of 8 that is at least 90 % of the scaled
    /// number.
    fn width(self, channels: usize) -> usize {
        let tenths = if self == Self::Lite2 { 11 } else { 10 };
        let scaled = channels * tenths;
        let rounded = (scaled + 40) / 80 * 8;
        if rounded * 100 < scaled * 9 { rounded + 8 } else { rounded }
    }

    /// Number of blocks scaled in depth (by 1.1 for Lite1 and 1.2 for Lite2), rounded up.
    fn depth(self, blocks: usize) -> usize {
        let tenths = match self {
            Self::Lite0 => 10,
            Self::Lite1 => 11,
            Self::Lite2 => 12,
        };
        (blocks * tenths).div_ceil(10)
    }

    pub(super) fn draw(self, blueprint: &mut Blueprint<'_>) {
        let mut map = FeatureMap { node: Network::INPUT, channels: 3, side: self.side() };
        map = conv(blueprint, "stem", ["_conv_stem", "_bn0"], Kernel { side: 3, stride: 2, groups: 1 }, STEM, map);
        map = relu6(blueprint, "stem", map);
        let mut number = 0;
        for (i, stage) in STAGES.iter().enumerate() {
            let scaled = i > 0 && i + 1 < STAGES.len();
            let blocks = if scaled { self.depth(stage.blocks) } else { stage.blocks };
            for repeat in 0..blocks {
                let stride = if repeat == 0 { stage.stride } else { 1 };
                let (kernel, expansion, outputs) = (stage.kernel, stage.expansion, self.width(stage.outputs));
                map = block(blueprint, number, Block { kernel, stride, expansion, outputs }, map);
                number += 1;
            }
        }
        map = conv(blueprint, "head", ["_conv_head", "_bn1"], POINTWISE, HEAD, map);
        map = relu6(blueprint, "head", map);
        let pool = Op::Reduce { kind: Reduce::Mean, axes: vec![1, 2], keep: false };
        let pool = blueprint.push("pool", pool, &[map.node]);
        blueprint.logits("_fc", HEAD, pool);
    }
}

/// A feature map of the network under construction.
#[derive(Clone, Copy)]
struct FeatureMap {
    node: NodeId,
    channels: usize,
    side: usize,
}

#[derive(Clone, Copy)]
struct Kernel {
    side: usize,
    stride: usize,
    groups: usize,
}

const POINTWISE: Kernel = Kernel { side: 1, stride: 1, groups: 1 };

struct Block {
    kernel: usize,
    stride: usize,
    expansion: usize,
    outputs: usize,
}

/// Inverted residual block: expansion, depthwise convolution, projection; the input is added if the shapes agree.
fn block(blueprint: &mut Blueprint<'_>, number: usize, shape: Block, input: FeatureMap) -> FeatureMap {
    let name = |part: &str| format!("blocks.{number}.{part}");
    let tensor = |part: &str| format!("_blocks.{number}.{part}");
    let mut map = input;
    if shape.expansion > 1 {
        let expanded = input.channels * shape.expansion;
        map = conv(blueprint, &name("expand"), [&tensor("_expand_conv"), &tensor("_bn0")], POINTWISE, expanded, map);
        map = relu6(blueprint, &name("expand"), map);
    }
    let kernel = Kernel { side: shape.kernel, stride: shape.stride, groups: map.channels };
    let channels = map.channels;
    map = conv(blueprint, &name("depthwise"), [&tensor("_depthwise_conv"), &tensor("_bn1")], kernel, channels, map);
    map = relu6(blueprint, &name("depthwise"), map);
    map = conv(blueprint, &name("project"), [&tensor("_project_conv"), &tensor("_bn2")], POINTWISE, shape.outputs, map);
    if shape.stride == 1 && input.channels == shape.outputs {
        map.node = blueprint.add(name("add"), input.node, map.node);
    }
    map
}

fn conv(
    blueprint: &mut Blueprint<'_>,
    name: &str,
    [tensors, norm]: [&str; 2],
    kernel: Kernel,
    outputs: usize,
    input: FeatureMap,
) -> FeatureMap {
    let (before, after) = same_padding(input.side, kernel.side, kernel.stride);
    let window = Window {
        stride: [kernel.stride; 2],
        padding: Padding { top: before, left: before, bottom: after, right: after },
        ..Window::new([kernel.side; 2])
    };
    let shape = [outputs, input.channels / kernel.groups, kernel.side, kernel.side];
    let weights = Weights::new(tensors, shape).without_bias().batch_norm(norm, EPSILON);
    let node = blueprint.conv(name, weights, window, kernel.groups, input.node);
    FeatureMap { node, channels: outputs, side: input.side.div_ceil(kernel.stride) }
}

fn relu6(blueprint: &mut Blueprint<'_>, name: &str, map: FeatureMap) -> FeatureMap {
    let node = blueprint.push(format!("{name}.relu6"), Op::Activation(RELU6), &[map.node]);
    FeatureMap { node, ..map }
}

/// TensorFlow's `SAME` padding before and after an axis: as much as `ceil(side / stride)` outputs need, an odd pixel
/// after.
fn same_padding(side: usize, kernel: usize, stride: usize) -> (usize, usize) {
    let needed = (side.div_ceil(stride) - 1) * stride + kernel;
    let border = needed.saturating_sub(side);
    (border / 2, border - border / 2)
}
