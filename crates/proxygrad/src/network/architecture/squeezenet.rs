//! SqueezeNet 1.1 (Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model
//! size", arXiv:1602.07360; version 1.1 from the authors' repository) as ported to Keras: pools round down, and the
//! class scores are the mean of the last convolution without a ReLU.

use super::builder::{ConvShape, NetworkBuilder};
use super::{Architecture, ArchitectureError, StateDict};
use crate::network::{Activation, Axis, Network, NodeId, Op, Padding, Reduce, Window};

/// `(number, squeezed channels, channels of each expansion)` of the fire modules; a pool precedes 4 and 6.
const FIRES: [(usize, usize, usize); 8] =
    [(2, 16, 64), (3, 16, 64), (4, 32, 128), (5, 32, 128), (6, 48, 192), (7, 48, 192), (8, 64, 256), (9, 64, 256)];

pub(super) fn build(state: &StateDict) -> Result<Network, ArchitectureError> {
    let mut builder = NetworkBuilder::new(Architecture::SqueezeNet11, state);
    let stem = Window { stride: [2, 2], ..Window::new([3, 3]) };
    let shape = ConvShape { outputs: 64, inputs: 3, groups: 1, window: stem };
    let mut x = conv_relu(&mut builder, "conv1", "conv1", shape, Network::INPUT)?;
    x = pool(&mut builder, "pool1", x)?;
    let mut channels = 64;
    for (number, squeezed, expanded) in FIRES {
        match number {
            4 => x = pool(&mut builder, "pool3", x)?,
            6 => x = pool(&mut builder, "pool5", x)?,
            _ => {}
        }
        x = fire(&mut builder, number, [channels, squeezed, expanded], x)?;
        channels = 2 * expanded;
    }
    let classes = builder.outputs_of("conv10")?;
    let shape = ConvShape { outputs: classes, inputs: channels, groups: 1, window: Window::new([1, 1]) };
    x = builder.conv("conv10", "conv10", shape, x)?;
    x = builder.push("pool10", Op::Reduce { kind: Reduce::Mean, axes: vec![1, 2], keep: true }, &[x])?;
    x = builder.push("logits", Op::Reshape(vec![Axis::Copy(0)]), &[x])?;
    builder.network.set_outputs(vec![x]);
    Ok(builder.network)
}

fn fire(
    builder: &mut NetworkBuilder<'_>,
    number: usize,
    [channels, squeezed, expanded]: [usize; 3],
    input: NodeId,
) -> Result<NodeId, ArchitectureError> {
    let one = Window::new([1, 1]);
    let three = Window { padding: Padding { top: 1, left: 1, bottom: 1, right: 1 }, ..Window::new([3, 3]) };
    let mut branch = |part: &str, tensors: &str, outputs, inputs, window, from| {
        let shape = ConvShape { outputs, inputs, groups: 1, window };
        conv_relu(builder, &format!("fire{number}.{part}"), &format!("fire{number}/{tensors}"), shape, from)
    };
    let squeeze = branch("squeeze", "squeeze1x1", squeezed, channels, one, input)?;
    let narrow = branch("expand1x1", "expand1x1", expanded, squeezed, one, squeeze)?;
    let wide = branch("expand3x3", "expand3x3", expanded, squeezed, three, squeeze)?;
    builder.push(&format!("fire{number}"), Op::Concat { axis: 0 }, &[narrow, wide])
}

fn conv_relu(
    builder: &mut NetworkBuilder<'_>,
    name: &str,
    tensors: &str,
    shape: ConvShape,
    input: NodeId,
) -> Result<NodeId, ArchitectureError> {
    let conv = builder.conv(name, tensors, shape, input)?;
    builder.push(&format!("{name}.relu"), Op::Activation(Activation::Relu), &[conv])
}

fn pool(builder: &mut NetworkBuilder<'_>, name: &str, input: NodeId) -> Result<NodeId, ArchitectureError> {
    builder.push(name, Op::MaxPool(Window { stride: [2, 2], ..Window::new([3, 3]) }), &[input])
}
