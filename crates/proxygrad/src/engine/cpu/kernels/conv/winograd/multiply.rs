//! Matrix products of transformed tiles and kernels, and the output transform `A^T m A`.
#![expect(unsafe_code, reason = "vector code over raw tiles")]

use std::mem::MaybeUninit;

use crate::engine::cpu::epilogue::OutputRegion;
use crate::engine::cpu::kernels::conv::winograd::input_transform::Piece;
use crate::engine::cpu::kernels::conv::winograd::packed::{ChannelBlock, DEPTH, LANES, SKEW, TileBuffer};
use crate::engine::cpu::kernels::conv::winograd::transforms::{F23, F34, F43, F52, TileSize, WinogradTransform};
use crate::engine::cpu::kernels::gemm::{Accumulator, Panel, Prefetch, Run, microkernel, split_evenly};
use crate::engine::cpu::simd::vector::{Simd, SimdOp};

/// Calls a function with the transforms of a tile size.
macro_rules! with_transform {
    ($size:expr, $function:ident::<$S:ident>($($argument:expr),*)) => {
        match $size {
            TileSize::F23 => $function::<$S, F23, 4, 2, 3>($($argument),*),
            TileSize::F34 => $function::<$S, F34, 6, 3, 4>($($argument),*),
            TileSize::F43 => $function::<$S, F43, 6, 4, 3>($($argument),*),
            TileSize::F52 => $function::<$S, F52, 6, 5, 2>($($argument),*),
        }
    };
}

/// Multiplies transformed tiles and transforms the products back.
pub(crate) struct Multiply<'a>(pub(crate) Piece<'a>);

impl SimdOp for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let piece = &self.0;
        // SAFETY: the caller's.
        unsafe { with_transform!(piece.winograd.size, multiply::<S>(piece)) }
    }
}

#[inline(always)]
pub(crate) unsafe fn multiply<
    S: Simd,
    F: WinogradTransform<SIDE, OUT, TAPS>,
    const SIDE: usize,
    const OUT: usize,
    const TAPS: usize,
>(
    piece: &Piece<'_>,
) {
    let winograd = piece.winograd;
    let elements = SIDE * SIDE;
    let tiles = piece.tiles[1] - piece.tiles[0];
    for (phase, panel) in &winograd.weights.panels[piece.panels[0]..piece.panels[1]] {
        let weights = winograd.weights.phases[*phase].panel_data(panel);
        let width = panel.vectors * S::LANES;
        let share = (TAPS * TAPS * DEPTH * width).div_ceil(elements);
        // Elements whose sums were started, one bit each.
        let mut begun = 0u64;
        for block in 0..winograd.blocks() {
            let channels = winograd.channel_block(block);
            let is_used = |e: usize| winograd.uses(*phase, channels.phase, e);
            // SAFETY: all tiles and elements lie in the buffers from `Winograd::run`.
            unsafe {
                // Transformed kernels of all elements, values from one to the next, and the untransformed kernels that
                // are needed next.
                let (matrices, element_stride, upcoming) = if winograd.weights.on_the_fly {
                    let from = weights.add(TAPS * TAPS * (channels.phase * winograd.inputs + channels.first) * width);
                    let (to, element_stride) = (piece.sums.add(winograd.sums_len()), DEPTH * width + SKEW);
                    transform_kernels::<S, F, SIDE, OUT, TAPS>(
                        [channels.count, panel.vectors],
                        from,
                        to,
                        element_stride,
                    );
                    (to.cast_const(), element_stride, Some(from.wrapping_add(TAPS * TAPS * channels.count * width)))
                } else {
                    let element_stride = winograd.inputs * width;
                    (weights.add(channels.phase * elements * element_stride), element_stride, None)
                };
                let rows = tiles * OUT;
                for e in 0..elements {
                    if block == 0 && upcoming.is_none() && winograd.to.pixel_block.is_none() {
                        for row in rows * e / elements..rows * (e + 1) / elements {
                            prefetch_pixels::<S, OUT>(piece, *phase, panel, piece.tiles[0] * OUT + row);
                        }
                    }
                    if !is_used(e) {
                        continue;
                    }
                    let weights = matrices.add(e * element_stride);
                    let next = match upcoming {
                        None => Prefetch::of::<S>(weights, panel.vectors),
                        // The elements share the prefetching.
                        Some(upcoming) => Prefetch {
                            from: upcoming.wrapping_add(e * share),
                            pace: share.div_ceil(channels.count * tiles.div_ceil(S::TILE_ROWS)),
                        },
                    };
                    add_products::<S>(piece, panel, e, channels, weights, next, begun >> e & 1 == 1);
                    begun |= 1 << e;
                }
            }
        }
        // SAFETY: the sums of all elements were started or are set to zero.
        unsafe {
            for e in (0..elements).filter(|e| begun >> e & 1 == 0) {
                let sums = piece.sums.add(e * winograd.sums_per_element());
                std::ptr::write_bytes(sums, 0, tiles * width);
            }
            store_output_tiles::<S, F, SIDE, OUT, TAPS>(piece, *phase, panel);
        }
    }
}

