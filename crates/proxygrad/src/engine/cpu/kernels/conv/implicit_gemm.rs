//! Implicit GEMM: convolution with any window, stride, dilation and group count as a matrix product.
//!
//! A cache block of output rows first copies the input rows that it reads, padded with zeros, into private memory of
//! its thread. The window of every pixel is then a few runs of consecutive values there.
#![expect(unsafe_code, reason = "register tiles over raw rows")]

use std::ops::Range;

use crate::engine::cpu::epilogue::{Epilogue, OutputRegion};
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::kernel::{KernelConfig, L2_BYTES, RowKernel, RowRange, ThreadCtx};
use crate::engine::cpu::kernels::conv::pixel_block::PixelBlock;
use crate::engine::cpu::kernels::conv::weights::{ConvWeights, SCATTER_CHANNELS};
use crate::engine::cpu::kernels::gemm::{
    Accumulator, CACHE_PADDING, CACHE_PERIOD, PackedMatrix, Prefetch, Run, TILE_SUMS, microkernel, split_evenly,
};
use crate::engine::cpu::kernels::taps::{Phase, Tap};
use crate::engine::cpu::simd::vector::{Simd, SimdOp};
use crate::network;

/// One direction of a convolution: from a source map to a destination map.
pub(crate) struct ImplicitGemm {
    parts: Vec<GemmPart>,
    /// Cache blocks of one image.
    blocks: Vec<CacheBlock>,
    source: [usize; 2],
    destination: [usize; 2],
    scratch: usize,
}

/// One phase of one group of channels.
struct GemmPart {
    phase: Phase,
    weights: PackedMatrix,
    /// First channel of the source, and number of channels.
    from: [usize; 2],
    /// First channel of the destination, and number of channels; with `scattered`, of one pixel.
    to: [usize; 2],
    runs: Vec<Run>,
    /// Whether source rows are copied. Otherwise there is one tap, always inside the map.
    copied: bool,
    /// Values from a pixel of a copy to the next.
    copied_pixel: usize,
    /// First and last tap offset along each axis.
    span: [[isize; 2]; 2],
    /// Whether the columns of a sum are the channels of a pixel block of `spacing[0] x spacing[1]` pixels.
    scattered: bool,
    /// Maximum number of rows of the grid in one cache block.
    most_rows: usize,
}

struct CacheBlock {
    /// Index of the part.
    part: usize,
    rows: [usize; 2],
    panels: [usize; 2],
}

impl ImplicitGemm {
    /// The forward pass, from maps of height and width `inside` to maps of `outside`.
    pub(crate) fn forward(conv: &network::Conv, inside: [usize; 2], outside: [usize; 2], config: KernelConfig) -> Self {
        let conv_weights = ConvWeights::new(conv);
        let part = |group: usize| {
            let phase = Phase::forward(&conv.window, outside);
            let weights =
                PackedMatrix::new(phase.taps.len() * conv_weights.inputs, conv_weights.outputs, config, |k, line| {
                    let (tap, c) = (phase.taps[k / conv_weights.inputs].index, k % conv_weights.inputs);
                    for (o, value) in line.iter_mut().enumerate() {
                        *value = conv_weights.weight(group, o, c, tap);
                    }
                });
            let [from, to] = [
                [group * conv_weights.inputs, conv_weights.inputs],
                [group * conv_weights.outputs, conv_weights.outputs],
            ];
            GemmPart::new(phase, weights, from, to, inside, false)
        };
        Self::new((0..conv.groups).map(part).collect(), inside, outside, config)
    }

    /// The backward pass, from gradients of height and width `outside` to gradients of `inside`.
    pub(crate) fn backward(
        conv: &network::Conv,
        inside: [usize; 2],
        outside: [usize; 2],
        config: KernelConfig,
    ) -> Self {
        let conv_weights = ConvWeights::new(conv);
        let phases = || Phase::backward(&conv.window, inside);
        let mut parts = Vec::new();
        for group in 0..conv.groups {
            let [from, to] = [
                [group * conv_weights.outputs, conv_weights.outputs],
                [group * conv_weights.inputs, conv_weights.inputs],
            ];
            if conv.window.stride != [1, 1] && conv_weights.inputs <= SCATTER_CHANNELS && conv.groups == 1 {
                let (phase, taps) = Phase::together(&conv.window, inside, phases());
                let columns = taps.first().map_or(0, Vec::len) * conv_weights.inputs;
                let weights = PackedMatrix::new(phase.taps.len() * conv_weights.outputs, columns, config, |k, line| {
                    let (union, o) = (k / conv_weights.outputs, k % conv_weights.outputs);
                    for (column, value) in line.iter_mut().enumerate() {
                        let (pixel, c) = (column / conv_weights.inputs, column % conv_weights.inputs);
                        *value = taps[union][pixel].map_or(0.0, |tap| conv_weights.weight(group, o, c, tap));
                    }
                });
                parts.push(GemmPart::new(phase, weights, from, to, outside, true));
                continue;
            }
            for phase in phases() {
                let weights = PackedMatrix::new(
                    phase.taps.len() * conv_weights.outputs,
                    conv_weights.inputs,
                    config,
                    |k, line| {
                        let (tap, o) = (phase.taps[k / conv_weights.outputs].index, k % conv_weights.outputs);
                        for (c, value) in line.iter_mut().enumerate() {
                            *value = conv_weights.weight(group, o, c, tap);
                        }
                    },
                );
                parts.push(GemmPart::new(phase, weights, from, to, outside, false));
            }
        }
        Self::new(parts, outside, inside, config)
    }

