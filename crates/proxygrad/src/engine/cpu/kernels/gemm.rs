//! GEMM microkernel: a few rows of pixels times a packed panel of weights, with the sums in registers.
#![expect(unsafe_code, reason = "a register tile over raw rows")]

use crate::engine::cpu::buffer::Buffer;
use crate::engine::cpu::kernel::KernelConfig;
use crate::engine::cpu::simd::vector::{Simd, SimdOp};

/// What the microkernel prefetches while it runs: `pace` values more for every product.
#[derive(Clone, Copy)]
pub(crate) struct Prefetch {
    pub(crate) from: *const f32,
    pub(crate) pace: usize,
}

/// Where the microkernel writes its sums.
#[derive(Clone, Copy)]
pub(crate) struct Accumulator {
    /// `[rows, vectors * lanes]`.
    pub(crate) sums: *mut f32,
    /// Whether the products are added to the sums in memory.
    pub(crate) accumulate: bool,
}

impl Prefetch {
    /// Distance of the prefetched weights, in values.
    const DISTANCE: usize = 1024;

    /// Prefetches weights that are read in order from `b` on, `vectors` vectors per row.
    #[inline(always)]
    pub(crate) fn of<S: Simd>(b: *const f32, vectors: usize) -> Self {
        Self { from: b.wrapping_add(Self::DISTANCE), pace: vectors * S::LANES }
    }
}

/// Maximum number of rows of a tile on any instruction set.
pub(crate) const MOST_ROWS: usize = 14;

/// Maximum number of sums of a tile: its rows, of two vectors of 16.
pub(crate) const TILE_SUMS: usize = MOST_ROWS * 32;

/// Rows of a tile this many values apart, or a multiple, begin in the same set of a first-level cache: the lines that
/// a tile reads at once would displace each other. Such rows are copied first.
pub(crate) const CACHE_PERIOD: usize = 1024;

/// Values after every copied row, so that rows begin in different sets.
pub(crate) const CACHE_PADDING: usize = 16;

/// A run of consecutive values in every row of pixels.
#[derive(Clone, Copy)]
pub(crate) struct Run {
    /// Offset from the start of the row.
    pub(crate) offset: isize,
    pub(crate) count: usize,
    /// Rows of the weights that are skipped before it.
    pub(crate) skipped: usize,
}

/// A matrix `[K, N]` packed into panels of at most two vectors of columns, each `[K, vectors * lanes]`, padded with
/// zeros.
pub(crate) struct PackedMatrix {
    data: Buffer,
    panels: Vec<Panel>,
    rows: usize,
    /// Values of the whole matrix, also where they were left out.
    length: usize,
}

/// One panel of a packed matrix.
#[derive(Clone, Copy)]
pub(crate) struct Panel {
    /// First column.
    pub(crate) first: usize,
    /// Columns without the padding.
    pub(crate) columns: usize,
    pub(crate) vectors: usize,
    start: usize,
}

impl PackedMatrix {
    /// Packs the matrix whose rows `row` fills in one after another; without weights it only computes the sizes.
    pub(crate) fn new(
        rows: usize,
        columns: usize,
        config: KernelConfig,
        mut row: impl FnMut(usize, &mut [f32]),
    ) -> Self {
        let lanes = config.lanes;
        let mut panels = Vec::new();
        let (mut first, mut start) = (0, 0);
        while first < columns {
            let count = (columns - first).min(2 * lanes);
            let vectors = count.div_ceil(lanes);
            panels.push(Panel { first, columns: count, vectors, start });
            start += rows * vectors * lanes;
            first += count;
        }
        if config.weightless {
            return Self { data: Buffer::new(0), panels, rows, length: start };
        }
        let mut data = Buffer::new(start);
        let mut line = vec![0.0; columns];
        for k in 0..rows {
            row(k, &mut line);
            for panel in &panels {
                let at = panel.start + k * panel.vectors * lanes;
                let part = &line[panel.first..panel.first + panel.columns];
                data.values_mut()[at..at + panel.columns].copy_from_slice(part);
            }
        }
        Self { data, panels, rows, length: start }
    }

    #[inline(always)]
    pub(crate) fn panels(&self) -> &[Panel] {
        &self.panels
    }

    /// Rows `K`.
    #[inline(always)]
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of the matrix.
    pub(crate) fn bytes(&self) -> usize {
        Buffer::bytes(self.length)
    }

