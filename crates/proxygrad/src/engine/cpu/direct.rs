//! Convolution as products of gathered pixels and panels of weights, for windows of every kind.
//!
//! A block of output rows first copies the input rows that it reads, with zeros around them, into memory of its thread;
//! then every pixel's window is a few runs of consecutive values there.
#![expect(unsafe_code, reason = "register tiles over raw rows")]

use std::ops::Range;

use super::bands::Band;
use super::finish::{Block as Finished, Finish};
use super::map::Map;
use super::simd::{Job, Simd};
use super::square::Square;
use super::taps::Phase;
use super::tile::{Panels, Prefetch, Run, SUMS, Totals, cut, product};
use super::{Banded, L2, Layout, Site};
use crate::network;

/// One direction of a convolution: from a source map to a destination map.
pub(super) struct Direct {
    parts: Vec<Part>,
    /// Pieces of one image.
    blocks: Vec<Block>,
    source: [usize; 2],
    destination: [usize; 2],
    scratch: usize,
}

/// One phase of one group of channels.
struct Part {
    phase: Phase,
    weights: Panels,
    /// First channel of the source, and how many.
    from: [usize; 2],
    /// First channel of the destination, and how many; for `scattered` parts, of one pixel.
    to: [usize; 2],
    runs: Vec<Run>,
    /// Whether source rows are copied; else the only tap lies inside the map.
    copied: bool,
    /// First and last tap offset along each axis.
    span: [[isize; 2]; 2],
    /// Whether the columns of a sum are the channels of a whole `step[0] x step[1]` square of pixels.
    scattered: bool,
    /// Most rows of the grid in one block.
    most_rows: usize,
}

struct Block {
    part: usize,
    rows: [usize; 2],
    panels: [usize; 2],
}

/// Most channels for which the phases of a strided backward pass share one product: they fill a vector together.
pub(super) const SCATTERED: usize = 4;

impl Direct {
    /// The forward direction, from maps of height and width `inside` to maps of `outside`.
    pub(super) fn forward(conv: &network::Conv, inside: [usize; 2], outside: [usize; 2], layout: Layout) -> Self {
        let filters = Filters::new(conv);
        let part = |group: usize| {
            let phase = Phase::forward(&conv.window, outside);
            let weights = Panels::new(phase.taps.len() * filters.inputs, filters.outputs, layout, |k, line| {
                let (tap, c) = (phase.taps[k / filters.inputs].index, k % filters.inputs);
                for (o, value) in line.iter_mut().enumerate() {
                    *value = filters.weight(group, o, c, tap);
                }
            });
            let [from, to] = [[group * filters.inputs, filters.inputs], [group * filters.outputs, filters.outputs]];
            Part::new(phase, weights, from, to, inside, false)
        };
        Self::new((0..conv.groups).map(part).collect(), inside, outside, layout)
    }

    /// The backward direction, from gradients of maps of height and width `outside` to those of `inside`.
    pub(super) fn backward(conv: &network::Conv, inside: [usize; 2], outside: [usize; 2], layout: Layout) -> Self {
        let filters = Filters::new(conv);
        let phases = || Phase::backward(&conv.window, inside);
        let mut parts = Vec::new();
        for group in 0..conv.groups {
            let [from, to] = [[group * filters.outputs, filters.outputs], [group * filters.inputs, filters.inputs]];
            if conv.window.stride != [1, 1] && filters.inputs <= SCATTERED && conv.groups == 1 {
                let (phase, taps) = Phase::together(&conv.window, inside, phases());
                let columns = taps.first().map_or(0, Vec::len) * filters.inputs;
                let weights = Panels::new(phase.taps.len() * filters.outputs, columns, layout, |k, line| {
                    let (union, o) = (k / filters.outputs, k % filters.outputs);
                    for (column, value) in line.iter_mut().enumerate() {
                        let (square, c) = (column / filters.inputs, column % filters.inputs);
                        *value = taps[union][square].map_or(0.0, |tap| filters.weight(group, o, c, tap));
                    }
                });
                parts.push(Part::new(phase, weights, from, to, outside, true));
                continue;
            }
            for phase in phases() {
                let weights = Panels::new(phase.taps.len() * filters.outputs, filters.inputs, layout, |k, line| {
                    let (tap, o) = (phase.taps[k / filters.outputs].index, k % filters.outputs);
                    for (c, value) in line.iter_mut().enumerate() {
                        *value = filters.weight(group, o, c, tap);
                    }
                });
                parts.push(Part::new(phase, weights, from, to, outside, false));
            }
        }
        Self::new(parts, outside, inside, layout)
    }

    fn new(parts: Vec<Part>, source: [usize; 2], destination: [usize; 2], layout: Layout) -> Self {
        let Layout { lanes, threads, .. } = layout;
        let rows = if lanes == 16 { 14 } else { 6 };
        let blocks = parts.iter().enumerate().flat_map(|(i, part)| part.blocks(i, threads, parts.len(), rows));
        let blocks: Vec<Block> = blocks.collect();
        let mut parts = parts;
        for block in &blocks {
            let most = &mut parts[block.part].most_rows;
            *most = (*most).max(block.rows[1] - block.rows[0]);
        }
        let copied = |part: &Part| part.copied_length(part.most_rows);
        let scratch = SUMS + parts.iter().map(copied).max().unwrap_or(0);
        Self { parts, blocks, source, destination, scratch }
    }

