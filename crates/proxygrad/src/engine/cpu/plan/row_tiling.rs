//! Row tiling: how many rows of a fused group are computed at a time, so that the maps between its steps stay in the
//! cache.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::engine::cpu::buffer::CACHE_LINE;
use crate::engine::cpu::kernel::{Direction, Kernel, L2_BYTES, MICRO_BATCH, RowKernel};

/// When steps are fused into a row-tiled group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TilingLimits {
    /// Smallest map between two steps that is worth keeping out of memory, in bytes.
    pub(crate) min_map_bytes: usize,
    /// Bytes of a thread's cache for the maps between the steps.
    pub(crate) cache_bytes: usize,
}

impl Default for TilingLimits {
    fn default() -> Self {
        Self { min_map_bytes: L2_BYTES, cache_bytes: L2_BYTES / 4 }
    }
}

/// Consecutive steps of one direction that run together.
pub(crate) struct FusedGroup {
    /// Indices of the steps.
    pub(crate) range: Range<usize>,
    /// None for a single step.
    pub(crate) tiling: Option<RowTiling>,
}

/// The row tiling of a fused group.
pub(crate) struct RowTiling {
    /// Rows of the last map that are computed at a time.
    pub(crate) rows: usize,
    /// Length of the row buffer of each map between the steps.
    pub(crate) buffers: Vec<usize>,
    /// For each of these maps and each image of a micro-batch, whether a value other than zero was found.
    pub(crate) nonzero: Vec<[AtomicBool; MICRO_BATCH]>,
}

/// A step that may join a group: its kernel, and the height and values per row of the map that it fills.
pub(crate) struct GroupStep {
    pub(crate) kernel: Arc<dyn Kernel>,
    pub(crate) height: usize,
    pub(crate) row_len: usize,
}

/// The rows of each step's map that some rows of the last map are computed from. `passes` are the row kernels with the
/// heights of the maps that they fill.
pub(crate) fn required_rows(passes: &[(&dyn RowKernel, usize)], rows: Range<usize>) -> Vec<Range<usize>> {
    let mut required = vec![rows.clone(); passes.len()];
    let is_end = passes.last().is_some_and(|&(_, height)| rows.end == height);
    for i in (0..passes.len().saturating_sub(1)).rev() {
        let (read, height) = (passes[i + 1].0.input_rows(&required[i + 1]), passes[i].1);
        let clamp = |row: isize| row.clamp(0, height as isize).unsigned_abs();
        // Rows that are never read have an activation mask too.
        let start = if rows.start == 0 { 0 } else { clamp(read.start) };
        let end = if is_end { height } else { clamp(read.end) };
        required[i] = start..end.max(start);
    }
    required
}

impl RowTiling {
    /// The largest tiling whose maps fit the cache. None if not even one row fits, or if the windows skip rows.
    pub(crate) fn fit(steps: &[GroupStep], direction: Direction, limits: TilingLimits) -> Option<Self> {
        let passes: Option<Vec<(&dyn RowKernel, usize)>> =
            steps.iter().map(|step| Some((step.kernel.row_kernel(direction)?, step.height))).collect();
        let (passes, last) = (passes?, steps.last()?.height);
        let between = steps.len() - 1;
        let of_row: Vec<Vec<Range<usize>>> = (0..last).map(|row| required_rows(&passes, row..row + 1)).collect();
        let in_order = |[a, b]: [&Range<usize>; 2]| a.start <= b.start && b.start <= a.end && a.end <= b.end;
        if !of_row.windows(2).all(|pair| (0..between).all(|i| in_order([&pair[0][i], &pair[1][i]]))) {
            return None;
        }
        let buffers = |rows: usize| -> Vec<usize> {
            let held = |first: usize, i: usize| of_row[(first + rows).min(last) - 1][i].end - of_row[first][i].start;
            let most = |i: usize| (0..last).map(|first| held(first, i)).max().unwrap_or(0);
            (0..between).map(|i| most(i) * steps[i].row_len).collect()
        };
        let fits = |rows: usize, bytes: usize| buffers(rows).iter().sum::<usize>() * size_of::<f32>() <= bytes;
        if last == 0 || !fits(1, 2 * limits.cache_bytes) {
            return None;
        }
        let rows = (1..=last).take_while(|&rows| fits(rows, limits.cache_bytes)).last().unwrap_or(1);
        let nonzero = (0..between).map(|_| Default::default()).collect();
        Some(Self { rows, buffers: buffers(rows), nonzero })
    }

    /// Values of private memory per thread.
    pub(crate) fn scratch_len(&self) -> usize {
        self.buffers.iter().map(|length| length.next_multiple_of(CACHE_LINE)).sum()
    }

    /// Resets [`RowTiling::nonzero`].
    pub(crate) fn clear_nonzero(&self) {
        self.nonzero.iter().flatten().for_each(|nonzero| nonzero.store(false, Ordering::Relaxed));
    }

    /// Whether every map of these images has a value other than zero.
    pub(crate) fn all_nonzero(&self, images: usize) -> bool {
        self.nonzero.iter().all(|nonzero| nonzero[..images].iter().all(|nonzero| nonzero.load(Ordering::Relaxed)))
    }
}
