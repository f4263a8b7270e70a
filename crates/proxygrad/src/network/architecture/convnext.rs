//! ConvNeXt (Liu et al., "A ConvNet for the 2020s", arXiv:2201.03545). Dense layers of channels-last maps are built as
//! 1x1 convolutions, so that every layer is a map `[C,H,W]`.

use super::Naming;
use super::blueprint::Blueprint;
use super::weights::{Tensor, Weights};
use crate::network::{Activation, Axis, Network, NodeId, Op, Padding, Reduce, Window};

/// Settings of a ConvNeXt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvNext {
    /// Blocks of each stage.
    pub blocks: [usize; 4],
    /// Channels of each stage.
    pub channels: [usize; 4],
}

/// Added to the variance in layer normalizations.
const EPSILON: f32 = 1e-6;
/// Channels between the two dense layers of a block, per channel of the block.
const EXPANSION: usize = 4;
/// The channel axis of a map.
const CHANNELS: [usize; 2] = [0, 3];

/// Names of the parts of a stage.
struct Names {
    /// Normalization and convolution before a stage; convolution and normalization for the first one.
    down: [String; 2],
    /// The module of both.
    downsample: String,
    stage: String,
    /// Prefix of blocks, before their index.
    blocks: String,
}

/// Names of the parts of a block: depthwise convolution, normalization, dense layers, activation, and scale.
struct BlockNames {
    conv: &'static str,
    norm: &'static str,
    dense: [&'static str; 2],
    activation: &'static str,
    /// Module that ends with the second dense layer.
    mlp: &'static str,
    scale: &'static str,
}

const TORCHVISION: BlockNames = BlockNames {
    conv: "block.0",
    norm: "block.2",
    dense: ["block.3", "block.5"],
    activation: "block.4",
    mlp: "block",
    scale: "layer_scale",
};
const TIMM: BlockNames = BlockNames {
    conv: "conv_dw",
    norm: "norm",
    dense: ["mlp.fc1", "mlp.fc2"],
    activation: "mlp.act",
    mlp: "mlp",
    scale: "gamma",
};

impl ConvNext {
    pub(super) fn draw(&self, naming: Naming, blueprint: &mut Blueprint<'_>) {
        let (mut x, mut inputs) = (Network::INPUT, 3);
        for (stage, (&blocks, &channels)) in self.blocks.iter().zip(&self.channels).enumerate() {
            let Names { down: [first, second], downsample, stage: path, blocks: prefix } = names(naming, stage);
            if stage == 0 {
                x = patches(blueprint, &first, [channels, inputs, 4], x);
                x = blueprint.layer_norm(&second, channels, CHANNELS, EPSILON, x);
            } else {
                x = blueprint.layer_norm(&first, inputs, CHANNELS, EPSILON, x);
                x = patches(blueprint, &second, [channels, inputs, 2], x);
            }
            blueprint.module(downsample, x);
            for block in 0..blocks {
                x = self.block(blueprint, naming, &format!("{prefix}.{block}"), channels, x);
            }
            if path != prefix {
                blueprint.module(prefix, x);
            }
            blueprint.module(path, x);
            inputs = channels;
        }
        let (trunk, head) = match naming {
            Naming::Torchvision => ("features", "classifier"),
            Naming::Timm => ("stages", "head"),
        };
        blueprint.module(trunk, x);
        let (pool, norm, flatten, dense) = match naming {
            Naming::Torchvision => ("avgpool", "classifier.0", "classifier.1", "classifier.2"),
            Naming::Timm => ("head.global_pool", "head.norm", "head.flatten", "head.fc"),
        };
        x = blueprint.push(pool, Op::Reduce { kind: Reduce::Mean, axes: vec![1, 2], keep: true }, &[x]);
        x = blueprint.layer_norm(norm, inputs, CHANNELS, EPSILON, x);
        x = blueprint.push(flatten, Op::Reshape(vec![Axis::Copy(0)]), &[x]);
        blueprint.logits(dense, inputs, x);
        let output = blueprint.output;
        blueprint.module(head, output);
    }

    fn block(
        &self,
        blueprint: &mut Blueprint<'_>,
        naming: Naming,
        path: &str,
        channels: usize,
        input: NodeId,
    ) -> NodeId {
        let (names, scale) = match naming {
            Naming::Torchvision => (TORCHVISION, vec![channels, 1, 1]),
            Naming::Timm => (TIMM, vec![channels]),
        };
        let name = |part: &str| format!("{path}.{part}");
        let border = Padding { top: 3, left: 3, bottom: 3, right: 3 };
        let window = Window { padding: border, ..Window::new([7, 7]) };
        let conv = name(names.conv);
        let mut x = blueprint.conv(&conv, Weights::new(&conv, [channels, 1, 7, 7]), window, channels, input);
        x = blueprint.layer_norm(&name(names.norm), channels, CHANNELS, EPSILON, x);
        let [first, second] = names.dense.map(name);
        let hidden = channels * EXPANSION;
        x = blueprint.pointwise(&first, Weights::new(&first, [hidden, channels]), x);
        x = blueprint.push(name(names.activation), Op::Activation(Activation::Gelu { tanh: false }), &[x]);
        let weights = Weights::new(&second, [channels, hidden]);
        x = blueprint.pointwise(&second, weights.scaled(Tensor::new(name(names.scale), scale), None), x);
        blueprint.module(name(names.mlp), x);
        blueprint.add(path, input, x)
    }
}

/// A convolution of patches that do not overlap.
fn patches(blueprint: &mut Blueprint<'_>, name: &str, [outputs, inputs, side]: [usize; 3], input: NodeId) -> NodeId {
    let window = Window { stride: [side; 2], ..Window::new([side; 2]) };
    blueprint.conv(name, Weights::new(name, [outputs, inputs, side, side]), window, 1, input)
}

fn names(naming: Naming, stage: usize) -> Names {
    match naming {
        Naming::Torchvision => {
            let (down, path) = (format!("features.{}", 2 * stage), format!("features.{}", 2 * stage + 1));
            Names { down: [0, 1].map(|i| format!("{down}.{i}")), downsample: down, stage: path.clone(), blocks: path }
        }
        Naming::Timm => {
            let path = format!("stages.{stage}");
            let down = if stage == 0 { "stem".into() } else { format!("{path}.downsample") };
            let blocks = format!("{path}.blocks");
            Names { down: [0, 1].map(|i| format!("{down}.{i}")), downsample: down, stage: path, blocks }
        }
    }
}
