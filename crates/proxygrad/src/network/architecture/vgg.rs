//! VGG (Simonyan & Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", arXiv:1409.1556),
//! for images of 224 pixels.

use super::Naming;
use super::blueprint::Blueprint;
use super::weights::Weights;
use crate::network::{Activation, Axis, Network, Op, Padding, Window};

/// Settings of a VGG network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vgg {
    /// 3x3 convolutions of each stage; a pool follows each stage.
    pub convolutions: [usize; 5],
    /// Channels of each stage.
    pub channels: [usize; 5],
    /// Values of the two hidden dense layers.
    pub hidden: usize,
    /// Whether batch normalizations follow the convolutions.
    pub batch_norm: bool,
}

/// Added to the variance in batch normalizations.
const EPSILON: f64 = 1e-5;
/// Height and width of the last map.
const SIDE: usize = 7;

impl Vgg {
    /// The published network of this depth.
    pub(super) const fn of(convolutions: [usize; 5], batch_norm: bool) -> Self {
        Self { convolutions, channels: [64, 128, 256, 512, 512], hidden: 4096, batch_norm }
    }

    pub(super) fn draw(&self, naming: Naming, blueprint: &mut Blueprint<'_>) {
        let three = Window { padding: Padding { top: 1, left: 1, bottom: 1, right: 1 }, ..Window::new([3, 3]) };
        let relu = || Op::Activation(Activation::Relu);
        let (mut x, mut inputs, mut number) = (Network::INPUT, 3, 0);
        let mut next = || {
            number += 1;
            format!("features.{}", number - 1)
        };
        for (&convolutions, &channels) in self.convolutions.iter().zip(&self.channels) {
            for _ in 0..convolutions {
                let name = next();
                let mut weights = Weights::new(&name, [channels, inputs, 3, 3]);
                if self.batch_norm {
                    weights = weights.batch_norm(next(), EPSILON);
                }
                x = blueprint.conv(name, weights, three, 1, x);
                x = blueprint.push(next(), relu(), &[x]);
                inputs = channels;
            }
            x = blueprint.push(next(), Op::MaxPool(Window { stride: [2, 2], ..Window::new([2, 2]) }), &[x]);
        }
        blueprint.module("features", x);
        match naming {
            Naming::Torchvision => {
                blueprint.module("avgpool", x);
                x = blueprint.push("flatten", Op::Reshape(vec![Axis::Infer]), &[x]);
                for (dense, activation, inputs) in [(0, 1, inputs * SIDE * SIDE), (3, 4, self.hidden)] {
                    let name = format!("classifier.{dense}");
                    x = blueprint.dense(&name, Weights::new(&name, [self.hidden, inputs]), x);
                    x = blueprint.push(format!("classifier.{activation}"), relu(), &[x]);
                }
                blueprint.logits("classifier.6", self.hidden, x);
                let output = blueprint.output;
                blueprint.module("classifier", output);
            }
            Naming::Timm => {
                for (number, inputs, side) in [(1, inputs, SIDE), (2, self.hidden, 1)] {
                    let name = format!("pre_logits.fc{number}");
                    let weights = Weights::new(&name, [self.hidden, inputs, side, side]);
                    x = blueprint.conv(name, weights, Window::new([side; 2]), 1, x);
                    x = blueprint.push(format!("pre_logits.act{number}"), relu(), &[x]);
                }
                blueprint.module("pre_logits", x);
                x = blueprint.push("head.global_pool", Op::Reshape(vec![Axis::Infer]), &[x]);
                blueprint.logits("head.fc", self.hidden, x);
                let output = blueprint.output;
                blueprint.module("head", output);
            }
        }
    }
}
