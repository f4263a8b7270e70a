//! Depthwise convolution along rows: an input value that several neighbouring outputs read is loaded once.
#![expect(unsafe_code, reason = "vector code over raw pixels")]

use std::mem::MaybeUninit;

use crate::engine::cpu::epilogue::{Epilogue, OutputRegion};
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::kernels::taps::Phase;
use crate::engine::cpu::simd::vector::{Simd, SimdOp, load_vector};

/// Neighbouring pixels that are computed together: a divisor of common map widths.
const COUNT: usize = 7;

/// A window whose rows have the same contiguous taps.
pub(crate) struct DepthwiseRows {
    window_rows: Vec<WindowRow>,
    /// Taps per row.
    taps: usize,
    /// Column that the first tap of the first pixel reads.
    left: isize,
    /// Distance of the columns that neighbouring pixels read.
    stride: usize,
}

/// One row of the window.
struct WindowRow {
    /// Row that the first row of pixels reads.
    top: isize,
    /// Index of the first tap in the window, and distance to the next.
    tap: [isize; 2],
}

impl DepthwiseRows {
    /// None for a window that is not supported, or for which it does not pay: strided windows share few values, and
    /// instruction sets with vectors of 8 have few registers.
    pub(crate) fn new(phase: &Phase, lanes: usize) -> Option<Self> {
        let mut taps: Vec<([isize; 2], isize)> =
            phase.taps.iter().map(|tap| (tap.offset, tap.index as isize)).collect();
        taps.sort_unstable();
        let rows: Vec<&[([isize; 2], isize)]> = taps.chunk_by(|a, b| a.0[0] == b.0[0]).collect();
        let (length, left) = (rows.first()?.len(), rows.first()?.first()?.0[1]);
        let window_row = |row: &&[([isize; 2], isize)]| {
            let step = if let [(_, first), (_, second), ..] = row { second - first } else { 0 };
            let even = row
                .iter()
                .enumerate()
                .all(|(t, &([_, x], index))| x == left + t as isize && index == row[0].1 + t as isize * step);
            (even && row.len() == length).then_some(WindowRow { top: row[0].0[0], tap: [row[0].1, step] })
        };
        let window_rows = rows.iter().map(window_row).collect::<Option<Vec<_>>>()?;
        let known = matches!((length, phase.stride[1]), (2 | 3 | 5, 1) | (3 | 5, 2));
        let pays = phase.stride[1] == 1 || lanes == 16;
        (known && pays).then_some(Self { window_rows, taps: length, left, stride: phase.stride[1] })
    }
}

/// One row of a phase's grid of one image.
pub(crate) struct SlidingRow<'a> {
    pub(crate) sliding: &'a DepthwiseRows,
    pub(crate) phase: &'a Phase,
    /// `[taps, channels]`, with `pixel` channels.
    pub(crate) weights: &'a [f32],
    pub(crate) pixel: usize,
    pub(crate) image: usize,
    pub(crate) row: usize,
    pub(crate) source: FeatureMap,
    pub(crate) epilogue: &'a Epilogue<'a>,
}

impl SimdOp for SlidingRow<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the caller's.
        unsafe {
            match (self.sliding.taps, self.sliding.stride) {
                (2, 1) => self.pixels::<S, 2, 1>(),
                (3, 1) => self.pixels::<S, 3, 1>(),
                (5, 1) => self.pixels::<S, 5, 1>(),
                (3, 2) => self.pixels::<S, 3, 2>(),
                _ => self.pixels::<S, 5, 2>(),
            }
        }
    }
}

