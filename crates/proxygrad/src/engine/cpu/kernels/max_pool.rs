//! Max pooling.
#![expect(unsafe_code, reason = "vector code over raw pixels")]

use std::mem::MaybeUninit;
use std::ops::Range;

use crate::engine::cpu::epilogue::{Epilogue, OutputRegion};
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::kernel::{
    BackwardArgs, Direction, ForwardArgs, Kernel, RowKernel, RowRange, ThreadCtx, run_rows,
};
use crate::engine::cpu::kernels::taps::Phase;
use crate::engine::cpu::simd::vector::{Simd, SimdOp, load_vector};
use crate::network::{Shape, Window};

/// Channels of a pixel that are staged before the epilogue: whole vectors of any instruction set.
const TOGETHER: usize = 256;

/// Values that are staged before the epilogue.
const STAGED: usize = 4 * TOGETHER;

/// Max pooling; saves which tap won.
pub(crate) struct MaxPool {
    forward: MaxForward,
    backward: MaxBackward,
    /// Length of the winners: one tap index for every value of the output.
    memory: usize,
}

/// The forward pass: the largest value of each window.
struct MaxForward(Phase);

/// The backward pass: each value adds the gradients of the windows that it won.
struct MaxBackward(Vec<Phase>);

impl MaxPool {
    pub(crate) fn new(window: &Window, input: &Shape, output: &Shape) -> Self {
        Self {
            forward: MaxForward(Phase::forward(window, [output[1], output[2]])),
            backward: MaxBackward(Phase::backward(window, [input[1], input[2]])),
            memory: output.elements(),
        }
    }
}

impl Kernel for MaxPool {
    fn saved_len(&self) -> usize {
        self.memory
    }

    fn row_kernel(&self, direction: Direction) -> Option<&dyn RowKernel> {
        Some(match direction {
            Direction::Forward => &self.forward,
            Direction::Backward => &self.backward,
        })
    }

    fn forward(&self, ctx: &ThreadCtx<'_>, args: &ForwardArgs<'_>, epilogue: &Epilogue<'_>) {
        run_rows(&self.forward, ctx, args.inputs[0], args.saved, epilogue);
    }

    fn backward(&self, ctx: &ThreadCtx<'_>, _: usize, args: &BackwardArgs<'_>, epilogue: &Epilogue<'_>) {
        run_rows(&self.backward, ctx, args.gradient, args.saved, epilogue);
    }
}

impl RowKernel for MaxForward {
    fn input_rows(&self, rows: &Range<usize>) -> Range<isize> {
        Phase::input_rows([&self.0], rows)
    }

    /// If two threads computed the same row, both would write the winners.
    fn ends_group(&self) -> bool {
        true
    }

    fn compute_rows(
        &self,
        ctx: &ThreadCtx<'_>,
        range: &RowRange,
        source: FeatureMap,
        saved: Option<*mut f32>,
        epilogue: &Epilogue<'_>,
    ) {
        let (phase, image) = (&self.0, range.image);
        let Some(winners) = saved else { return };
        let winners = FeatureMap { data: winners, pixel_stride: epilogue.to.channels, ..epilogue.to };
        for row in range.rows.clone() {
            // SAFETY: the instruction set is supported; no other thread writes the row.
            unsafe { ctx.instructions.run(ForwardRow { phase, image, row, source, winners, epilogue }) };
        }
    }
}

impl RowKernel for MaxBackward {
    fn input_rows(&self, rows: &Range<usize>) -> Range<isize> {
        Phase::input_rows(&self.0, rows)
    }

    fn compute_rows(
        &self,
        ctx: &ThreadCtx<'_>,
        range: &RowRange,
        gradient: FeatureMap,
        saved: Option<*mut f32>,
        epilogue: &Epilogue<'_>,
    ) {
        let image = range.image;
        let Some(winners) = saved else { return };
        let winners = FeatureMap { data: winners, pixel_stride: epilogue.to.channels, ..gradient };
        for y in range.rows.clone() {
            // All phases of a row together, since they write neighbouring pixels.
            for (phase, row) in self.0.iter().filter_map(|phase| Some((phase, phase.row_at(y)?))) {
                // SAFETY: the instruction set is supported; no other thread writes the row.
                unsafe { ctx.instructions.run(BackwardRow { phase, image, row, gradient, winners, epilogue }) };
            }
        }
    }
}

