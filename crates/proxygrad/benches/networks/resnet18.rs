//! ResNet-18: He et al., "Deep Residual Learning for Image Recognition", arXiv:1512.03385, with folded batch norms.

use proxygrad::network::{Activation, Binary, Conv, Network, NodeId, Op, Padding, Reduce, Window};

use super::noise::Noise;

pub fn build() -> anyhow::Result<Network> {
    let [channels, height, width] = [3, 224, 224];
    let mut builder = Builder { network: Network::new(channels, height, width), noise: Noise::default() };
    let stem = builder.conv("conv1", Network::INPUT, Kernel { outputs: 64, side: 7, stride: 2, gain: 2.0 })?;
    let stem = builder.relu("relu", stem)?;
    let mut x = builder.push("maxpool", Op::MaxPool(window(3, 2)), &[stem])?;
    for (stage, outputs) in [64, 128, 256, 512].into_iter().enumerate() {
        for number in 0..2 {
            let stride = if stage > 0 && number == 0 { 2 } else { 1 };
            x = builder.block(&format!("layer{}.{number}", stage + 1), x, outputs, stride)?;
        }
    }
    let mean = Op::Reduce { kind: Reduce::Mean, axes: vec![1, 2], keep: false };
    let pool = builder.push("avgpool", mean, &[x])?;
    let (weight, bias) = (builder.noise.weight(&[1000, 512], 2.0)?, builder.noise.bias(1000));
    let logits = builder.push("logits", Op::Dense { weight, bias: Some(bias) }, &[pool])?;
    builder.network.set_outputs(vec![logits]);
    Ok(builder.network)
}

struct Builder {
    network: Network,
    noise: Noise,
}

struct Kernel {
    outputs: usize,
    side: usize,
    stride: usize,
    gain: f64,
}

impl Builder {
    /// Two convolutions and a shortcut, which is a convolution itself where the block reduces the resolution.
    fn block(&mut self, name: &str, input: NodeId, outputs: usize, stride: usize) -> anyhow::Result<NodeId> {
        let branch = self.conv(&format!("{name}.conv1"), input, Kernel { outputs, side: 3, stride, gain: 2.0 })?;
        let branch = self.relu(&format!("{name}.relu1"), branch)?;
        let branch = self.conv(&format!("{name}.conv2"), branch, Kernel { outputs, side: 3, stride: 1, gain: 1.0 })?;
        let shortcut = if stride == 1 {
            input
        } else {
            self.conv(&format!("{name}.downsample"), input, Kernel { outputs, side: 1, stride, gain: 1.0 })?
        };
        let sum = self.push(&format!("{name}.add"), Op::Binary(Binary::Add), &[branch, shortcut])?;
        self.relu(name, sum)
    }

    fn conv(&mut self, name: &str, input: NodeId, kernel: Kernel) -> anyhow::Result<NodeId> {
        let inputs = self.network.node(input).shape.channels();
        let weight = self.noise.weight(&[kernel.outputs, inputs, kernel.side, kernel.side], kernel.gain)?;
        let bias = Some(self.noise.bias(kernel.outputs));
        let conv = Conv { weight, bias, window: window(kernel.side, kernel.stride), groups: 1 };
        self.push(name, Op::Conv(conv), &[input])
    }

    fn relu(&mut self, name: &str, input: NodeId) -> anyhow::Result<NodeId> {
        self.push(name, Op::Activation(Activation::Relu), &[input])
    }

    fn push(&mut self, name: &str, op: Op, inputs: &[NodeId]) -> anyhow::Result<NodeId> {
        Ok(self.network.push(name, op, inputs)?)
    }
}

/// A window with SAME padding.
fn window(side: usize, stride: usize) -> Window {
    let pad = side / 2;
    let padding = Padding { top: pad, left: pad, bottom: pad, right: pad };
    Window { stride: [stride; 2], padding, ..Window::new([side; 2]) }
}