    /// First row of a panel.
    #[inline(always)]
    pub(crate) fn panel_data(&self, panel: &Panel) -> *const f32 {
        self.data.values()[panel.start..].as_ptr()
    }
}

/// Computes `sums[r, c] = sum over k of a[r][k] * b[k, c]`, with k running over `runs` in order, optionally added to
/// the sums in memory. Each sum is one chain of multiply-adds, so it depends neither on how rows are divided into tiles
/// nor on where a sum is interrupted and resumed.
///
/// `a[r]` starts at `a + r * row_stride`; `b` is `[K, vectors * lanes]`; `sums` is `[rows, vectors * lanes]`.
///
/// # Safety
/// As [`Simd`]; `1 <= rows <= S::TILE_ROWS`, `vectors` is 1 or 2, and the runs, `b` and `sums` are in memory.
#[inline(always)]
pub(crate) unsafe fn microkernel<S: Simd>(
    [rows, vectors]: [usize; 2],
    runs: &[Run],
    a: *const f32,
    row_stride: usize,
    b: *const f32,
    prefetch: Prefetch,
    to: Accumulator,
) {
    macro_rules! dispatch {
        ($($count:literal)*) => {
            match (rows, vectors) {
                // SAFETY: the caller's.
                $(($count, 1) => unsafe { S::call(Tile::<'_, $count, 1> { runs, a, row_stride, b, prefetch, to }) },)*
                // SAFETY: the caller's.
                $(($count, 2) => unsafe { S::call(Tile::<'_, $count, 2> { runs, a, row_stride, b, prefetch, to }) },)*
                _ => debug_assert!(false, "a tile of {rows} x {vectors}"),
            }
        };
    }
    match S::TILE_ROWS {
        14 => dispatch!(1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        6 => dispatch!(1 2 3 4 5 6),
        _ => dispatch!(1 2 3 4),
    }
}

struct Tile<'a, const ROWS: usize, const VECTORS: usize> {
    runs: &'a [Run],
    a: *const f32,
    row_stride: usize,
    b: *const f32,
    prefetch: Prefetch,
    to: Accumulator,
}

impl<const ROWS: usize, const VECTORS: usize> SimdOp for Tile<'_, ROWS, VECTORS> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: all accesses are documented at `microkernel`.
        unsafe {
            let Self { runs, a, row_stride, mut b, prefetch: Prefetch { from: mut next, pace }, to } = self;
            let Accumulator { sums, accumulate } = to;
            let mut totals = [[S::splat(0.0); VECTORS]; ROWS];
            if accumulate {
                for (r, total) in totals.iter_mut().enumerate() {
                    for (v, total) in total.iter_mut().enumerate() {
                        *total = S::load(sums.add((r * VECTORS + v) * S::LANES));
                    }
                }
            }
            for run in runs {
                let mut a = a.offset(run.offset);
                b = b.add(run.skipped * VECTORS * S::LANES);
                next = next.wrapping_add(run.skipped * pace);
                for _ in 0..run.count {
                    let mut weights = [S::splat(0.0); VECTORS];
                    for (v, weight) in weights.iter_mut().enumerate() {
                        *weight = S::load(b.add(v * S::LANES));
                        S::prefetch(next.wrapping_add(v * S::LANES));
                    }
                    for (r, total) in totals.iter_mut().enumerate() {
                        let value = S::splat(*a.add(r * row_stride));
                        for v in 0..VECTORS {
                            total[v] = S::mul_add(value, weights[v], total[v]);
                        }
                    }
                    a = a.add(1);
                    b = b.add(VECTORS * S::LANES);
                    next = next.wrapping_add(pace);
                }
            }
            for (r, total) in totals.iter().enumerate() {
                for (v, &total) in total.iter().enumerate() {
                    S::store(sums.add((r * VECTORS + v) * S::LANES), total);
                }
            }
        }
    }
}

/// Splits `length` into the fewest pieces of at most `most`, as even as possible.
#[inline(always)]
pub(crate) fn split_evenly(length: usize, most: usize) -> EvenSplit {
    EvenSplit { length, pieces: length.div_ceil(most), next: 0 }
}

/// See [`split_evenly`].
pub(crate) struct EvenSplit {
    length: usize,
    pieces: usize,
    next: usize,
}

impl Iterator for EvenSplit {
    type Item = (usize, usize);

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        let i = self.next;
        self.next += 1;
        (i < self.pieces).then(|| (self.length * i / self.pieces, self.length * (i + 1) / self.pieces))
    }
}