/// One row of outputs.
struct ForwardRow<'a> {
    phase: &'a Phase,
    image: usize,
    row: usize,
    source: FeatureMap,
    winners: FeatureMap,
    epilogue: &'a Epilogue<'a>,
}

impl SimdOp for ForwardRow<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { phase, image, row, source, winners, epilogue } = self;
        let to = &epilogue.to;
        let whole = phase.whole(source.width);
        let mut reads = Vec::with_capacity(phase.taps.len());
        let mut x = 0;
        while x < to.width {
            if !whole.contains(&x) || x == whole.start {
                TapRead::all(phase, [row, x], &source, &winners, &mut reads);
            }
            let shift = if whole.contains(&x) { (x - whole.start) * phase.stride[1] } else { 0 };
            let pixels = uniform_columns(x, to.width, &whole, to.channels);
            let pixel = (image * to.height + row) * to.width + x;
            // SAFETY: all reads are within the map.
            unsafe {
                let from = source.at(image * source.size() + shift).cast_const();
                let to = winners.at(pixel);
                let steps = [phase.stride[1] * source.pixel_stride, winners.pixel_stride];
                let find = Largest { reads: &reads, from, to, steps };
                store_pixels::<S>(epilogue, pixel, pixels.len(), 1, find);
            }
            x = pixels.end;
        }
    }
}

/// The values of a pool's destination, vector by vector.
trait PooledVector {
    /// The vector of channels from `channel` on, `count` of them unless `WHOLE`, of the `i`th pixel.
    ///
    /// # Safety
    /// As [`Simd`]; pixel and channels lie in the maps.
    unsafe fn vector<S: Simd, const WHOLE: bool>(&self, i: usize, channel: usize, count: usize) -> S::V;
}

/// Channels rounded up to whole vectors of any instruction set.
fn padded(channels: usize) -> usize {
    channels.next_multiple_of(16)
}

/// Columns of a grid, from `x` on, that read the same taps and fit into the staging memory: those whose taps all lie in
/// the map, or a single one.
fn uniform_columns(x: usize, width: usize, whole: &Range<usize>, channels: usize) -> Range<usize> {
    let most = STAGED / padded(channels.clamp(1, TOGETHER));
    let end = if whole.contains(&x) { whole.end.min(x + most) } else { x + 1 };
    x..end.min(width)
}

/// Computes all channels of `pixels` pixels of a row, `pixel_step` apart.
///
/// # Safety
/// As [`Simd`]; the pixels lie in the maps of `epilogue` and `pooled`, and are at most as many as [`uniform_columns`]
/// returns.
#[inline(always)]
unsafe fn store_pixels<S: Simd>(
    epilogue: &Epilogue<'_>,
    pixel: usize,
    pixels: usize,
    pixel_step: usize,
    pooled: impl PooledVector,
) {
    let mut staged = MaybeUninit::<[f32; STAGED]>::uninit();
    let staged = staged.as_mut_ptr().cast::<f32>();
    let mut channel = 0;
    while channel < epilogue.to.channels {
        let channels = (epilogue.to.channels - channel).min(TOGETHER);
        let step = padded(channels);
        // SAFETY: channels after the last are neither read nor written; the staging memory holds whole vectors of all
        // pixels.
        unsafe {
            for i in 0..pixels {
                let staged = staged.add(i * step);
                let mut c = 0;
                while c + S::LANES <= channels {
                    S::store(staged.add(c), pooled.vector::<S, true>(i, channel + c, S::LANES));
                    c += S::LANES;
                }
                if c < channels {
                    S::store(staged.add(c), pooled.vector::<S, false>(i, channel + c, channels - c));
                }
            }
            let block = OutputRegion { pixel_step, ..OutputRegion::row(pixel, pixels, channel, channels) };
            epilogue.store_region::<S>(block, staged, [0, step]);
        }
        channel += channels;
    }
}

/// A tap that a pixel reads.
struct TapRead {
    /// Index of the pixel's first value in its map.
    source: usize,
    /// The same in the winners.
    winners: usize,
    /// Index of the tap, as in the winners.
    tap: f32,
}

