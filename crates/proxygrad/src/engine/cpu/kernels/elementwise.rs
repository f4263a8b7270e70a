//! Elementwise kernels: scale and shift, copies; and the loop over vectors that these and others share.
#![expect(unsafe_code, reason = "vector code over raw pixels")]

use crate::engine::cpu::buffer::Buffer;
use crate::engine::cpu::epilogue::{Epilogue, OutputRegion};
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::kernel::{BackwardArgs, ForwardArgs, Kernel, ThreadCtx};
use crate::engine::cpu::layout::Layout;
use crate::engine::cpu::simd::vector::{Simd, SimdOp};
use crate::network::Array;

/// Values per piece of work.
const PIECE: usize = 16 * 1024;

/// Values that are stored before a smooth activation is applied to them.
const TOGETHER: usize = 2048;

/// Channels that a piece of work starts at a multiple of: whole vectors, and whole bytes of activation masks.
pub(crate) const CHANNEL_UNIT: usize = 16;

/// Applies `epilogue` to the vectors that `f` computes, for all pixels and channels. The threads divide the pixels, or
/// the channels where there are few pixels.
///
/// # Safety
/// `f` may be called for every pixel and channel of `epilogue.to`.
pub(crate) unsafe fn for_each_vector(ctx: &ThreadCtx<'_>, epilogue: &Epilogue<'_>, f: impl VectorSource) {
    for_each_share(ctx, epilogue.to, PIECE / f.reads().max(1), |pixels, channels| {
        // SAFETY: the instruction set is supported; no two pieces write the same values; the rest is the caller's.
        unsafe { ctx.instructions.run(PixelRange { epilogue, f, pixels, channels }) };
    });
}

/// Divides the pixels of a map, or the channels where there are few pixels, into pieces of about `piece` values, and
/// calls `f` with the first pixel and the end, and the first channel and the end, of each.
pub(crate) fn for_each_share(ctx: &ThreadCtx<'_>, map: FeatureMap, piece: usize, f: impl Fn([usize; 2], [usize; 2])) {
    let (pixels, units) = (map.pixels(), map.channels.div_ceil(CHANNEL_UNIT));
    let wanted = (pixels * map.channels).div_ceil(piece.max(1));
    let rows = wanted.min(pixels);
    let columns = wanted.div_ceil(pixels.max(1)).clamp(1, units.max(1));
    ctx.worker.for_each_piece(rows * columns, |piece| {
        let (row, column) = (piece / columns, piece % columns);
        let channel = |column: usize| (units * column / columns * CHANNEL_UNIT).min(map.channels);
        f([pixels * row / rows, pixels * (row + 1) / rows], [channel(column), channel(column + 1)]);
    });
}

/// A function from positions to vectors, for any instruction set.
pub(crate) trait VectorSource: Copy {
    /// The vector for `count` channels from `channel` of a pixel.
    ///
    /// # Safety
    /// As [`Simd`]; the position lies in the maps that the function reads.
    unsafe fn vector<S: Simd>(&self, pixel: usize, channel: usize, count: usize) -> S::V;

    /// Values that are read for each value.
    fn reads(&self) -> usize {
        1
    }
}

/// [`for_each_vector`] for some channels of a range of pixels, each given by its first and its end.
pub(crate) struct PixelRange<'a, F> {
    pub(crate) epilogue: &'a Epilogue<'a>,
    pub(crate) f: F,
    pub(crate) pixels: [usize; 2],
    pub(crate) channels: [usize; 2],
}

impl<F: VectorSource> SimdOp for PixelRange<'_, F> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { epilogue, f, pixels: [first, last], channels: [start, end] } = self;
        // Smooth activations are applied to many pixels at a time, while these are in the cache.
        let together = (TOGETHER / (end - start).max(1)).max(1);
        for first in (first..last).step_by(together) {
            let count = (last - first).min(together);
            for pixel in first..first + count {
                let mut c = start;
                while c < end {
                    let count = (end - c).min(S::LANES);
                    // SAFETY: the caller's.
                    unsafe { epilogue.store_linear::<S>(pixel, c, f.vector::<S>(pixel, c, count), count) };
                    c += S::LANES;
                }
            }
            // SAFETY: as above.
            unsafe { epilogue.store_smooth::<S>(OutputRegion::row(first, count, start, end - start)) };
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
    /// For a tensor whose pixels have one index of the first axis after another, `run` values of each.
    pub(crate) fn new(scale: &Array, shift: &Array, run: usize) -> Self {
        let repeated = |array: &Array| -> Vec<f32> {
            array.data().iter().flat_map(|&value| std::iter::repeat_n(value, run)).collect()
        };
        let scale = repeated(scale);
        let mut padded = Buffer::new(scale.len());
        padded.values_mut()[..scale.len()].copy_from_slice(&scale);
        Self { scale: padded, shift: repeated(shift) }
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

/// Scale and shift per index of the first axis of a tensor that is not a feature map, one of each for a row of values.
pub(crate) struct RowAffineKernel {
    scale: Vec<f32>,
    shift: Vec<f32>,
    /// Pixels of an index, and of a whole image.
    pixels: [usize; 2],
}

#[derive(Clone, Copy)]
struct RowScaled<'a> {
    map: FeatureMap,
    affine: &'a RowAffineKernel,
    shifted: bool,
}

impl VectorSource for RowScaled<'_> {
    #[inline(always)]
    unsafe fn vector<S: Simd>(&self, pixel: usize, channel: usize, count: usize) -> S::V {
        let RowAffineKernel { scale, shift, pixels: [of_index, of_image] } = self.affine;
        let index = pixel % of_image / of_index;
        let shift = if self.shifted { shift[index] } else { 0.0 };
        // SAFETY: the caller's.
        unsafe {
            let value = S::mul(load_channels::<S>(&self.map, pixel, channel, count), S::splat(scale[index]));
            S::add(value, S::splat(shift))
        }
    }
}

impl RowAffineKernel {
    /// For a tensor whose last axis is the channels of its pixels, of two axes or more.
    pub(crate) fn new(scale: &Array, shift: &Array, input: &Layout) -> Self {
        let of_image = input.size().iter().product::<usize>().max(1);
        let pixels = [(of_image / scale.len().max(1)).max(1), of_image];
        Self { scale: scale.data().to_vec(), shift: shift.data().to_vec(), pixels }
    }
}

impl Kernel for RowAffineKernel {
    fn forward(&self, ctx: &ThreadCtx<'_>, args: &ForwardArgs<'_>, epilogue: &Epilogue<'_>) {
        let scaled = RowScaled { map: args.inputs[0], affine: self, shifted: true };
        // SAFETY: one scale for each index of the first axis.
        unsafe { for_each_vector(ctx, epilogue, scaled) };
    }

    fn backward(&self, ctx: &ThreadCtx<'_>, _: usize, args: &BackwardArgs<'_>, epilogue: &Epilogue<'_>) {
        let scaled = RowScaled { map: args.gradient, affine: self, shifted: false };
        // SAFETY: as above.
        unsafe { for_each_vector(ctx, epilogue, scaled) };
    }
}
