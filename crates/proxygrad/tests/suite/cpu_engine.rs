//! The CPU engine computes what the reference computes.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use proxygrad::engine::{Cpu, CpuSettings, Engine, Forward, Gate, Instructions, Plan, Reference, Target};
use proxygrad::network::{Activation, Array, Binary, Conv, Network, Op, Padding, Window};

use crate::networks::{classifier, conv, rng, same, uniform};
use crate::operations;
use crate::tensors::values;

const GATES: [Gate; 6] = [
    Gate::Plain,
    Gate::Proxy { slope: 0.25 },
    Gate::Proxy { slope: 1.0 },
    Gate::Redirect,
    Gate::Soft { temperature: 0.5 },
    Gate::Identity,
];

fn engine() -> Cpu {
    Cpu::new(&CpuSettings::default()).unwrap()
}

/// Engines for every instruction set of this processor.
fn engines() -> Vec<Cpu> {
    let sets = [Instructions::Avx512, Instructions::Avx2, Instructions::Portable];
    let with = |set| Cpu::new(&CpuSettings { instructions: Some(set), ..CpuSettings::default() }).unwrap();
    sets.into_iter().filter(|set| set.available()).map(with).collect()
}

fn images(network: &Network, batch: usize) -> Tensor {
    let values = uniform(&mut rng(17), batch * network.input_shape().elements());
    let values: Vec<f32> = values.into_iter().map(|v| 2.0 * v).collect();
    let mut dims = vec![batch];
    dims.extend_from_slice(network.input_shape());
    Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
}

/// Largest difference, relative to the largest magnitude.
fn distance(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.dims(), expected.dims());
    let (found, expected) = (values(found), values(expected));
    let scale = expected.iter().fold(1e-6f64, |m, v| m.max(v.abs()));
    found.iter().zip(&expected).fold(0f64, |m, (a, b)| m.max((a - b).abs())) / scale
}

fn plans(cpu: &Cpu, network: &Arc<Network>, targets: &[&str]) -> [Box<dyn Plan>; 2] {
    let targets: Vec<_> = targets.iter().map(|name| network.find(name).unwrap()).collect();
    let reference = Reference::new(Device::Cpu, DType::F64);
    let engines: [&dyn Engine; 2] = [cpu, &reference];
    engines.map(|engine| engine.plan(network, &Target::whole(&targets), network.input_shape()).unwrap())
}

/// Compares outputs and all gates on a batch.
fn compare(cpu: &Cpu, name: &str, network: Network, targets: &[&str], batch: usize) {
    let network = Arc::new(network);
    let [mut plan, mut reference] = plans(cpu, &network, targets);
    let images = images(&network, batch);
    let exact = images.to_dtype(DType::F64).unwrap();
    for forward in [Forward::Proxy { slope: 0.25 }, Forward::Original] {
        let found = plan.forward(&images, forward).unwrap();
        let expected = reference.forward(&exact, forward).unwrap();
        for (found, expected) in found.iter().zip(&expected) {
            let distance = distance(found, expected);
            assert!(distance < 1e-5, "{cpu:?}, {name}, {forward:?}: outputs are {distance:e} apart");
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
            let found = plan.backward(&seeds, gate).unwrap();
            let distance = distance(&found, &reference.backward(&exact_seeds, gate).unwrap());
            assert!(distance < 1e-5, "{cpu:?}, {name}, {forward:?}, {gate:?}: gradients are {distance:e} apart");
        }
        let below = network.below(&targets.iter().map(|name| network.find(name).unwrap()).collect::<Vec<_>>());
        // Another scale at every activation, some of them no use.
        let scales: BTreeMap<_, _> =
            below.iter().copied().zip([0.3f32, 2.0, 0.0, 0.7, f32::NAN].into_iter().cycle()).collect();
        let gate = Gate::Soft { temperature: 0.5 };
        plan.set_scales(&scales);
        reference.set_scales(&scales);
        let found = plan.backward(&seeds, gate).unwrap();
        let distance = distance(&found, &reference.backward(&exact_seeds, gate).unwrap());
        assert!(distance < 1e-5, "{cpu:?}, {name}, {forward:?}, scaled {gate:?}: gradients are {distance:e} apart");
        plan.set_scales(&BTreeMap::new());
        reference.set_scales(&BTreeMap::new());
    }
}

#[test]
fn every_operation_and_gate_agrees_with_the_reference_alone_and_in_a_batch() {
    for cpu in engines() {
        for batch in [1, 3] {
            for case in operations::all() {
                compare(&cpu, &case.name, case.network, &["target"], batch);
            }
        }
    }
}

#[test]
fn whole_classifiers_agree_for_every_activation() {
    for activation in operations::activations() {
        if !matches!(activation, Activation::PRelu { .. }) {
            compare(&engine(), activation.name(), classifier(5, &activation), &["logits"], 2);
        }
    }
}

