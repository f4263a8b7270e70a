//! A plan for some channels of a layer computes them as one for the whole layer does, and may leave out the others.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use proxygrad::engine::{Cpu, CpuSettings, Engine, Forward, Gate, Reference, Target};
use proxygrad::network::{Activation, Array, Axis, Binary, Network, NodeId, Op, Padding, Reduce, Window};

use crate::networks::{array, conv, rng, same, uniform};
use crate::operations;
use crate::tensors::values;

const GATES: [Gate; 5] =
    [Gate::Plain, Gate::Proxy { slope: 0.3 }, Gate::Redirect, Gate::Soft { temperature: 0.5 }, Gate::Identity];

/// Images, or seeds that are zero outside some channels of a layer.
fn random(seed: u64, dims: &[usize], channels: &[usize], dtype: DType) -> Tensor {
    let mut values = uniform(&mut rng(seed), dims.iter().product());
    let size: usize = dims[2..].iter().product();
    for (i, value) in values.iter_mut().enumerate() {
        if !channels.contains(&(i / size % dims[1])) {
            *value = 0.0;
        }
    }
    Tensor::from_vec(values, dims, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

/// The values of some channels, and whether all others are zero.
fn split(output: &Tensor, channels: &[usize]) -> (Vec<f64>, bool) {
    let size: usize = output.dims()[2..].iter().product();
    let (mut kept, mut empty) = (Vec::new(), true);
    for (i, value) in values(output).into_iter().enumerate() {
        match channels.contains(&(i / size % output.dims()[1])) {
            true => kept.push(value),
            false => empty &= value == 0.0,
        }
    }
    (kept, empty)
}

/// Compares a plan for `channels` of `layer` with one for all channels; returns whether others were pruned.
fn compare(engine: &dyn Engine, name: &str, network: &Arc<Network>, layer: NodeId, channels: &[usize]) -> bool {
    let plan = |target: Target| engine.plan(network, &[target], network.input_shape()).unwrap();
    let mut plans = [plan(layer.into()), plan(Target::channels(layer, channels.iter().copied()))];
    let dims = [&[5], &network.input_shape()[..]].concat();
    let images = random(3, &dims, &(0..dims[1]).collect::<Vec<_>>(), engine.dtype());
    let exact = engine.dtype() == DType::F32;
    let same = |what: &str, [whole, some]: [Vec<f64>; 2]| {
        let most = whole.iter().fold(1e-6f64, |most, value| most.max(value.abs()));
        let apart = whole.iter().zip(&some).fold(0f64, |apart, (a, b)| apart.max((a - b).abs()));
        assert!(apart <= if exact { 0.0 } else { 1e-12 * most }, "{name}, {what}: {apart:e} apart");
    };
    let outputs = plans.each_mut().map(|plan| plan.forward(&images, Forward::Original).unwrap().remove(0));
    let [(whole, _), (some, left_out)] = outputs.each_ref().map(|output| split(output, channels));
    same("outputs", [whole, some]);
    let seeds = [random(4, outputs[0].dims(), channels, engine.dtype())];
    for gate in GATES {
        let gradients = plans.each_mut().map(|plan| values(&plan.backward(&seeds, gate).unwrap()));
        same(&format!("{gate:?}"), gradients);
    }
    left_out
}

fn engines() -> [Box<dyn Engine>; 2] {
    let cpu = Cpu::new(&CpuSettings::default()).unwrap();
    [Box::new(cpu), Box::new(Reference::new(Device::Cpu, DType::F64))]
}

#[test]
fn channels_of_every_operation_are_those_of_the_whole_layer() {
    for engine in engines() {
        for case in operations::all() {
            let network = Arc::new(case.network);
            let layer = network.find("target").unwrap();
            let count = network.node(layer).shape.channels();
            for channels in [vec![count - 1], vec![0, count / 2], (0..count).collect()] {
                compare(&*engine, &case.name, &network, layer, &channels);
            }
        }
    }
}

/// A convolution followed by the operations that pruning passes through.
fn tails() -> Vec<(&'static str, Network)> {
    let rng = &mut rng(11);
    let (relu, count) = (|| Op::Activation(Activation::Relu), 40);
    let mean = |keep| Op::Reduce { kind: Reduce::Mean, axes: vec![1, 2], keep };
    let pool =
        Window { stride: [2, 2], padding: Padding { top: 1, left: 0, bottom: 0, right: 1 }, ..Window::new([3, 3]) };
    let slopes = || Op::Activation(Activation::PRelu { slopes: Array::vector(vec![0.1; count]) });
    let affine = Op::Affine { scale: array(rng, &[count]), shift: array(rng, &[count]) };
    let dense = Op::Dense { weight: array(rng, &[count, 16]), bias: Some(array(rng, &[count])) };
    let flat = Op::Reshape(vec![Axis::Infer]);
    let tails = vec![
        ("1x1, relu, mean", vec![conv(rng, 16, count, [1, 1], 1, Window::new([1, 1])), relu(), mean(true), flat]),
        ("3x3, prelu, pool", vec![conv(rng, 16, count, [3, 3], 1, same(3)), slopes(), Op::MaxPool(pool)]),
        ("strided, affine", vec![conv(rng, 16, count, [3, 3], 1, Window { stride: [2, 2], ..same(3) }), affine]),
        (
            "expansion, depthwise",
            vec![
                conv(rng, 16, count, [1, 1], 1, Window::new([1, 1])),
                relu(),
                conv(rng, count, count, [5, 5], count, same(5)),
                Op::AveragePool { window: pool, count_padding: true },
            ],
        ),
        ("mean, dense, relu", vec![mean(false), dense, relu()]),
    ];
    let network = |ops: Vec<Op>, first: Op| {
        let mut network = Network::new(3, 13, 11);
        let first = network.push("first", first, &[Network::INPUT]).unwrap();
        let mut at = network.push("relu", relu(), &[first]).unwrap();
        let last = ops.len() - 1;
        for (i, op) in ops.into_iter().enumerate() {
            let name = if i == last { "target".to_owned() } else { format!("step{i}") };
            at = network.push(&name, op, &[at]).unwrap();
        }
        network
    };
    tails.into_iter().map(|(name, ops)| (name, network(ops, conv(rng, 3, 16, [3, 3], 1, same(3))))).collect()
}

#[test]
fn unread_channels_are_pruned() {
    for engine in engines() {
        for (name, network) in tails() {
            let network = Arc::new(network);
            let layer = network.find("target").unwrap();
            for channels in [vec![17], vec![0, 8, 9, 39], (5..25).collect()] {
                assert!(compare(&*engine, name, &network, layer, &channels), "{name}");
            }
        }
    }
}

#[test]
fn what_others_read_is_whole() {
    let rng = &mut rng(12);
    let mut network = Network::new(3, 6, 7);
    let first = network.push("first", conv(rng, 3, 16, [3, 3], 1, same(3)), &[Network::INPUT]).unwrap();
    let second = network.push("second", conv(rng, 16, 16, [3, 3], 1, same(3)), &[first]).unwrap();
    let sum = network.push("sum", Op::Binary(Binary::Add), &[first, second]).unwrap();
    let network = Arc::new(network);
    for engine in engines() {
        assert!(!compare(&*engine, "a residual sum", &network, sum, &[3]));
        // The first is read by the second, and is a target itself.
        let targets = [Target::channels(first, [1]), Target::channels(second, [2, 3]), Target::channels(second, [5])];
        let mut plan = engine.plan(&network, &targets, network.input_shape()).unwrap();
        let mut whole = engine.plan(&network, &Target::whole(&[first, second]), network.input_shape()).unwrap();
        let images = random(5, &[2, 3, 6, 7], &[0, 1, 2], engine.dtype());
        let found = plan.forward(&images, Forward::Original).unwrap();
        let expected = whole.forward(&images, Forward::Original).unwrap();
        assert_eq!(values(&found[0]), values(&expected[0]));
        assert_eq!(values(&found[1]), values(&expected[1]));
        assert_eq!(values(&found[2]), values(&expected[1]));
    }
}

#[test]
fn a_channel_beyond_the_layer_is_an_error() {
    let (_, network) = tails().swap_remove(0);
    let network = Arc::new(network);
    let layer = network.find("target").unwrap();
    for engine in engines() {
        let error = engine.plan(&network, &[Target::channels(layer, [3, 40])], network.input_shape()).err().unwrap();
        assert_eq!(error.to_string(), "channel 40 of a layer with 40 channels");
    }
}
