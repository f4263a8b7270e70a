//! Depthwise convolution: one filter per channel, vectorized over the channels. Also computes average pools.
#![expect(unsafe_code, reason = "vector code over raw pixels")]

use std::mem::MaybeUninit;
use std::ops::Range;

use crate::engine::cpu::buffer::Buffer;
use crate::engine::cpu::epilogue::{Epilogue, OutputRegion};
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::kernel::{KernelConfig, RowKernel, RowRange, ThreadCtx, run_rows};
use crate::engine::cpu::kernels::conv::depthwise_rows::{DepthwiseRows, SlidingRow};
use crate::engine::cpu::kernels::taps::{Phase, Read};
use crate::engine::cpu::simd::vector::{Simd, SimdOp, load_vector};
use crate::network::{Conv, Window};

/// Neighbouring pixels that are computed together.
const TOGETHER: usize = 6;

/// Maximum number of sums that are computed together: [`TOGETHER`] pixels of two vectors of 16.
const STAGED: usize = TOGETHER * 2 * 16;

/// One direction of a depthwise convolution, or of an average pool.
pub(crate) struct Depthwise {
    phases: Vec<Phase>,
    /// For each phase, the sliding window, if [`DepthwiseRows`] supports it.
    sliding: Vec<Option<DepthwiseRows>>,
    weights: TapWeights,
}

/// Weights of a window's taps.
enum TapWeights {
    /// `[taps, C]`, channels rounded up to `pixel`: `length` values, also where the weights were left out.
    PerChannel { weights: Buffer, length: usize, pixel: usize, lanes: usize },
    /// Of an average pool: one over the number of values that count, for each pixel of the pool's output.
    PerPixel { shares: Vec<f32>, of_source: bool },
}

/// Whether every channel has exactly one filter.
pub(crate) fn is_depthwise(conv: &Conv) -> bool {
    conv.groups == conv.out_channels() && conv.weight.shape()[1] == 1
}

impl Depthwise {
    pub(crate) fn forward(conv: &Conv, outside: [usize; 2], config: KernelConfig) -> Self {
        Self::new(vec![Phase::forward(&conv.window, outside)], TapWeights::new(conv, config))
    }

    pub(crate) fn backward(conv: &Conv, inside: [usize; 2], config: KernelConfig) -> Self {
        Self::new(Phase::backward(&conv.window, inside), TapWeights::new(conv, config))
    }

    /// An average pool; `shares` is one over the number of values that count, for each pixel of the pool's output.
    pub(crate) fn average(window: &Window, outside: [usize; 2], shares: Vec<f32>) -> Self {
        let weights = TapWeights::PerPixel { shares, of_source: false };
        Self::new(vec![Phase::forward(window, outside)], weights)
    }

    /// The backward pass of [`Depthwise::average`].
    pub(crate) fn average_backward(window: &Window, inside: [usize; 2], shares: Vec<f32>) -> Self {
        let weights = TapWeights::PerPixel { shares, of_source: true };
        Self::new(Phase::backward(window, inside), weights)
    }

    fn new(phases: Vec<Phase>, weights: TapWeights) -> Self {
        let sliding = |phase| {
            if let TapWeights::PerChannel { lanes, .. } = weights { DepthwiseRows::new(phase, lanes) } else { None }
        };
        Self { sliding: phases.iter().map(sliding).collect(), phases, weights }
    }

    /// Bytes of the weights.
    pub(crate) fn bytes(&self) -> usize {
        match &self.weights {
            TapWeights::PerChannel { length, .. } => Buffer::bytes(*length),
            TapWeights::PerPixel { shares, .. } => size_of_val(&shares[..]),
        }
    }

    /// Computes `epilogue.to` from `source`.
    pub(crate) fn run(&self, ctx: &ThreadCtx<'_>, source: FeatureMap, epilogue: &Epilogue<'_>) {
        assert_eq!(source.channels, epilogue.to.channels);
        assert_eq!(source.images, epilogue.to.images);
        run_rows(self, ctx, source, None, epilogue);
    }

