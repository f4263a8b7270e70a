//! Sliding windows as lists of taps, for the forward and the backward pass.
//!
//! Forward, output pixel `o` reads input pixels `o * stride + k * dilation - padding`. Backward, the input pixels form
//! `stride x stride` phases (every `stride`-th row and column), and each pixel of a phase reads the output's gradient
//! at the same offsets. Both are a [`Phase`]: a grid of pixels that read at fixed offsets from scaled positions.

use std::ops::Range;

use crate::network::Window;

/// A grid of destination pixels that read the same taps.
pub(crate) struct Phase {
    /// Height and width of the grid.
    pub(crate) grid: [usize; 2],
    /// First destination row and column.
    pub(crate) start: [usize; 2],
    /// Distance of neighbouring destination pixels.
    pub(crate) spacing: [usize; 2],
    /// Distance of the sources of neighbouring pixels.
    pub(crate) stride: [usize; 2],
    pub(crate) taps: Vec<Tap>,
}

/// One tap of a window.
pub(crate) struct Tap {
    /// Index of the tap in the window, row-major.
    pub(crate) index: usize,
    /// Source of the grid's first pixel; may lie outside the map.
    pub(crate) offset: [isize; 2],
}

impl Phase {
    /// The only phase of the forward pass.
    pub(crate) fn forward(window: &Window, output: [usize; 2]) -> Self {
        let taps = indices(window).map(|(index, k)| Tap {
            index,
            offset: [0, 1].map(|i| (k[i] * window.dilation[i]) as isize - window.before()[i] as isize),
        });
        Self { grid: output, start: [0, 0], spacing: [1, 1], stride: window.stride, taps: taps.collect() }
    }

    /// The phases of the backward pass, which together cover the map of size `input`. Pixels that no window reads have
    /// no taps.
    pub(crate) fn backward(window: &Window, input: [usize; 2]) -> Vec<Self> {
        let [sy, sx] = window.stride;
        let phases = (0..sy).flat_map(|ry| (0..sx).map(move |rx| [ry, rx]));
        phases
            .map(|start| {
                let grid = [0, 1].map(|i| input[i].saturating_sub(start[i]).div_ceil(window.stride[i]));
                // Pixel `start + j * stride` is read by output `o` through tap `k` when
                // `o * stride = start + j * stride + padding - k * dilation`.
                let tap = |(index, k): (usize, [usize; 2])| {
                    let mut offset = [0; 2];
                    for i in 0..2 {
                        let stride = window.stride[i] as isize;
                        let distance = (start[i] + window.before()[i]) as isize - (k[i] * window.dilation[i]) as isize;
                        if distance.rem_euclid(stride) != 0 {
                            return None;
                        }
                        offset[i] = distance.div_euclid(stride);
                    }
                    Some(Tap { index, offset })
                };
                let taps = indices(window).filter_map(tap).collect();
                Self { grid, start, spacing: window.stride, stride: [1, 1], taps }
            })
            .filter(|phase| !phase.grid.contains(&0))
            .collect()
    }

    /// The backward phases as one grid of pixel blocks of `stride` pixels that reads the offsets of all phases. Also
    /// returns, for each of its taps and each pixel of a block, the tap of the window, if the pixel has one there.
    pub(crate) fn together(window: &Window, input: [usize; 2], phases: Vec<Self>) -> (Self, Vec<Vec<Option<usize>>>) {
        let mut offsets: Vec<[isize; 2]> = phases.iter().flat_map(|phase| &phase.taps).map(|tap| tap.offset).collect();
        offsets.sort_unstable();
        offsets.dedup();
        let pixel_block = window.stride[0] * window.stride[1];
        let mut members = vec![vec![None; pixel_block]; offsets.len()];
        for phase in &phases {
            let place = phase.start[0] * window.stride[1] + phase.start[1];
            for tap in &phase.taps {
                if let Ok(at) = offsets.binary_search(&tap.offset) {
                    members[at][place] = Some(tap.index);
                }
            }
        }
        let grid = [0, 1].map(|i| input[i].div_ceil(window.stride[i]));
        let taps = offsets.into_iter().map(|offset| Tap { index: 0, offset }).collect();
        (Self { grid, start: [0, 0], spacing: window.stride, stride: [1, 1], taps }, members)
    }

