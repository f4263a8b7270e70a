//! Scales of the pre-activations of a network, so that a soft gate has the same relative width at every activation.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{DType, Device, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::engine::{Engine, Forward, Target};
use crate::maximize::error::MaximizeError;
use crate::maximize::preprocessor::Preprocessor;
use crate::network::{Model, Network, NodeId, Op, Shape};
use crate::random::normal;

/// Number of images to measure on, one at a time.
pub(super) const IMAGES: u32 = 2;
/// Sides of the squares of the noise in pixels, one per octave.
const OCTAVES: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];
/// Standard deviation of each octave, in pixel values of range [0, 1].
const DEVIATION: f32 = 0.1;

/// Root mean square of the pre-activations at every activation below `targets`, over fixed images `[C,H,W]`: middle
/// grey plus noise of equal strength at every scale, as in natural images. Depends only on the model and the image
/// size.
pub(super) fn activation_scales(
    engine: &dyn Engine,
    model: &Model,
    targets: &[NodeId],
    image: [usize; 3],
    pixels: &Preprocessor,
) -> Result<BTreeMap<NodeId, f32>, MaximizeError> {
    let network = &model.network;
    let (activations, sources) = sources(network, targets);
    let mut squares: BTreeMap<NodeId, (f64, usize)> = BTreeMap::new();
    let mut plan = match sources.is_empty() {
        true => None,
        false => Some(engine.plan(network, &Target::whole(&sources), &Shape::from(image))?),
    };
    for number in 0..IMAGES {
        let input = pixels.to_input(&noise(number, image, engine)?)?;
        let outputs = plan.as_mut().map_or(Ok(Vec::new()), |plan| plan.forward(&input, Forward::Original))?;
        for (source, output) in std::iter::once((Network::INPUT, input)).chain(sources.iter().copied().zip(outputs)) {
            let values = output.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
            let (sum, count) = squares.entry(source).or_default();
            *sum += values.iter().map(|&z| f64::from(z) * f64::from(z)).sum::<f64>();
            *count += values.len();
        }
    }
    let scale = |(id, source)| {
        let (sum, count) = squares.get(&source)?;
        Some((id, (sum / (*count).max(1) as f64).sqrt() as f32))
    };
    Ok(activations.into_iter().filter_map(scale).collect())
}

/// The activations below `targets`, each with its input node, and all of these nodes except the network's input.
pub(in crate::maximize) fn sources(network: &Network, targets: &[NodeId]) -> (Vec<(NodeId, NodeId)>, Vec<NodeId>) {
    let activations = network.below(targets).into_iter().filter_map(|id| {
        let node = network.node(id);
        matches!(node.op, Op::Activation(_)).then(|| (id, node.inputs.first().copied()))
    });
    let activations: Vec<(NodeId, NodeId)> = activations.filter_map(|(id, input)| Some((id, input?))).collect();
    let sources: BTreeSet<NodeId> =
        activations.iter().map(|(_, input)| *input).filter(|&input| input != Network::INPUT).collect();
    (activations, sources.into_iter().collect())
}

/// Pixels `[1,C,H,W]` in [0, 1].
fn noise(number: u32, [channels, height, width]: [usize; 3], engine: &dyn Engine) -> candle_core::Result<Tensor> {
    let mut rng = ChaCha8Rng::seed_from_u64(u64::from(number));
    let mut values = vec![0.5f32; channels * height * width];
    for octave in OCTAVES {
        let (rows, columns) = (height.div_ceil(octave), width.div_ceil(octave));
        for plane in values.chunks_exact_mut(height * width) {
            let squares: Vec<f32> = (0..rows * columns).map(|_| DEVIATION * normal(&mut rng) as f32).collect();
            for (at, value) in plane.iter_mut().enumerate() {
                let (y, x) = (at / width, at % width);
                *value += squares[y / octave * columns + x / octave];
            }
        }
    }
    values.iter_mut().for_each(|value| *value = value.clamp(0.0, 1.0));
    let noise = Tensor::from_vec(values, (1, channels, height, width), &Device::Cpu)?;
    noise.to_dtype(engine.dtype())?.to_device(engine.device())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::*;
    use crate::engine::Reference;
    use crate::maximize::ops::Placement;
    use crate::network::{Activation, Array, ChannelOrder, Preprocessing};

    /// ReLU of the pixels, and of three times their sum.
    fn model() -> Model {
        let mut network = Network::new(1, 6, 70);
        let relu = || Op::Activation(Activation::Relu);
        let first = network.push("first", relu(), &[Network::INPUT]).unwrap();
        let mean = Op::Reduce { kind: crate::network::Reduce::Mean, axes: vec![1, 2], keep: false };
        let mean = network.push("mean", mean, &[first]).unwrap();
        let weight = Array::new([1, 1], vec![3.0 * 420.0]).unwrap();
        let sum = network.push("sum", Op::Dense { weight, bias: None }, &[mean]).unwrap();
        network.push("second", relu(), &[sum]).unwrap();
        let preprocessing = Preprocessing { channels: ChannelOrder::Grey, range: 1.0, mean: vec![0.0], std: vec![1.0] };
        Model {
            id: "m".into(),
            digest: String::new(),
            network: Arc::new(network),
            preprocessing,
            statistics: Default::default(),
            calibration: None,
            classes: Vec::new(),
        }
    }

    #[test]
    fn every_activation_has_the_size_of_what_it_reads() {
        let (model, engine) = (model(), Reference::new(Device::Cpu, DType::F64));
        let network = &model.network;
        let [first, second] = ["first", "second"].map(|name| network.find(name).unwrap());
        let pixels = Preprocessor::new(&model.preprocessing, &Placement::host_f64()).unwrap();
        let found = activation_scales(&engine, &model, &[second], [1, 6, 70], &pixels).unwrap();
        let images = (0..IMAGES).map(|n| noise(n, [1, 6, 70], &engine).unwrap().flatten_all().unwrap());
        let images: Vec<Vec<f64>> = images.map(|image| image.to_vec1().unwrap()).collect();
        let rms = |values: Vec<f64>| (values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64).sqrt() as f32;
        let sums = images.iter().map(|image| 3.0 * image.iter().sum::<f64>()).collect();
        assert!((found[&first] - rms(images.concat())).abs() < 1e-6);
        assert!((found[&second] / rms(sums) - 1.0).abs() < 1e-6);
        assert_eq!(found.len(), 2);
        assert!(
            !activation_scales(&engine, &model, &[first], [1, 6, 70], &pixels).unwrap().contains_key(&second),
            "it lies above"
        );
    }
}
