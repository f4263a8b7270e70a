//! Elementwise operations on two tensors of the same shape, or on tensors that broadcast, such as a map and one factor
//! per channel.
#![expect(unsafe_code, reason = "vector code over raw pixels")]

use crate::engine::cpu::epilogue::Epilogue;
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::kernel::{BackwardArgs, BackwardNeeds, ForwardArgs, Kernel, ThreadCtx};
use crate::engine::cpu::kernels::elementwise::{VectorSource, for_each_vector, load_channels};
use crate::engine::cpu::layout::Layout;
use crate::engine::cpu::simd::vector::Simd;
use crate::network::Binary;

/// A binary operation.
pub(crate) struct BinaryKernel {
    kind: Binary,
    /// Whether each input has the output's shape.
    whole: [bool; 2],
}

impl BinaryKernel {
    /// Whether the kernel computes operations on tensors of these layouts: an input may repeat along the rows, columns
    /// and channels of a feature map, or along all pixels and the channels of another tensor.
    pub(crate) fn accepts(kind: Binary, inputs: &[&Layout], output: &Layout) -> bool {
        if matches!(kind, Binary::LessOrEqual | Binary::Pow) {
            return false;
        }
        let pixels = |layout: &Layout| layout.size().iter().product::<usize>();
        inputs.iter().all(|&input| {
            let rows = input.is_row_major() && output.is_row_major();
            let maps = input.is_channels_last() && output.is_channels_last();
            input == output || maps || (rows && (pixels(input) == pixels(output) || pixels(input) == 1))
        })
    }

    pub(crate) fn new(kind: Binary, inputs: &[&Layout], output: &Layout) -> Self {
        Self { kind, whole: [0, 1].map(|i| inputs[i] == output) }
    }
}

impl Kernel for BinaryKernel {
    fn backward_needs(&self) -> BackwardNeeds {
        BackwardNeeds { inputs: self.kind.reads_inputs(), output: self.kind == Binary::Div }
    }

    fn passes_gradient(&self, input: usize) -> bool {
        self.whole[input] && (self.kind == Binary::Add || (self.kind == Binary::Sub && input == 0))
    }

    fn forward(&self, ctx: &ThreadCtx<'_>, args: &ForwardArgs<'_>, epilogue: &Epilogue<'_>) {
        let output = epilogue.to;
        let [a, b] = [0, 1].map(|i| Repeated { map: args.inputs[i], output });
        // SAFETY: every value of the output has one in both inputs.
        unsafe { for_each_vector(ctx, epilogue, BinaryValue { kind: self.kind, a, b }) };
    }

    fn backward(&self, ctx: &ThreadCtx<'_>, input: usize, args: &BackwardArgs<'_>, epilogue: &Epilogue<'_>) {
        let output = args.gradient;
        let [a, b] = [0, 1].map(|i| Repeated { map: args.inputs[i], output });
        let gradient = BinaryGradient { kind: self.kind, input, a, b, output: args.output, gradient: args.gradient };
        // SAFETY: as above; the sums have the input's shape.
        unsafe {
            if self.whole[input] {
                for_each_vector(ctx, epilogue, gradient);
            } else {
                for_each_vector(ctx, epilogue, BroadcastSum { of: gradient, to: epilogue.to });
            }
        }
    }
}

/// A map that repeats along its axes of length 1.
#[derive(Clone, Copy)]
struct Repeated {
    map: FeatureMap,
    /// A map of the shape that it is repeated to.
    output: FeatureMap,
}

impl Repeated {
    /// Values at a position of the output.
    ///
    /// # Safety
    /// As [`VectorSource::vector`].
    #[inline(always)]
    unsafe fn vector<S: Simd>(&self, pixel: usize, channel: usize, count: usize) -> S::V {
        let (map, output) = (&self.map, &self.output);
        let own = match (map.height == output.height, map.width == output.width) {
            (true, true) => pixel,
            (false, false) => pixel / output.size(),
            (true, false) => pixel / output.width,
            (false, true) => pixel / output.size() * output.width + pixel % output.width,
        };
        // SAFETY: the caller's.
        unsafe {
            if map.channels == output.channels {
                load_channels::<S>(map, own, channel, count)
            } else {
                S::splat(*map.at(own))
            }
        }
    }
}

#[derive(Clone, Copy)]
struct BinaryValue {
    kind: Binary,
    a: Repeated,
    b: Repeated,
}

