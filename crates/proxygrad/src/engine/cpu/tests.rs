//! Every kernel of a convolution, under every instruction set, against the sums written out in f64.
#![allow(clippy::unwrap_used)]
#![expect(unsafe_code, reason = "maps of the tests' own buffers")]

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::conv::{Conv, Method};
use super::finish::{Block, Finish, Gated, Knees};
use super::map::{Buffer, Map, Shared};
use super::sides::{Side, Sides};
use super::simd::{Instructions, Job, Simd, exp, logistic};
use super::team::Threads;
use super::{Ahead, Back, Kernel, Layout, Site};
use crate::engine::{Forward, Gate};
use crate::network::{self, Array, Padding, Shape, Window};

const SETS: [Instructions; 3] = [Instructions::Avx512, Instructions::Avx2, Instructions::Portable];

fn uniform(rng: &mut impl Rng, count: usize) -> Vec<f32> {
    (0..count).map(|_| rng.random::<f32>() * 2.0 - 1.0).collect()
}

/// Channels-last memory of a batch.
struct Maps {
    buffer: Buffer,
    images: usize,
    shape: [usize; 3],
    pixel: usize,
}

impl Maps {
    /// `pixel` more channels per pixel than the map has.
    fn new(images: usize, shape: [usize; 3], extra: usize) -> Self {
        let pixel = shape[0] + extra;
        Self { buffer: Buffer::new(images * shape[1] * shape[2] * pixel), images, shape, pixel }
    }

    fn random(rng: &mut impl Rng, images: usize, shape: [usize; 3], extra: usize) -> Self {
        let mut maps = Self::new(images, shape, extra);
        let values = uniform(rng, maps.buffer.values().len());
        maps.buffer.values_mut().copy_from_slice(&values);
        maps
    }

    fn map(&mut self) -> Map {
        let [channels, height, width] = self.shape;
        let data = self.buffer.values_mut().as_mut_ptr();
        Map { data, images: self.images, height, width, channels, pixel: self.pixel }
    }

    fn at(&self, n: usize, c: usize, y: usize, x: usize) -> f64 {
        let [_, height, width] = self.shape;
        f64::from(self.buffer.values()[((n * height + y) * width + x) * self.pixel + c])
    }
}