    /// Computes one row of the destination, on one thread.
    fn row(&self, ctx: &ThreadCtx<'_>, image: usize, y: usize, source: FeatureMap, epilogue: &Epilogue<'_>) {
        // All phases of a row together, since they write neighbouring pixels.
        for (phase, sliding) in self.phases.iter().zip(&self.sliding) {
            let Some(row) = phase.row_at(y) else { continue };
            if let (Some(sliding), TapWeights::PerChannel { weights, pixel, .. }) = (sliding, &self.weights) {
                let (weights, pixel) = (weights.values(), *pixel);
                let job = SlidingRow { sliding, phase, weights, pixel, image, row, source, epilogue };
                // SAFETY: as below.
                unsafe { ctx.instructions.run(job) };
                continue;
            }
            let job = DepthwiseRow { depthwise: self, phase, image, row, source, epilogue };
            // SAFETY: the instruction set is supported; the phase's grid lies in the destination.
            unsafe { ctx.instructions.run(job) };
        }
    }
}

impl RowKernel for Depthwise {
    fn input_rows(&self, rows: &Range<usize>) -> Range<isize> {
        Phase::input_rows(&self.phases, rows)
    }

    fn compute_rows(
        &self,
        ctx: &ThreadCtx<'_>,
        range: &RowRange,
        source: FeatureMap,
        _: Option<*mut f32>,
        epilogue: &Epilogue<'_>,
    ) {
        range.rows.clone().for_each(|y| self.row(ctx, range.image, y, source, epilogue));
    }
}

impl TapWeights {
    fn new(conv: &Conv, KernelConfig { lanes, weightless, .. }: KernelConfig) -> Self {
        let (channels, taps) = (conv.groups, conv.window.kernel[0] * conv.window.kernel[1]);
        let pixel = channels.div_ceil(lanes) * lanes;
        if weightless {
            return Self::PerChannel { weights: Buffer::new(0), length: taps * pixel, pixel, lanes };
        }
        let mut weights = Buffer::new(taps * pixel);
        for (i, &weight) in conv.weight.data().iter().enumerate() {
            weights.values_mut()[i % taps * pixel + i / taps] = weight;
        }
        Self::PerChannel { weights, length: taps * pixel, pixel, lanes }
    }
}

/// One row of a phase's grid.
struct DepthwiseRow<'a> {
    depthwise: &'a Depthwise,
    phase: &'a Phase,
    image: usize,
    row: usize,
    source: FeatureMap,
    epilogue: &'a Epilogue<'a>,
}

impl SimdOp for DepthwiseRow<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (phase, width) = (self.phase, self.phase.grid[1]);
        let size = [self.source.height, self.source.width];
        let whole = phase.whole(self.source.width);
        let mut reads = Vec::with_capacity(phase.taps.len());
        // SAFETY: several pixels at a time only between the borders, where they read the same taps.
        unsafe {
            for x in (0..whole.start).chain(whole.end..width) {
                reads.clear();
                reads.extend(phase.reads([self.row, x], size));
                self.pixels::<S, 1, 4>(x, &reads, 0);
            }
            reads.clear();
            reads.extend(phase.reads([self.row, whole.start], size));
            let mut x = whole.start;
            while x < whole.end {
                let shift = (x - whole.start) * phase.stride[1];
                x += match whole.end - x {
                    TOGETHER.. if S::TILE_ROWS < TOGETHER => self.pixels::<S, TOGETHER, 1>(x, &reads, shift),
                    TOGETHER.. => self.pixels::<S, TOGETHER, 2>(x, &reads, shift),
                    3.. => self.pixels::<S, 3, 4>(x, &reads, shift),
                    2 => self.pixels::<S, 2, 4>(x, &reads, shift),
                    _ => self.pixels::<S, 1, 4>(x, &reads, shift),
                };
            }
        }
    }
}

