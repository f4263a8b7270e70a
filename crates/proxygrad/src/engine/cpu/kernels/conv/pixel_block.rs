//! Pixel blocks (space to depth): blocks of pixels with few channels, which together fill a vector.
#![expect(unsafe_code, reason = "stores through maps")]

use crate::engine::cpu::epilogue::Epilogue;
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::simd::vector::Simd;

/// The blocks that a map is divided into. At the right and lower border they may reach beyond it.
#[derive(Clone, Copy)]
pub(crate) struct PixelBlock {
    /// Rows and columns of a block.
    pub(crate) size: [usize; 2],
    /// Channels per pixel.
    pub(crate) channels: usize,
}

impl PixelBlock {
    /// Values from one gathered block to the next.
    const STRIDE: usize = 16;

    /// Gathers `side` x `side` blocks of an image, from block row and column `first` on, each into
    /// [`PixelBlock::STRIDE`] values. Pixels outside the map, and the values after the channels, become zeros.
    ///
    /// # Safety
    /// As [`Simd`]; a block has at most [`PixelBlock::STRIDE`] values, and `to` has room for one more block.
    #[inline(always)]
    pub(crate) unsafe fn gather<S: Simd>(
        &self,
        source: &FeatureMap,
        image: usize,
        first: [isize; 2],
        side: usize,
        to: *mut f32,
    ) {
        let &Self { size, channels } = self;
        let row_len = size[1] * channels;
        let within = |i: usize, position: isize| {
            let length = [source.height, source.width][i] as isize;
            (0..length).contains(&position)
        };
        // SAFETY: the caller's; only pixels of the map are read.
        unsafe {
            for (i, j) in (0..side).flat_map(|i| (0..side).map(move |j| (i, j))) {
                let to = to.add((i * side + j) * Self::STRIDE);
                std::ptr::write_bytes(to, 0, Self::STRIDE);
                let left = (first[1] + j as isize) * size[1] as isize;
                for row in 0..size[0] {
                    let y = (first[0] + i as isize) * size[0] as isize + row as isize;
                    if !within(0, y) {
                        continue;
                    }
                    let pixel = |x: isize| {
                        source.at((image * source.height + y.unsigned_abs()) * source.width + x.unsigned_abs())
                    };
                    let to = to.add(row * row_len);
                    let whole =
                        within(1, left) && within(1, left + size[1] as isize - 1) && source.pixel_stride == channels;
                    if whole && row_len <= S::LANES {
                        S::store_some(to, S::load_some(pixel(left), row_len), row_len);
                        continue;
                    }
                    for column in (0..size[1]).filter(|&column| within(1, left + column as isize)) {
                        let from = pixel(left + column as isize);
                        std::ptr::copy_nonoverlapping(from, to.add(column * channels), channels);
                    }
                }
            }
        }
    }

    /// Stores the sums of the block in block row `y` and block column `x` of an image. `sums` holds `columns` of its
    /// values, from index `first` on.
    ///
    /// # Safety
    /// As [`Epilogue::store_row`]; the sums are readable for one more vector.
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
        let &Self { size, channels } = self;
        let to = &epilogue.to;
        let pixel = |y: usize, x: usize| (image * to.height + y) * to.width + x;
        let row_len = size[1] * channels;
        if epilogue.is_store_only()
            && to.pixel_stride == channels
            && columns == size[0] * row_len
            && row_len <= S::LANES
        {
            // Pixels of one row of the block are contiguous in memory.
            let count = (to.width - x * size[1]).min(size[1]) * channels;
            for i in 0..size[0].min(to.height - y * size[0]) {
                // SAFETY: whole pixels of the map; the sums are followed by more memory of this thread.
                unsafe {
                    S::store_some(to.at(pixel(y * size[0] + i, x * size[1])), S::load(sums.add(i * row_len)), count)
                };
            }
            return;
        }
        let mut column = 0;
        while column < columns {
            let (inner, channel) = ((first + column) / channels, (first + column) % channels);
            let count = (channels - channel).min(columns - column);
            let at = [y * size[0] + inner / size[1], x * size[1] + inner % size[1]];
            if at[0] < to.height && at[1] < to.width {
                let mut staged = [0.0; 16];
                // SAFETY: `count` is at most the channels of a pixel, which are few; `sums` has `columns` values.
                unsafe {
                    std::ptr::copy_nonoverlapping(sums.add(column), staged.as_mut_ptr(), count);
                    epilogue.store_row::<S>(pixel(at[0], at[1]), channel, staged.as_ptr(), count);
                }
            }
            column += count;
        }
    }
}
