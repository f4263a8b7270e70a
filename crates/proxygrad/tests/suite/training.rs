//! Gradients of weights: numeric derivatives in f64, the CPU engine against the reference, and surrogates by hand.

use std::num::NonZeroUsize;

use candle_core::{DType, Device};
use proxygrad::engine::{
    Cpu, CpuSettings, Forward, Instructions, Mode, Reference, Surrogate, TrainingEngine, TrainingPlan,
};
use proxygrad::network::trainable::{Initialization, Parameters, TensorRole, TrainableArchitecture, TrainableNetwork};
use proxygrad::network::{Activation, Array, Conv, Network, Op, Padding, Window};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const TRAINING: Mode = Mode::Training { update: false };

fn random(count: usize, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| rng.random::<f32>() * 2.0 - 1.0).collect()
}

fn cpu(threads: usize, instructions: Option<Instructions>) -> Cpu {
    Cpu::new(&CpuSettings { threads: NonZeroUsize::new(threads), instructions, ..CpuSettings::default() }).unwrap()
}

fn reference() -> Reference {
    Reference::new(Device::Cpu, DType::F64)
}

/// Every trained operation in every form: windows with stride, dilation and uneven padding, groups, depthwise, few and
/// many channels, biases, batch normalization, affine nodes, residual sums, pools, dense layers.
fn networks() -> Vec<(&'static str, TrainableNetwork, Parameters)> {
    let mut all = Vec::new();
    for (name, width, input) in [
        ("resnet8", 4, [2, 9, 7]),
        ("resnet8-nobn", 18, [1, 6, 6]),
        ("vgg8", 3, [3, 8, 10]),
        ("vgg8-bn", 5, [1, 8, 8]),
        ("plain4", 17, [3, 9, 9]),
    ] {
        let architecture: TrainableArchitecture = name.parse().unwrap();
        let network = TrainableArchitecture { width: Some(width), ..architecture }.build(input, 5).unwrap();
        let mut parameters = network.initialize(Initialization::Torch, 7);
        for (id, spec) in network.tensors().iter().enumerate() {
            if matches!(spec.role, TensorRole::Scale | TensorRole::Shift) {
                let offset = if spec.role == TensorRole::Scale { 1.0 } else { 0.0 };
                let noise = random(spec.len(), id as u64);
                for (value, noise) in parameters.get_mut(id).iter_mut().zip(noise) {
                    *value = offset + 0.3 * noise;
                }
            }
        }
        all.push((name, network, parameters));
    }
    let (network, parameters) = TrainableNetwork::from_network(&mixed()).unwrap();
    all.push(("mixed", network, parameters));
    all
}

/// Grouped, depthwise, dilated and unevenly padded convolutions, and a scale and shift between them.
fn mixed() -> Network {
    let mut network = Network::new(3, 8, 9);
    let weights = |shape: &[usize], seed| Array::new(shape, random(shape.iter().product(), seed)).unwrap();
    let mut conv = |name: &str, shape: [usize; 4], groups, window: Window, input| {
        let bias = Some(weights(&shape[..1], shape[0] as u64));
        let conv = Conv { weight: weights(&shape, 3 + shape[0] as u64), bias, window, groups };
        network.push(name, Op::Conv(conv), &[input]).unwrap()
    };
    let uneven = Padding { top: 0, left: 2, bottom: 1, right: 1 };
    let x = conv(
        "stem",
        [20, 3, 3, 2],
        1,
        Window { dilation: [1, 2], padding: uneven, ..Window::new([3, 2]) },
        Network::INPUT,
    );
    let side = Padding { top: 1, left: 1, bottom: 1, right: 1 };
    let x = conv("depthwise", [20, 1, 3, 3], 20, Window { padding: side, stride: [1, 2], ..Window::new([3, 3]) }, x);
    let x = conv("grouped", [6, 10, 3, 3], 2, Window { padding: side, ..Window::new([3, 3]) }, x);
    let x = conv(
        "large",
        [34, 6, 5, 5],
        1,
        Window { padding: Padding { top: 2, left: 2, bottom: 2, right: 2 }, stride: [3, 1], ..Window::new([5, 5]) },
        x,
    );
    let affine = Op::Affine { scale: weights(&[34], 1), shift: weights(&[34], 2) };
    let x = network.push("affine", affine, &[x]).unwrap();
    let x = network.push("silu", Op::Activation(Activation::Silu), &[x]).unwrap();
    let mean = Op::Reduce { kind: proxygrad::network::Reduce::Mean, axes: vec![1, 2], keep: false };
    let x = network.push("pool", mean, &[x]).unwrap();
    let x = network.push("fc", Op::Dense { weight: weights(&[4, 34], 8), bias: Some(weights(&[4], 9)) }, &[x]).unwrap();
    network.set_outputs(vec![x]);
    network
}