impl DepthwiseRow<'_> {
    /// Computes `COUNT` neighbouring pixels of the grid from column `x` on, and returns `COUNT`. The first reads
    /// `reads`, shifted by `shift` pixels. `VECTORS` vectors of channels are computed together to hide the latency of
    /// multiply-adds.
    ///
    /// # Safety
    /// As [`Simd`]; all reads are within the map.
    #[inline(always)]
    unsafe fn pixels<S: Simd, const COUNT: usize, const VECTORS: usize>(
        &self,
        x: usize,
        reads: &[Read],
        shift: usize,
    ) -> usize {
        let channels = self.epilogue.to.channels;
        let mut c = 0;
        // SAFETY: the caller's; channels after the last are not read from the source.
        unsafe {
            while c + VECTORS * S::LANES <= channels {
                S::call(Sums::<'_, COUNT, VECTORS, true> { row: self, x, reads, shift, channel: c });
                c += VECTORS * S::LANES;
            }
            while c + S::LANES <= channels {
                S::call(Sums::<'_, COUNT, 1, true> { row: self, x, reads, shift, channel: c });
                c += S::LANES;
            }
            if c < channels {
                S::call(Sums::<'_, COUNT, 1, false> { row: self, x, reads, shift, channel: c });
            }
        }
        COUNT
    }
}

/// `COUNT` neighbouring pixels in `VECTORS` vectors of channels; the last vector is partial unless `WHOLE`.
struct Sums<'a, const COUNT: usize, const VECTORS: usize, const WHOLE: bool> {
    row: &'a DepthwiseRow<'a>,
    x: usize,
    reads: &'a [Read],
    shift: usize,
    channel: usize,
}

impl<const COUNT: usize, const VECTORS: usize, const WHOLE: bool> SimdOp for Sums<'_, COUNT, VECTORS, WHOLE> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { row, x, reads, shift, channel } = self;
        let DepthwiseRow { depthwise, phase, source, epilogue, .. } = *row;
        let to = &epilogue.to;
        let y = phase.start[0] + row.row * phase.spacing[0];
        let pixel = (row.image * to.height + y) * to.width + phase.start[1] + x * phase.spacing[1];
        let (stride, pixel_step) = (phase.stride[1] * source.pixel_stride, phase.spacing[1]);
        let left = to.channels - channel;
        let channels = if WHOLE { VECTORS * S::LANES } else { left };
        // SAFETY: the caller's.
        unsafe {
            for i in COUNT..2 * COUNT {
                epilogue.prefetch::<S>(pixel + i * pixel_step, channel, channels);
            }
            // Not read where only some rows are in memory.
            let image = source.at(row.image * source.size() + shift).wrapping_add(channel).cast_const();
            let mut sums = [[S::splat(0.0); VECTORS]; COUNT];
            match &depthwise.weights {
                TapWeights::PerChannel { weights, pixel, .. } => {
                    let weights = weights.values().as_ptr().add(channel);
                    for read in reads {
                        let from = image.wrapping_add(read.pixel * source.pixel_stride);
                        let weights = weights.add(read.tap * pixel);
                        for v in 0..VECTORS {
                            let weight = S::load(weights.add(v * S::LANES));
                            for (i, sum) in sums.iter_mut().enumerate() {
                                let value = load_vector::<S, WHOLE>(from.add(i * stride + v * S::LANES), left);
                                sum[v] = S::mul_add(value, weight, sum[v]);
                            }
                        }
                    }
                }
                TapWeights::PerPixel { shares, of_source } => {
                    for read in reads {
                        let from = image.wrapping_add(read.pixel * source.pixel_stride);
                        for (i, sum) in sums.iter_mut().enumerate() {
                            let at = read.pixel + shift + i * phase.stride[1];
                            let share = S::splat(if *of_source { shares[at] } else { 1.0 });
                            for (v, sum) in sum.iter_mut().enumerate() {
                                let value = load_vector::<S, WHOLE>(from.add(i * stride + v * S::LANES), left);
                                *sum = S::mul_add(value, share, *sum);
                            }
                        }
                    }
                    if !of_source {
                        for (i, sum) in sums.iter_mut().enumerate() {
                            let share = S::splat(shares[(pixel + i * pixel_step) % to.size()]);
                            sum.iter_mut().for_each(|sum| *sum = S::mul(*sum, share));
                        }
                    }
                }
            }
            let mut staged = MaybeUninit::<[f32; STAGED]>::uninit();
            let staged = staged.as_mut_ptr().cast::<f32>();
            let step = VECTORS * S::LANES;
            for (i, sum) in sums.iter().enumerate() {
                for (v, &sum) in sum.iter().enumerate() {
                    S::store(staged.add(i * step + v * S::LANES), sum);
                }
            }
            let block = OutputRegion { pixel_step, ..OutputRegion::row(pixel, COUNT, channel, channels) };
            epilogue.store_region::<S>(block, staged, [0, step]);
        }
    }
}