    /// Bytes of the weights.
    pub(super) fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.weights.bytes()).sum()
    }

    /// Values that every thread needs for itself.
    pub(super) fn scratch(&self) -> usize {
        self.scratch
    }

    /// Computes `finish` from `source`.
    pub(super) fn run(&self, site: &Site<'_>, source: Map, finish: &Finish<'_>) {
        assert_eq!([source.height, source.width], self.source);
        assert_eq!([finish.to.height, finish.to.width], self.destination);
        site.member.each(source.images * self.blocks.len(), |piece| {
            let (image, block) = (piece / self.blocks.len(), &self.blocks[piece % self.blocks.len()]);
            let part = &self.parts[block.part];
            // SAFETY: the instructions are available; the part was planned for maps of these sizes; no two pieces write
            // the same pixels and channels; the scratch memory is this thread's own.
            unsafe { site.instructions.run(Piece { part, block, image, source, finish, scratch: site.scratch }) };
        });
    }
}

impl Banded for Direct {
    fn reach(&self, rows: &Range<usize>) -> Range<isize> {
        // A square is computed with its first row; its other rows are as if they read the same.
        let square = self.parts.iter().filter(|part| part.scattered).map(|part| part.phase.step[0]).max().unwrap_or(1);
        Phase::reach(self.parts.iter().map(|part| &part.phase), &(rows.start / square * square..rows.end))
    }

    /// A square of pixels reaches into the rows below.
    fn closes(&self) -> bool {
        self.parts.iter().any(|part| part.scattered)
    }

    fn band(&self, site: &Site<'_>, band: &Band, source: Map, _: Option<*mut f32>, finish: &Finish<'_>) {
        assert_eq!([source.height, source.width], self.source);
        assert_eq!([finish.to.height, finish.to.width], self.destination);
        for (i, part) in self.parts.iter().enumerate() {
            let mut rows = part.phase.rows_in(&band.rows);
            while !rows.is_empty() {
                let most = rows.end.min(rows.start + part.most_rows);
                let block = Block { part: i, rows: [rows.start, most], panels: [0, part.weights.panels().len()] };
                let image = band.image;
                let piece = Piece { part, block: &block, image, source, finish, scratch: site.scratch };
                // SAFETY: the instructions are available; the part was planned for maps of these sizes, and the scratch
                // memory, this thread's own, for so many rows; nobody else writes this band.
                unsafe { site.instructions.run(piece) };
                rows.start = most;
            }
        }
    }
}

impl Part {
    fn new(
        phase: Phase,
        weights: Panels,
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
        let copied = phase.taps.len() > 1 || (phase.taps.len() == 1 && !inside);
        let mut part = Self { phase, weights, from, to, runs: Vec::new(), copied, span, scattered, most_rows: 1 };
        let (channels, row) = (from[1], part.copied_row());
        let offset = |tap: &super::taps::Tap| {
            if !copied {
                return 0;
            }
            let [y, x] = [0, 1].map(|i| (tap.offset[i] - span[i][0]).unsigned_abs());
            (y * row + x * channels) as isize
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
        self.copied_width() * self.from[1]
    }

    /// Source rows that `rows` rows of the grid read.
    #[inline(always)]
    fn copied_height(&self, rows: usize) -> usize {
        (rows.max(1) - 1) * self.phase.stride[0] + (self.span[0][1] - self.span[0][0]).unsigned_abs() + 1
    }

    fn copied_length(&self, rows: usize) -> usize {
        if self.copied { self.copied_height(rows) * self.copied_row() } else { 0 }
    }

    /// Cuts the part into blocks whose source rows fit the cache, enough of them to keep `threads` busy.
    fn blocks(&self, part: usize, threads: usize, parts: usize, tile: usize) -> Vec<Block> {
        let [height, width] = self.phase.grid;
        let panels = self.weights.panels().len();
        let row_bytes = 4 * self.from[1] * self.copied_width();
        let most = (1..=height).rev().find(|&rows| self.copied_height(rows) * row_bytes <= L2 / 3).unwrap_or(1);
        let row_blocks = height.div_ceil(most);
        let wanted = if threads == 1 { 1 } else { (4 * threads).div_ceil(parts) };
        // Weights that outweigh the map are read once: the panels are shared out, not the rows.
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
                    blocks.push(Block { part, rows, panels });
                }
            }
        }
        blocks
    }
}

/// Weights `[O, C/groups, kh, kw]` of a convolution, by group.
pub(super) struct Filters<'a> {
    data: &'a [f32],
    /// Channels of one group.
    pub(super) inputs: usize,
    /// Channels of one group.
    pub(super) outputs: usize,
    window: usize,
}