fn images(network: &TrainableNetwork, batch: usize) -> Vec<f32> {
    random(batch * network.input_shape().elements(), 11)
}

/// The weighted sum of logits whose gradient is taken.
fn weighted(logits: &[f64], seeds: &[f32]) -> f64 {
    logits.iter().zip(seeds).map(|(logit, &seed)| logit * f64::from(seed)).sum()
}

fn largest(values: &[f32]) -> f64 {
    values.iter().fold(1e-6, |most, &value| most.max(f64::from(value.abs())))
}

#[test]
fn weight_gradients_are_the_numeric_derivatives() {
    for surrogate in [Surrogate::Plain, Surrogate::TrueProxy { slope: 0.3 }] {
        for (name, network, mut parameters) in networks() {
            let mut plan = reference().training_plan(&network).unwrap();
            let images = images(&network, 3);
            let seeds = random(3 * network.classes(), 5);
            plan.forward(&images, &mut parameters, TRAINING, surrogate.forward()).unwrap();
            let gradients = plan.backward(&seeds, surrogate).unwrap();
            for (id, spec) in network.tensors().iter().enumerate() {
                if !spec.role.has_gradient() {
                    assert!(gradients[id].is_empty(), "{name} {}", spec.name);
                    continue;
                }
                let scale = largest(&gradients[id]);
                for at in [0, spec.len() / 3, spec.len() - 1] {
                    let mut at_step = |step: f32| {
                        let mut moved = parameters.clone();
                        moved.get_mut(id)[at] += step;
                        let logits = plan.forward(&images, &mut moved, TRAINING, surrogate.forward()).unwrap();
                        (weighted(&logits, &seeds), f64::from(moved.get(id)[at]))
                    };
                    let ((above, right), (below, left)) = (at_step(5e-7), at_step(-5e-7));
                    let numeric = (above - below) / (right - left);
                    let found = f64::from(gradients[id][at]);
                    let error = (numeric - found).abs() / scale;
                    assert!(error < 1e-4, "{name} {surrogate:?} {}[{at}]: {found}, numeric {numeric}", spec.name);
                }
            }
        }
    }
}

#[test]
fn the_cpu_engine_computes_the_gradients_of_the_reference() {
    let surrogates = [
        Surrogate::Plain,
        Surrogate::Decoupled { slope: 0.2 },
        Surrogate::TrueProxy { slope: 0.3 },
        Surrogate::BSilu,
        Surrogate::Silu,
        Surrogate::Elu,
        Surrogate::Selu,
    ];
    let sets = [Instructions::Avx512, Instructions::Avx2, Instructions::Portable];
    for (name, network, mut parameters) in networks() {
        let images = images(&network, 3);
        let seeds = random(3 * network.classes(), 5);
        let mut exact = reference().training_plan(&network).unwrap();
        for set in sets.into_iter().filter(|set| set.available()) {
            let mut plan = cpu(2, Some(set)).training_plan(&network).unwrap();
            for surrogate in surrogates {
                let expected = exact.forward(&images, &mut parameters, TRAINING, surrogate.forward()).unwrap();
                let found = plan.forward(&images, &mut parameters, TRAINING, surrogate.forward()).unwrap();
                for (found, expected) in found.iter().zip(&expected) {
                    assert!((found - expected).abs() < 1e-4 * expected.abs().max(1.0), "{name} {found} {expected}");
                }
                let expected = exact.backward(&seeds, surrogate).unwrap();
                let found = plan.backward(&seeds, surrogate).unwrap();
                for (id, spec) in network.tensors().iter().enumerate() {
                    assert_eq!(found[id].len(), expected[id].len(), "{name} {}", spec.name);
                    let scale = largest(&expected[id]);
                    for (at, (found, expected)) in found[id].iter().zip(&expected[id]).enumerate() {
                        let error = f64::from((found - expected).abs()) / scale;
                        let at = format!("{name} {set:?} {surrogate:?} {}[{at}]", spec.name);
                        assert!(error < 2e-4, "{at}: {found}, reference {expected}");
                    }
                }
            }
        }
    }
}