impl TapRead {
    /// All taps that a pixel of the grid reads.
    fn all(phase: &Phase, at: [usize; 2], source: &FeatureMap, winners: &FeatureMap, all: &mut Vec<Self>) {
        all.clear();
        all.extend(phase.reads(at, [source.height, source.width]).map(|read| Self {
            source: read.pixel * source.pixel_stride,
            winners: read.pixel * winners.pixel_stride,
            tap: read.tap as f32,
        }));
    }
}

/// The largest value of a window; saves its tap.
struct Largest<'a> {
    reads: &'a [TapRead],
    /// Not read where only some rows are in memory.
    from: *const f32,
    /// Where the tap is saved.
    to: *mut f32,
    /// Values from one pixel to the next, in the source and in the winners.
    steps: [usize; 2],
}

impl PooledVector for Largest<'_> {
    #[inline(always)]
    unsafe fn vector<S: Simd, const WHOLE: bool>(&self, i: usize, channel: usize, count: usize) -> S::V {
        let from = self.from.wrapping_add(i * self.steps[0] + channel);
        // SAFETY: the caller's.
        unsafe {
            let (mut largest, mut winner) = (S::splat(f32::NEG_INFINITY), S::splat(-1.0));
            for at in self.reads {
                let value = load_vector::<S, WHOLE>(from.wrapping_add(at.source), count);
                winner = S::where_greater(value, largest, S::splat(at.tap), winner);
                largest = S::where_greater(value, largest, value, largest);
            }
            let to = self.to.add(i * self.steps[1] + channel);
            if WHOLE {
                S::store(to, winner)
            } else {
                S::store_some(to, winner, count)
            }
            largest
        }
    }
}

/// The gradients of the windows that a pixel won.
struct Won<'a> {
    reads: &'a [TapRead],
    /// Not read where only some rows are in memory.
    gradient: *const f32,
    winners: *const f32,
    /// Values from what one pixel reads to what the next reads, in the gradient and in the winners.
    steps: [usize; 2],
}

impl PooledVector for Won<'_> {
    #[inline(always)]
    unsafe fn vector<S: Simd, const WHOLE: bool>(&self, i: usize, channel: usize, count: usize) -> S::V {
        let gradient = self.gradient.wrapping_add(i * self.steps[0] + channel);
        let winners = self.winners.wrapping_add(i * self.steps[1] + channel);
        // SAFETY: the caller's.
        unsafe {
            let zero = S::splat(0.0);
            let mut sum = zero;
            for at in self.reads {
                let winner = load_vector::<S, WHOLE>(winners.wrapping_add(at.winners), count);
                let part = load_vector::<S, WHOLE>(gradient.wrapping_add(at.source), count);
                sum = S::add(sum, S::where_equal(winner, S::splat(at.tap), part, zero));
            }
            sum
        }
    }
}

/// One row of a phase of input gradients.
struct BackwardRow<'a> {
    phase: &'a Phase,
    image: usize,
    row: usize,
    gradient: FeatureMap,
    winners: FeatureMap,
    epilogue: &'a Epilogue<'a>,
}

impl SimdOp for BackwardRow<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { phase, image, row, gradient, winners, epilogue } = self;
        let to = &epilogue.to;
        let whole = phase.whole(gradient.width);
        let mut reads = Vec::with_capacity(phase.taps.len());
        let mut x = 0;
        while x < phase.grid[1] {
            if !whole.contains(&x) || x == whole.start {
                TapRead::all(phase, [row, x], &gradient, &winners, &mut reads);
            }
            let shift = if whole.contains(&x) { (x - whole.start) * phase.stride[1] } else { 0 };
            let pixels = uniform_columns(x, phase.grid[1], &whole, to.channels);
            let y = phase.start[0] + row * phase.spacing[0];
            let pixel = (image * to.height + y) * to.width + phase.start[1] + x * phase.spacing[1];
            // SAFETY: all reads are within the maps.
            unsafe {
                let first = image * gradient.size() + shift;
                let (gradient_at, winners_at) = (gradient.at(first).cast_const(), winners.at(first).cast_const());
                let steps = [gradient.pixel_stride, winners.pixel_stride].map(|pixel| phase.stride[1] * pixel);
                let won = Won { reads: &reads, gradient: gradient_at, winners: winners_at, steps };
                store_pixels::<S>(epilogue, pixel, pixels.len(), phase.spacing[1], won);
            }
            x = pixels.end;
        }
    }
}