impl VectorSource for BinaryValue {
    #[inline(always)]
    unsafe fn vector<S: Simd>(&self, pixel: usize, channel: usize, count: usize) -> S::V {
        // SAFETY: the caller's.
        unsafe {
            let a = self.a.vector::<S>(pixel, channel, count);
            let b = self.b.vector::<S>(pixel, channel, count);
            match self.kind {
                Binary::Add => S::add(a, b),
                Binary::Sub => S::sub(a, b),
                Binary::Mul => S::mul(a, b),
                Binary::Div => S::div(a, b),
                Binary::Min => S::where_greater(a, b, b, a),
                Binary::Max => S::where_greater(b, a, b, a),
                Binary::Less => S::where_greater(b, a, S::splat(1.0), S::splat(0.0)),
                Binary::Equal => S::where_equal(a, b, S::splat(1.0), S::splat(0.0)),
                // Ruled out by `BinaryKernel::accepts`.
                Binary::LessOrEqual | Binary::Pow => S::splat(f32::NAN),
            }
        }
    }
}

/// Gradient with respect to one input, for every value of the output.
#[derive(Clone, Copy)]
struct BinaryGradient {
    kind: Binary,
    input: usize,
    a: Repeated,
    b: Repeated,
    output: FeatureMap,
    gradient: FeatureMap,
}

impl VectorSource for BinaryGradient {
    #[inline(always)]
    unsafe fn vector<S: Simd>(&self, pixel: usize, channel: usize, count: usize) -> S::V {
        // SAFETY: the caller's.
        unsafe {
            let gradient = load_channels::<S>(&self.gradient, pixel, channel, count);
            let zero = S::splat(0.0);
            match (self.kind, self.input) {
                (Binary::Add, _) | (Binary::Sub, 0) => gradient,
                (Binary::Sub, _) => S::sub(zero, gradient),
                (Binary::Mul, 0) => S::mul(gradient, self.b.vector::<S>(pixel, channel, count)),
                (Binary::Mul, _) => S::mul(gradient, self.a.vector::<S>(pixel, channel, count)),
                (Binary::Div, 0) => S::div(gradient, self.b.vector::<S>(pixel, channel, count)),
                (Binary::Div, _) => {
                    let product = S::mul(gradient, load_channels::<S>(&self.output, pixel, channel, count));
                    S::sub(zero, S::div(product, self.b.vector::<S>(pixel, channel, count)))
                }
                (kind @ (Binary::Min | Binary::Max), input) => {
                    let a = self.a.vector::<S>(pixel, channel, count);
                    let b = self.b.vector::<S>(pixel, channel, count);
                    let (low, high) = if kind == Binary::Min { (b, a) } else { (a, b) };
                    // The second input is chosen only if it is strictly smaller or larger.
                    let (second, first) = if input == 0 { (zero, gradient) } else { (gradient, zero) };
                    S::where_greater(high, low, second, first)
                }
                (Binary::Less | Binary::LessOrEqual | Binary::Equal | Binary::Pow, _) => zero,
            }
        }
    }
}

/// Sums of a gradient over the axes along which an input repeats.
#[derive(Clone, Copy)]
struct BroadcastSum {
    of: BinaryGradient,
    /// A map of the input's shape.
    to: FeatureMap,
}

impl VectorSource for BroadcastSum {
    #[inline(always)]
    unsafe fn vector<S: Simd>(&self, pixel: usize, channel: usize, count: usize) -> S::V {
        let (to, output) = (&self.to, &self.of.gradient);
        let (image, y, x) = (pixel / to.size(), pixel / to.width % to.height, pixel % to.width);
        let rows = if to.height == output.height { y..y + 1 } else { 0..output.height };
        let columns = || if to.width == output.width { x..x + 1 } else { 0..output.width };
        // SAFETY: the caller's; the positions lie in the output.
        unsafe {
            let mut total = S::splat(0.0);
            for row in rows {
                // Row by row: sums of sums are more accurate on large maps.
                let mut sum = S::splat(0.0);
                for column in columns() {
                    let pixel = (image * output.height + row) * output.width + column;
                    if to.channels == output.channels {
                        sum = S::add(sum, self.of.vector::<S>(pixel, channel, count));
                        continue;
                    }
                    for c in (0..output.channels).step_by(S::LANES) {
                        let count = (output.channels - c).min(S::LANES);
                        let mut lanes = [0.0; MAX_LANES];
                        S::store_some(lanes.as_mut_ptr(), self.of.vector::<S>(pixel, c, count), count);
                        sum = S::add(sum, S::load(lanes.as_ptr()));
                    }
                }
                total = S::add(total, sum);
            }
            if to.channels == output.channels {
                return total;
            }
            let mut lanes = [0.0; MAX_LANES];
            S::store(lanes.as_mut_ptr(), total);
            S::splat(lanes.iter().sum())
        }
    }

    fn reads(&self) -> usize {
        let (to, output) = (&self.to, &self.of.gradient);
        output.size() * output.channels / (to.size() * to.channels).max(1)
    }
}

/// Values of the longest vector.
const MAX_LANES: usize = 16;
