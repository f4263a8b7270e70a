//! Row-tiled execution gives the same bits as execution step by step.
#![allow(clippy::unwrap_used)]

use std::num::NonZeroUsize;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::engine::cpu::Cpu;
use crate::engine::cpu::kernel::KernelConfig;
use crate::engine::cpu::kernel_cache::NetworkKernels;
use crate::engine::cpu::kernels::gemm_bf16;
use crate::engine::cpu::plan::ExecutionPlan;
use crate::engine::cpu::plan::row_tiling::TilingLimits;
use crate::engine::cpu::settings::CpuSettings;
use crate::engine::cpu::simd::Instructions;
use crate::engine::cpu::tests::instruction_sets;
use crate::engine::cpu::tune::ConvAlgorithms;
use crate::engine::subgraph::Subgraph;
use crate::engine::{Engine, Forward, Gate, Plan};
use crate::network::{Activation, Array, Binary, Conv, Network, NodeId, Op, Padding, Window};

fn array(rng: &mut impl Rng, shape: &[usize], low: f32, high: f32) -> Array {
    let count = shape.iter().product();
    Array::new(shape, (0..count).map(|_| rng.random_range(low..high)).collect::<Vec<f32>>()).unwrap()
}

/// A window of any kind that fits a map of this size.
fn window(rng: &mut impl Rng, kernel: usize, size: [usize; 2]) -> Window {
    let pad = || Padding { top: kernel / 2, left: kernel / 2, bottom: kernel / 2, right: kernel / 2 };
    let stride = [0, 1].map(|i| if size[i] > 6 { rng.random_range(1..=2) } else { 1 });
    let dilation = if kernel == 3 && size[0] > 8 && rng.random_bool(0.2) { [2, 2] } else { [1, 1] };
    Window { stride, dilation, padding: pad(), ..Window::new([kernel, kernel]) }
}

fn conv(rng: &mut impl Rng, [from, to]: [usize; 2], bias: f32, groups: usize, window: Window) -> Op {
    let weight = array(rng, &[to, from / groups, window.kernel[0], window.kernel[1]], -0.6, 0.6);
    let bias = Some(array(rng, &[to], bias - 0.5, bias + 0.5));
    Op::Conv(Conv { weight, bias, window, groups })
}

/// A chain of layers, most of which read only the previous one; some are dead.
fn network(rng: &mut impl Rng) -> (Network, NodeId) {
    let mut network = Network::new(3, rng.random_range(14..=25), rng.random_range(14..=25));
    let mut last = Network::INPUT;
    let mut before = None;
    for layer in 0..rng.random_range(4..=8) {
        let shape = network.node(last).shape.clone();
        let (channels, size) = (shape[0], [shape[1], shape[2]]);
        let bias = if rng.random_bool(0.15) { -30.0 } else { 0.0 };
        let (out, kernel) = (8 * rng.random_range(1..=3) + 3 * rng.random_range(0..2), [3, 5][rng.random_range(0..2)]);
        let op = match rng.random_range(0..6) {
            0 | 1 => conv(rng, [channels, out], bias, 1, Window::new([1, 1])),
            2 => {
                let window = window(rng, kernel, size);
                conv(rng, [channels, channels], bias, channels, window)
            }
            3 => {
                let window = window(rng, 3, size);
                conv(rng, [channels, out], bias, 1, Window { stride: [2, window.stride[1]], ..window })
            }
            4 => Op::MaxPool(window(rng, 3, size)),
            _ => Op::AveragePool { window: window(rng, 3, size), count_padding: rng.random() },
        };
        let Ok(added) = network.push(format!("layer{layer}"), op, &[last]) else { continue };
        let residual = before.filter(|&other: &NodeId| network.node(other).shape == network.node(added).shape);
        before = Some(last);
        last = added;
        if let Some(other) = residual.filter(|_| rng.random_bool(0.5)) {
            last = network.push(format!("sum{layer}"), Op::Binary(Binary::Add), &[last, other]).unwrap();
        }
        let activation = match rng.random_range(0..5) {
            0 => continue,
            1 => Activation::LeakyRelu { slope: 0.1 },
            2 => Activation::Clip { min: 0.0, max: 1.0 },
            _ => Activation::Relu,
        };
        last = network.push(format!("active{layer}"), Op::Activation(activation), &[last]).unwrap();
    }
    (network, last)
}