#[test]
fn threads_and_earlier_batches_change_no_bit_of_a_gradient() {
    for (name, network, mut parameters) in networks() {
        let seeds = random(5 * network.classes(), 5);
        let images = images(&network, 5);
        let mut pass = |plan: &mut Box<dyn TrainingPlan>, batch: usize| {
            let images = &images[..batch * network.input_shape().elements()];
            plan.forward(images, &mut parameters, TRAINING, Forward::Original).unwrap();
            plan.backward(&seeds[..batch * network.classes()], Surrogate::BSilu).unwrap()
        };
        let mut one = cpu(1, None).training_plan(&network).unwrap();
        let mut three = cpu(3, None).training_plan(&network).unwrap();
        let expected = pass(&mut one, 3);
        assert_eq!(pass(&mut three, 5).len(), expected.len());
        assert_eq!(pass(&mut three, 3), expected, "{name}");
        assert_eq!(pass(&mut one, 3), expected, "{name}");
    }
}

#[test]
fn running_statistics_follow_the_batches_as_in_pytorch() {
    let network = {
        let mut network = TrainableNetwork::new([1, 1, 2]);
        let norm = network.batch_norm("norm", TrainableNetwork::INPUT).unwrap();
        network.flatten("flat", norm).unwrap();
        network
    };
    let start = network.initialize(Initialization::He, 0);
    for engine in [&reference() as &dyn TrainingEngine, &cpu(2, None)] {
        let mut parameters = start.clone();
        let mut plan = engine.training_plan(&network).unwrap();
        // The mean of 1, 2, 3, 6 is 3, the unbiased variance 14 / 3.
        let images = [1.0, 2.0, 3.0, 6.0];
        plan.forward(&images, &mut parameters, TRAINING, Forward::Original).unwrap();
        assert_eq!(parameters, start);
        let update = Mode::Training { update: true };
        let logits = plan.forward(&images, &mut parameters, update, Forward::Original).unwrap();
        let deviation = (3.5f64 + 1e-5).sqrt();
        for (logit, expected) in logits.iter().zip([-2.0, -1.0, 0.0, 3.0]) {
            assert!((logit - expected / deviation).abs() < 1e-6, "{logit}");
        }
        assert!((parameters.get(2)[0] - 0.3).abs() < 1e-6);
        assert!((parameters.get(3)[0] - (0.9 + 0.1 * 14.0 / 3.0)).abs() < 1e-6);
        // At inference the running statistics are used, and a backward pass is refused.
        let logits = plan.forward(&images, &mut parameters, Mode::Inference, Forward::Original).unwrap();
        let deviation = (0.9 + 1.4 / 3.0 + 1e-5f64).sqrt();
        assert!((logits[3] - (6.0 - 0.3) / deviation).abs() < 1e-5, "{}", logits[3]);
        assert!(plan.backward(&[1.0; 4], Surrogate::Plain).is_err());
    }
}