impl<'a> Filters<'a> {
    pub(super) fn new(conv: &'a network::Conv) -> Self {
        let window = conv.window.kernel[0] * conv.window.kernel[1];
        let (inputs, outputs) = (conv.in_channels() / conv.groups, conv.out_channels() / conv.groups);
        Self { data: conv.weight.data(), inputs, outputs, window }
    }

    pub(super) fn weight(&self, group: usize, output: usize, input: usize, tap: usize) -> f32 {
        self.data[((group * self.outputs + output) * self.inputs + input) * self.window + tap]
    }
}

/// One block of one image.
struct Piece<'a> {
    part: &'a Part,
    block: &'a Block,
    image: usize,
    source: Map,
    finish: &'a Finish<'a>,
    scratch: *mut f32,
}

impl Job for Piece<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { part, block, source, .. } = self;
        let phase = &part.phase;
        let sums = self.scratch;
        // SAFETY: tiles read the source's rows or their copies, as planned.
        unsafe {
            if part.copied {
                self.copy();
            }
            for panel in &part.weights.panels()[block.panels[0]..block.panels[1]] {
                let weights = part.weights.weights(panel);
                for y in block.rows[0]..block.rows[1] {
                    for (left, right) in cut(phase.grid[1], S::ROWS) {
                        let (row, step) = if part.copied {
                            let row = (y - block.rows[0]) * phase.stride[0] * part.copied_row();
                            let step = phase.stride[1] * part.from[1];
                            (self.scratch.add(SUMS + row + left * step).cast_const(), step)
                        } else {
                            let [dy, dx] = [0, 1].map(|i| part.span[i][0].unsigned_abs());
                            let (sy, sx) = (y * phase.stride[0] + dy, left * phase.stride[1] + dx);
                            let pixel = (self.image * source.height + sy) * source.width + sx;
                            let inside = !part.runs.is_empty();
                            let row = if inside { source.at(pixel).add(part.from[0]) } else { source.data };
                            (row.cast_const(), phase.stride[1] * source.pixel)
                        };
                        for x in (left..right).filter(|_| !part.scattered) {
                            let to = [phase.start[0] + y * phase.step[0], phase.start[1] + x * phase.step[1]];
                            self.finish.prefetch::<S>(self.pixel(to), part.to[0] + panel.first, panel.columns);
                        }
                        let next = Prefetch::of::<S>(weights, panel.vectors);
                        product::<S>(
                            [right - left, panel.vectors],
                            &part.runs,
                            row,
                            step,
                            weights,
                            next,
                            Totals { sums, on: false },
                        );
                        let step = panel.vectors * S::LANES;
                        if part.scattered {
                            let square = Square { step: phase.step, channels: part.to[1] };
                            for x in left..right {
                                let (image, sums) = (self.image, sums.add((x - left) * step));
                                square.scatter::<S>(self.finish, image, [y, x], panel.first, sums, panel.columns);
                            }
                        } else {
                            let to = [phase.start[0] + y * phase.step[0], phase.start[1] + left * phase.step[1]];
                            let (channel, channels) = (part.to[0] + panel.first, panel.columns);
                            let row = Finished::row(self.pixel(to), right - left, channel, channels);
                            self.finish.block::<S>(Finished { apart: phase.step[1], ..row }, sums, [0, step]);
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
        let to = &self.finish.to;
        (self.image * to.height + y) * to.width + x
    }

    /// Copies the block's source rows behind the sums, with zeros where the window leaves the map.
    ///
    /// # Safety
    /// The scratch memory has [`Part::copied_length`] values behind the sums.
    #[inline(always)]
    unsafe fn copy(&self) {
        let Self { part, block, source, .. } = *self;
        let (channels, width) = (part.from[1], part.copied_width());
        let top = (block.rows[0] * part.phase.stride[0]) as isize + part.span[0][0];
        let left = part.span[1][0];
        // Columns of the copy that lie on the map.
        let first = (-left).clamp(0, width as isize).unsigned_abs();
        let last = (source.width as isize - left).clamp(first as isize, width as isize).unsigned_abs();
        // SAFETY: rows and columns are checked against the map's size.
        unsafe {
            for row in 0..part.copied_height(block.rows[1] - block.rows[0]) {
                let to = self.scratch.add(SUMS + row * width * channels);
                let y = top + row as isize;
                if y < 0 || y >= source.height as isize {
                    std::ptr::write_bytes(to, 0, width * channels);
                    continue;
                }
                std::ptr::write_bytes(to, 0, first * channels);
                std::ptr::write_bytes(to.add(last * channels), 0, (width - last) * channels);
                let column = (first as isize + left).unsigned_abs();
                let pixel = (self.image * source.height + y.unsigned_abs()) * source.width + column;
                if last == first {
                    continue;
                }
                let from = source.at(pixel).add(part.from[0]);
                if source.pixel == channels {
                    std::ptr::copy_nonoverlapping(from, to.add(first * channels), (last - first) * channels);
                    continue;
                }
                for x in 0..last - first {
                    let to = to.add((first + x) * channels);
                    std::ptr::copy_nonoverlapping(from.add(x * source.pixel), to, channels);
                }
            }
        }
    }
}