fn tensor(rng: &mut impl Rng, dims: &[usize]) -> Tensor {
    let values: Vec<f32> = (0..dims.iter().product()).map(|_| rng.random_range(-2.0..2.0)).collect();
    Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

/// A plan of an engine with these tiling limits.
fn planned(
    network: &Arc<Network>,
    target: NodeId,
    set: Instructions,
    threads: usize,
    bf16: bool,
    limits: TilingLimits,
) -> Box<dyn Plan> {
    let settings =
        CpuSettings { instructions: Some(set), threads: NonZeroUsize::new(threads), bf16, ..CpuSettings::default() };
    let mut cpu = Cpu::new(&settings).unwrap();
    cpu.limits = limits;
    let mut plan = cpu.plan(network, &[target.into()], network.input_shape()).unwrap();
    plan.allow_reduced_precision(true);
    plan
}

/// Number of steps of each row-tiled group.
fn group_lengths(network: &Network, target: NodeId, limits: TilingLimits) -> Vec<usize> {
    let subgraph = Subgraph::new(network, &[target.into()], network.input_shape()).unwrap();
    let algorithms = ConvAlgorithms::estimate(network, &subgraph);
    let config = KernelConfig { lanes: 8, threads: 2, on_the_fly_bytes: usize::MAX, weightless: false, bf16: false };
    let plan = ExecutionPlan::new(network, &subgraph, config, &algorithms, &NetworkKernels::default(), limits).unwrap();
    let all = plan.forward_groups.iter().chain(&plan.backward_groups);
    all.filter(|group| group.tiling.is_some()).map(|group| group.range.len()).collect()
}

#[test]
#[cfg_attr(miri, ignore = "whole networks take hours")]
fn row_tiling_changes_no_bit() {
    let mut lengths = Vec::new();
    for seed in 0..120 {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let (network, target) = network(rng);
        let network = Arc::new(network);
        let sets: Vec<Instructions> = instruction_sets().collect();
        let set = sets[seed as usize % sets.len()];
        let (threads, batch) = (rng.random_range(1..=3), rng.random_range(1..=5));
        let bf16 = set == Instructions::Avx512 && gemm_bf16::available() && seed % 2 == 0;
        let mut steps =
            planned(&network, target, set, threads, bf16, TilingLimits { min_map_bytes: usize::MAX, cache_bytes: 0 });
        let cache = 1 << rng.random_range(6..=17);
        let limits = TilingLimits { min_map_bytes: 1, cache_bytes: cache };
        let mut tiled = planned(&network, target, set, threads, bf16, limits);
        lengths.extend(group_lengths(&network, target, limits));
        let dims = |shape: &[usize]| [&[batch], shape].concat();
        let images = tensor(rng, &dims(network.input_shape()));
        let seeds = [tensor(rng, &dims(&network.node(target).shape))];
        for forward in [Forward::Original, Forward::Proxy { slope: 0.25 }] {
            let found = [&mut steps, &mut tiled].map(|plan| bits(&plan.forward(&images, forward).unwrap()[0]));
            assert!(found[0] == found[1], "outputs of {network:?}, seed {seed}, {forward:?}");
            let gates = [Gate::Plain, Gate::Redirect, Gate::Proxy { slope: 0.5 }, Gate::Identity];
            for gate in gates.into_iter().chain([Gate::Soft { temperature: 0.5 }, Gate::Redirect]) {
                let found = [&mut steps, &mut tiled].map(|plan| bits(&plan.backward(&seeds, gate).unwrap()));
                assert!(found[0] == found[1], "gradients of {network:?}, seed {seed}, {forward:?}, {gate:?}");
            }
        }
    }
    let count = |least: usize| lengths.iter().filter(|&&length| length >= least).count();
    assert!(count(2) > 200 && count(4) > 30, "too few groups were row-tiled: {lengths:?}");
}