fn run(kernel: &dyn Kernel, sizes: [[usize; 2]; 2], images: usize, set: Instructions, f: impl Fn(&Site<'_>) + Sync) {
    let threads = Threads::new(2).unwrap();
    let mut scratch: Vec<Buffer> = (0..2).map(|_| Buffer::new(kernel.scratch())).collect();
    let mut shared = Buffer::new(kernel.shared(images, sizes, 2));
    let scratch: Vec<Shared> = scratch.iter_mut().map(Shared::of).collect();
    let shared = Shared::of(&mut shared);
    threads.run(|member| {
        let scratch = scratch[member.index()].pointer();
        f(&Site { member, instructions: set, scratch, shared: shared.pointer() });
    });
}

fn random_conv(rng: &mut impl Rng, winograd: bool) -> (network::Conv, Shape) {
    let mut up_to = |most: usize| rng.random_range(1..=most);
    let (mut groups, mut inputs, mut outputs) = (1, up_to(40), up_to(70));
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
    let size = [0, 1].map(|i| window.extent()[i] + rng.random_range(0..=14));
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

/// Calls `f` for every product of the convolution: output and input place, and the weight.
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
    let knees = Knees { low: -0.5, high: 0.75, leak: 0.25 };
    // Behind the channels of another value, so that vectors begin anywhere in a byte.
    let (skipped, bytes) = (rng.random_range(0..=8), |channels, images: usize, size: [usize; 2]| {
        images * size[0] * size[1] * Sides::bytes(channels, &knees) + Sides::SPARE
    });
    let mut given: Vec<u8> =
        (0..bytes(skipped + input[0], images, [input[1], input[2]])).map(|_| rng.random()).collect();
    let given = Sides::new(given.as_mut_ptr(), skipped + input[0], &knees).slice(skipped);
    // Weights that are transformed at every use, or once.
    let heavy = if rng.random() { 0 } else { usize::MAX };
    let layout = Layout { lanes: set.lanes(), threads: 2, heavy, hollow: false };
    let places = |shape: [usize; 3]| (shape[0], shape[1], shape[2]);
    for method in Method::all(&conv) {
        let kernel = Conv::new(&conv, &input, &output, layout, [method, method]);
        let sizes = [[input[1], input[2]], size];
        let (mut y, mut dx) = (Maps::new(images, outside, 7), Maps::new(images, inside, 1));
        let mut found = vec![u8::MAX; bytes(output[0], images, size)];
        let found = Sides::new(found.as_mut_ptr(), output[0], &knees);
        // Forward: bias, a second summand, and an activation.
        let (x_map, other_map, to) = (x.map(), other.map(), y.map());
        let sides = kernel.finishes().then_some(found);
        run(&kernel, sizes, images, set, |site| {
            let ahead = Ahead { inputs: &[x_map], memory: None, forward: Forward::Original };
            let (bias, add) = (kernel.bias(), Some(other_map));
            kernel.forward(site, &ahead, &Finish { bias, add, knees: Some(knees), sides, ..Finish::plain(to) });
        });
        // Backward: a sum so far, and a gate.
        let (gradient_map, sum_map, to) = (gradient.map(), sum.map(), dx.map());
        let gate = Gated::Knees { sides: given, outside: 0.125 };
        run(&kernel, sizes, images, set, |site| {
            let (inputs, gate_) = (&[x_map], Gate::Plain);
            let back = Back { inputs, output: gradient_map, memory: None, gradient: gradient_map, gate: gate_ };
            kernel.backward(site, 0, &back, &Finish { add: Some(sum_map), gate, ..Finish::plain(to) });
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
                assert!(near, "{set:?}, {method:?}, {what}: {found}, not {expected}; {conv:?} on {input}, seed {seed}");
            };
            let scale = expected.iter().chain(&expected_dx).fold(1f64, |m, v| m.max(v.abs()));
            let (_, height, width) = places(outside);
            for (i, value) in expected.iter().enumerate() {
                let (c, h, w) = (i / (height * width), i / width % height, i % width);
                let z = value + f64::from(conv.bias.as_ref().unwrap().data()[c]) + other.at(n, c, h, w);
                let inside = z.clamp(-0.5, 0.75);
                compare(y.at(n, c, h, w), inside + 0.25 * (z - inside), scale, "output");
                let side = match y.at(n, c, h, w) {
                    value if value <= -0.5 => Side::Below,
                    value if value >= 0.75 => Side::Above,
                    _ => Side::Between,
                };
                // SAFETY: the value lies in the map, which is complete.
                let found = unsafe { found.side((n * height + h) * width + w, c) };
                let right = sides.is_none() || found == side;
                assert!(right, "{set:?}, {method:?}: {z} is {found:?}; {conv:?} on {input}, seed {seed}");
            }
            let (_, height, width) = places(inside);
            for (i, value) in expected_dx.iter().enumerate() {
                let (c, h, w) = (i / (height * width), i / width % height, i % width);
                // SAFETY: the value lies in the map.
                let side = unsafe { given.side((n * height + h) * width + w, c) };
                let factor = if side == Side::Between { 1.0 } else { 0.125 };
                compare(dx.at(n, c, h, w), (value + sum.at(n, c, h, w)) * factor, scale, "gradient");
            }
            // What lies between the pixels of a slice is not touched.
            let beyond =
                y.buffer.values().chunks_exact(y.pixel).all(|pixel| pixel[outside[0]..].iter().all(|&v| v == 0.0));
            assert!(beyond, "{set:?}, {method:?}: wrote beyond its channels; {conv:?} on {input}, seed {seed}");
        }
    }
}

#[test]
fn convolutions_of_every_kind_are_their_sums() {
    for set in SETS.into_iter().filter(|set| set.available()) {
        for seed in 0..60 {
            check(seed, false, set);
        }
    }
}

#[test]
fn minimal_filtering_is_convolution() {
    for set in SETS.into_iter().filter(|set| set.available()) {
        for seed in 100..130 {
            check(seed, true, set);
        }
    }
}

#[test]
fn bits_tell_on_which_side_of_the_knees_a_value_lies() {
    /// Keeps the sides of the first values, and picks by them.
    struct Kept<'a> {
        values: &'a [f32; 16],
        knees: Knees,
        sides: Sides,
        count: usize,
    }
    impl Job for Kept<'_> {
        type Output = [f32; 16];
        #[inline(always)]
        unsafe fn run<S: Simd>(self) -> [f32; 16] {
            let Self { values, knees, sides, count } = self;
            let mut picked = [0.0; 16];
            // SAFETY: the set was checked; sixteen values are there, and all sides of a pixel.
            unsafe {
                sides.mark::<S>(1, 8, S::load(values.as_ptr()), &knees, count);
                S::store(picked.as_mut_ptr(), sides.choose::<S>(1, 8, S::splat(1.0), S::splat(2.0)));
            }
            picked
        }
    }
    let odd =
        [0.0, -0.0, 1.0, 6.0, 6.5, -3.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 5.999_999, f32::MIN_POSITIVE];
    for set in SETS.into_iter().filter(|set| set.available()) {
        for [low, high] in [[0.0, 6.0], [0.0, f32::INFINITY], [-3.0, 1.0]] {
            for turn in 0..odd.len() {
                let values: [f32; 16] = std::array::from_fn(|i| odd[(i + turn) % odd.len()]);
                for count in 1..=16 {
                    let knees = Knees { low, high, leak: 0.0 };
                    // Two pixels of 24 channels, and something behind them.
                    let mut bytes = [0xa5; 24];
                    let sides = Sides::new(bytes.as_mut_ptr(), 24, &knees);
                    // SAFETY: the set is available.
                    let picked = unsafe { set.run(Kept { values: &values, knees, sides, count }) };
                    for i in 0..count.min(set.lanes()) {
                        let expected = match values[i] {
                            x if high < f32::INFINITY && x >= high => Side::Above,
                            x if x > low => Side::Between,
                            _ => Side::Below,
                        };
                        // SAFETY: the second pixel has 24 channels.
                        let found = unsafe { sides.side(1, 8 + i) };
                        assert_eq!(found, expected, "{set:?}: {} between {low} and {high}", values[i]);
                        let expected = if expected == Side::Between { 2.0 } else { 1.0 };
                        assert_eq!(picked[i], expected, "{set:?}: {}", values[i]);
                    }
                    let written = count.min(set.lanes()).div_ceil(8);
                    let planes = if high < f32::INFINITY { 2 } else { 1 };
                    let own = |i: usize| (0..planes).any(|p| (0..written).any(|b| i == 3 * planes + 3 * p + 1 + b));
                    let beyond = bytes.iter().enumerate().filter(|(i, _)| !own(*i));
                    assert!(beyond.into_iter().all(|(_, &byte)| byte == 0xa5), "{set:?}: more than {count} bits");
                }
            }
        }
    }
}

