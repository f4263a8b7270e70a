//! Every operation's backward agrees with a numeric derivative in f64.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use proxygrad::engine::{Engine, Forward, Gate, Reference};
use proxygrad::network::{Activation, Network, Op, Shape};
use rand::RngExt;

use crate::networks::{classifier, rng, uniform};
use crate::operations::{self, activations};
use crate::tensors::values;

const CPU: Device = Device::Cpu;

fn reference() -> Reference {
    Reference::new(CPU, DType::F64)
}

fn tensor(values: &[f64], batch: usize, shape: &Shape) -> Tensor {
    let mut dims = vec![batch];
    dims.extend_from_slice(shape);
    Tensor::from_slice(values, dims, &CPU).unwrap()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Compares the whole plain gradient of a random weighting of `target`'s output with central differences.
fn check(name: &str, network: Network, target: &str) {
    const STEP: f64 = 1e-6;
    const BATCH: usize = 2;
    let shape = network.input_shape().clone();
    let target = network.find(target).unwrap();
    let mut plan = reference().plan(&Arc::new(network), &[target.into()], &shape).unwrap();
    let mut rng = rng(7);
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

/// One test per group, so that a failure shows where to look.
macro_rules! groups {
    ($($group:ident),*) => {$(
        #[test]
        fn $group() {
            for case in operations::$group() {
                check(&case.name, case.network, "target");
            }
        }
    )*};
}

groups!(
    convolutions,
    pools,
    reductions,
    normalizations,
    rearrangements,
    binaries,
    products,
    functions,
    branches,
    activated
);

#[test]
fn quantization_passes_the_gradient_straight_through() {
    for operations::Case { name, network } in operations::quantizations() {
        let (shape, target) = (network.input_shape().clone(), network.find("target").unwrap());
        let mut plan = reference().plan(&Arc::new(network), &[target.into()], &shape).unwrap();
        let x: Vec<f64> = uniform(&mut rng(7), 2 * shape.elements()).into_iter().map(f64::from).collect();
        let output = plan.forward(&tensor(&x, 2, &shape), Forward::Original).unwrap().remove(0);
        let levels = values(&output);
        assert!(levels.iter().zip(&x).any(|(level, x)| level != x), "{name}: nothing is rounded");
        let seed = uniform(&mut rng(8), x.len()).into_iter().map(f64::from).collect::<Vec<_>>();
        let given = Tensor::from_slice(&seed, output.dims(), &CPU).unwrap();
        assert_eq!(values(&plan.backward(&[given], Gate::Plain).unwrap()), seed, "{name}");
    }
}

#[test]
fn a_whole_classifier() {
    check("classifier", classifier(11, &Activation::Silu), "logits");
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
        let mut plan = reference().plan(&Arc::new(network), &[target.into()], &shape).unwrap();
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