/// Prefetches what storing a row of a tile's pixels will read and write; rows are counted over all tiles.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(crate) unsafe fn prefetch_pixels<S: Simd, const OUT: usize>(
    piece: &Piece<'_>,
    phase: usize,
    panel: &Panel,
    row: usize,
) {
    let (to, stride) = (&piece.epilogue.to, piece.winograd.to.stride);
    let [image, y, x] = piece.place(row / OUT);
    let y = (stride * (y + row % OUT) + phase / stride).min(to.height - 1);
    for x in x..x + OUT {
        let x = (stride * x + phase % stride).min(to.width - 1);
        let pixel = (image * to.height + y) * to.width + x;
        // SAFETY: the caller's.
        unsafe {
            piece.epilogue.prefetch::<S>(pixel, panel.first, panel.columns);
            piece.epilogue.prefetch_writes::<S>(pixel, panel.first, panel.columns);
        }
    }
}

/// Computes the product of one block of channels and its weights for one element, and sets the sums to it or, with
/// `accumulate`, adds it.
///
/// # Safety
/// As [`Simd`]; the channels are one block of the transformed tiles.
#[inline(always)]
pub(crate) unsafe fn add_products<S: Simd>(
    piece: &Piece<'_>,
    panel: &Panel,
    element: usize,
    channels: ChannelBlock,
    weights: *const f32,
    mut next: Prefetch,
    accumulate: bool,
) {
    let tiles = piece.tiles[1] - piece.tiles[0];
    let run = [Run { offset: 0, count: channels.count, skipped: 0 }];
    let TileBuffer { data, depth, block_stride, element_stride } = piece.to;
    // SAFETY: the caller's.
    unsafe {
        let from =
            data.add(channels.block * block_stride + element * element_stride + (piece.tiles[0] - piece.first) * depth);
        let to = piece.sums.add(element * piece.winograd.sums_per_element());
        for (row, last) in split_evenly(tiles, S::TILE_ROWS) {
            let to = to.add(row * panel.vectors * S::LANES);
            let shape = [last - row, panel.vectors];
            microkernel::<S>(
                shape,
                &run,
                from.add(row * depth),
                depth,
                weights,
                next,
                Accumulator { sums: to, accumulate },
            );
            next.from = next.from.wrapping_add(channels.count * next.pace);
        }
    }
}

/// Transforms kernels `[channels, taps, vectors * lanes]` (`G g G^T`) into one matrix `[channels, vectors * lanes]` per
/// element, `matrix` values from one to the next.
///
/// # Safety
/// As [`Simd`]; kernels and matrices are in memory.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "columns are scattered over the rows of a kernel")]
pub(crate) unsafe fn transform_kernels<
    S: Simd,
    F: WinogradTransform<SIDE, OUT, TAPS>,
    const SIDE: usize,
    const OUT: usize,
    const TAPS: usize,
