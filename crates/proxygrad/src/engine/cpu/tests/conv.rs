//! Every convolution kernel, on every instruction set, against sums in f64.
#![expect(unsafe_code, reason = "maps of the tests' own buffers")]
#![allow(clippy::unwrap_used)]

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::engine::cpu::activation_mask::{ActivationMask, Branch};
use crate::engine::cpu::breakpoints::Breakpoints;
use crate::engine::cpu::buffer::{Buffer, SharedPtr};
use crate::engine::cpu::epilogue::{Epilogue, FusedGate};
use crate::engine::cpu::exec::threads::ThreadPool;
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::kernel::{BackwardArgs, ForwardArgs, Kernel, KernelConfig, ThreadCtx};
use crate::engine::cpu::kernels::conv::{ConvAlgorithm, ConvKernel};
use crate::engine::cpu::simd::Instructions;
use crate::engine::cpu::tests::instruction_sets;
use crate::engine::{Forward, Gate};
use crate::network::{self, Array, Padding, Shape, Window};

/// Limits of input and output channels, pixels beyond a window's extent, and cases of each test. Miri is a thousand
/// times slower.
const MOST_INPUTS: usize = if cfg!(miri) { 5 } else { 40 };
const MOST_OUTPUTS: usize = if cfg!(miri) { 11 } else { 70 };
const MOST_EXTRA: usize = if cfg!(miri) { 3 } else { 14 };
const CASES: u64 = if cfg!(miri) { 6 } else { 60 };

fn uniform(rng: &mut impl Rng, count: usize) -> Vec<f32> {
    (0..count).map(|_| rng.random::<f32>() * 2.0 - 1.0).collect()
}

/// Channels-last memory of a batch.
struct Maps {
    buffer: Buffer,
    images: usize,
    shape: [usize; 3],
    pixel_stride: usize,
}

impl Maps {
    /// The memory has `extra` more values per pixel than the map has channels.
    fn new(images: usize, shape: [usize; 3], extra: usize) -> Self {
        let pixel_stride = shape[0] + extra;
        Self { buffer: Buffer::new(images * shape[1] * shape[2] * pixel_stride), images, shape, pixel_stride }
    }

    fn random(rng: &mut impl Rng, images: usize, shape: [usize; 3], extra: usize) -> Self {
        let mut maps = Self::new(images, shape, extra);
        let values = uniform(rng, maps.buffer.values().len());
        maps.buffer.values_mut().copy_from_slice(&values);
        maps
    }

    fn map(&mut self) -> FeatureMap {
        let [channels, height, width] = self.shape;
        let data = self.buffer.values_mut().as_mut_ptr();
        FeatureMap { data, images: self.images, height, width, channels, pixel_stride: self.pixel_stride }
    }

    fn at(&self, n: usize, c: usize, y: usize, x: usize) -> f64 {
        let [_, height, width] = self.shape;
        f64::from(self.buffer.values()[((n * height + y) * width + x) * self.pixel_stride + c])
    }
}

