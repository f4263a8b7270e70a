//! Products of every pixel with one matrix: 1x1 convolutions and dense layers.
#![expect(unsafe_code, reason = "register tiles over raw rows")]

use super::finish::Finish;
use super::map::Map;
use super::simd::{Job, Simd};
use super::tile::{Panels, Run, SUMS, cut, product};
use super::{L2, Site};

/// A matrix `[C, O]` that maps every pixel of a source to the same pixel of a destination.
pub(super) struct Pointwise {
    weights: Panels,
    run: [Run; 1],
}

impl Pointwise {
    /// Takes the matrix row by row, see [`Panels::new`].
    pub(super) fn new(from: usize, to: usize, lanes: usize, row: impl FnMut(usize, &mut [f32])) -> Self {
        Self { weights: Panels::new(from, to, lanes, row), run: [Run { offset: 0, count: from }] }
    }

    /// Computes `finish` from `source`.
    pub(super) fn run(&self, site: &Site<'_>, source: Map, finish: &Finish<'_>) {
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
            let job = Piece { pointwise: self, rows, panels, source, finish, sums: site.scratch };
            // SAFETY: the instructions are available; rows and panels lie in the maps, asserted above; no two pieces
            // write the same pixels and channels; the scratch memory is this thread's own.
            unsafe { site.instructions.run(job) };
        });
    }

    /// Values that every thread needs for itself.
    pub(super) fn scratch() -> usize {
        SUMS
    }
}

struct Piece<'a> {
    pointwise: &'a Pointwise,
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
        let Pointwise { weights, run } = self.pointwise;
        for panel in &weights.panels()[self.panels[0]..self.panels[1]] {
            for (first, last) in cut(self.rows[1] - self.rows[0], S::ROWS) {
                let first = self.rows[0] + first;
                let count = self.rows[0] + last - first;
                // SAFETY: the rows lie in the source, the panel in the destination's channels.
                unsafe {
                    let (from, to) = (self.source.at(first), weights.weights(panel));
                    product::<S>([count, panel.vectors], run, from, self.source.pixel, to, self.sums);
                    for r in 0..count {
                        let sums = self.sums.add(r * panel.vectors * S::LANES);
                        self.finish.row::<S>(first + r, panel.first, sums, panel.columns);
                    }
                }
            }
        }
    }
}
