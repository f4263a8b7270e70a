//! Row-tiled (depth-first) execution of a fused group: a few rows of every map at a time, by one thread.
//!
//! A map between two steps that exceeds the cache would be written to memory by one step and read back by the next. A
//! fused group instead computes a few rows of its last map, and of the maps before it only the rows that these depend
//! on, in row buffers that stay in the cache. Rows that the next tile reads again are kept; at the border to another
//! thread's tiles they are computed twice. The sums are the same as without tiling, bit for bit.
#![expect(unsafe_code, reason = "maps in a thread's private memory")]

use std::ops::Range;
use std::sync::atomic::Ordering;

use crate::engine::cpu::buffer::CACHE_LINE;
use crate::engine::cpu::epilogue::Epilogue;
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::kernel::{RowKernel, RowRange, ThreadCtx};
use crate::engine::cpu::plan::row_tiling::{RowTiling, required_rows};

/// One step of a group that is being executed.
pub(crate) struct TiledStep<'a> {
    pub(crate) pass: &'a dyn RowKernel,
    /// As in [`ForwardArgs`](crate::engine::cpu::kernel::ForwardArgs).
    pub(crate) saved: Option<*mut f32>,
    /// Its destination is only used for its shape, except in the last step.
    pub(crate) epilogue: Epilogue<'a>,
}

impl RowTiling {
    /// Computes all images from `source`; `buffers` is private memory of the thread. `track_zeros` updates
    /// [`RowTiling::nonzero`].
    pub(crate) fn run(
        &self,
        ctx: &ThreadCtx<'_>,
        source: FeatureMap,
        steps: &[TiledStep<'_>],
        buffers: *mut f32,
        track_zeros: bool,
    ) {
        let passes: Vec<(&dyn RowKernel, usize)> =
            steps.iter().map(|step| (step.pass, step.epilogue.to.height)).collect();
        let Some(&(_, height)) = passes.last() else { return };
        let pieces = pieces_per_image(source.images, ctx.worker.count()).min(height);
        ctx.worker.for_each_piece(source.images * pieces, |piece| {
            let (image, piece) = (piece / pieces, piece % pieces);
            let rows = height * piece / pieces..height * (piece + 1) / pieces;
            // End of the rows that the previous piece computes.
            let before = match rows.start {
                0 => vec![0; steps.len()],
                start => required_rows(&passes, start - 1..start).into_iter().map(|rows| rows.end).collect(),
            };
            let mut row_buffers: Vec<RowBuffer> = Vec::with_capacity(self.buffers.len());
            let first = required_rows(&passes, rows.start..rows.start + 1);
            let mut offset = 0;
            for (length, required) in self.buffers.iter().zip(first) {
                // SAFETY: the memory has `self.scratch_len()` values.
                let data = unsafe { buffers.add(offset) };
                row_buffers.push(RowBuffer { data, rows: required.start..required.start });
                offset += length.next_multiple_of(CACHE_LINE);
            }
            let mut top = rows.start;
            while top < rows.end {
                let bottom = (top + self.rows).min(rows.end);
                let mut source = source;
                for (i, (step, required)) in steps.iter().zip(required_rows(&passes, top..bottom)).enumerate() {
                    let Some(buffer) = row_buffers.get_mut(i) else {
                        let range = RowRange { image, rows: required };
                        step.pass.compute_rows(ctx, &range, source, step.saved, &step.epilogue);
                        break;
                    };
                    // SAFETY: the buffer has room for all rows of a tile.
                    let (to, fresh) = unsafe { buffer.advance(&step.epilogue.to, image, &required) };
                    let again = fresh.start..fresh.end.min(before[i].max(fresh.start));
                    let once = again.end..fresh.end;
                    let epilogue = Epilogue { to, ..step.epilogue };
                    if !again.is_empty() {
                        let epilogue = Epilogue { mask: None, record: None, ..epilogue };
                        let range = RowRange { image, rows: again };
                        step.pass.compute_rows(ctx, &range, source, step.saved, &epilogue);
                    }
                    if !once.is_empty() {
                        let range = RowRange { image, rows: once };
                        step.pass.compute_rows(ctx, &range, source, step.saved, &epilogue);
                    }
                    if track_zeros && !self.nonzero[i][image].load(Ordering::Relaxed) {
                        let [first, last] = [fresh.start, fresh.end].map(|row| (image * to.height + row) * to.width);
                        // SAFETY: this thread has just computed these rows.
                        if !unsafe { to.is_zero(first..last) } {
                            self.nonzero[i][image].store(true, Ordering::Relaxed);
                        }
                    }
                    source = to;
                }
                top = bottom;
            }
        });
    }
}

/// Pieces per image at which all threads get the same amount of work, or many small pieces.
fn pieces_per_image(images: usize, threads: usize) -> usize {
    (1..=threads).find(|pieces| (images * pieces).is_multiple_of(threads)).unwrap_or(threads)
}

/// Rolling buffer of consecutive rows of one map.
struct RowBuffer {
    data: *mut f32,
    rows: Range<usize>,
}

impl RowBuffer {
    /// Drops the rows before `required`. Returns a map that holds all rows of `required`, and which of them are still
    /// to be computed.
    ///
    /// # Safety
    /// The memory has room for the rows of `required`.
    unsafe fn advance(
        &mut self,
        like: &FeatureMap,
        image: usize,
        required: &Range<usize>,
    ) -> (FeatureMap, Range<usize>) {
        let row_len = like.width * like.channels;
        let kept = required.start.max(self.rows.start).min(self.rows.end)..self.rows.end;
        if kept.start > self.rows.start && !kept.is_empty() {
            // SAFETY: both ranges are within the buffer.
            unsafe {
                let from = self.data.add((kept.start - self.rows.start) * row_len);
                std::ptr::copy(from, self.data, kept.len() * row_len);
            }
        }
        self.rows = kept.start..required.end.max(kept.end);
        let data = self.data.wrapping_sub((image * like.height + kept.start) * row_len);
        (FeatureMap { data, pixel_stride: like.channels, ..*like }, kept.end..self.rows.end)
    }
}