impl SlidingRow<'_> {
    /// # Safety
    /// As [`Simd`]; the row lies in the grid, and the grid in the destination.
    #[inline(always)]
    unsafe fn pixels<S: Simd, const TAPS: usize, const STRIDE: usize>(&self) {
        let (width, channels) = (self.phase.grid[1], self.epilogue.to.channels);
        let mut x = 0;
        while x < width {
            let count = COUNT.min(width - x);
            let mut channel = 0;
            // SAFETY: the caller's; channels after the last are not read from the source.
            unsafe {
                // With few registers there is room for one vector of sums only.
                while S::TILE_ROWS > COUNT && channel + 2 * S::LANES <= channels {
                    S::call(Sums::<'_, TAPS, STRIDE, 2, true> { row: self, x, count, channel });
                    channel += 2 * S::LANES;
                }
                while channel + S::LANES <= channels {
                    S::call(Sums::<'_, TAPS, STRIDE, 1, true> { row: self, x, count, channel });
                    channel += S::LANES;
                }
                if channel < channels {
                    S::call(Sums::<'_, TAPS, STRIDE, 1, false> { row: self, x, count, channel });
                }
            }
            x += count;
        }
    }
}

/// [`COUNT`] neighbouring pixels, of which the first `count` exist, in `VECTORS` vectors of channels; the last vector
/// is partial unless `WHOLE`.
struct Sums<'a, const TAPS: usize, const STRIDE: usize, const VECTORS: usize, const WHOLE: bool> {
    row: &'a SlidingRow<'a>,
    x: usize,
    count: usize,
    channel: usize,
}

impl<const TAPS: usize, const STRIDE: usize, const VECTORS: usize, const WHOLE: bool> SimdOp
    for Sums<'_, TAPS, STRIDE, VECTORS, WHOLE>
{
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { row, x, count, channel } = self;
        let SlidingRow { sliding, phase, weights, pixel, source, epilogue, .. } = *row;
        let to = &epilogue.to;
        let y = phase.start[0] + row.row * phase.spacing[0];
        let first = (row.image * to.height + y) * to.width + phase.start[1] + x * phase.spacing[1];
        let left = to.channels - channel;
        let channels = if WHOLE { VECTORS * S::LANES } else { left };
        // SAFETY: the caller's; rows and columns outside the map are skipped.
        unsafe {
            for i in count..2 * count {
                epilogue.prefetch::<S>(first + i * phase.spacing[1], channel, channels);
            }
            let column = sliding.left + (x * STRIDE) as isize;
            let mut sums = [[S::splat(0.0); VECTORS]; COUNT];
            for window_row in &sliding.window_rows {
                let y = window_row.top + (row.row * phase.stride[0]) as isize;
                if y < 0 || y >= source.height as isize {
                    continue;
                }
                let mut taps = [[S::splat(0.0); VECTORS]; TAPS];
                for (t, tap) in taps.iter_mut().enumerate() {
                    let at = (window_row.tap[0] + t as isize * window_row.tap[1]).unsigned_abs() * pixel + channel;
                    for (v, tap) in tap.iter_mut().enumerate() {
                        *tap = S::load(weights.as_ptr().add(at + v * S::LANES));
                    }
                }
                let start = (row.image * source.size()) as isize + y * source.width as isize + column;
                // Not read where it is outside the map, or where only some rows are in memory.
                let from = source.data.wrapping_offset(start * source.pixel_stride as isize).wrapping_add(channel);
                macro_rules! positions {
                    ($($position:literal)*) => {
                        $(if $position < (COUNT - 1) * STRIDE + TAPS
                            && (column + $position).unsigned_abs() < source.width
                            && column + $position >= 0
                        {
                            let from = from.wrapping_add($position * source.pixel_stride).cast_const();
                            for v in 0..VECTORS {
                                let value = load_vector::<S, WHOLE>(from.add(v * S::LANES), left);
                                for (t, tap) in taps.iter().enumerate() {
                                    if $position >= t && ($position - t) % STRIDE == 0 {
                                        if let Some(sum) = sums.get_mut(($position - t) / STRIDE) {
                                            sum[v] = S::mul_add(value, tap[v], sum[v]);
                                        }
                                    }
                                }
                            }
                        })*
                    };
                }
                positions!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16);
            }
            let mut staged = MaybeUninit::<[f32; COUNT * 2 * 16]>::uninit();
            let staged = staged.as_mut_ptr().cast::<f32>();
            let step = VECTORS * S::LANES;
            for (i, sum) in sums.iter().enumerate() {
                for (v, &sum) in sum.iter().enumerate() {
                    S::store(staged.add(i * step + v * S::LANES), sum);
                }
            }
            let block =
                OutputRegion { pixel_step: phase.spacing[1], ..OutputRegion::row(first, count, channel, channels) };
            epilogue.store_region::<S>(block, staged, [0, step]);
        }
    }
}
