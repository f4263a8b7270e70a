//! Elementwise kernels: binary operations on tensors of the same shape, scale and shift, copies.
#![expect(unsafe_code, reason = "vector code over raw pixels")]

use crate::engine::cpu::buffer::Buffer;
use crate::engine::cpu::epilogue::Epilogue;
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::kernel::{BackwardArgs, BackwardNeeds, ForwardArgs, Kernel, ThreadCtx};
use crate::engine::cpu::simd::vector::{Simd, SimdOp};
use crate::network::{Array, Binary};

/// Values per piece of work.
const PIECE: usize = 16 * 1024;

/// Applies `epilogue` to the vectors that `f` computes, for all pixels and channels. The threads divide the pixels.
///
/// # Safety
/// `f` may be called for every pixel and channel of `epilogue.to`.
pub(crate) unsafe fn for_each_vector(ctx: &ThreadCtx<'_>, epilogue: &Epilogue<'_>, f: impl VectorSource) {
    let pixels = epilogue.to.pixels();
    let pieces = (pixels * epilogue.to.channels).div_ceil(PIECE).min(pixels);
    ctx.worker.for_each_piece(pieces, |piece| {
        let pixels = [pixels * piece / pieces, pixels * (piece + 1) / pieces];
        // SAFETY: the instruction set is supported; no two pieces write the same pixels; the rest is the caller's.
        unsafe { ctx.instructions.run(PixelRange { epilogue, f, pixels }) };
    });
}

/// A function from positions to vectors, for any instruction set.
pub(crate) trait VectorSource: Copy {
    /// The vector for `count` channels from `channel` of a pixel.
    ///
    /// # Safety
    /// As [`Simd`]; the position lies in the maps that the function reads.
    unsafe fn vector<S: Simd>(&self, pixel: usize, channel: usize, count: usize) -> S::V;
}

/// [`for_each_vector`] for a range of pixels.
pub(crate) struct PixelRange<'a, F> {
    pub(crate) epilogue: &'a Epilogue<'a>,
    pub(crate) f: F,
    pub(crate) pixels: [usize; 2],
}

impl<F: VectorSource> SimdOp for PixelRange<'_, F> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let channels = self.epilogue.to.channels;
        for pixel in self.pixels[0]..self.pixels[1] {
            let mut c = 0;
            while c < channels {
                let count = (channels - c).min(S::LANES);
                // SAFETY: the caller's.
                unsafe { self.epilogue.store_vector::<S>(pixel, c, self.f.vector::<S>(pixel, c, count), count) };
                c += S::LANES;
            }
        }
    }
}

/// Loads `count` values of a pixel.
///
/// # Safety
/// As [`Simd`]; the position lies in the map.
#[inline(always)]
pub(crate) unsafe fn load_channels<S: Simd>(map: &FeatureMap, pixel: usize, channel: usize, count: usize) -> S::V {
    // SAFETY: the caller's.
    unsafe { S::load_up_to(map.at(pixel).add(channel), count) }
}

/// The values of a map, unchanged.
#[derive(Clone, Copy)]
pub(crate) struct CopyOf(pub(crate) FeatureMap);

impl VectorSource for CopyOf {
    #[inline(always)]
    unsafe fn vector<S: Simd>(&self, pixel: usize, channel: usize, count: usize) -> S::V {
        // SAFETY: the caller's.
        unsafe { load_channels::<S>(&self.0, pixel, channel, count) }
    }
}

/// A binary operation on two inputs of the same shape.
pub(crate) struct BinaryKernel(pub(crate) Binary);

impl BinaryKernel {
    /// Whether there is vector code for the operation.
    pub(crate) fn supports(kind: Binary) -> bool {
        !matches!(kind, Binary::LessOrEqual | Binary::Pow)
    }
}

#[derive(Clone, Copy)]
struct BinaryValue {
    kind: Binary,
    a: FeatureMap,
    b: FeatureMap,
}

impl VectorSource for BinaryValue {
    #[inline(always)]
    unsafe fn vector<S: Simd>(&self, pixel: usize, channel: usize, count: usize) -> S::V {
        // SAFETY: the caller's.
        unsafe {
            let (a, b) = (
                load_channels::<S>(&self.a, pixel, channel, count),
                load_channels::<S>(&self.b, pixel, channel, count),
            );
            match self.kind {
                Binary::Add => S::add(a, b),
                Binary::Sub => S::sub(a, b),
                Binary::Mul => S::mul(a, b),
                Binary::Div => S::div(a, b),
                Binary::Min => S::where_greater(a, b, b, a),
                Binary::Max => S::where_greater(b, a, b, a),
                Binary::Less => S::where_greater(b, a, S::splat(1.0), S::splat(0.0)),
                Binary::Equal => S::where_equal(a, b, S::splat(1.0), S::splat(0.0)),
                // Ruled out by `BinaryKernel::supports`.
                Binary::LessOrEqual | Binary::Pow => S::splat(f32::NAN),
            }
        }
    }
}

