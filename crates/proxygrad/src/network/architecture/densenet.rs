//! DenseNet (Huang et al., "Densely Connected Convolutional Networks", arXiv:1608.06993), with the names of
//! torchvision, which are those of timm too.

use super::blueprint::Blueprint;
use super::weights::Weights;
use crate::network::{Activation, Network, NodeId, Op, Padding, Reduce, Window};

/// Settings of a DenseNet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DenseNet {
    /// Layers of each dense block.
    pub blocks: [usize; 4],
    /// Channels that each layer adds.
    pub growth: usize,
    /// Channels of the first convolution.
    pub stem: usize,
}

/// Added to the variance in batch normalizations.
const EPSILON: f64 = 1e-5;
/// Channels of the 1x1 convolution of a layer, per channel that the layer adds.
const BOTTLENECK: usize = 4;

impl DenseNet {
    pub(super) fn draw(&self, blueprint: &mut Blueprint<'_>) {
        let relu = || Op::Activation(Activation::Relu);
        let border = |size| Padding { top: size, left: size, bottom: size, right: size };
        let stem = Window { stride: [2, 2], padding: border(3), ..Window::new([7, 7]) };
        let weights = Weights::new("features.conv0", [self.stem, 3, 7, 7]).without_bias();
        let weights = weights.batch_norm("features.norm0", EPSILON);
        let mut x = blueprint.conv("features.conv0", weights, stem, 1, Network::INPUT);
        x = blueprint.push("features.relu0", relu(), &[x]);
        let pool = Window { stride: [2, 2], padding: border(1), ..Window::new([3, 3]) };
        x = blueprint.push("features.pool0", Op::MaxPool(pool), &[x]);
        let mut channels = self.stem;
        for (i, &layers) in self.blocks.iter().enumerate() {
            let path = format!("features.denseblock{}", i + 1);
            for layer in 0..layers {
                x = self.layer(blueprint, &format!("{path}.denselayer{}", layer + 1), channels, x);
                channels += self.growth;
            }
            blueprint.module(path, x);
            if i + 1 < self.blocks.len() {
                let path = format!("features.transition{}", i + 1);
                x = blueprint.batch_norm(&format!("{path}.norm"), EPSILON, channels, x);
                x = blueprint.push(format!("{path}.relu"), relu(), &[x]);
                let name = format!("{path}.conv");
                let weights = Weights::new(&name, [channels / 2, channels, 1, 1]).without_bias();
                x = blueprint.conv(name, weights, Window::new([1, 1]), 1, x);
                let window = Window { stride: [2, 2], ..Window::new([2, 2]) };
                x = blueprint.push(format!("{path}.pool"), Op::AveragePool { window, count_padding: false }, &[x]);
                blueprint.module(path, x);
                channels /= 2;
            }
        }
        x = blueprint.batch_norm("features.norm5", EPSILON, channels, x);
        blueprint.module("features", x);
        x = blueprint.push("relu", relu(), &[x]);
        x = blueprint.push("avgpool", Op::Reduce { kind: Reduce::Mean, axes: vec![1, 2], keep: false }, &[x]);
        blueprint.module("global_pool", x);
        blueprint.logits("classifier", channels, x);
    }

    /// A layer, whose output follows its input in the channels.
    fn layer(&self, blueprint: &mut Blueprint<'_>, path: &str, channels: usize, input: NodeId) -> NodeId {
        let relu = || Op::Activation(Activation::Relu);
        let hidden = self.growth * BOTTLENECK;
        let mut x = blueprint.batch_norm(&format!("{path}.norm1"), EPSILON, channels, input);
        x = blueprint.push(format!("{path}.relu1"), relu(), &[x]);
        let name = format!("{path}.conv1");
        let weights = Weights::new(&name, [hidden, channels, 1, 1]).without_bias();
        let weights = weights.batch_norm(format!("{path}.norm2"), EPSILON);
        x = blueprint.conv(name, weights, Window::new([1, 1]), 1, x);
        x = blueprint.push(format!("{path}.relu2"), relu(), &[x]);
        let name = format!("{path}.conv2");
        let weights = Weights::new(&name, [self.growth, hidden, 3, 3]).without_bias();
        let three = Window { padding: Padding { top: 1, left: 1, bottom: 1, right: 1 }, ..Window::new([3, 3]) };
        x = blueprint.conv(name, weights, three, 1, x);
        blueprint.module(path, x);
        blueprint.push(format!("{path}.cat"), Op::Concat { axis: 0 }, &[input, x])
    }
}
