//! Pointwise convolution: the product of every pixel with one matrix, for 1x1 convolutions and dense layers.
#![expect(unsafe_code, reason = "register tiles over raw rows")]

use std::ops::Range;

use crate::engine::cpu::epilogue::{Epilogue, OutputRegion};
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::kernel::{KernelConfig, L2_BYTES, RowKernel, RowRange, ThreadCtx};
use crate::engine::cpu::kernels::gemm::{
    Accumulator, CACHE_PADDING, CACHE_PERIOD, MOST_ROWS, PackedMatrix, Prefetch, Run, TILE_SUMS, microkernel,
    split_evenly,
};
use crate::engine::cpu::kernels::gemm_bf16::{self, Pairs, pack_pairs, round_row};
use crate::engine::cpu::simd::vector::{Simd, SimdOp};

/// A gradient is sparse if at most one in this many channels is not zero.
const FEW: usize = 8;

/// Largest number of channels of a copied tile.
const MOST_COPIED: usize = 4096;

/// Bytes of the panels that a tile of pixels meets before the next tile does. They stay in the second-level cache, and
/// a tile writes consecutive channels.
const GROUP_BYTES: usize = L2_BYTES / 2;

/// A matrix `[C, O]` that maps every pixel of a source to the same pixel of a destination.
pub(crate) struct Pointwise {
    weights: PackedMatrix,
    /// The same as pairs of bf16.
    pairs: Option<PackedMatrix>,
    run: Run,
}

impl Pointwise {
    /// `row` fills one row of the matrix, see [`PackedMatrix::new`].
    pub(crate) fn new(from: usize, to: usize, config: KernelConfig, mut row: impl FnMut(usize, &mut [f32])) -> Self {
        Self {
            weights: PackedMatrix::new(from, to, config, &mut row),
            pairs: (config.bf16 && from <= MOST_COPIED).then(|| pack_pairs(from, to, config, &mut row)),
            run: Run { offset: 0, count: from, skipped: 0 },
        }
    }

    /// Computes `epilogue.to` from `source`.
    pub(crate) fn run(&self, ctx: &ThreadCtx<'_>, source: FeatureMap, epilogue: &Epilogue<'_>) {
        self.run_channels(ctx, source, epilogue, &[self.run]);
    }

    /// Computes `epilogue.to` from a gradient. With an objective of one channel it is zero in all others; these are
    /// skipped, and the result is the same bit for bit.
    pub(crate) fn run_gradient(&self, ctx: &ThreadCtx<'_>, source: FeatureMap, epilogue: &Epilogue<'_>) {
        match channels_in_use(&source) {
            Some(runs) => self.run_channels(ctx, source, epilogue, &runs),
            None => self.run(ctx, source, epilogue),
        }
    }

    fn run_channels(&self, ctx: &ThreadCtx<'_>, source: FeatureMap, epilogue: &Epilogue<'_>, runs: &[Run]) {
        let pixels = source.pixels();
        assert_eq!(source.channels, self.weights.rows());
        assert_eq!(pixels, epilogue.to.pixels());
        let tile = if ctx.instructions.lanes() == 16 { 14 } else { 6 };
        let (units, panels) = (pixels.div_ceil(tile), self.weights.panels().len());
        let bytes = 4 * source.channels * tile;
        let wanted = if ctx.worker.count() == 1 { 1 } else { 4 * ctx.worker.count() };
        let fitting = (L2_BYTES / 3 / bytes).max(2);
        let heavy = self.weights.bytes() > bytes * units;
        let row_blocks = units.div_ceil(fitting);
        let row_blocks = if heavy { row_blocks } else { row_blocks.max(wanted.min(units.div_ceil(2))) };
        let panel_blocks = wanted.div_ceil(row_blocks).clamp(1, panels);
        ctx.worker.for_each_piece(row_blocks * panel_blocks, |piece| {
            let (rows, share) = (piece / panel_blocks, piece % panel_blocks);
            let rows = [units * rows / row_blocks * tile, (units * (rows + 1) / row_blocks * tile).min(pixels)];
            let panels = [panels * share / panel_blocks, panels * (share + 1) / panel_blocks];
            let (weights, pairs) = (&self.weights, self.pairs_of(ctx));
            let job = Piece { weights, pairs, runs, rows, panels, source, epilogue, sums: ctx.scratch };
            // SAFETY: the instruction set is supported; rows and panels lie in the maps, asserted above; no two pieces
            // write the same pixels and channels; the scratch memory is private to this thread.
            unsafe { ctx.instructions.run(job) };
        });
    }

    /// The weights as pairs of bf16, if this pass rounds its operands.
    fn pairs_of(&self, ctx: &ThreadCtx<'_>) -> Option<&PackedMatrix> {
        self.pairs.as_ref().filter(|_| ctx.bf16)
    }

    /// Bytes of the weights.
    pub(crate) fn bytes(&self) -> usize {
        self.weights.bytes() + self.pairs.as_ref().map_or(0, PackedMatrix::bytes)
    }

    /// Values of private memory per thread.
    pub(crate) fn scratch_len(&self) -> usize {
        let channels = self.weights.rows();
        let copied = if channels <= MOST_COPIED { MOST_ROWS * (channels + CACHE_PADDING) } else { 0 };
        TILE_SUMS + copied
    }
}

