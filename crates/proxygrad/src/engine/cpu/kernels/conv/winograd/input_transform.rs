//! Input transform `B^T d B` of a Winograd convolution.
#![expect(unsafe_code, reason = "vector code over raw tiles")]

use crate::engine::cpu::epilogue::Epilogue;
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::kernels::conv::winograd::packed::{LANES, TileBuffer, Winograd};
use crate::engine::cpu::kernels::conv::winograd::transforms::{F23, F43, TileSize, WinogradTransform};
use crate::engine::cpu::simd::vector::{Simd, SimdOp};

/// A piece of work: some tiles, and the panels of output channels to compute for them.
#[derive(Clone, Copy)]
pub(crate) struct Piece<'a> {
    pub(crate) winograd: &'a Winograd,
    pub(crate) source: FeatureMap,
    pub(crate) epilogue: &'a Epilogue<'a>,
    pub(crate) grid: [usize; 2],
    /// Where the transformed tiles are.
    pub(crate) to: TileBuffer,
    /// Index of the first tile there.
    pub(crate) first: usize,
    pub(crate) sums: *mut f32,
    pub(crate) tiles: [usize; 2],
    pub(crate) panels: [usize; 2],
    /// Vectors of channels, counted over all phases of the source.
    pub(crate) vectors: [usize; 2],
}

impl Piece<'_> {
    /// Image of a tile, and row and column of its first output pixel in a phase of the destination.
    #[inline(always)]
    pub(crate) fn place(&self, tile: usize) -> [usize; 3] {
        let per_image = self.grid[0] * self.grid[1];
        let (image, tile) = (tile / per_image, tile % per_image);
        let side = self.winograd.size.output();
        [image, tile / self.grid[1] * side, tile % self.grid[1] * side]
    }
}

/// Transforms input tiles: `B^T d B`.
pub(crate) struct Transform<'a>(pub(crate) Piece<'a>);

impl SimdOp for Transform<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the caller's.
        unsafe {
            // The input transform depends only on the side of the input tile.
            match self.0.winograd.size {
                TileSize::F23 => transform_tiles::<S, F23, 4, 2, 3>(&self.0),
                _ => transform_tiles::<S, F43, 6, 4, 3>(&self.0),
            }
        }
    }
}

#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "columns are scattered over the rows of a tile")]
pub(crate) unsafe fn transform_tiles<
    S: Simd,
    F: WinogradTransform<SIDE, OUT, TAPS>,
    const SIDE: usize,
    const OUT: usize,
    const TAPS: usize,
>(
    piece: &Piece<'_>,
) {
    let Piece { winograd, source, .. } = piece;
    let stride = winograd.from.stride;
    let step = winograd.size.output();
    let mut gathered = [0.0; (6 * 6 + 1) * LANES];
    for tile in piece.tiles[0]..piece.tiles[1] {
        let [image, y, x] = piece.place(tile);
        let (top, left) = (y as isize + winograd.start[0], x as isize + winograd.start[1]);
        for phase in 0..winograd.from.phases {
            let origin = [phase / stride, phase % stride];
            // Rows and columns of the tile that lie within the phase.
            let within = |start: isize, length: usize, origin: usize| {
                let length = length.saturating_sub(origin).div_ceil(stride);
                let first = (-start).clamp(0, SIDE as isize).unsigned_abs();
                [first, (length as isize - start).clamp(0, SIDE as isize).unsigned_abs()]
            };
            let mut rows = within(top, source.height, origin[0]);
            let mut columns = within(left, source.width, origin[1]);
            // Values from a pixel of a phase to the next, down and to the right.
            let (mut down, mut right) = (stride * source.width * source.pixel_stride, stride * source.pixel_stride);
            let per_phase = winograd.padded_inputs / S::LANES;
            let vectors = [0, 1].map(|i| piece.vectors[i].clamp(phase * per_phase, (phase + 1) * per_phase));
            // SAFETY: rows and columns outside the map are not read; channels after the last are loaded as zeros.
            unsafe {
                // Not read where it is outside the map.
                let mut corner = source
                    .data
                    .wrapping_add((image * source.size() + origin[0] * source.width + origin[1]) * source.pixel_stride)
                    .wrapping_offset(top * down as isize + left * right as isize)
                    .cast_const();
                if let Some(pixel_block) = winograd.from.pixel_block {
                    pixel_block.gather::<S>(source, image, [top, left], SIDE, gathered.as_mut_ptr());
                    (corner, down, right) = (gathered.as_ptr(), SIDE * LANES, LANES);
                    (rows, columns) = ([0, SIDE], [0, SIDE]);
                }
                let whole = rows == [0, SIDE] && columns == [0, SIDE];
                for vector in vectors[0]..vectors[1] {
                    let c = (vector - phase * per_phase) * S::LANES;
                    let TileBuffer { data, depth, block_stride, element_stride } = piece.to;
                    let blocks = winograd.padded_inputs.div_ceil(depth);
                    let to = data
                        .add((phase * blocks + c / depth) * block_stride + (tile - piece.first) * depth + c % depth);
                    // After the last channel of a pixel block there are zeros.
                    let count = if winograd.from.pixel_block.is_some() {
                        S::LANES
                    } else {
                        (winograd.inputs - c).min(S::LANES)
                    };
                    let mut half = [[S::splat(0.0); SIDE]; SIDE];
                    for j in 0..SIDE {
                        let mut column = [S::splat(0.0); SIDE];
                        if whole && count == S::LANES {
                            for (i, value) in column.iter_mut().enumerate() {
                                *value = S::load(corner.wrapping_add(i * down + j * right + c));
                            }
                        } else if j >= columns[0] && j < columns[1] {
                            for (i, value) in column.iter_mut().enumerate() {
                                if i >= rows[0] && i < rows[1] {
                                    *value = S::load_some(corner.wrapping_add(i * down + j * right + c), count);
                                }
                            }
                        }
                        for (i, value) in F::input::<S>(column).into_iter().enumerate() {
                            half[i][j] = value;
                        }
                    }
                    for (i, row) in half.into_iter().enumerate() {
                        if tile + 1 < piece.tiles[1] && winograd.from.pixel_block.is_none() {
                            // Columns that the next tile reads and this one does not.
                            for j in SIDE..SIDE + step {
                                S::prefetch(corner.wrapping_add(i * down + j * right + c));
                            }
                        }
                        for (j, value) in F::input::<S>(row).into_iter().enumerate() {
                            S::store(to.add((i * SIDE + j) * element_stride), value);
                        }
                    }
                }
            }
        }
    }
}