#[test]
fn soft_gates_are_products_of_logistic_steps() {
    /// Finishes some gradients.
    struct Gate<'a>(&'a Finish<'a>, &'a [f32; 20]);
    impl Job for Gate<'_> {
        type Output = ();
        #[inline(always)]
        unsafe fn run<S: Simd>(self) {
            let Self(finish, gradient) = self;
            // SAFETY: the set was checked; a pixel of 20 channels, and one of a block of them.
            unsafe {
                finish.row::<S>(0, 0, gradient.as_ptr(), 4);
                finish.block::<S>(Block::row(0, 1, 4, 16), gradient[4..].as_ptr(), [0, 16]);
            }
        }
    }
    let step = |x: f64| 1.0 / (1.0 + (-x).exp());
    for set in SETS.into_iter().filter(|set| set.available()) {
        for [low, high] in [[0.0, 6.0], [-3.0, 3.0], [0.0, f32::INFINITY], [f32::NEG_INFINITY, 1.0]] {
            for times in [1e-3, 0.7, 10.0, 30.0, 1e6, 1e38] {
                let mut input: [f32; 20] = std::array::from_fn(|i| i as f32 * 0.9 - 7.9);
                let (gradient, mut to) = (std::array::from_fn(|i| i as f32 - 5.5), [f32::NAN; 20]);
                let scales: [f32; 20] = std::array::from_fn(|i| 1.0 + i as f32 / 8.0);
                let map = |data: *mut f32| Map { data, images: 1, height: 1, width: 1, channels: 20, pixel: 20 };
                let input_map = map(input.as_mut_ptr());
                let gate = Gated::Soft { input: input_map, low, high, leak: 0.25, inverse_scales: &scales, times };
                let finish = Finish { gate, ..Finish::plain(map(to.as_mut_ptr())) };
                // SAFETY: the set is available.
                unsafe { set.run(Gate(&finish, &gradient)) };
                for i in 0..20 {
                    let (z, scale) = (f64::from(input[i]), f64::from(scales[i]) * f64::from(times));
                    let steps = step((z - f64::from(low)) * scale) * step((f64::from(high) - z) * scale);
                    let expected = f64::from(gradient[i]) * (0.25 + 0.75 * steps);
                    let near = (f64::from(to[i]) - expected).abs() <= 1e-6 * (1.0 + expected.abs());
                    assert!(near, "{set:?}, {low} to {high}, {times}: {} at {z}, not {expected}", to[i]);
                }
            }
        }
    }
}

#[test]
fn exponentials_keep_their_digits() {
    struct Curve(f32);
    impl Job for Curve {
        type Output = [f32; 2];
        #[inline(always)]
        unsafe fn run<S: Simd>(self) -> [f32; 2] {
            let mut found = [0.0; 2];
            // SAFETY: the set was checked; one value of each is stored.
            unsafe {
                S::store_some(&raw mut found[0], exp::<S>(S::splat(self.0)), 1);
                S::store_some(&raw mut found[1], logistic::<S>(S::splat(self.0)), 1);
            }
            found
        }
    }
    for set in SETS.into_iter().filter(|set| set.available()) {
        for i in -2000..=2000 {
            let x = i as f32 * 0.04;
            // SAFETY: the set is available.
            let [e, l] = unsafe { set.run(Curve(x)) };
            let exact = f64::from(x).exp();
            assert!((f64::from(e) / exact - 1.0).abs() < 3e-7, "{set:?}: exp({x}) = {e}, not {exact}");
            assert!((f64::from(l) - exact / (1.0 + exact)).abs() < 3e-7, "{set:?}: logistic({x}) = {l}");
        }
    }
}
