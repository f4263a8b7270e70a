//! Toy networks: small ReLU networks on a few grey pixels in [-1, 1].

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use super::super::variant::Fields;
use crate::engine::{Engine, EngineError, Forward};
use crate::network::{Activation, Array, Axis, ChannelOrder, Model, Network, Op, Preprocessing, Reduce};

/// Kinds of toys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Mean of `ReLU(x)` on 15x15 pixels; the optimum is 1, with all pixels white.
    MeanRelu,
    /// This number of hidden layers on 2x3 pixels, with non-negative weights after the first: a convex function, whose
    /// maximum over a box is at a corner; all 64 corners are tried.
    Convex(u32),
    /// This number of hidden layers on 2 pixels and a final ReLU that is positive on a fifth of all images; all 65536
    /// 8-bit images are tried.
    Plane(u32),
}

/// A toy.
#[derive(Debug)]
pub(super) struct Toy {
    pub(super) model: Model,
    /// The highest value of any 8-bit image.
    pub(super) optimum: f32,
}

/// Units of each hidden layer.
const HIDDEN: usize = 16;
/// Share of images on which a [`Kind::Plane`] is positive.
const POSITIVE: f64 = 0.2;

impl Kind {
    pub(super) const ALL: [Self; 5] =
        [Self::MeanRelu, Self::Convex(1), Self::Convex(2), Self::Plane(1), Self::Plane(2)];

    pub(super) fn name(self) -> String {
        match self {
            Self::MeanRelu => "mean-relu".to_owned(),
            Self::Convex(layers) => format!("convex-{layers}"),
            Self::Plane(layers) => format!("plane-{layers}"),
        }
    }

    /// Request fields for this kind.
    ///
    /// `MeanRelu` takes long steps: white pixels keep their gradient, so only a small share of a step reaches the dark
    /// ones.
    pub(super) fn request(self) -> Fields {
        let mut request = Fields::from_iter([("start".to_owned(), json!({"kind": "uniform"}))]);
        if self == Self::MeanRelu {
            request.insert("optimizer".to_owned(), json!({"kind": "l2-ascent", "lr": 0.5}));
        }
        request
    }

    /// Network number `n` of this kind.
    ///
    /// # Errors
    /// If the engine cannot run it.
    pub(super) fn toy(self, seed: u64, n: u32, engine: &dyn Engine) -> Result<Toy, EngineError> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(u64::from(n));
        let (network, images): (Network, Vec<Vec<u8>>) = match self {
            Self::MeanRelu => (mean_relu().map_err(EngineError::Mismatch)?, vec![vec![u8::MAX; 225]]),
            Self::Convex(layers) => {
                let corner = |bits: u32| (0..6).map(|i| if bits >> i & 1 == 1 { u8::MAX } else { 0 }).collect();
                (Layered::draw([2, 3], layers, true, &mut rng).network(None)?, (0..1 << 6).map(corner).collect())
            }
            Self::Plane(layers) => {
                let images: Vec<Vec<u8>> = (0..=u16::MAX).map(|levels| levels.to_be_bytes().to_vec()).collect();
                let layered = Layered::draw([1, 2], layers, false, &mut rng);
                let mut inner = values(&layered.network(None)?, &images, engine)?;
                inner.sort_by(f32::total_cmp);
                let threshold = inner[((1.0 - POSITIVE) * inner.len() as f64) as usize];
                (layered.network(Some(threshold))?, images)
            }
        };
        let optimum = values(&network, &images, engine)?.into_iter().fold(f32::NEG_INFINITY, f32::max);
        let preprocessing = Preprocessing { channels: ChannelOrder::Grey, range: 1.0, mean: vec![0.5], std: vec![0.5] };
        let (id, network) = (format!("{}-{n}", self.name()), Arc::new(network));
        let (digest, classes, statistics, calibration) = Default::default();
        let model = Model { id, digest, network, preprocessing, classes, statistics, calibration };
        Ok(Toy { model, optimum })
    }
}

/// Name of the layer that is maximized.
pub(super) const OUTPUT: &str = "out";

fn mean_relu() -> Result<Network, String> {
    let mut network = Network::new(1, 15, 15);
    let relu = network.push("relu", Op::Activation(Activation::Relu), &[Network::INPUT])?;
    network.push(OUTPUT, Op::Reduce { kind: Reduce::Mean, axes: vec![1, 2], keep: false }, &[relu])?;
    Ok(network)
}

/// Weights of a network of dense layers.
struct Layered {
    /// Height and width of the image.
    size: [usize; 2],
    /// Weights and biases of each layer, the last with one output.
    dense: Vec<(Vec<f32>, Vec<f32>)>,
}

