//! Depthwise windows that slide along a row: what neighbouring pixels both read is loaded once.
#![expect(unsafe_code, reason = "vector code over raw pixels")]

use std::mem::MaybeUninit;

use super::finish::{Block, Finish, load};
use super::map::Map;
use super::simd::{Job, Simd};
use super::taps::Phase;

/// Neighbouring pixels computed together: a divisor of the sides of common maps.
const COUNT: usize = 7;

/// A window whose rows have the same neighbouring taps.
pub(super) struct Slide {
    lines: Vec<Line>,
    /// Taps of a row.
    taps: usize,
    /// Column that the first pixel's first tap reads.
    left: isize,
    /// Columns from what a pixel reads to what the next one reads.
    stride: usize,
}

/// One row of the window.
struct Line {
    /// Row that the first row of pixels reads.
    top: isize,
    /// Index of the first tap in the window, and the distance to the next.
    tap: [isize; 2],
}

impl Slide {
    /// None where this module has no code for the window, or it does not pay: strided windows share little, and sums of
    /// so many pixels leave few of the registers that there are for vectors of 8.
    pub(super) fn new(phase: &Phase, lanes: usize) -> Option<Self> {
        let mut taps: Vec<([isize; 2], isize)> =
            phase.taps.iter().map(|tap| (tap.offset, tap.index as isize)).collect();
        taps.sort_unstable();
        let rows: Vec<&[([isize; 2], isize)]> = taps.chunk_by(|a, b| a.0[0] == b.0[0]).collect();
        let (length, left) = (rows.first()?.len(), rows.first()?.first()?.0[1]);
        let line = |row: &&[([isize; 2], isize)]| {
            let step = if let [(_, first), (_, second), ..] = row { second - first } else { 0 };
            let even = row
                .iter()
                .enumerate()
                .all(|(t, &([_, x], index))| x == left + t as isize && index == row[0].1 + t as isize * step);
            (even && row.len() == length).then_some(Line { top: row[0].0[0], tap: [row[0].1, step] })
        };
        let lines = rows.iter().map(line).collect::<Option<Vec<_>>>()?;
        let known = matches!((length, phase.stride[1]), (2 | 3 | 5, 1) | (3 | 5, 2));
        let pays = phase.stride[1] == 1 || lanes == 16;
        (known && pays).then_some(Self { lines, taps: length, left, stride: phase.stride[1] })
    }
}

/// One row of a phase's grid of one image.
pub(super) struct Row<'a> {
    pub(super) slide: &'a Slide,
    pub(super) phase: &'a Phase,
    /// `[taps, channels]`, as many channels as `pixel` says.
    pub(super) weights: &'a [f32],
    pub(super) pixel: usize,
    pub(super) image: usize,
    pub(super) row: usize,
    pub(super) source: Map,
    pub(super) finish: &'a Finish<'a>,
}

impl Job for Row<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the caller's.
        unsafe {
            match (self.slide.taps, self.slide.stride) {
                (2, 1) => self.pixels::<S, 2, 1>(),
                (3, 1) => self.pixels::<S, 3, 1>(),
                (5, 1) => self.pixels::<S, 5, 1>(),
                (3, 2) => self.pixels::<S, 3, 2>(),
                _ => self.pixels::<S, 5, 2>(),
            }
        }
    }
}

impl Row<'_> {
    /// # Safety
    /// As [`Simd`]; the row lies in the grid, and the grid in the destination.
    #[inline(always)]
    unsafe fn pixels<S: Simd, const TAPS: usize, const STRIDE: usize>(&self) {
        let (width, channels) = (self.phase.grid[1], self.finish.to.channels);
        let mut x = 0;
        while x < width {
            let count = COUNT.min(width - x);
            let mut channel = 0;
            // SAFETY: the caller's; channels behind the last are not read from the source.
            unsafe {
                // With few registers one vector of sums is all there is room for.
                while S::ROWS > COUNT && channel + 2 * S::LANES <= channels {
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

/// [`COUNT`] neighbouring pixels, of which the first `count` are there, in `VECTORS` of channels, all of which count when
/// they are `WHOLE`.
struct Sums<'a, const TAPS: usize, const STRIDE: usize, const VECTORS: usize, const WHOLE: bool> {
    row: &'a Row<'a>,
    x: usize,
    count: usize,
    channel: usize,
}

impl<const TAPS: usize, const STRIDE: usize, const VECTORS: usize, const WHOLE: bool> Job
    for Sums<'_, TAPS, STRIDE, VECTORS, WHOLE>
{
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { row, x, count, channel } = self;
        let Row { slide, phase, weights, pixel, source, finish, .. } = *row;
        let to = &finish.to;
        let y = phase.start[0] + row.row * phase.step[0];
        let first = (row.image * to.height + y) * to.width + phase.start[1] + x * phase.step[1];
        let left = to.channels - channel;
        let channels = if WHOLE { VECTORS * S::LANES } else { left };
        // SAFETY: the caller's; rows and columns outside the map are left out.
        unsafe {
            for i in count..2 * count {
                finish.prefetch::<S>(first + i * phase.step[1], channel, channels);
            }
            let column = slide.left + (x * STRIDE) as isize;
            let mut sums = [[S::splat(0.0); VECTORS]; COUNT];
            for line in &slide.lines {
                let y = line.top + (row.row * phase.stride[0]) as isize;
                if y < 0 || y >= source.height as isize {
                    continue;
                }
                let mut taps = [[S::splat(0.0); VECTORS]; TAPS];
                for (t, tap) in taps.iter_mut().enumerate() {
                    let at = (line.tap[0] + t as isize * line.tap[1]).unsigned_abs() * pixel + channel;
                    for (v, tap) in tap.iter_mut().enumerate() {
                        *tap = S::load(weights.as_ptr().add(at + v * S::LANES));
                    }
                }
                let line = (row.image * source.size()) as isize + y * source.width as isize + column;
                // Only formed where it lies outside, or where only some rows are in memory.
                let from = source.data.wrapping_offset(line * source.pixel as isize).wrapping_add(channel);
                macro_rules! positions {
                    ($($position:literal)*) => {
                        $(if $position < (COUNT - 1) * STRIDE + TAPS
                            && (column + $position).unsigned_abs() < source.width
                            && column + $position >= 0
                        {
                            let from = from.wrapping_add($position * source.pixel).cast_const();
                            for v in 0..VECTORS {
                                let value = load::<S, WHOLE>(from.add(v * S::LANES), left);
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
            let mut line = MaybeUninit::<[f32; COUNT * 2 * 16]>::uninit();
            let line = line.as_mut_ptr().cast::<f32>();
            let step = VECTORS * S::LANES;
            for (i, sum) in sums.iter().enumerate() {
                for (v, &sum) in sum.iter().enumerate() {
                    S::store(line.add(i * step + v * S::LANES), sum);
                }
            }
            let block = Block { apart: phase.step[1], ..Block::row(first, count, channel, channels) };
            finish.block::<S>(block, line, [0, step]);
        }
    }
}
