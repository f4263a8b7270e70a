//! Networks with random weights of a fixed seed, for measuring speed without downloads.
//!
//! `rival_networks.py` builds the same networks with the same weights for PyTorch.

pub mod ascent;
mod noise;
mod resnet18;

use std::sync::Arc;

use anyhow::{Context, bail};
use proxygrad::network::architecture::{Architecture, EfficientNetLite};
use proxygrad::network::checkpoint::StateDict;
use proxygrad::network::{Array, Network, Shape};

use self::noise::Noise;

/// Names of the networks.
pub const NAMES: [&str; 3] = ["resnet18", "efficientnet-lite0", "squeezenet1.1"];

/// Input size of all of them, and of imported files.
pub fn input() -> Shape {
    Shape::from([3, 224, 224])
}

/// Builds the network `name`, or imports it if that is the path of an ONNX file.
///
/// # Errors
/// When the name is unknown, or the file cannot be imported.
pub fn build(name: &str) -> anyhow::Result<Arc<Network>> {
    let network = match name {
        file if file.ends_with(".onnx") => {
            let bytes = std::fs::read(file).with_context(|| format!("cannot read {file}"))?;
            proxygrad::network::onnx::import(&bytes).with_context(|| format!("cannot import {file}"))?.network
        }
        "resnet18" => resnet18::build()?,
        "efficientnet-lite0" => seeded(
            EfficientNetLite::Lite0.architecture(),
            include_str!("../../tests/data/architectures/efficientnet-lite0.tensors"),
        )?,
        "squeezenet1.1" => {
            seeded(Architecture::SQUEEZENET_1_1, include_str!("../../tests/data/architectures/squeezenet1.1.tensors"))?
        }
        _ => bail!("unknown network {name}; expected an ONNX file or one of {}", NAMES.join(", ")),
    };
    Ok(Arc::new(network))
}

/// An architecture with random values for the published `tensors`, one per line: name and shape.
fn seeded(architecture: Architecture, tensors: &str) -> anyhow::Result<Network> {
    /// Epsilon of the batch normalizations of EfficientNet-Lite.
    const EPSILON: f32 = 1e-3;
    let mut noise = Noise::default();
    let mut state = StateDict::default();
    for line in tensors.lines() {
        let mut words = line.split(' ');
        let name = words.next().context("a tensor has no name")?;
        let shape = words.map(str::parse).collect::<Result<Vec<usize>, _>>()?;
        let part = name.rsplit('.').next().unwrap_or(name);
        let array = match part {
            "weight" if shape.len() > 1 => noise.weight(&shape, gain(name))?,
            "bias" => noise.bias(shape[0]),
            "weight" => Array::vector(vec![1.0; shape[0]]),
            "running_mean" => Array::vector(vec![0.0; shape[0]]),
            "running_var" => Array::vector(vec![1.0 - EPSILON; shape[0]]),
            _ => bail!("{name} is not a known kind of tensor"),
        };
        state.insert(name, array);
    }
    Ok(architecture.build(&state)?)
}

/// He's factor 2 compensates for the half that a ReLU removes; 1 for convolutions without a preceding ReLU, and for
/// projections, whose sums along shortcuts would otherwise grow.
fn gain(name: &str) -> f64 {
    let linear = ["_stem", "_expand_conv", "_project_conv", "_head"].iter().any(|part| name.contains(part));
    if linear { 1.0 } else { 2.0 }
}
