//! The CPU engine computes what the reference computes.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use proxygrad::engine::{Cpu, CpuSettings, Engine, Forward, Gate, Plan, Reference};
use proxygrad::network::{Activation, Network};

use crate::networks::{classifier, rng, uniform};
use crate::operations;

const GATES: [Gate; 6] = [
    Gate::Plain,
    Gate::Proxy { slope: 0.25 },
    Gate::Proxy { slope: 1.0 },
    Gate::Redirect,
    Gate::Soft { temperature: 0.5 },
    Gate::Identity,
];

fn engine() -> Cpu {
    Cpu::new(CpuSettings::default()).unwrap()
}

fn images(network: &Network, batch: usize) -> Tensor {
    let values = uniform(&mut rng(17), batch * network.input_shape().elements());
    let values: Vec<f32> = values.into_iter().map(|v| 2.0 * v).collect();
    let mut dims = vec![batch];
    dims.extend_from_slice(network.input_shape());
    Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

/// Largest difference, relative to the largest magnitude.
fn distance(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.dims(), expected.dims());
    let (found, expected) = (values(found), values(expected));
    let scale = expected.iter().fold(1e-6f64, |m, v| m.max(v.abs()));
    found.iter().zip(&expected).fold(0f64, |m, (a, b)| m.max((a - b).abs())) / scale
}

fn plans(network: &Arc<Network>, targets: &[&str]) -> [Box<dyn Plan>; 2] {
    let targets: Vec<_> = targets.iter().map(|name| network.find(name).unwrap()).collect();
    let reference = Reference::new(Device::Cpu, DType::F64);
    let cpu = engine();
    let engines: [&dyn Engine; 2] = [&cpu, &reference];
    engines.map(|engine| engine.plan(network, &targets, network.input_shape()).unwrap())
}

/// Compares outputs and all gates on a batch.
fn compare(name: &str, network: Network, targets: &[&str], batch: usize) {
    let network = Arc::new(network);
    let [mut cpu, mut reference] = plans(&network, targets);
    let images = images(&network, batch);
    let exact = images.to_dtype(DType::F64).unwrap();
    for forward in [Forward::Proxy { slope: 0.25 }, Forward::Original] {
        let (found, expected) = (cpu.forward(&images, forward).unwrap(), reference.forward(&exact, forward).unwrap());
        for (found, expected) in found.iter().zip(&expected) {
            let distance = distance(found, expected);
            assert!(distance < 1e-5, "{name}, {forward:?}: outputs are {distance:e} apart");
        }
        let seeds: Vec<Tensor> = found
            .iter()
            .enumerate()
            .map(|(i, output)| {
                let values = uniform(&mut rng(31 + i as u64), output.elem_count());
                Tensor::from_vec(values, output.dims(), &Device::Cpu).unwrap()
            })
            .collect();
        let exact_seeds: Vec<Tensor> = seeds.iter().map(|seed| seed.to_dtype(DType::F64).unwrap()).collect();
        for gate in GATES {
            let found = cpu.backward(&seeds, gate).unwrap();
            let distance = distance(&found, &reference.backward(&exact_seeds, gate).unwrap());
            assert!(distance < 1e-5, "{name}, {forward:?}, {gate:?}: gradients are {distance:e} apart");
        }
    }
}

#[test]
fn every_operation_and_gate_agrees_with_the_reference_alone_and_in_a_batch() {
    for batch in [1, 3] {
        for case in operations::all() {
            compare(&case.name, case.network, &["target"], batch);
        }
    }
}

#[test]
fn whole_classifiers_agree_for_every_activation() {
    for activation in operations::activations() {
        if !matches!(activation, Activation::PRelu { .. }) {
            compare(activation.name(), classifier(5, &activation), &["logits"], 2);
        }
    }
}

#[test]
fn several_targets_add_their_gradients() {
    compare("two targets", classifier(6, &Activation::Silu), &["relu1", "logits", "conv2"], 2);
}

#[test]
fn a_batch_changes_no_bit_of_a_result() {
    let network = Arc::new(classifier(8, &Activation::Relu));
    let [mut cpu, _] = plans(&network, &["logits"]);
    let batch = images(&network, 5);
    let seed = Tensor::ones((5, 4), DType::F32, &Device::Cpu).unwrap();
    let outputs = cpu.forward(&batch, Forward::Original).unwrap();
    let gradients = cpu.backward(std::slice::from_ref(&seed), Gate::Proxy { slope: 0.3 }).unwrap();
    for n in 0..5 {
        let one = batch.narrow(0, n, 1).unwrap();
        let output = cpu.forward(&one, Forward::Original).unwrap();
        let gradient = cpu.backward(&[seed.narrow(0, n, 1).unwrap()], Gate::Proxy { slope: 0.3 }).unwrap();
        assert_eq!(values(&output[0]), values(&outputs[0].narrow(0, n, 1).unwrap()), "image {n}");
        assert_eq!(values(&gradient), values(&gradients.narrow(0, n, 1).unwrap()), "image {n}");
    }
}

#[test]
fn what_does_not_fit_the_plan_is_an_error() {
    let network = Arc::new(classifier(8, &Activation::Relu));
    for mut plan in plans(&network, &["logits"]) {
        let wrong = Tensor::ones((1, 2, 9, 9), DType::F32, &Device::Cpu).unwrap();
        let error = plan.forward(&wrong, Forward::Original).unwrap_err();
        assert_eq!(error.to_string(), "images of [1, 2, 9, 9] do not fit a plan for [2,9,8]");
        let seed = Tensor::ones((1, 4), DType::F32, &Device::Cpu).unwrap();
        let error = plan.backward(std::slice::from_ref(&seed), Gate::Plain).unwrap_err();
        assert_eq!(error.to_string(), "a backward pass needs a forward pass before it");
    }
}