fn run(
    kernel: &dyn Kernel,
    sizes: [[usize; 2]; 2],
    images: usize,
    set: Instructions,
    f: impl Fn(&ThreadCtx<'_>) + Sync,
) {
    let threads = ThreadPool::new(2).unwrap();
    let mut scratch: Vec<Buffer> = (0..2).map(|_| Buffer::new(kernel.scratch_len())).collect();
    let mut shared = Buffer::new(kernel.shared_len(images, sizes, 2));
    let scratch: Vec<SharedPtr> = scratch.iter_mut().map(SharedPtr::of).collect();
    let shared = SharedPtr::of(&mut shared);
    threads.run(|worker| {
        let scratch = scratch[worker.index()].pointer();
        f(&ThreadCtx { worker, instructions: set, bf16: false, scratch, shared: shared.pointer() });
    });
}

fn random_conv(rng: &mut impl Rng, winograd: bool) -> (network::Conv, Shape) {
    let mut up_to = |most: usize| rng.random_range(1..=most);
    let (mut groups, mut inputs, mut outputs) = (1, up_to(MOST_INPUTS), up_to(MOST_OUTPUTS));
    let mut window = Window::new([up_to(5), up_to(5)]);
    if winograd {
        window.stride = [up_to(2); 2];
        // Two to four taps of each phase.
        let mut side = || if window.stride[0] == 1 { up_to(3) + 1 } else { up_to(6) + 2 };
        window.kernel = [side(); 2];
        inputs = if up_to(2) == 1 { up_to(3) } else { inputs };
    } else {
        window.stride = [up_to(3), up_to(3)];
        window.dilation = [up_to(2), up_to(2)];
        match up_to(3) {
            1 => {}
            2 => (groups, inputs, outputs) = (3, inputs * 3, outputs * 3),
            _ => (groups, outputs) = (inputs, inputs),
        }
    }
    let mut padding = || up_to(3) - 1;
    window.padding = Padding { top: padding(), left: padding(), bottom: padding(), right: padding() };
    let size = [0, 1].map(|i| window.extent()[i] + rng.random_range(0..=MOST_EXTRA));
    let weight = uniform(rng, outputs * inputs / groups * window.kernel[0] * window.kernel[1]);
    let shape = [outputs, inputs / groups, window.kernel[0], window.kernel[1]];
    let conv = network::Conv {
        weight: Array::new(shape.to_vec(), weight).unwrap(),
        bias: Some(Array::vector(uniform(rng, outputs))),
        window,
        groups,
    };
    (conv, Shape::from([inputs, size[0], size[1]]))
}

/// Calls `f` for every product of the convolution with output position, input position and weight.
fn each_product(
    conv: &network::Conv,
    input: &Shape,
    output: [usize; 2],
    mut f: impl FnMut([usize; 3], [usize; 3], f64),
) {
    let &[outputs, inputs, kh, kw] = conv.weight.shape() else { return };
    let window = &conv.window;
    for o in 0..outputs {
        for c in 0..inputs {
            for (ky, kx) in (0..kh).flat_map(|y| (0..kw).map(move |x| (y, x))) {
                let weight = f64::from(conv.weight.data()[((o * inputs + c) * kh + ky) * kw + kx]);
                let channel = o / (outputs / conv.groups) * inputs + c;
                for (y, x) in (0..output[0]).flat_map(|y| (0..output[1]).map(move |x| (y, x))) {
                    let row = (y * window.stride[0] + ky * window.dilation[0]).checked_sub(window.padding.top);
                    let column = (x * window.stride[1] + kx * window.dilation[1]).checked_sub(window.padding.left);
                    let (Some(row), Some(column)) = (row, column) else { continue };
                    if row < input[1] && column < input[2] {
                        f([o, y, x], [channel, row, column], weight);
                    }
                }
            }
        }
    }
}

fn check(seed: u64, winograd: bool, set: Instructions) {
    let rng = &mut ChaCha8Rng::seed_from_u64(seed);
    let (conv, input) = random_conv(rng, winograd);
    let size = conv.window.output([input[1], input[2]]).unwrap();
    let output = Shape::from([conv.out_channels(), size[0], size[1]]);
    let images = rng.random_range(1..=3);
    let [inside, outside] = [[input[0], input[1], input[2]], [output[0], size[0], size[1]]];
    let mut x = Maps::random(rng, images, inside, 5);
    let mut other = Maps::random(rng, images, outside, 0);
    let mut gradient = Maps::random(rng, images, outside, 3);
    let mut sum = Maps::random(rng, images, inside, 2);
    let breakpoints = Breakpoints { low: -0.5, high: 0.75, leak: 0.25 };
    // After the channels of another value, so that vectors start anywhere in a byte.
    let (skipped, bytes) = (rng.random_range(0..=8), |channels, images: usize, size: [usize; 2]| {
        images * size[0] * size[1] * ActivationMask::bytes(channels, &breakpoints) + ActivationMask::SLACK_BYTES
    });
    let mut given: Vec<u8> =
        (0..bytes(skipped + input[0], images, [input[1], input[2]])).map(|_| rng.random()).collect();
    let given = ActivationMask::new(given.as_mut_ptr(), skipped + input[0], &breakpoints).slice(skipped);
    // Winograd weights that are transformed on every use, or once.
    let on_the_fly_bytes = if rng.random() { 0 } else { usize::MAX };
    let config = KernelConfig { lanes: set.lanes(), threads: 2, on_the_fly_bytes, weightless: false, bf16: false };
    let places = |shape: [usize; 3]| (shape[0], shape[1], shape[2]);
    for algorithm in ConvAlgorithm::all(&conv) {
        let kernel = ConvKernel::new(&conv, &input, &output, config, [algorithm, algorithm]);
        let sizes = [[input[1], input[2]], size];
        let (mut y, mut dx) = (Maps::new(images, outside, 7), Maps::new(images, inside, 1));
        let mut found = vec![u8::MAX; bytes(output[0], images, size)];
        let found = ActivationMask::new(found.as_mut_ptr(), output[0], &breakpoints);
        // Forward: bias, residual and activation.
        let (x_map, other_map, to) = (x.map(), other.map(), y.map());
        let mask = kernel.fuses_epilogue().then_some(found);
        run(&kernel, sizes, images, set, |ctx| {
            let args = ForwardArgs { inputs: &[x_map], saved: None, forward: Forward::Original };
            let (bias, addend) = (kernel.bias(), Some(other_map));
            kernel.forward(
                ctx,
                &args,
                &Epilogue { bias, addend, breakpoints: Some(breakpoints), mask, ..Epilogue::store_only(to) },
            );
        });
        // Backward: a partial gradient and a gate.
        let (gradient_map, sum_map, to) = (gradient.map(), sum.map(), dx.map());
        let gate = FusedGate::Masked { mask: given, outside: 0.125 };
        run(&kernel, sizes, images, set, |ctx| {
            let (inputs, output) = (&[x_map], gradient_map);
            let args = BackwardArgs { inputs, output, saved: None, gradient: gradient_map, gate: Gate::Plain };
            kernel.backward(ctx, 0, &args, &Epilogue { addend: Some(sum_map), gate, ..Epilogue::store_only(to) });
        });
        for n in 0..images {
            let mut expected = vec![0f64; output.elements()];
            let mut expected_dx = vec![0f64; input.elements()];
            each_product(&conv, &input, size, |[o, y, w], [c, h, v], weight| {
                expected[(o * size[0] + y) * size[1] + w] += weight * x.at(n, c, h, v);
                expected_dx[(c * input[1] + h) * input[2] + v] += weight * gradient.at(n, o, y, w);
            });
            let compare = |found: f64, expected: f64, scale: f64, what: &str| {
                let near = (found - expected).abs() <= 2e-5 * scale;
                assert!(
                    near,
                    "{set:?}, {algorithm:?}, {what}: {found}, not {expected}; {conv:?} on {input}, seed {seed}"
                );
            };
            let scale = expected.iter().chain(&expected_dx).fold(1f64, |m, v| m.max(v.abs()));
            let (_, height, width) = places(outside);
            for (i, value) in expected.iter().enumerate() {
                let (c, h, w) = (i / (height * width), i / width % height, i % width);
                let z = value + f64::from(conv.bias.as_ref().unwrap().data()[c]) + other.at(n, c, h, w);
                let inside = z.clamp(-0.5, 0.75);
                compare(y.at(n, c, h, w), inside + 0.25 * (z - inside), scale, "output");
                let branch = match y.at(n, c, h, w) {
                    value if value <= -0.5 => Branch::Below,
                    value if value >= 0.75 => Branch::Above,
                    _ => Branch::Between,
                };
                // SAFETY: the value lies in the map, which is complete.
                let found = unsafe { found.branch((n * height + h) * width + w, c) };
                let right = mask.is_none() || found == branch;
                assert!(right, "{set:?}, {algorithm:?}: {z} is {found:?}; {conv:?} on {input}, seed {seed}");
            }
            let (_, height, width) = places(inside);
            for (i, value) in expected_dx.iter().enumerate() {
                let (c, h, w) = (i / (height * width), i / width % height, i % width);
                // SAFETY: the value lies in the map.
                let branch = unsafe { given.branch((n * height + h) * width + w, c) };
                let factor = if branch == Branch::Between { 1.0 } else { 0.125 };
                compare(dx.at(n, c, h, w), (value + sum.at(n, c, h, w)) * factor, scale, "gradient");
            }
            // Values between the pixels of a slice are not written.
            let beyond = y
                .buffer
                .values()
                .chunks_exact(y.pixel_stride)
                .all(|pixel| pixel[outside[0]..].iter().all(|&v| v == 0.0));
            assert!(beyond, "{set:?}, {algorithm:?}: wrote beyond its channels; {conv:?} on {input}, seed {seed}");
        }
    }
}

#[test]
fn convolutions_match_sums_in_f64() {
    for set in instruction_sets() {
        for seed in 0..CASES {
            check(seed, false, set);
        }
    }
}

#[test]
fn winograd_is_convolution() {
    for set in instruction_sets() {
        for seed in 100..100 + CASES / 2 {
            check(seed, true, set);
        }
    }
}