impl Layered {
    /// Draws weights such that the kinks of the first layer cross the box and values stay near 1.
    fn draw(size: [usize; 2], hidden: u32, convex: bool, rng: &mut impl Rng) -> Self {
        let mut inputs = size[0] * size[1];
        let mut dense = Vec::new();
        for layer in 0..=hidden {
            let outputs = if layer == hidden { 1 } else { HIDDEN };
            let scale = (3.0 / inputs as f32).sqrt();
            let weight = |rng: &mut _| scale * symmetric(rng);
            let weights = (0..inputs * outputs).map(|_| weight(rng));
            let weights = weights.map(|weight: f32| if convex && layer > 0 { weight.abs() } else { weight }).collect();
            dense.push((weights, (0..outputs).map(|_| symmetric(rng)).collect()));
            inputs = outputs;
        }
        Self { size, dense }
    }

    /// The network; with a threshold, its output is lowered by that and followed by a ReLU.
    fn network(&self, threshold: Option<f32>) -> Result<Network, EngineError> {
        self.build(threshold).map_err(EngineError::Mismatch)
    }

    fn build(&self, threshold: Option<f32>) -> Result<Network, String> {
        let [height, width] = self.size;
        let mut network = Network::new(1, height, width);
        let mut top = network.push("pixels", Op::Reshape(vec![Axis::Exact(height * width)]), &[Network::INPUT])?;
        let last = self.dense.len() - 1;
        for (i, (weights, bias)) in self.dense.iter().enumerate() {
            let weight = Array::new([bias.len(), weights.len() / bias.len()], weights.clone())?;
            let bias = match threshold.filter(|_| i == last) {
                Some(threshold) => bias.iter().map(|bias| bias - threshold).collect(),
                None => bias.clone(),
            };
            let activates = i < last || threshold.is_some();
            let name = if i == last && !activates { OUTPUT.to_owned() } else { format!("dense{i}") };
            top = network.push(name, Op::Dense { weight, bias: Some(Array::vector(bias)) }, &[top])?;
            if activates {
                let name = if i == last { OUTPUT.to_owned() } else { format!("relu{i}") };
                top = network.push(name, Op::Activation(Activation::Relu), &[top])?;
            }
        }
        Ok(network)
    }
}

/// A uniform random number in [-1, 1).
fn symmetric(rng: &mut impl Rng) -> f32 {
    rng.random::<f32>() * 2.0 - 1.0
}

/// Output values for 8-bit images.
fn values(network: &Network, images: &[Vec<u8>], engine: &dyn Engine) -> Result<Vec<f32>, EngineError> {
    let output = network.find(OUTPUT).ok_or_else(|| EngineError::Mismatch("the toy has no output".into()))?;
    let input = network.input_shape();
    let mut plan = engine.plan(&Arc::new(network.clone()), &[output.into()], input)?;
    let mut values = Vec::with_capacity(images.len());
    for images in images.chunks(4096) {
        let pixels: Vec<f32> = images.concat().into_iter().map(|level| f32::from(level) / 127.5 - 1.0).collect();
        let batch = Tensor::from_vec(pixels, (images.len(), input[0], input[1], input[2]), &Device::Cpu)?;
        let batch = batch.to_dtype(engine.dtype())?.to_device(engine.device())?;
        let outputs = plan.forward(&batch, Forward::Original)?;
        for output in outputs {
            values.extend(output.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?);
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::engine::{Cpu, CpuSettings};

    #[test]
    fn the_optimum_is_the_highest_value_of_any_image() {
        let engine = Cpu::new(&CpuSettings::default()).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        for kind in Kind::ALL {
            let toy = kind.toy(3, 1, &engine).unwrap();
            let pixels = toy.model.network.input_shape().elements();
            let images: Vec<Vec<u8>> = (0..3000).map(|_| (0..pixels).map(|_| rng.random()).collect()).collect();
            let highest = values(&toy.model.network, &images, &engine).unwrap().into_iter().fold(f32::MIN, f32::max);
            assert!(highest <= toy.optimum + 1e-5, "{}: {highest} is above {}", kind.name(), toy.optimum);
            assert!(toy.optimum > 0.0);
            if let Kind::Plane(_) = kind {
                assert!(highest > 0.9 * toy.optimum, "two pixels are soon tried");
            }
        }
        assert_eq!(Kind::MeanRelu.toy(1, 0, &engine).unwrap().optimum, 1.0);
    }

    #[test]
    fn a_plane_is_positive_on_a_fifth_of_its_images() {
        let engine = Cpu::new(&CpuSettings::default()).unwrap();
        let toy = Kind::Plane(2).toy(3, 0, &engine).unwrap();
        let images: Vec<Vec<u8>> = (0..=u16::MAX).map(|levels| levels.to_be_bytes().to_vec()).collect();
        let values = values(&toy.model.network, &images, &engine).unwrap();
        let positive = values.iter().filter(|value| **value > 0.0).count() as f64 / values.len() as f64;
        assert!((positive - POSITIVE).abs() < 0.01, "{positive}");
    }
}
