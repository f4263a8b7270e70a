//! Residual networks: ResNet (He et al., "Deep Residual Learning for Image Recognition", arXiv:1512.03385), ResNeXt
//! (Xie et al., arXiv:1611.05431) and Wide ResNet (Zagoruyko & Komodakis, arXiv:1605.07146), with the stride of a bottleneck
//! in its 3x3 convolution and the names of torchvision, which are those of timm too.

use super::blueprint::Blueprint;
use super::weights::Weights;
use crate::network::{Activation, Network, NodeId, Op, Padding, Reduce, Window};

/// Settings of a residual network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResNet {
    /// Blocks of each stage.
    pub blocks: [usize; 4],
    /// Channels of each stage, before a bottleneck's expansion by 4.
    pub channels: [usize; 4],
    /// Whether blocks are bottlenecks of 1x1, 3x3 and 1x1 convolutions instead of two 3x3 convolutions.
    pub bottleneck: bool,
    /// Groups of the 3x3 convolution of a bottleneck.
    pub groups: usize,
    /// Channels of that convolution per group, for 64 channels of the stage.
    pub group_width: usize,
}

/// Added to the variance in batch normalizations.
const EPSILON: f64 = 1e-5;
/// Channels of the first convolution.
const STEM: usize = 64;
/// Channels of a bottleneck's output per channel of its stage.
const EXPANSION: usize = 4;

impl ResNet {
    /// The published network of these depths.
    pub(super) const fn of(blocks: [usize; 4], bottleneck: bool, groups: usize, group_width: usize) -> Self {
        Self { blocks, channels: [64, 128, 256, 512], bottleneck, groups, group_width }
    }

    pub(super) fn draw(&self, blueprint: &mut Blueprint<'_>) {
        let mut x = conv(blueprint, ["conv1", "bn1"], [STEM, 3, 7], 2, 1, Network::INPUT);
        x = blueprint.push("relu", Op::Activation(Activation::Relu), &[x]);
        blueprint.module("act1", x);
        let border = Padding { top: 1, left: 1, bottom: 1, right: 1 };
        x = blueprint.push(
            "maxpool",
            Op::MaxPool(Window { stride: [2, 2], padding: border, ..Window::new([3, 3]) }),
            &[x],
        );
        let mut inputs = STEM;
        for (stage, (&blocks, &channels)) in self.blocks.iter().zip(&self.channels).enumerate() {
            let path = format!("layer{}", stage + 1);
            for index in 0..blocks {
                let stride = if stage > 0 && index == 0 { 2 } else { 1 };
                x = self.block(blueprint, &format!("{path}.{index}"), [inputs, channels], stride, x);
                inputs = self.outputs(channels);
            }
            blueprint.module(path, x);
        }
        x = blueprint.push("avgpool", Op::Reduce { kind: Reduce::Mean, axes: vec![1, 2], keep: false }, &[x]);
        blueprint.module("global_pool", x);
        blueprint.logits("fc", inputs, x);
    }

    /// Channels at the end of a block.
    fn outputs(&self, channels: usize) -> usize {
        if self.bottleneck { channels * EXPANSION } else { channels }
    }

    fn block(
        &self,
        blueprint: &mut Blueprint<'_>,
        path: &str,
        [inputs, channels]: [usize; 2],
        stride: usize,
        input: NodeId,
    ) -> NodeId {
        let outputs = self.outputs(channels);
        // Outputs, kernel, stride and groups.
        let convolutions = if self.bottleneck {
            let width = channels * self.group_width / 64 * self.groups;
            vec![(width, 1, 1, 1), (width, 3, stride, self.groups), (outputs, 1, 1, 1)]
        } else {
            vec![(channels, 3, stride, 1), (channels, 3, 1, 1)]
        };
        let last = convolutions.len();
        let (mut x, mut from) = (input, inputs);
        for (i, (to, kernel, stride, groups)) in convolutions.into_iter().enumerate() {
            let number = i + 1;
            let names = [&*format!("{path}.conv{number}"), &*format!("{path}.bn{number}")];
            x = conv(blueprint, names, [to, from / groups, kernel], stride, groups, x);
            if number < last {
                x = blueprint.push(format!("{path}.act{number}"), Op::Activation(Activation::Relu), &[x]);
            }
            from = to;
        }
        let mut shortcut = input;
        if stride != 1 || inputs != outputs {
            let names = [&*format!("{path}.downsample.0"), &*format!("{path}.downsample.1")];
            shortcut = conv(blueprint, names, [outputs, inputs, 1], stride, 1, input);
            blueprint.module(format!("{path}.downsample"), shortcut);
        }
        x = blueprint.add(format!("{path}.add"), x, shortcut);
        x = blueprint.push(path, Op::Activation(Activation::Relu), &[x]);
        // torchvision uses one module for all activations of a block; its last output is this one.
        blueprint.module(format!("{path}.relu"), x);
        blueprint.module(format!("{path}.act{last}"), x);
        x
    }
}

/// A convolution with the border that keeps the size at stride 1, and the batch normalization after it.
fn conv(
    blueprint: &mut Blueprint<'_>,
    [name, norm]: [&str; 2],
    [outputs, inputs, kernel]: [usize; 3],
    stride: usize,
    groups: usize,
    input: NodeId,
) -> NodeId {
    let border = kernel / 2;
    let padding = Padding { top: border, left: border, bottom: border, right: border };
    let window = Window { stride: [stride; 2], padding, ..Window::new([kernel; 2]) };
    let weights = Weights::new(name, [outputs, inputs, kernel, kernel]).without_bias().batch_norm(norm, EPSILON);
    blueprint.conv(name, weights, window, groups, input)
}