/// Gradient of [`BinaryKernel`] with respect to one input.
#[derive(Clone, Copy)]
struct BinaryGradient {
    kind: Binary,
    input: usize,
    a: FeatureMap,
    b: FeatureMap,
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
                (Binary::Mul, 0) => S::mul(gradient, load_channels::<S>(&self.b, pixel, channel, count)),
                (Binary::Mul, _) => S::mul(gradient, load_channels::<S>(&self.a, pixel, channel, count)),
                (Binary::Div, 0) => S::div(gradient, load_channels::<S>(&self.b, pixel, channel, count)),
                (Binary::Div, _) => {
                    let product = S::mul(gradient, load_channels::<S>(&self.output, pixel, channel, count));
                    S::sub(zero, S::div(product, load_channels::<S>(&self.b, pixel, channel, count)))
                }
                (kind @ (Binary::Min | Binary::Max), input) => {
                    let a = load_channels::<S>(&self.a, pixel, channel, count);
                    let b = load_channels::<S>(&self.b, pixel, channel, count);
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

impl Kernel for BinaryKernel {
    fn backward_needs(&self) -> BackwardNeeds {
        BackwardNeeds { inputs: self.0.reads_inputs(), output: self.0 == Binary::Div }
    }

    fn passes_gradient(&self, input: usize) -> bool {
        self.0 == Binary::Add || (self.0 == Binary::Sub && input == 0)
    }

    fn forward(&self, ctx: &ThreadCtx<'_>, args: &ForwardArgs<'_>, epilogue: &Epilogue<'_>) {
        let combined = BinaryValue { kind: self.0, a: args.inputs[0], b: args.inputs[1] };
        // SAFETY: both inputs have the output's shape.
        unsafe { for_each_vector(ctx, epilogue, combined) };
    }

    fn backward(&self, ctx: &ThreadCtx<'_>, input: usize, args: &BackwardArgs<'_>, epilogue: &Epilogue<'_>) {
        let (a, b) = (args.inputs[0], args.inputs[1]);
        let slope = BinaryGradient { kind: self.0, input, a, b, output: args.output, gradient: args.gradient };
        // SAFETY: all maps have the same shape.
        unsafe { for_each_vector(ctx, epilogue, slope) };
    }
}

/// Scale and shift per channel.
pub(crate) struct AffineKernel {
    scale: Buffer,
    shift: Vec<f32>,
}

#[derive(Clone, Copy)]
struct Scaled<'a> {
    map: FeatureMap,
    scale: &'a [f32],
}

impl VectorSource for Scaled<'_> {
    #[inline(always)]
    unsafe fn vector<S: Simd>(&self, pixel: usize, channel: usize, count: usize) -> S::V {
        // SAFETY: the caller's; the scales are padded to whole vectors.
        unsafe {
            S::mul(
                load_channels::<S>(&self.map, pixel, channel, count),
                S::load_some(self.scale.as_ptr().add(channel), count),
            )
        }
    }
}

impl AffineKernel {
    pub(crate) fn new(scale: &Array, shift: &Array) -> Self {
        let mut padded = Buffer::new(scale.len());
        padded.values_mut()[..scale.len()].copy_from_slice(scale.data());
        Self { scale: padded, shift: shift.data().to_vec() }
    }
}

impl Kernel for AffineKernel {
    fn forward(&self, ctx: &ThreadCtx<'_>, args: &ForwardArgs<'_>, epilogue: &Epilogue<'_>) {
        let scaled = Scaled { map: args.inputs[0], scale: self.scale.values() };
        // SAFETY: one scale per channel.
        unsafe { for_each_vector(ctx, &Epilogue { bias: Some(&self.shift), ..*epilogue }, scaled) };
    }

    fn backward(&self, ctx: &ThreadCtx<'_>, _: usize, args: &BackwardArgs<'_>, epilogue: &Epilogue<'_>) {
        let scaled = Scaled { map: args.gradient, scale: self.scale.values() };
        // SAFETY: one scale per channel.
        unsafe { for_each_vector(ctx, epilogue, scaled) };
    }
}
