//! SqueezeNet 1.1 (Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model
//! size", arXiv:1602.07360; version 1.1 from the authors' repository) as ported to Keras: pools round down, and the
//! class scores are the mean of the last convolution without a ReLU.

use super::blueprint::Blueprint;
use super::weights::Weights;
use crate::network::{Activation, Axis, Network, NodeId, Op, Padding, Reduce, Window};

/// `(number, squeezed channels, channels of each expansion)` of the fire modules; a pool precedes 4 and 6.
const FIRES: [(usize, usize, usize); 8] =
    [(2, 16, 64), (3, 16, 64), (4, 32, 128), (5, 32, 128), (6, 48, 192), (7, 48, 192), (8, 64, 256), (9, 64, 256)];

pub(super) fn draw(blueprint: &mut Blueprint<'_>) {
    let stem = Window { stride: [2, 2], ..Window::new([3, 3]) };
    let mut x = conv_relu(blueprint, "conv1", "conv1", [64, 3], stem, Network::INPUT);
    x = pool(blueprint, "pool1", x);
    let mut channels = 64;
    for (number, squeezed, expanded) in FIRES {
        match number {
            4 => x = pool(blueprint, "pool3", x),
            6 => x = pool(blueprint, "pool5", x),
            _ => {}
        }
        x = fire(blueprint, number, [channels, squeezed, expanded], x);
        channels = 2 * expanded;
    }
    let weights = Weights::new("conv10", [blueprint.outputs_of("conv10"), channels, 1, 1]);
    x = blueprint.conv("conv10", weights, Window::new([1, 1]), 1, x);
    x = blueprint.push("pool10", Op::Reduce { kind: Reduce::Mean, axes: vec![1, 2], keep: true }, &[x]);
    blueprint.output = blueprint.push("logits", Op::Reshape(vec![Axis::Copy(0)]), &[x]);
}

fn fire(
    blueprint: &mut Blueprint<'_>,
    number: usize,
    [channels, squeezed, expanded]: [usize; 3],
    input: NodeId,
) -> NodeId {
    let one = Window::new([1, 1]);
    let three = Window { padding: Padding { top: 1, left: 1, bottom: 1, right: 1 }, ..Window::new([3, 3]) };
    let mut branch = |part: &str, tensors: &str, channels, window, from| {
        conv_relu(
            blueprint,
            &format!("fire{number}.{part}"),
            &format!("fire{number}/{tensors}"),
            channels,
            window,
            from,
        )
    };
    let squeeze = branch("squeeze", "squeeze1x1", [squeezed, channels], one, input);
    let narrow = branch("expand1x1", "expand1x1", [expanded, squeezed], one, squeeze);
    let wide = branch("expand3x3", "expand3x3", [expanded, squeezed], three, squeeze);
    blueprint.push(format!("fire{number}"), Op::Concat { axis: 0 }, &[narrow, wide])
}

fn conv_relu(
    blueprint: &mut Blueprint<'_>,
    name: &str,
    tensors: &str,
    [outputs, inputs]: [usize; 2],
    window: Window,
    input: NodeId,
) -> NodeId {
    let [height, width] = window.kernel;
    let conv = blueprint.conv(name, Weights::new(tensors, [outputs, inputs, height, width]), window, 1, input);
    blueprint.push(format!("{name}.relu"), Op::Activation(Activation::Relu), &[conv])
}

fn pool(blueprint: &mut Blueprint<'_>, name: &str, input: NodeId) -> NodeId {
    blueprint.push(name, Op::MaxPool(Window { stride: [2, 2], ..Window::new([3, 3]) }), &[input])
}