impl RowKernel for Pointwise {
    fn input_rows(&self, rows: &Range<usize>) -> Range<isize> {
        rows.start as isize..rows.end as isize
    }

    fn compute_rows(
        &self,
        ctx: &ThreadCtx<'_>,
        range: &RowRange,
        source: FeatureMap,
        _: Option<*mut f32>,
        epilogue: &Epilogue<'_>,
    ) {
        assert_eq!(source.channels, self.weights.rows());
        assert_eq!([source.height, source.width], [epilogue.to.height, epilogue.to.width]);
        let rows = [range.rows.start, range.rows.end].map(|row| (range.image * source.height + row) * source.width);
        let panels = [0, self.weights.panels().len()];
        let (weights, runs) = (&self.weights, &[self.run][..]);
        let pairs = self.pairs_of(ctx);
        let job = Piece { weights, pairs, runs, rows, panels, source, epilogue, sums: ctx.scratch };
        // SAFETY: the instruction set is supported; rows and panels lie in the maps; no other thread writes this range;
        // the scratch memory is private to this thread.
        unsafe { ctx.instructions.run(job) };
    }
}

/// The channels of a sparse map that are not zero everywhere, None if the map is not sparse.
fn channels_in_use(map: &FeatureMap) -> Option<Vec<Run>> {
    let mut used = vec![false; map.channels];
    let mut count = 0;
    for pixel in 0..map.pixels() {
        // SAFETY: the pixel lies in the map, which is complete and only read in this step.
        let values = unsafe { std::slice::from_raw_parts(map.at(pixel), map.channels) };
        for (used, value) in used.iter_mut().zip(values) {
            if *value != 0.0 && !*used {
                *used = true;
                count += 1;
            }
        }
        if count * FEW > map.channels {
            return None;
        }
    }
    let mut next = 0;
    let channels = used.iter().enumerate().filter(|(_, used)| **used);
    let run = |(channel, _): (usize, &bool)| {
        let skipped = channel - next;
        next = channel + 1;
        Run { offset: channel as isize, count: 1, skipped }
    };
    Some(channels.map(run).collect())
}

struct Piece<'a> {
    weights: &'a PackedMatrix,
    /// The same as pairs of bf16, if the pass rounds its operands.
    pairs: Option<&'a PackedMatrix>,
    runs: &'a [Run],
    rows: [usize; 2],
    panels: [usize; 2],
    source: FeatureMap,
    epilogue: &'a Epilogue<'a>,
    sums: *mut f32,
}

impl SimdOp for Piece<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { weights, runs, source, .. } = self;
        let channels = source.channels;
        let whole = matches!(runs, [run] if run.count == channels);
        let pairs = self.pairs.filter(|_| whole);
        let matrix = pairs.unwrap_or(weights);
        let copied =
            pairs.is_some() || whole && channels <= MOST_COPIED && source.pixel_stride.is_multiple_of(CACHE_PERIOD);
        let step = if copied { matrix.rows() + CACHE_PADDING } else { source.pixel_stride };
        let panels = &matrix.panels()[self.panels[0]..self.panels[1]];
        let panel_bytes = 4 * matrix.rows().max(1) * 2 * S::LANES;
        for group in panels.chunks((GROUP_BYTES / panel_bytes).max(1)) {
            for (first, last) in split_evenly(self.rows[1] - self.rows[0], S::TILE_ROWS) {
                let (first, count) = (self.rows[0] + first, last - first);
                // SAFETY: the rows lie in the source, the panels in the destination's channels; there is room for the
                // copy after the sums, also for the padding of pairs; with pairs the processor multiplies bf16, and
                // vectors have 16 values.
                unsafe {
                    let mut from = source.at(first).cast_const();
                    if copied {
                        let copy = self.sums.add(TILE_SUMS);
                        for r in 0..count {
                            let (row, to) = (source.at(first + r).cast_const(), copy.add(r * step));
                            match pairs {
                                Some(_) => round_row(row, channels, to),
                                None => std::ptr::copy_nonoverlapping(row, to, channels),
                            }
                        }
                        from = copy.cast_const();
                    }
                    for panel in group {
                        let to = matrix.panel_data(panel);
                        for r in 0..count {
                            self.epilogue.prefetch::<S>(first + r, panel.first, panel.columns);
                        }
                        let (tile, next) = ([count, panel.vectors], Prefetch::of::<S>(to, panel.vectors));
                        match pairs {
                            Some(pairs) => {
                                let operands = Pairs { count: pairs.rows(), a: from, row_stride: step, b: to };
                                gemm_bf16::microkernel(tile, operands, next, self.sums);
                            }
                            None => {
                                let sums = Accumulator { sums: self.sums, accumulate: false };
                                microkernel::<S>(tile, runs, from, step, to, next, sums);
                            }
                        }
                        let block = OutputRegion::row(first, count, panel.first, panel.columns);
                        self.epilogue.store_region::<S>(block, self.sums, [0, panel.vectors * S::LANES]);
                    }
                }
            }
        }
    }
}