    fn new(parts: Vec<GemmPart>, source: [usize; 2], destination: [usize; 2], config: KernelConfig) -> Self {
        let KernelConfig { lanes, threads, .. } = config;
        let rows = if lanes == 16 { 14 } else { 6 };
        let blocks = parts.iter().enumerate().flat_map(|(i, part)| part.blocks(i, threads, parts.len(), rows));
        let blocks: Vec<CacheBlock> = blocks.collect();
        let mut parts = parts;
        for block in &blocks {
            let most = &mut parts[block.part].most_rows;
            *most = (*most).max(block.rows[1] - block.rows[0]);
        }
        let copied = |part: &GemmPart| part.copied_length(part.most_rows);
        let scratch = TILE_SUMS + parts.iter().map(copied).max().unwrap_or(0);
        Self { parts, blocks, source, destination, scratch }
    }

    /// Bytes of the weights.
    pub(crate) fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.weights.bytes()).sum()
    }

    /// Values of private memory per thread.
    pub(crate) fn scratch_len(&self) -> usize {
        self.scratch
    }

    /// Computes `epilogue.to` from `source`.
    pub(crate) fn run(&self, ctx: &ThreadCtx<'_>, source: FeatureMap, epilogue: &Epilogue<'_>) {
        assert_eq!([source.height, source.width], self.source);
        assert_eq!([epilogue.to.height, epilogue.to.width], self.destination);
        ctx.worker.for_each_piece(source.images * self.blocks.len(), |piece| {
            let (image, block) = (piece / self.blocks.len(), &self.blocks[piece % self.blocks.len()]);
            let part = &self.parts[block.part];
            // SAFETY: the instruction set is supported; the part was planned for maps of these sizes; no two pieces
            // write the same pixels and channels; the scratch memory is private to this thread.
            unsafe { ctx.instructions.run(Piece { part, block, image, source, epilogue, scratch: ctx.scratch }) };
        });
    }
}

impl RowKernel for ImplicitGemm {
    fn input_rows(&self, rows: &Range<usize>) -> Range<isize> {
        // A pixel block is computed with its first row; its other rows are treated as if they read the same rows.
        let block_rows =
            self.parts.iter().filter(|part| part.scattered).map(|part| part.phase.spacing[0]).max().unwrap_or(1);
        Phase::input_rows(self.parts.iter().map(|part| &part.phase), &(rows.start / block_rows * block_rows..rows.end))
    }

    /// A pixel block reaches into the rows below.
    fn ends_group(&self) -> bool {
        self.parts.iter().any(|part| part.scattered)
    }

    fn compute_rows(
        &self,
        ctx: &ThreadCtx<'_>,
        range: &RowRange,
        source: FeatureMap,
        _: Option<*mut f32>,
        epilogue: &Epilogue<'_>,
    ) {
        assert_eq!([source.height, source.width], self.source);
        assert_eq!([epilogue.to.height, epilogue.to.width], self.destination);
        for (i, part) in self.parts.iter().enumerate() {
            let mut rows = part.phase.rows_in(&range.rows);
            while !rows.is_empty() {
                let most = rows.end.min(rows.start + part.most_rows);
                let block = CacheBlock { part: i, rows: [rows.start, most], panels: [0, part.weights.panels().len()] };
                let image = range.image;
                let piece = Piece { part, block: &block, image, source, epilogue, scratch: ctx.scratch };
                // SAFETY: the instruction set is supported; the part was planned for maps of these sizes; the scratch
                // memory is private to this thread and has room for `most_rows` rows; no other thread writes this
                // range.
                unsafe { ctx.instructions.run(piece) };
                rows.start = most;
            }
        }
    }
}

