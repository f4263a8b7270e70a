//! The networks to check: those of the catalog, and ResNet-18, a common choice for timing.

use anyhow::{Context, anyhow};
use proxygrad::network::architecture::Architecture;
use proxygrad::network::checkpoint::StateDict;
use proxygrad::network::{
    Activation, Array, Binary, Conv, GraphError, Network, NodeId, Op, Padding, Reduce, Window, onnx,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Names of all networks.
pub const NAMES: [&str; 6] =
    ["fashion-resnet8", "squeezenet1.1", "efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2", "resnet18"];

/// Builds a network by name, or from an ONNX file. Weights of named networks are random with a fixed seed, except those
/// of the embedded one.
pub fn build(name: &str) -> anyhow::Result<Network> {
    let tensors = match name {
        "fashion-resnet8" => {
            return Ok(onnx::import(include_bytes!("../../assets/fashion-resnet8/model.onnx"))?.network);
        }
        "resnet18" => return resnet18(),
        "squeezenet1.1" => include_str!("../../tests/data/architectures/squeezenet1.1.tensors"),
        "efficientnet-lite0" => include_str!("../../tests/data/architectures/efficientnet-lite0.tensors"),
        "efficientnet-lite1" => include_str!("../../tests/data/architectures/efficientnet-lite1.tensors"),
        "efficientnet-lite2" => include_str!("../../tests/data/architectures/efficientnet-lite2.tensors"),
        file if file.ends_with(".onnx") => return Ok(onnx::import(&std::fs::read(file)?)?.network),
        _ => anyhow::bail!("unknown network {name}; expected an ONNX file or one of {}", NAMES.join(", ")),
    };
    let architecture: Architecture = name.parse().map_err(|e| anyhow!("{name}: {e:?}"))?;
    Ok(architecture.build(&weights(tensors)?)?)
}

/// Random weights for lines `NAME LENGTH LENGTH ...`.
fn weights(tensors: &str) -> anyhow::Result<StateDict> {
    let mut random = Random(ChaCha8Rng::seed_from_u64(1));
    let mut state = StateDict::default();
    for line in tensors.lines() {
        let mut words = line.split(' ');
        let name = words.next().context("a line without a name")?;
        let shape = words.map(str::parse).collect::<Result<Vec<usize>, _>>()?;
        let count = shape.iter().product();
        let values = match shape.len() {
            1 if name.ends_with("running_var") => random.uniform(count, 0.5, 1.5),
            // Below 1: otherwise a deep network amplifies the smallest difference, which trained ones do not.
            1 if name.ends_with("weight") => random.uniform(count, 0.3, 0.8),
            1 => random.uniform(count, -0.1, 0.1),
            _ => random.kernel(&shape),
        };
        state.insert(name, Array::new(shape, values).map_err(|why| anyhow!("{name}: {why}"))?);
    }
    Ok(state)
}

struct Random(ChaCha8Rng);

impl Random {
    fn uniform(&mut self, count: usize, low: f32, high: f32) -> Vec<f32> {
        (0..count).map(|_| low + (high - low) * self.0.random::<f32>()).collect()
    }

    /// Weights `[O, ...]` that keep the variance through a ReLU (He initialization).
    fn kernel(&mut self, shape: &[usize]) -> Vec<f32> {
        let bound = (6.0 / shape[1..].iter().product::<usize>() as f32).sqrt();
        self.uniform(shape.iter().product(), -bound, bound)
    }
}

/// ResNet-18 for 224 pixels, with folded batch normalizations.
fn resnet18() -> anyhow::Result<Network> {
    let mut net = Builder { network: Network::new(3, 224, 224), random: Random(ChaCha8Rng::seed_from_u64(2)) };
    let stem = net.conv("stem", Network::INPUT, [64, 3], 7, 2, 1.0)?;
    let stem = net.relu("stem.relu", stem)?;
    let mut x = net.network.push("maxpool", Op::MaxPool(window(3, 2)), &[stem])?;
    let mut channels = 64;
    for (stage, out) in [64, 128, 256, 512].into_iter().enumerate() {
        for block in 0..2 {
            let name = format!("layer{}.{block}", stage + 1);
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let y = net.conv(&format!("{name}.conv1"), x, [out, channels], 3, stride, 1.0)?;
            let y = net.relu(&format!("{name}.relu1"), y)?;
            // Small, so that residual sums do not grow.
            let y = net.conv(&format!("{name}.conv2"), y, [out, out], 3, 1, 0.3)?;
            if stride == 2 {
                x = net.conv(&format!("{name}.downsample"), x, [out, channels], 1, 2, 0.7)?;
            }
            let sum = net.network.push(format!("{name}.add"), Op::Binary(Binary::Add), &[y, x])?;
            x = net.relu(&format!("{name}.relu2"), sum)?;
            channels = out;
        }
    }
    let mean = Op::Reduce { kind: Reduce::Mean, axes: vec![1, 2], keep: false };
    let pool = net.network.push("pool", mean, &[x])?;
    let weight = Array::new([1000, 512], net.random.kernel(&[1000, 512]))?;
    let logits = net.network.push("logits", Op::Dense { weight, bias: None }, &[pool])?;
    net.network.set_outputs(vec![logits]);
    Ok(net.network)
}

/// A square window with SAME padding.
fn window(size: usize, stride: usize) -> Window {
    let p = size / 2;
    let padding = Padding { top: p, left: p, bottom: p, right: p };
    Window { stride: [stride; 2], padding, ..Window::new([size; 2]) }
}

struct Builder {
    network: Network,
    random: Random,
}

impl Builder {
    fn conv(
        &mut self,
        name: &str,
        x: NodeId,
        [out, channels]: [usize; 2],
        size: usize,
        stride: usize,
        gain: f32,
    ) -> anyhow::Result<NodeId> {
        let shape = [out, channels, size, size];
        let values: Vec<f32> = self.random.kernel(&shape).into_iter().map(|v| gain * v).collect();
        let bias = Some(Array::vector(self.random.uniform(out, -0.1, 0.1)));
        let weight = Array::new(shape, values)?;
        let conv = Conv { weight, bias, window: window(size, stride), groups: 1 };
        Ok(self.network.push(name, Op::Conv(conv), &[x])?)
    }

    fn relu(&mut self, name: &str, x: NodeId) -> Result<NodeId, GraphError> {
        self.network.push(name, Op::Activation(Activation::Relu), &[x])
    }
}