#[test]
fn several_targets_add_their_gradients() {
    compare(&engine(), "two targets", classifier(6, &Activation::Silu), &["relu1", "logits", "conv2"], 2);
}

#[test]
fn a_batch_changes_no_bit_of_a_result() {
    let network = Arc::new(classifier(8, &Activation::Relu));
    let [mut cpu, _] = plans(&engine(), &network, &["logits"]);
    let batch = images(&network, 6);
    let seed = Tensor::ones((6, 4), DType::F32, &Device::Cpu).unwrap();
    let outputs = cpu.forward(&batch, Forward::Original).unwrap();
    let gradients = cpu.backward(std::slice::from_ref(&seed), Gate::Proxy { slope: 0.3 }).unwrap();
    for n in 0..6 {
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
    for mut plan in plans(&engine(), &network, &["logits"]) {
        let wrong = Tensor::ones((1, 2, 9, 9), DType::F32, &Device::Cpu).unwrap();
        let error = plan.forward(&wrong, Forward::Original).unwrap_err();
        assert_eq!(error.to_string(), "images of [1, 2, 9, 9] do not fit a plan for [2,9,8]");
        let seed = Tensor::ones((1, 4), DType::F32, &Device::Cpu).unwrap();
        let error = plan.backward(std::slice::from_ref(&seed), Gate::Plain).unwrap_err();
        assert_eq!(error.to_string(), "a backward pass needs a forward pass before it");
    }
}

/// Residual blocks, a stem and pools, wide and deep enough for every way of computing a convolution.
fn residual() -> Network {
    let rng = &mut rng(23);
    let mut network = Network::new(3, 33, 30);
    let mut conv = |network: &mut Network, name: &str, from, [inputs, outputs, side, stride]: [usize; 4]| {
        let scale = (6.0 / (inputs * side * side) as f32).sqrt();
        let weight = uniform(rng, outputs * inputs * side * side).into_iter().map(|w| w * scale).collect::<Vec<_>>();
        let mut window = Window::new([side, side]);
        window.stride = [stride, stride];
        let border = side / 2;
        window.padding = Padding { top: border, left: border, bottom: border, right: border };
        let weight = Array::new(vec![outputs, inputs, side, side], weight).unwrap();
        let bias = Some(Array::vector(uniform(rng, outputs)));
        network.push(name, Op::Conv(Conv { weight, bias, window, groups: 1 }), &[from]).unwrap()
    };
    let relu = |network: &mut Network, name: &str, from| {
        network.push(name, Op::Activation(Activation::Relu), &[from]).unwrap()
    };
    let stem = conv(&mut network, "stem", Network::INPUT, [3, 20, 7, 2]);
    let stem = relu(&mut network, "stem-relu", stem);
    let mut pool = Window::new([3, 3]);
    pool.stride = [2, 2];
    pool.padding = Padding { top: 1, left: 1, bottom: 1, right: 1 };
    let x = network.push("pool", Op::MaxPool(pool), &[stem]).unwrap();
    let a = conv(&mut network, "a1", x, [20, 20, 3, 1]);
    let a = relu(&mut network, "a1-relu", a);
    let a = conv(&mut network, "a2", a, [20, 20, 3, 1]);
    let a = network.push("a-add", Op::Binary(Binary::Add), &[a, x]).unwrap();
    let a = relu(&mut network, "a-relu", a);
    let b = conv(&mut network, "b1", a, [20, 36, 3, 2]);
    let b = relu(&mut network, "b1-relu", b);
    let b = conv(&mut network, "b2", b, [36, 36, 3, 1]);
    let side = conv(&mut network, "b-side", a, [20, 36, 1, 2]);
    let b = network.push("b-add", Op::Binary(Binary::Add), &[b, side]).unwrap();
    let b = relu(&mut network, "b-relu", b);
    let left = conv(&mut network, "left", b, [36, 24, 1, 1]);
    let left = relu(&mut network, "left-relu", left);
    let right = conv(&mut network, "right", b, [36, 40, 3, 1]);
    let right = relu(&mut network, "right-relu", right);
    let both = network.push("both", Op::Concat { axis: 0 }, &[left, right]).unwrap();
    conv(&mut network, "logits", both, [64, 10, 1, 1]);
    network
}

#[test]
fn fused_networks_agree_on_every_instruction_set() {
    for cpu in engines() {
        for (targets, batch) in [(&["logits"][..], 1), (&["logits"], 5), (&["a1-relu", "both", "b-add"], 2)] {
            compare(&cpu, "residual", residual(), targets, batch);
        }
    }
}

/// Pixels that are a multiple of 1024 values apart are copied before they are multiplied; many channels are divided into
/// groups of columns.
#[test]
fn wide_maps_agree_on_every_instruction_set() {
    let strided = |kernel: usize| Window { stride: [2, 2], ..same(kernel) };
    let forms = [
        ("pointwise", 1024, 40, 1, same(1)),
        ("pointwise, its gradient", 24, 1024, 1, same(1)),
        ("pointwise, groups of columns", 1024, 530, 1, same(1)),
        ("strided pointwise", 512, 40, 1, strided(1)),
        ("strided 3x3", 512, 24, 3, strided(3)),
        ("3x3 of two pixels", 1024, 24, 3, same(3)),
        ("3x3, its gradient", 24, 1024, 3, same(3)),
    ];
    for cpu in engines() {
        for (name, from, to, kernel, window) in forms {
            let mut rng = rng(23);
            let mut network = Network::new(from, if kernel == 3 { 2 } else { 5 }, 3);
            let wide = conv(&mut rng, from, to, [kernel; 2], 1, window);
            network.push("target", wide, &[Network::INPUT]).unwrap();
            compare(&cpu, name, network, &["target"], 2);
        }
    }
}

#[test]
fn of_joined_activations_each_is_redirected_on_its_own() {
    let mut network = Network::new(2, 5, 6);
    let mut layer = |name: &str, from, [inputs, outputs]: [usize; 2], bias: f32| {
        let weight = uniform(&mut rng(5 + outputs as u64), inputs * outputs);
        let weight = Array::new(vec![outputs, inputs, 1, 1], weight).unwrap();
        let bias = Some(Array::vector(vec![bias; outputs]));
        network.push(name, Op::Conv(Conv { weight, bias, window: Window::new([1, 1]), groups: 1 }), &[from]).unwrap()
    };
    let alive = layer("alive", Network::INPUT, [2, 3], 1.0);
    let dead = layer("dead", Network::INPUT, [2, 4], -100.0);
    let relus = [alive, dead].map(|from| {
        let name = format!("relu{}", from.0);
        network.push(name, Op::Activation(Activation::Relu), &[from]).unwrap()
    });
    network.push("both", Op::Concat { axis: 0 }, &relus).unwrap();
    compare(&engine(), "one of two is dead", network, &["both"], 2);
}

#[test]
fn results_do_not_depend_on_threads_or_batch() {
    let network = Arc::new(residual());
    let target = network.find("logits").unwrap();
    let results = |threads: usize, batch: usize| {
        let settings = CpuSettings { threads: NonZeroUsize::new(threads), ..CpuSettings::default() };
        let mut plan = Cpu::new(&settings).unwrap().plan(&network, &[target.into()], network.input_shape()).unwrap();
        let images = images(&network, 7).narrow(0, 0, batch).unwrap();
        let outputs = plan.forward(&images, Forward::Original).unwrap();
        let gradient = plan.backward(&[outputs[0].ones_like().unwrap()], Gate::Proxy { slope: 0.3 }).unwrap();
        [&outputs[0], &gradient].map(|tensor| values(&tensor.narrow(0, 0, 1).unwrap()))
    };
    let expected = results(1, 1);
    for (threads, batch) in [(2, 1), (3, 1), (1, 2), (2, 4), (2, 7), (5, 7)] {
        assert!(results(threads, batch) == expected, "{threads} threads, batch {batch}");
    }
}

#[test]
fn statistics_do_not_depend_on_threads_or_batch() {
    for case in operations::normalizations() {
        let network = Arc::new(case.network);
        let target = network.find("target").unwrap();
        let results = |threads: usize, batch: usize| {
            let settings = CpuSettings { threads: NonZeroUsize::new(threads), ..CpuSettings::default() };
            let cpu = Cpu::new(&settings).unwrap();
            let mut plan = cpu.plan(&network, &[target.into()], network.input_shape()).unwrap();
            let images = images(&network, 3).narrow(0, 0, batch).unwrap();
            let outputs = plan.forward(&images, Forward::Original).unwrap();
            let gradient = plan.backward(&[outputs[0].sqr().unwrap()], Gate::Plain).unwrap();
            [&outputs[0], &gradient].map(|tensor| values(&tensor.narrow(0, 0, 1).unwrap()))
        };
        assert!(results(3, 3) == results(1, 1), "{}", case.name);
    }
}

#[test]
fn measured_methods_compute_the_same_and_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tuning.json");
    let settings = CpuSettings { tuning: Some(path.clone()), ..CpuSettings::default() };
    compare(&Cpu::new(&settings).unwrap(), "measured", residual(), &["logits"], 2);
    let kept = std::fs::read_to_string(&path).unwrap();
    assert_eq!(kept.matches("conv3x3").count(), 4, "20 to 20, 20 to 36, 36 to 36 and 36 to 40 channels: {kept}");
    assert_eq!(kept.matches("conv7x7").count(), 1, "the stem: {kept}");
    compare(&Cpu::new(&settings).unwrap(), "read", residual(), &["logits"], 2);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), kept);
    std::fs::write(&path, "not json").unwrap();
    compare(&Cpu::new(&settings).unwrap(), "damaged", residual(), &["logits"], 1);
    assert!(std::fs::read_to_string(&path).unwrap().contains("conv3x3"));
}