    /// Source column or row of destination `j` along axis `i` for a tap, None outside a map of this length.
    #[inline(always)]
    pub(crate) fn source(&self, i: usize, j: usize, tap: &Tap, length: usize) -> Option<usize> {
        let position = tap.offset[i] + (j * self.stride[i]) as isize;
        usize::try_from(position).ok().filter(|&position| position < length)
    }
}

/// A source pixel that a destination pixel reads, and the tap.
#[derive(Clone, Copy)]
pub(crate) struct Read {
    /// Row-major index in the source map.
    pub(crate) pixel: usize,
    /// Index of the tap in the window.
    pub(crate) tap: usize,
}

impl Phase {
    /// The row of the grid in row `y` of the destination.
    pub(crate) fn row_at(&self, y: usize) -> Option<usize> {
        let distance = y.checked_sub(self.start[0])?;
        (distance.is_multiple_of(self.spacing[0]) && distance / self.spacing[0] < self.grid[0])
            .then_some(distance / self.spacing[0])
    }

    /// The rows of the grid in some rows of the destination.
    pub(crate) fn rows_in(&self, rows: &Range<usize>) -> Range<usize> {
        let before = |row: usize| row.saturating_sub(self.start[0]).div_ceil(self.spacing[0]).min(self.grid[0]);
        before(rows.start)..before(rows.end)
    }

    /// The rows of the source that some rows of the destination read, which may be outside the map.
    pub(crate) fn input_rows<'a>(phases: impl IntoIterator<Item = &'a Self>, rows: &Range<usize>) -> Range<isize> {
        let reach = |phase: &Self| {
            let grid = phase.rows_in(rows);
            let offsets = || phase.taps.iter().map(|tap| tap.offset[0]);
            let at = |row: usize| (row * phase.stride[0]) as isize;
            let (first, last) = (offsets().min()?, offsets().max()?);
            (!grid.is_empty()).then(|| at(grid.start) + first..at(grid.end - 1) + last + 1)
        };
        let union = |a: Range<isize>, b: Range<isize>| a.start.min(b.start)..a.end.max(b.end);
        phases.into_iter().filter_map(reach).reduce(union).unwrap_or(0..0)
    }

    /// The reads of a pixel of the grid from a map of height and width `size`.
    pub(crate) fn reads(&self, [row, column]: [usize; 2], size: [usize; 2]) -> impl Iterator<Item = Read> {
        self.taps.iter().filter_map(move |tap| {
            let y = self.source(0, row, tap, size[0])?;
            let x = self.source(1, column, tap, size[1])?;
            Some(Read { pixel: y * size[1] + x, tap: tap.index })
        })
    }

    /// The columns of the grid whose taps all lie within a map of width `width`: they read the same taps, shifted by
    /// the stride.
    pub(crate) fn whole(&self, width: usize) -> std::ops::Range<usize> {
        let offsets = || self.taps.iter().map(|tap| tap.offset[1]);
        let (left, right) = (offsets().min().unwrap_or(0), offsets().max().unwrap_or(0));
        let (stride, columns) = (self.stride[1], self.grid[1]);
        let first = (-left).max(0).unsigned_abs().div_ceil(stride).min(columns);
        let room = width as isize - right;
        let last = if room > 0 { room.unsigned_abs().div_ceil(stride).min(columns) } else { 0 };
        first..last.max(first)
    }
}

fn indices(window: &Window) -> impl Iterator<Item = (usize, [usize; 2])> {
    let [height, width] = window.kernel;
    (0..height * width).map(move |index| (index, [index / width, index % width]))
}