impl GemmPart {
    fn new(
        phase: Phase,
        weights: PackedMatrix,
        from: [usize; 2],
        to: [usize; 2],
        source: [usize; 2],
        scattered: bool,
    ) -> Self {
        let span = [0, 1].map(|i| {
            let offsets = || phase.taps.iter().map(|tap| tap.offset[i]);
            [offsets().min().unwrap_or(0), offsets().max().unwrap_or(0)]
        });
        let inside = (0..2).all(|i| {
            let last = (phase.grid[i].max(1) - 1) * phase.stride[i];
            span[i][0] >= 0 && last as isize + span[i][1] < source[i] as isize
        });
        let channels = from[1];
        let crowded = (phase.stride[1] * channels).is_multiple_of(CACHE_PERIOD);
        let copied = phase.taps.len() > 1 || (phase.taps.len() == 1 && (!inside || crowded));
        let copied_pixel = if crowded { channels + CACHE_PADDING } else { channels };
        let runs = Vec::new();
        let mut part = Self { phase, weights, from, to, runs, copied, copied_pixel, span, scattered, most_rows: 1 };
        let row = part.copied_row();
        let offset = |tap: &Tap| {
            if !copied {
                return 0;
            }
            let [y, x] = [0, 1].map(|i| (tap.offset[i] - span[i][0]).unsigned_abs());
            (y * row + x * copied_pixel) as isize
        };
        let mut runs: Vec<Run> = Vec::new();
        for tap in &part.phase.taps {
            let offset = offset(tap);
            match runs.last_mut() {
                Some(run) if run.offset + run.count as isize == offset => run.count += channels,
                _ => runs.push(Run { offset, count: channels, skipped: 0 }),
            }
        }
        part.runs = runs;
        part
    }

    /// Columns of copied source rows.
    #[inline(always)]
    fn copied_width(&self) -> usize {
        (self.phase.grid[1].max(1) - 1) * self.phase.stride[1] + (self.span[1][1] - self.span[1][0]).unsigned_abs() + 1
    }

    /// Values of a copied source row.
    #[inline(always)]
    fn copied_row(&self) -> usize {
        self.copied_width() * self.copied_pixel
    }

    /// Source rows that `rows` rows of the grid read.
    #[inline(always)]
    fn copied_height(&self, rows: usize) -> usize {
        (rows.max(1) - 1) * self.phase.stride[0] + (self.span[0][1] - self.span[0][0]).unsigned_abs() + 1
    }

    fn copied_length(&self, rows: usize) -> usize {
        if self.copied { self.copied_height(rows) * self.copied_row() } else { 0 }
    }

    /// Divides the part into cache blocks whose source rows fit in the cache, and enough of them to keep `threads`
    /// threads busy.
    fn blocks(&self, part: usize, threads: usize, parts: usize, tile: usize) -> Vec<CacheBlock> {
        let [height, width] = self.phase.grid;
        let panels = self.weights.panels().len();
        let row_bytes = 4 * self.copied_row();
        let most = (1..=height).rev().find(|&rows| self.copied_height(rows) * row_bytes <= L2_BYTES / 3).unwrap_or(1);
        let row_blocks = height.div_ceil(most);
        let wanted = if threads == 1 { 1 } else { (4 * threads).div_ceil(parts) };
        // Weights larger than the map are read once: the threads divide the panels, not the rows.
        let heavy = self.weights.bytes() > height * self.phase.stride[0] * row_bytes;
        let most_rows = (height * width).div_ceil(tile).min(height);
        let row_blocks = if heavy { row_blocks } else { row_blocks.max(wanted.min(most_rows)) };
        let panel_blocks = wanted.div_ceil(row_blocks).clamp(1, panels.max(1));
        let mut blocks = Vec::new();
        for rows in 0..row_blocks {
            let rows = [height * rows / row_blocks, height * (rows + 1) / row_blocks];
            for share in 0..panel_blocks {
                let panels = [panels * share / panel_blocks, panels * (share + 1) / panel_blocks];
                if rows[0] < rows[1] && panels[0] < panels[1] {
                    blocks.push(CacheBlock { part, rows, panels });
                }
            }
        }
        blocks
    }
}

/// One cache block of one image.
struct Piece<'a> {
    part: &'a GemmPart,
    block: &'a CacheBlock,
    image: usize,
    source: FeatureMap,
    epilogue: &'a Epilogue<'a>,
    scratch: *mut f32,
}

