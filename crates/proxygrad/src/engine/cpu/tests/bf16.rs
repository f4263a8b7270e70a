//! Passes in bf16: products of rounded operands, summed in f32, and nothing else.
#![allow(clippy::unwrap_used)]

use std::num::NonZeroUsize;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::engine::cpu::kernels::gemm_bf16;
use crate::engine::cpu::simd::Instructions;
use crate::engine::{Cpu, CpuSettings, Engine, EngineError, Forward, Gate, Plan};
use crate::network::{Array, Conv, Network, NodeId, Op, Window};

const EXACT: CpuSettings = CpuSettings { threads: None, instructions: None, bf16: false, tuning: None, timed: false };

/// Whether this processor can; the tests of products pass without doing anything where it cannot.
fn available() -> bool {
    gemm_bf16::available() && Instructions::Avx512.available()
}

fn values(rng: &mut impl Rng, count: usize) -> Vec<f32> {
    (0..count).map(|_| rng.random::<f32>() * 2.0 - 1.0).collect()
}

/// The nearest number with 7 bits of mantissa: those between two neighbours differ by their spacing.
fn rounded(value: f32) -> f64 {
    if value == 0.0 {
        return 0.0;
    }
    let value = f64::from(value);
    let spacing = 2f64.powi(value.abs().log2().floor() as i32 - 7);
    (value / spacing).round_ties_even() * spacing
}

