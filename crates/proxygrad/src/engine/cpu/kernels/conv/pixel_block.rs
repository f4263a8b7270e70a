//! Whole squares of pixels with few channels, which fill a vector together.
#![expect(unsafe_code, reason = "stores through maps")]

use crate::engine::cpu::epilogue::Epilogue;
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::simd::vector::Simd;

/// Squares that a map is cut into. At the far borders they may reach beyond it.
#[derive(Clone, Copy)]
pub(crate) struct PixelBlock {
    /// Rows and columns.
    pub(crate) step: [usize; 2],
    /// Channels of a pixel.
    pub(crate) channels: usize,
}

impl PixelBlock {
    /// Values from a gathered pixel_block to the next.
    const APART: usize = 16;

    /// Copies `side` x `side` squares of an image, [`PixelBlock::APART`] values from one to the next, from the pixel_block in row
    /// and column `first` on. What lies beyond the map, and behind the channels, becomes zeros.
    ///
    /// # Safety
    /// As [`Simd`]; a pixel_block has at most [`PixelBlock::APART`] values, and there is room for one more than there are.
    #[inline(always)]
    pub(crate) unsafe fn gather<S: Simd>(
        &self,
        source: &FeatureMap,
        image: usize,
        first: [isize; 2],
        side: usize,
        to: *mut f32,
    ) {
        let &Self { step, channels } = self;
        let line = step[1] * channels;
        let within = |i: usize, position: isize| {
            let length = [source.height, source.width][i] as isize;
            (0..length).contains(&position)
        };
        // SAFETY: the caller's; only pixels of the map are read.
        unsafe {
            for (i, j) in (0..side).flat_map(|i| (0..side).map(move |j| (i, j))) {
                let to = to.add((i * side + j) * Self::APART);
                std::ptr::write_bytes(to, 0, Self::APART);
                let left = (first[1] + j as isize) * step[1] as isize;
                for row in 0..step[0] {
                    let y = (first[0] + i as isize) * step[0] as isize + row as isize;
                    if !within(0, y) {
                        continue;
                    }
                    let pixel = |x: isize| {
                        source.at((image * source.height + y.unsigned_abs()) * source.width + x.unsigned_abs())
                    };
                    let to = to.add(row * line);
                    let whole =
                        within(1, left) && within(1, left + step[1] as isize - 1) && source.pixel_stride == channels;
                    if whole && line <= S::LANES {
                        S::store_some(to, S::load_some(pixel(left), line), line);
                        continue;
                    }
                    for column in (0..step[1]).filter(|&column| within(1, left + column as isize)) {
                        let from = pixel(left + column as isize);
                        std::ptr::copy_nonoverlapping(from, to.add(column * channels), channels);
                    }
                }
            }
        }
    }

    /// Hands on the sums of the pixel_block in row `y` and column `x` of squares of an image, of which `columns` columns from
    /// `first` on are given.
    ///
    /// # Safety
    /// As [`Epilogue::store_row`]; the sums are readable for a vector behind the last.
    #[inline(always)]
    pub(crate) unsafe fn scatter<S: Simd>(
        &self,
        epilogue: &Epilogue<'_>,
        image: usize,
        [y, x]: [usize; 2],
        first: usize,
        sums: *const f32,
        columns: usize,
    ) {
        let &Self { step, channels } = self;
        let to = &epilogue.to;
        let pixel = |y: usize, x: usize| (image * to.height + y) * to.width + x;
        let line = step[1] * channels;
        if epilogue.is_store_only() && to.pixel_stride == channels && columns == step[0] * line && line <= S::LANES {
            // PixelRange of one row of the pixel_block touch in memory.
            let count = (to.width - x * step[1]).min(step[1]) * channels;
            for i in 0..step[0].min(to.height - y * step[0]) {
                // SAFETY: whole pixels of the map; the sums are followed by more memory of this thread.
                unsafe {
                    S::store_some(to.at(pixel(y * step[0] + i, x * step[1])), S::load(sums.add(i * line)), count)
                };
            }
            return;
        }
        let mut column = 0;
        while column < columns {
            let (pixel_block, channel) = ((first + column) / channels, (first + column) % channels);
            let count = (channels - channel).min(columns - column);
            let at = [y * step[0] + pixel_block / step[1], x * step[1] + pixel_block % step[1]];
            if at[0] < to.height && at[1] < to.width {
                let mut line = [0.0; 16];
                // SAFETY: `count` is at most the channels of a pixel, which are few; `sums` has `columns` values.
                unsafe {
                    std::ptr::copy_nonoverlapping(sums.add(column), line.as_mut_ptr(), count);
                    epilogue.store_row::<S>(pixel(at[0], at[1]), channel, line.as_ptr(), count);
                }
            }
            column += count;
        }
    }
}