impl SimdOp for Piece<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { part, block, source, .. } = self;
        let phase = &part.phase;
        let sums = self.scratch;
        // SAFETY: tiles read the planned rows of the source or their copies.
        unsafe {
            if part.copied {
                self.copy();
            }
            for panel in &part.weights.panels()[block.panels[0]..block.panels[1]] {
                let weights = part.weights.panel_data(panel);
                for y in block.rows[0]..block.rows[1] {
                    for (left, right) in split_evenly(phase.grid[1], S::TILE_ROWS) {
                        let (row, step) = if part.copied {
                            let row = (y - block.rows[0]) * phase.stride[0] * part.copied_row();
                            let step = phase.stride[1] * part.copied_pixel;
                            (self.scratch.add(TILE_SUMS + row + left * step).cast_const(), step)
                        } else {
                            let [dy, dx] = [0, 1].map(|i| part.span[i][0].unsigned_abs());
                            let (sy, sx) = (y * phase.stride[0] + dy, left * phase.stride[1] + dx);
                            let pixel = (self.image * source.height + sy) * source.width + sx;
                            let inside = !part.runs.is_empty();
                            let row = if inside { source.at(pixel).add(part.from[0]) } else { source.data };
                            (row.cast_const(), phase.stride[1] * source.pixel_stride)
                        };
                        for x in (left..right).filter(|_| !part.scattered) {
                            let to = [phase.start[0] + y * phase.spacing[0], phase.start[1] + x * phase.spacing[1]];
                            self.epilogue.prefetch::<S>(self.pixel(to), part.to[0] + panel.first, panel.columns);
                        }
                        let next = Prefetch::of::<S>(weights, panel.vectors);
                        microkernel::<S>(
                            [right - left, panel.vectors],
                            &part.runs,
                            row,
                            step,
                            weights,
                            next,
                            Accumulator { sums, accumulate: false },
                        );
                        let step = panel.vectors * S::LANES;
                        if part.scattered {
                            let pixel_block = PixelBlock { size: phase.spacing, channels: part.to[1] };
                            for x in left..right {
                                let (image, sums) = (self.image, sums.add((x - left) * step));
                                pixel_block.scatter::<S>(
                                    self.epilogue,
                                    image,
                                    [y, x],
                                    panel.first,
                                    sums,
                                    panel.columns,
                                );
                            }
                        } else {
                            let to = [phase.start[0] + y * phase.spacing[0], phase.start[1] + left * phase.spacing[1]];
                            let (channel, channels) = (part.to[0] + panel.first, panel.columns);
                            let row = OutputRegion::row(self.pixel(to), right - left, channel, channels);
                            self.epilogue.store_region::<S>(
                                OutputRegion { pixel_step: phase.spacing[1], ..row },
                                sums,
                                [0, step],
                            );
                        }
                    }
                }
            }
        }
    }
}

impl Piece<'_> {
    /// Index of a destination pixel.
    #[inline(always)]
    fn pixel(&self, [y, x]: [usize; 2]) -> usize {
        let to = &self.epilogue.to;
        (self.image * to.height + y) * to.width + x
    }

    /// Copies the block's source rows to the scratch memory after the sums, with zeros where the window leaves the map.
    ///
    /// # Safety
    /// The scratch memory has [`GemmPart::copied_length`] values after the sums.
    #[inline(always)]
    unsafe fn copy(&self) {
        let Self { part, block, source, .. } = *self;
        let (channels, pixel_step, width) = (part.from[1], part.copied_pixel, part.copied_width());
        let top = (block.rows[0] * part.phase.stride[0]) as isize + part.span[0][0];
        let left = part.span[1][0];
        // Columns of the copy that lie on the map.
        let first = (-left).clamp(0, width as isize).unsigned_abs();
        let last = (source.width as isize - left).clamp(first as isize, width as isize).unsigned_abs();
        // SAFETY: rows and columns are checked against the map's size.
        unsafe {
            for row in 0..part.copied_height(block.rows[1] - block.rows[0]) {
                let to = self.scratch.add(TILE_SUMS + row * width * pixel_step);
                let y = top + row as isize;
                if y < 0 || y >= source.height as isize {
                    std::ptr::write_bytes(to, 0, width * pixel_step);
                    continue;
                }
                std::ptr::write_bytes(to, 0, first * pixel_step);
                std::ptr::write_bytes(to.add(last * pixel_step), 0, (width - last) * pixel_step);
                let column = (first as isize + left).unsigned_abs();
                let pixel = (self.image * source.height + y.unsigned_abs()) * source.width + column;
                if last == first {
                    continue;
                }
                let from = source.at(pixel).add(part.from[0]);
                if source.pixel_stride == channels && pixel_step == channels {
                    std::ptr::copy_nonoverlapping(from, to.add(first * channels), (last - first) * channels);
                    continue;
                }
                for x in 0..last - first {
                    let to = to.add((first + x) * pixel_step);
                    std::ptr::copy_nonoverlapping(from.add(x * source.pixel_stride), to, channels);
                }
            }
        }
    }
}