>(
    [channels, vectors]: [usize; 2],
    from: *const f32,
    to: *mut f32,
    matrix: usize,
) {
    for c in 0..channels {
        for v in 0..vectors {
            // SAFETY: the caller's.
            unsafe {
                let from = from.add((c * TAPS * TAPS * vectors + v) * S::LANES);
                let to = to.add((c * vectors + v) * S::LANES);
                let mut half = [[S::splat(0.0); TAPS]; SIDE];
                for x in 0..TAPS {
                    let mut column = [S::splat(0.0); TAPS];
                    for (y, value) in column.iter_mut().enumerate() {
                        *value = S::load(from.add((y * TAPS + x) * vectors * S::LANES));
                    }
                    for (i, value) in F::kernel::<S>(column).into_iter().enumerate() {
                        half[i][x] = value;
                    }
                }
                for (i, row) in half.into_iter().enumerate() {
                    for (j, value) in F::kernel::<S>(row).into_iter().enumerate() {
                        S::store(to.add((i * SIDE + j) * matrix), value);
                    }
                }
            }
        }
    }
}

#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "columns are scattered over the rows of a tile")]
pub(crate) unsafe fn store_output_tiles<
    S: Simd,
    F: WinogradTransform<SIDE, OUT, TAPS>,
    const SIDE: usize,
    const OUT: usize,
    const TAPS: usize,
>(
    piece: &Piece<'_>,
    phase: usize,
    panel: &Panel,
) {
    let winograd = piece.winograd;
    let to = &piece.epilogue.to;
    let element_stride = winograd.sums_per_element();
    let vectors = panel.vectors;
    let stride = winograd.to.stride;
    for tile in piece.tiles[0]..piece.tiles[1] {
        let [image, y, x] = piece.place(tile);
        let mut values = MaybeUninit::<[[[f32; 2 * LANES]; OUT]; OUT]>::uninit();
        let values = values.as_mut_ptr().cast::<f32>();
        if winograd.to.pixel_block.is_some() {
            // SAFETY: within the array. Rows of a pixel block are read as whole vectors, beyond the computed values.
            unsafe { std::ptr::write_bytes(values, 0, OUT * OUT * 2 * LANES) };
        }
        for v in 0..vectors {
            // SAFETY: the sums of all elements of this tile were computed.
            unsafe {
                let from = piece.sums.add(((tile - piece.tiles[0]) * vectors + v) * S::LANES);
                let mut half = [[S::splat(0.0); SIDE]; OUT];
                for j in 0..SIDE {
                    let mut column = [S::splat(0.0); SIDE];
                    for (i, value) in column.iter_mut().enumerate() {
                        *value = S::load(from.add((i * SIDE + j) * element_stride));
                    }
                    for (i, value) in F::output::<S>(column).into_iter().enumerate() {
                        half[i][j] = value;
                    }
                }
                for (i, row) in half.into_iter().enumerate() {
                    for (j, value) in F::output::<S>(row).into_iter().enumerate() {
                        S::store(values.add((i * OUT + j) * 2 * LANES + v * S::LANES), value);
                    }
                }
            }
        }
        // Pixels outside the map are skipped.
        let inside = |length: usize, first: usize| length.div_ceil(stride).saturating_sub(first).min(OUT);
        if let Some(pixel_block) = winograd.to.pixel_block {
            for (i, j) in (0..inside(to.height, y)).flat_map(|i| (0..inside(to.width, x)).map(move |j| (i, j))) {
                // SAFETY: the pixel block starts within the map; all values that are read were written.
                unsafe {
                    let values = values.add((i * OUT + j) * 2 * LANES);
                    pixel_block.scatter::<S>(piece.epilogue, image, [y + i, x + j], panel.first, values, panel.columns);
                }
            }
            continue;
        }
        let origin = [phase / stride, phase % stride];
        let (rows, pixels) = (inside(to.height - origin[0], y), inside(to.width - origin[1], x));
        let first = (image * to.height + stride * y + origin[0]) * to.width + stride * x + origin[1];
        let row = OutputRegion::row(first, pixels, panel.first, panel.columns);
        // SAFETY: the region lies in the map; all values that are read were written.
        unsafe {
            let block = OutputRegion { rows, row_stride: stride * to.width, pixel_step: stride, ..row };
            piece.epilogue.store_region::<S>(block, values, [OUT * 2 * LANES, 2 * LANES]);
        }
    }
}
