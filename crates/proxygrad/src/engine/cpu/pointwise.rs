//! Products of every pixel with one matrix: 1x1 convolutions and dense layers.
#![expect(unsafe_code, reason = "register tiles over raw rows")]

use std::ops::Range;

use super::bands::Band;
use super::finish::{Block, Finish};
use super::map::Map;
use super::simd::{Job, Simd};
use super::tile::{Panels, Prefetch, Run, SUMS, Totals, cut, product};
use super::{Banded, L2, Layout, Site};

/// One in how many channels is few.
const FEW: usize = 8;

/// A matrix `[C, O]` that maps every pixel of a source to the same pixel of a destination.
pub(super) struct Pointwise {
    weights: Panels,
    run: Run,
}

impl Pointwise {
    /// Takes the matrix row by row, see [`Panels::new`].
    pub(super) fn new(from: usize, to: usize, layout: Layout, row: impl FnMut(usize, &mut [f32])) -> Self {
        Self { weights: Panels::new(from, to, layout, row), run: Run { offset: 0, count: from, skipped: 0 } }
    }

    /// Computes `finish` from `source`.
    pub(super) fn run(&self, site: &Site<'_>, source: Map, finish: &Finish<'_>) {
        self.run_channels(site, source, finish, &[self.run]);
    }

    /// Computes `finish` from a gradient. Behind an objective that looks at one channel it is zero in all others; these
    /// are left out, which changes no bit.
    pub(super) fn run_gradient(&self, site: &Site<'_>, source: Map, finish: &Finish<'_>) {
        match channels_in_use(&source) {
            Some(runs) => self.run_channels(site, source, finish, &runs),
            None => self.run(site, source, finish),
        }
    }

    fn run_channels(&self, site: &Site<'_>, source: Map, finish: &Finish<'_>, runs: &[Run]) {
        let pixels = source.pixels();
        assert_eq!(source.channels, self.weights.rows());
        assert_eq!(pixels, finish.to.pixels());
        let tile = if site.instructions.lanes() == 16 { 14 } else { 6 };
        let (units, panels) = (pixels.div_ceil(tile), self.weights.panels().len());
        let bytes = 4 * source.channels * tile;
        let wanted = if site.member.count() == 1 { 1 } else { 4 * site.member.count() };
        let fitting = (L2 / 3 / bytes).max(2);
        let heavy = self.weights.bytes() > bytes * units;
        let row_blocks = units.div_ceil(fitting);
        let row_blocks = if heavy { row_blocks } else { row_blocks.max(wanted.min(units.div_ceil(2))) };
        let panel_blocks = wanted.div_ceil(row_blocks).clamp(1, panels);
        site.member.each(row_blocks * panel_blocks, |piece| {
            let (rows, share) = (piece / panel_blocks, piece % panel_blocks);
            let rows = [units * rows / row_blocks * tile, (units * (rows + 1) / row_blocks * tile).min(pixels)];
            let panels = [panels * share / panel_blocks, panels * (share + 1) / panel_blocks];
            let job = Piece { weights: &self.weights, runs, rows, panels, source, finish, sums: site.scratch };
            // SAFETY: the instructions are available; rows and panels lie in the maps, asserted above; no two pieces
            // write the same pixels and channels; the scratch memory is this thread's own.
            unsafe { site.instructions.run(job) };
        });
    }

    /// Bytes of the weights.
    pub(super) fn bytes(&self) -> usize {
        self.weights.bytes()
    }

    /// Values that every thread needs for itself.
    pub(super) fn scratch() -> usize {
        SUMS
    }
}

impl Banded for Pointwise {
    fn reach(&self, rows: &Range<usize>) -> Range<isize> {
        rows.start as isize..rows.end as isize
    }

    fn band(&self, site: &Site<'_>, band: &Band, source: Map, _: Option<*mut f32>, finish: &Finish<'_>) {
        assert_eq!(source.channels, self.weights.rows());
        assert_eq!([source.height, source.width], [finish.to.height, finish.to.width]);
        let rows = [band.rows.start, band.rows.end].map(|row| (band.image * source.height + row) * source.width);
        let panels = [0, self.weights.panels().len()];
        let (weights, runs) = (&self.weights, &[self.run][..]);
        let job = Piece { weights, runs, rows, panels, source, finish, sums: site.scratch };
        // SAFETY: the instructions are available; rows and panels lie in the maps; nobody else writes this band; the
        // scratch memory is this thread's own.
        unsafe { site.instructions.run(job) };
    }
}

/// The channels of a map that are not zero everywhere, when they are few.
fn channels_in_use(map: &Map) -> Option<Vec<Run>> {
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
    weights: &'a Panels,
    runs: &'a [Run],
    rows: [usize; 2],
    panels: [usize; 2],
    source: Map,
    finish: &'a Finish<'a>,
    sums: *mut f32,
}

impl Job for Piece<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { weights, runs, .. } = self;
        for panel in &weights.panels()[self.panels[0]..self.panels[1]] {
            for (first, last) in cut(self.rows[1] - self.rows[0], S::ROWS) {
                let first = self.rows[0] + first;
                let count = self.rows[0] + last - first;
                // SAFETY: the rows lie in the source, the panel in the destination's channels.
                unsafe {
                    let (from, to) = (self.source.at(first), weights.weights(panel));
                    for r in 0..count {
                        self.finish.prefetch::<S>(first + r, panel.first, panel.columns);
                    }
                    let next = Prefetch::of::<S>(to, panel.vectors);
                    product::<S>(
                        [count, panel.vectors],
                        runs,
                        from,
                        self.source.pixel,
                        to,
                        next,
                        Totals { sums: self.sums, on: false },
                    );
                    let block = Block::row(first, count, panel.first, panel.columns);
                    self.finish.block::<S>(block, self.sums, [0, panel.vectors * S::LANES]);
                }
            }
        }
    }
}
