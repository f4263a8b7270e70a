//! Every operation's backward agrees with a numeric derivative in f64.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use proxygrad::engine::{Engine, Forward, Gate, Reference};
use proxygrad::network::{
    Activation, Array, Axis, Binary, Coordinates, Interpolation, Network, NodeId, Op, PadMode, Padding, Reduce, Resize,
    Rounding, Shape, Target, Window,
};
use rand::RngExt;

use crate::networks::{array, classifier, conv, rng, same, uniform};

const CPU: Device = Device::Cpu;

fn reference() -> Reference {
    Reference::new(CPU, DType::F64)
}

fn tensor(values: &[f64], batch: usize, shape: &Shape) -> Tensor {
    let mut dims = vec![batch];
    dims.extend_from_slice(shape);
    Tensor::from_slice(values, dims, &CPU).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Compares the whole plain gradient of a random weighting of `target`'s output with central differences.
fn check(name: &str, network: Network, target: NodeId, seed: u64) {
    const STEP: f64 = 1e-6;
    const BATCH: usize = 2;
    let shape = network.input_shape().clone();
    let mut plan = reference().plan(&Arc::new(network), &[target], &shape).unwrap();
    let mut rng = rng(seed);
    let x: Vec<f64> = uniform(&mut rng, BATCH * shape.elements()).into_iter().map(|v| 2.0 * f64::from(v)).collect();
    let output = plan.forward(&tensor(&x, BATCH, &shape), Forward::Original).unwrap().remove(0);
    let weights: Vec<f64> = uniform(&mut rng, output.elem_count()).into_iter().map(f64::from).collect();
    let seed = Tensor::from_slice(&weights, output.dims(), &CPU).unwrap();
    let gradient = values(&plan.backward(&[seed], Gate::Plain).unwrap());
    assert!(gradient.iter().any(|g| g.abs() > 1e-3), "{name}: the gradient vanishes, so nothing is compared");
    let mut objective = |x: &[f64]| {
        let output = plan.forward(&tensor(x, BATCH, &shape), Forward::Original).unwrap().remove(0);
        dot(&values(&output), &weights)
    };
    for i in 0..x.len() {
        let mut shifted = x.clone();
        shifted[i] = x[i] + STEP;
        let above = objective(&shifted);
        shifted[i] = x[i] - STEP;
        let below = objective(&shifted);
        let numeric = (above - below) / (2.0 * STEP);
        let error = (gradient[i] - numeric).abs() / (1.0 + numeric.abs());
        assert!(error < 1e-6, "{name}: value {i} has gradient {} but slope {numeric}", gradient[i]);
    }
}

/// Checks one operation right behind an input of `shape`.
fn check_op(name: &str, shape: [usize; 3], op: Op) {
    let mut network = Network::new(shape[0], shape[1], shape[2]);
    let target = network.push("target", op, &[Network::INPUT]).unwrap();
    check(name, network, target, 7);
}

#[test]
fn convolutions_of_every_form() {
    let mut rng = rng(1);
    let uneven = Padding { top: 0, left: 2, bottom: 1, right: 0 };
    let plain = Window::new([1, 1]);
    let cases = [
        ("pointwise", [4, 5, 6], [1, 1], 1, plain),
        ("pointwise grouped", [4, 5, 6], [1, 1], 2, plain),
        ("pointwise strided", [4, 5, 6], [1, 1], 1, Window { stride: [2, 3], ..plain }),
        ("3x3", [4, 5, 6], [3, 3], 1, same(3)),
        ("3x3 valid", [4, 5, 6], [3, 3], 1, plain),
        ("strided, uneven padding", [4, 7, 8], [3, 3], 1, Window { stride: [2, 2], padding: uneven, ..plain }),
        ("strides differ", [4, 7, 8], [3, 2], 1, Window { stride: [3, 1], padding: uneven, ..plain }),
        ("stride larger than kernel", [4, 8, 9], [2, 2], 1, Window { stride: [3, 4], ..plain }),
        ("dilated", [4, 8, 9], [3, 2], 1, Window { dilation: [2, 3], padding: uneven, ..plain }),
        ("dilated, strided", [4, 9, 9], [3, 3], 1, Window { dilation: [2, 2], stride: [2, 2], ..same(3) }),
        ("grouped", [4, 6, 5], [3, 3], 2, same(3)),
        ("depthwise", [4, 6, 5], [3, 3], 4, same(3)),
        ("depthwise strided", [4, 6, 5], [3, 3], 4, Window { stride: [2, 2], padding: uneven, ..plain }),
        ("depthwise 5x5", [4, 6, 5], [5, 5], 4, same(5)),
    ];
    for (name, shape, kernel, groups, window) in cases {
        let op = conv(&mut rng, shape[0], 8, kernel, groups, window);
        check_op(name, shape, op);
    }
}

#[test]
fn pools_of_every_form() {
    let uneven = Padding { top: 1, left: 0, bottom: 0, right: 1 };
    let windows = [
        Window { stride: [2, 2], ..Window::new([2, 2]) },
        Window { stride: [2, 2], ..Window::new([3, 3]) },
        Window { stride: [1, 1], ..same(3) },
        Window { stride: [2, 3], ceil: true, padding: uneven, ..Window::new([3, 2]) },
        Window { dilation: [2, 1], stride: [1, 2], ..Window::new([2, 3]) },
        Window { stride: [3, 3], ceil: true, ..Window::new([2, 2]) },
    ];
    for (i, window) in windows.into_iter().enumerate() {
        check_op(&format!("max-pool {i}"), [3, 7, 8], Op::MaxPool(window));
        for count_padding in [false, true] {
            let op = Op::AveragePool { window, count_padding };
            check_op(&format!("average-pool {i} {count_padding}"), [3, 7, 8], op);
        }
    }
}

#[test]
fn reductions_and_softmax() {
    for kind in [Reduce::Mean, Reduce::Sum, Reduce::Max] {
        for (axes, keep) in [(vec![1, 2], false), (vec![1, 2], true), (vec![0], false), (vec![2], true)] {
            check_op(&format!("{kind:?} {axes:?} {keep}"), [3, 4, 5], Op::Reduce { kind, axes, keep });
        }
    }
    check_op("softmax over channels", [5, 2, 3], Op::Softmax { axis: 0 });
    check_op("softmax over columns", [2, 2, 5], Op::Softmax { axis: 2 });
}

#[test]
fn rearrangements() {
    let pads = [PadMode::Constant(0.0), PadMode::Constant(-1.5), PadMode::Reflect, PadMode::Edge];
    for mode in pads {
        check_op(&format!("pad {mode:?}"), [2, 4, 5], Op::Pad { before: vec![0, 1, 3], after: vec![0, 2, 0], mode });
    }
    check_op("reshape", [4, 3, 2], Op::Reshape(vec![Axis::Exact(2), Axis::Infer, Axis::Copy(2)]));
    check_op("transpose", [4, 3, 2], Op::Transpose(vec![2, 0, 1]));
    check_op("slice", [6, 3, 2], Op::Slice { axis: 0, start: 1, end: 6, step: 2 });
    let coordinates =
        [Coordinates::HalfPixel, Coordinates::PytorchHalfPixel, Coordinates::Asymmetric, Coordinates::AlignCorners];
    for coordinates in coordinates {
        for interpolation in [Interpolation::Linear, Interpolation::Nearest(Rounding::Floor)] {
            for target in [Target::Scales([2.0, 1.5]), Target::Sizes([3, 9])] {
                let resize = Resize { target, interpolation, coordinates };
                check_op(&format!("{resize:?}"), [2, 4, 6], Op::Resize(resize));
            }
        }
    }
}

#[test]
fn two_inputs_with_broadcasting() {
    for kind in [Binary::Add, Binary::Sub, Binary::Mul, Binary::Div] {
        let mut network = Network::new(3, 4, 2);
        let gate = Op::Reduce { kind: Reduce::Mean, axes: vec![1, 2], keep: true };
        let gate = network.push("gate", gate, &[Network::INPUT]).unwrap();
        let gate = network.push("positive", Op::Activation(Activation::Softplus), &[gate]).unwrap();
        let target = network.push("target", Op::Binary(kind), &[Network::INPUT, gate]).unwrap();
        check(&format!("{kind:?} map and channel"), network, target, 3);

        let mut network = Network::new(3, 4, 2);
        let positive = network.push("positive", Op::Activation(Activation::Softplus), &[Network::INPUT]).unwrap();
        let row = Op::Constant(Array::new([2], vec![0.5, -2.0]).unwrap());
        let row = network.push("row", row, &[]).unwrap();
        let target = network.push("target", Op::Binary(kind), &[row, positive]).unwrap();
        check(&format!("{kind:?} constant and map"), network, target, 4);
    }
}

#[test]
fn branches_add_their_gradients() {
    let mut rng = rng(2);
    let mut network = Network::new(3, 5, 5);
    let left = conv(&mut rng, 3, 4, [3, 3], 1, same(3));
    let left = network.push("left", left, &[Network::INPUT]).unwrap();
    let scale = Op::Affine { scale: array(&mut rng, &[3]), shift: array(&mut rng, &[3]) };
    let right = network.push("right", scale, &[Network::INPUT]).unwrap();
    let constant = network.push("constant", Op::Constant(array(&mut rng, &[1, 5, 5])), &[]).unwrap();
    let joined = network.push("joined", Op::Concat { axis: 0 }, &[left, constant, right, left]).unwrap();
    let target = network.push("target", Op::Binary(Binary::Mul), &[joined, joined]).unwrap();
    check("branches", network, target, 5);
}

#[test]
fn every_activation() {
    for activation in activations() {
        check_op(activation.name(), [3, 4, 5], Op::Activation(activation));
    }
}

#[test]
fn a_whole_classifier() {
    let network = classifier(11, &Activation::Silu);
    let target = network.find("logits").unwrap();
    check("classifier", network, target, 6);
}

/// One of each kind, with parameters that are not the usual ones.
pub fn activations() -> Vec<Activation> {
    vec![
        Activation::Relu,
        Activation::LeakyRelu { slope: 0.15 },
        Activation::PRelu { slopes: Array::vector(vec![0.05, 0.4, -0.3]) },
        Activation::Clip { min: -0.5, max: 0.8 },
        Activation::Clip { min: f32::NEG_INFINITY, max: 0.8 },
        Activation::Clip { min: -0.2, max: f32::INFINITY },
        Activation::HardSigmoid { alpha: 0.4, beta: 0.6 },
        Activation::HardSwish,
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::Silu,
        Activation::Gelu { tanh: true },
        Activation::Gelu { tanh: false },
        Activation::Elu { alpha: 0.7 },
        Activation::Selu,
        Activation::Mish,
        Activation::Softplus,
    ]
}

#[test]
fn tensors_agree_with_the_definitions_for_every_activation_and_gate() {
    // The positions include the kinks themselves; channels matter for PReLU.
    let mut z: Vec<f64> = (-32..=31).map(|i| f64::from(i) / 8.0).collect();
    z.extend([-0.5, 0.8f32 as f64, -0.2f32 as f64, 0.0, 6.0, 1e-12, -40.0, 40.0]);
    let per_channel = z.len();
    let all: Vec<f64> = z.iter().copied().cycle().take(3 * per_channel).collect();
    let shape = Shape::from([3, 1, per_channel]);
    for activation in activations() {
        let mut network = Network::new(3, 1, per_channel);
        let target = network.push("target", Op::Activation(activation.clone()), &[Network::INPUT]).unwrap();
        let mut plan = reference().plan(&Arc::new(network), &[target], &shape).unwrap();
        let images = tensor(&all, 1, &shape);
        let close = |what: &str, found: Vec<f64>, expected: &dyn Fn(f64, usize) -> f64| {
            for (i, found) in found.into_iter().enumerate() {
                let expected = expected(all[i], i / per_channel);
                let error = (found - expected).abs() / (1.0 + expected.abs());
                assert!(error < 1e-12, "{activation:?} {what} at {}: {found}, not {expected}", all[i]);
            }
        };
        let proxy = plan.forward(&images, Forward::Proxy { slope: 0.25 }).unwrap();
        close("proxy value", values(&proxy[0]), &|z, c| activation.proxy_value(z, 0.25, c));
        let output = plan.forward(&images, Forward::Original).unwrap();
        close("value", values(&output[0]), &|z, c| activation.value(z, c));
        let seed = output[0].ones_like().unwrap();
        let mut gradient = |gate| values(&plan.backward(std::slice::from_ref(&seed), gate).unwrap());
        close("plain", gradient(Gate::Plain), &|z, c| activation.derivative(z, c));
        close("proxy", gradient(Gate::Proxy { slope: 0.25 }), &|z, c| activation.proxy_derivative(z, 0.25, c));
        close("soft", gradient(Gate::Soft { temperature: 0.5 }), &|z, c| activation.soft_derivative(z, 0.5, c));
        close("identity", gradient(Gate::Identity), &|_, _| activation.peak());
    }
}

#[test]
fn the_proxy_derivative_is_the_slope_of_the_proxy_value() {
    const STEP: f64 = 1e-6;
    let mut rng = rng(9);
    for activation in activations() {
        for _ in 0..200 {
            let z = rng.random::<f64>() * 10.0 - 5.0;
            let channel = rng.random_range(0..3);
            for slope in [0.0, 0.1, 0.3, 1.0] {
                let value = |z| activation.proxy_value(z, slope, channel);
                let numeric = (value(z + STEP) - value(z - STEP)) / (2.0 * STEP);
                let found = activation.proxy_derivative(z, slope, channel);
                assert!((found - numeric).abs() < 1e-6, "{activation:?} at {z}, slope {slope}: {found}, not {numeric}");
            }
        }
    }
}