/// One input, one weight 1 before the rectifier: the gradient of that weight is `x * d(x)`.
#[test]
fn surrogates_have_their_published_derivatives() {
    let network = {
        let mut network = TrainableNetwork::new([1, 1, 1]);
        let flat = network.flatten("flat", TrainableNetwork::INPUT).unwrap();
        let hidden = network.dense("hidden", 1, flat).unwrap();
        network.activation("relu", Activation::Relu, hidden).unwrap();
        network
    };
    let mut parameters = network.initialize(Initialization::He, 0);
    parameters.get_mut(0)[0] = 1.0;
    fn sigmoid(z: f64) -> f64 {
        1.0 / (1.0 + (-z).exp())
    }
    let silu = |z: f64| sigmoid(z) + z * sigmoid(z) * (1.0 - sigmoid(z));
    let step = |below: f64| move |z: f64| if z > 0.0 { 1.0 } else { below };
    type Derivative = Box<dyn Fn(f64) -> f64>;
    let cases: [(Surrogate, Derivative); 6] = [
        (Surrogate::Plain, Box::new(step(0.0))),
        (Surrogate::Decoupled { slope: 0.25 }, Box::new(step(0.25))),
        (Surrogate::BSilu, Box::new(move |z| sigmoid(z) + (z + 1.67) * sigmoid(z) * (1.0 - sigmoid(z)))),
        (Surrogate::Silu, Box::new(silu)),
        (Surrogate::Elu, Box::new(|z| if z > 0.0 { 1.0 } else { z.exp() })),
        (
            Surrogate::Selu,
            Box::new(|z| {
                let (alpha, lambda) = (1.673_263_242_354_377_2, 1.050_700_987_355_480_5);
                if z > 0.0 { lambda } else { lambda * alpha * z.exp() }
            }),
        ),
    ];
    for engine in [&reference() as &dyn TrainingEngine, &cpu(1, None)] {
        let mut plan = engine.training_plan(&network).unwrap();
        for (surrogate, derivative) in &cases {
            for x in [-3.0f32, -0.5, 0.7, 4.0] {
                let logits = plan.forward(&[x], &mut parameters, TRAINING, surrogate.forward()).unwrap();
                assert_eq!(logits[0], f64::from(x.max(0.0)));
                let gradients = plan.backward(&[1.0], *surrogate).unwrap();
                let (found, x) = (f64::from(gradients[0][0]), f64::from(x));
                let expected = x * derivative(x);
                assert!((found - expected).abs() < 1e-6 * expected.abs().max(1.0), "{surrogate:?} at {x}: {found}");
            }
        }
    }
}

#[test]
fn a_frozen_network_computes_what_the_trainable_one_does_at_inference() {
    use proxygrad::engine::{Engine, Target};
    use std::sync::Arc;
    for (name, network, mut parameters) in networks() {
        let mut plan = reference().training_plan(&network).unwrap();
        let images = images(&network, 2);
        plan.forward(&images, &mut parameters, Mode::Training { update: true }, Forward::Original).unwrap();
        let expected = plan.forward(&images, &mut parameters, Mode::Inference, Forward::Original).unwrap();
        let frozen = Arc::new(network.freeze(&parameters).unwrap());
        let target = Target::from(frozen.outputs()[0]);
        let mut inference = reference().plan(&frozen, &[target], frozen.input_shape()).unwrap();
        let dims = [&[2], &network.input_shape()[..]].concat();
        let tensor = candle_core::Tensor::from_vec(images.clone(), dims, &Device::Cpu).unwrap();
        let tensor = tensor.to_dtype(DType::F64).unwrap();
        let found = inference.forward(&tensor, Forward::Original).unwrap().remove(0);
        let found: Vec<f64> = found.flatten_all().unwrap().to_vec1().unwrap();
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-5 * expected.abs().max(1.0), "{name}: {found}, {expected}");
        }
        if name == "resnet8" {
            assert_eq!(frozen.find("layer1.0.bn2"), frozen.find("layer1.0.conv2"));
        }
    }
}

#[test]
fn a_batch_that_is_no_number_of_images_is_an_error() {
    let (_, network, mut parameters) = networks().remove(0);
    for engine in [&reference() as &dyn TrainingEngine, &cpu(1, None)] {
        let mut plan = engine.training_plan(&network).unwrap();
        for count in [0, 1, network.input_shape().elements() + 1] {
            assert!(plan.forward(&vec![0.0; count], &mut parameters, TRAINING, Forward::Original).is_err());
        }
        assert!(plan.backward(&[1.0; 5], Surrogate::Plain).is_err());
        assert!(plan.value(0).is_err());
    }
}