/// A 1x1 convolution.
struct Layer {
    network: Arc<Network>,
    target: NodeId,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

fn layer(rng: &mut impl Rng, [from, to]: [usize; 2], [height, width]: [usize; 2]) -> Layer {
    let mut network = Network::new(from, height, width);
    let (weight, bias) = (values(rng, from * to), values(rng, to));
    let conv = Conv {
        weight: Array::new([to, from, 1, 1], weight.clone()).unwrap(),
        bias: Some(Array::vector(bias.clone())),
        window: Window::new([1, 1]),
        groups: 1,
    };
    let target = network.push("conv", Op::Conv(conv), &[Network::INPUT]).unwrap();
    Layer { network: Arc::new(network), target, weight, bias }
}

fn plan(settings: &CpuSettings, layer: &Layer) -> Box<dyn Plan> {
    let engine = Cpu::new(settings).unwrap();
    let mut plan = engine.plan(&layer.network, &[layer.target.into()], layer.network.input_shape()).unwrap();
    plan.allow_reduced_precision(true);
    plan
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// `[N,C,H,W]`, and where a channel of a pixel is in it.
struct Maps {
    values: Vec<f32>,
    dims: [usize; 4],
}

impl Maps {
    fn random(rng: &mut impl Rng, dims: [usize; 4]) -> Self {
        Self { values: values(rng, dims.iter().product()), dims }
    }

    fn tensor(&self) -> Tensor {
        Tensor::from_slice(&self.values, &self.dims[..], &Device::Cpu).unwrap()
    }

    fn at(&self, n: usize, c: usize, pixel: usize) -> f32 {
        let [_, channels, height, width] = self.dims;
        self.values[(n * channels + c) * height * width + pixel]
    }
}

#[test]
#[cfg_attr(miri, ignore = "no vector instructions")]
fn products_are_those_of_rounded_operands() {
    if !available() {
        return;
    }
    let settings = CpuSettings { bf16: true, ..EXACT };
    // Odd numbers of channels, rows that would displace each other in the cache, and the most that are copied.
    for (seed, [from, to]) in
        [[1, 2], [3, 40], [17, 16], [64, 31], [95, 97], [1024, 33], [2047, 5], [4096, 20], [4097, 3]]
            .into_iter()
            .enumerate()
    {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed as u64);
        let size = [rng.random_range(1..=6), rng.random_range(1..=6)];
        let (layer, batch) = (layer(rng, [from, to], size), rng.random_range(1..=5));
        let images = Maps::random(rng, [batch, from, size[0], size[1]]);
        let seeds = Maps::random(rng, [batch, to, size[0], size[1]]);
        let mut plan = plan(&settings, &layer);
        let output = flat(&plan.forward(&images.tensor(), Forward::Original).unwrap()[0]);
        let gradient = flat(&plan.backward(&[seeds.tensor()], Gate::Plain).unwrap());
        let pixels = size[0] * size[1];
        // Very long rows stay in f32.
        let operand = |value: f32, channels: usize| if channels <= 4096 { rounded(value) } else { f64::from(value) };
        for (n, pixel) in (0..batch).flat_map(|n| (0..pixels).map(move |pixel| (n, pixel))) {
            for o in 0..to {
                let product =
                    |c: usize| operand(images.at(n, c, pixel), from) * operand(layer.weight[o * from + c], from);
                let expected = f64::from(layer.bias[o]) + (0..from).map(product).sum::<f64>();
                let found = f64::from(output[(n * to + o) * pixels + pixel]);
                assert!(
                    (found - expected).abs() < 3e-6 * from as f64 + 1e-6,
                    "{from} to {to}: {found}, not {expected}"
                );
            }
            for c in 0..from {
                let product = |o: usize| rounded(seeds.at(n, o, pixel)) * rounded(layer.weight[o * from + c]);
                let expected = (0..to).map(product).sum::<f64>();
                let found = f64::from(gradient[(n * from + c) * pixels + pixel]);
                assert!((found - expected).abs() < 3e-6 * to as f64 + 1e-6, "{from} to {to}: {found}, not {expected}");
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "no vector instructions")]
fn passes_round_only_where_they_may() {
    if !available() {
        return;
    }
    let rng = &mut ChaCha8Rng::seed_from_u64(1);
    let layer = layer(rng, [48, 24], [5, 7]);
    let images = Maps::random(rng, [3, 48, 5, 7]).tensor();
    let seed = [Tensor::from_vec(values(rng, 3 * 24 * 35), (3, 24, 5, 7), &Device::Cpu).unwrap()];
    // Output and gradient, each of which may be in reduced precision.
    let run = |plan: &mut Box<dyn Plan>, [ahead, back]: [bool; 2]| {
        plan.allow_reduced_precision(ahead);
        let output = flat(&plan.forward(&images, Forward::Original).unwrap()[0]);
        plan.allow_reduced_precision(back);
        [output, flat(&plan.backward(&seed, Gate::Plain).unwrap())]
    };
    let [mut exact, mut reduced] = [false, true].map(|bf16| plan(&CpuSettings { bf16, ..EXACT }, &layer));
    let expected = run(&mut exact, [false; 2]);
    assert!(run(&mut exact, [true; 2]) == expected, "an engine in f32 rounded");
    assert!(run(&mut reduced, [false; 2]) == expected, "rounded though it must not");
    let [output, gradient] = run(&mut reduced, [true; 2]);
    assert!(output != expected[0] && gradient != expected[1], "nothing was rounded");
    assert!(run(&mut reduced, [false, true]) == [expected[0].clone(), gradient], "the passes are not independent");
}

#[test]
#[cfg_attr(miri, ignore = "no vector instructions")]
fn an_image_does_not_depend_on_its_batch_nor_on_threads() {
    if !available() {
        return;
    }
    let rng = &mut ChaCha8Rng::seed_from_u64(2);
    let layer = layer(rng, [70, 130], [9, 8]);
    let images = Maps::random(rng, [6, 70, 9, 8]).tensor();
    let with = |threads: usize| CpuSettings { bf16: true, threads: NonZeroUsize::new(threads), ..EXACT };
    let mut together = plan(&with(3), &layer);
    let expected = together.forward(&images, Forward::Original).unwrap().remove(0);
    let mut alone = plan(&with(1), &layer);
    for n in 0..6 {
        let own = alone.forward(&images.narrow(0, n, 1).unwrap(), Forward::Original).unwrap().remove(0);
        assert_eq!(flat(&own), flat(&expected.narrow(0, n, 1).unwrap()));
    }
}

#[test]
#[cfg_attr(miri, ignore = "no vector instructions")]
fn plans_hold_what_was_predicted() {
    if !available() {
        return;
    }
    let rng = &mut ChaCha8Rng::seed_from_u64(3);
    let layer = layer(rng, [300, 200], [6, 6]);
    let targets = [layer.target.into()];
    let held = |bf16| {
        let engine = Cpu::new(&CpuSettings { bf16, ..EXACT }).unwrap();
        let predicted = engine.memory_model().footprint(&layer.network, &targets, layer.network.input_shape()).unwrap();
        let mut plan = engine.plan(&layer.network, &targets, layer.network.input_shape()).unwrap();
        plan.forward(&Tensor::zeros((2, 300, 6, 6), candle_core::DType::F32, &Device::Cpu).unwrap(), Forward::Original)
            .unwrap();
        let held = plan.held_bytes().unwrap();
        assert!(held <= predicted.bytes(2, false), "{held} of {}", predicted.bytes(2, false));
        held
    };
    // Forward and backward weights in bf16, besides those in f32.
    assert!(held(true) >= held(false) + 2 * 300 * 200 * 2);
}

#[test]
fn other_instruction_sets_cannot() {
    let settings = CpuSettings { bf16: true, instructions: Some(Instructions::Portable), ..EXACT };
    let refused = Cpu::new(&settings).err().unwrap();
    assert!(matches!(&refused, EngineError::Device { device, .. } if device == "cpu+bf16"), "{refused}");
    assert!(refused.to_string().contains("AVX512-BF16"), "{refused}");
}
