//! Tiles at work: transformed, multiplied, transformed back.
#![expect(unsafe_code, reason = "vector code over raw tiles")]

use std::mem::MaybeUninit;

use super::super::finish::{Block, Finish};
use super::super::map::Map;
use super::super::simd::{Job, Simd};
use super::super::tile::{Panel, Prefetch, Run, Totals, cut, product};
use super::filtering::{Filtering, Five, Four, Three, Two};
use super::{Channels, DEPTH, LANES, SKEW, Size, Winograd};

/// Where the transformed tiles lie: `[blocks of channels, elements, tiles, channels]`.
#[derive(Clone, Copy)]
pub(super) struct Tiles {
    pub(super) data: *mut f32,
    /// Channels of a block.
    pub(super) depth: usize,
    /// Values from a block to the next.
    pub(super) block: usize,
    /// Values from an element to the next.
    pub(super) element: usize,
}

/// Some tiles, and the panels of output channels to compute for them.
#[derive(Clone, Copy)]
pub(super) struct Piece<'a> {
    pub(super) winograd: &'a Winograd,
    pub(super) source: Map,
    pub(super) finish: &'a Finish<'a>,
    pub(super) grid: [usize; 2],
    /// The transformed tiles.
    pub(super) to: Tiles,
    /// The tile that is the first there.
    pub(super) first: usize,
    pub(super) sums: *mut f32,
    pub(super) tiles: [usize; 2],
    pub(super) panels: [usize; 2],
    /// Vectors of channels, counted over all phases of the source.
    pub(super) vectors: [usize; 2],
}

impl Piece<'_> {
    /// Image, and row and column of the first output pixel of a tile, in a phase of the destination.
    #[inline(always)]
    fn place(&self, tile: usize) -> [usize; 3] {
        let per_image = self.grid[0] * self.grid[1];
        let (image, tile) = (tile / per_image, tile % per_image);
        let side = self.winograd.size.output();
        [image, tile / self.grid[1] * side, tile % self.grid[1] * side]
    }
}

/// Calls a function with the transforms of a size.
macro_rules! with_filtering {
    ($size:expr, $function:ident::<$S:ident>($($argument:expr),*)) => {
        match $size {
            Size::Two => $function::<$S, Two, 4, 2, 3>($($argument),*),
            Size::Three => $function::<$S, Three, 6, 3, 4>($($argument),*),
            Size::Four => $function::<$S, Four, 6, 4, 3>($($argument),*),
            Size::Five => $function::<$S, Five, 6, 5, 2>($($argument),*),
        }
    };
}

/// Transforms input tiles.
pub(super) struct Transform<'a>(pub(super) Piece<'a>);

impl Job for Transform<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the caller's.
        unsafe {
            // The transforms of an input depend on its side alone.
            match self.0.winograd.size {
                Size::Two => transform_tiles::<S, Two, 4, 2, 3>(&self.0),
                _ => transform_tiles::<S, Four, 6, 4, 3>(&self.0),
            }
        }
    }
}

#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "columns are scattered over the rows of a tile")]
unsafe fn transform_tiles<
    S: Simd,
    F: Filtering<SIDE, OUT, TAPS>,
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
            // Rows and columns of the tile that lie on the phase.
            let within = |start: isize, length: usize, origin: usize| {
                let length = length.saturating_sub(origin).div_ceil(stride);
                let first = (-start).clamp(0, SIDE as isize).unsigned_abs();
                [first, (length as isize - start).clamp(0, SIDE as isize).unsigned_abs()]
            };
            let mut rows = within(top, source.height, origin[0]);
            let mut columns = within(left, source.width, origin[1]);
            // Values from a pixel of a phase to the next, down and to the right.
            let (mut down, mut right) = (stride * source.width * source.pixel, stride * source.pixel);
            let per_phase = winograd.pixel / S::LANES;
            let vectors = [0, 1].map(|i| piece.vectors[i].clamp(phase * per_phase, (phase + 1) * per_phase));
            // SAFETY: rows and columns outside the map are not read; channels behind the last are loaded as zeros.
            unsafe {
                // Only formed, not read, where it lies outside.
                let mut corner = source
                    .data
                    .wrapping_add((image * source.size() + origin[0] * source.width + origin[1]) * source.pixel)
                    .wrapping_offset(top * down as isize + left * right as isize)
                    .cast_const();
                if let Some(square) = winograd.from.square {
                    square.gather::<S>(source, image, [top, left], SIDE, gathered.as_mut_ptr());
                    (corner, down, right) = (gathered.as_ptr(), SIDE * LANES, LANES);
                    (rows, columns) = ([0, SIDE], [0, SIDE]);
                }
                let whole = rows == [0, SIDE] && columns == [0, SIDE];
                for vector in vectors[0]..vectors[1] {
                    let c = (vector - phase * per_phase) * S::LANES;
                    let Tiles { data, depth, block, element } = piece.to;
                    let blocks = winograd.pixel.div_ceil(depth);
                    let to = data.add((phase * blocks + c / depth) * block + (tile - piece.first) * depth + c % depth);
                    // Behind the last channels of a square there are zeros.
                    let count =
                        if winograd.from.square.is_some() { S::LANES } else { (winograd.inputs - c).min(S::LANES) };
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
                        if tile + 1 < piece.tiles[1] && winograd.from.square.is_none() {
                            // What the next tile reads beyond this one.
                            for j in SIDE..SIDE + step {
                                S::prefetch(corner.wrapping_add(i * down + j * right + c));
                            }
                        }
                        for (j, value) in F::input::<S>(row).into_iter().enumerate() {
                            S::store(to.add((i * SIDE + j) * element), value);
                        }
                    }
                }
            }
        }
    }
}

/// Multiplies transformed tiles and transforms the products back.
pub(super) struct Multiply<'a>(pub(super) Piece<'a>);

impl Job for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let piece = &self.0;
        // SAFETY: the caller's.
        unsafe { with_filtering!(piece.winograd.size, multiply::<S>(piece)) }
    }
}

#[inline(always)]
unsafe fn multiply<S: Simd, F: Filtering<SIDE, OUT, TAPS>, const SIDE: usize, const OUT: usize, const TAPS: usize>(
    piece: &Piece<'_>,
) {
    let winograd = piece.winograd;
    let elements = SIDE * SIDE;
    let tiles = piece.tiles[1] - piece.tiles[0];
    for (phase, panel) in &winograd.weights.panels[piece.panels[0]..piece.panels[1]] {
        let weights = winograd.weights.phases[*phase].weights(panel);
        let width = panel.vectors * S::LANES;
        let share = (TAPS * TAPS * DEPTH * width).div_ceil(elements);
        // Elements whose sums have begun.
        let mut begun = 0u64;
        for block in 0..winograd.blocks() {
            let channels = winograd.channels(block);
            let is_used = |e: usize| winograd.uses(*phase, channels.phase, e);
            // SAFETY: all tiles and elements lie in the buffers that `Winograd::run` gave.
            unsafe {
                // Matrices of the elements, values from one to the next, and plain weights that are needed next.
                let (matrices, apart, upcoming) = if winograd.weights.plain {
                    let from = weights.add(TAPS * TAPS * (channels.phase * winograd.inputs + channels.first) * width);
                    let (to, apart) = (piece.sums.add(winograd.sums()), DEPTH * width + SKEW);
                    transform_kernels::<S, F, SIDE, OUT, TAPS>([channels.count, panel.vectors], from, to, apart);
                    (to.cast_const(), apart, Some(from.wrapping_add(TAPS * TAPS * channels.count * width)))
                } else {
                    let apart = winograd.inputs * width;
                    (weights.add(channels.phase * elements * apart), apart, None)
                };
                let rows = tiles * OUT;
                for e in 0..elements {
                    if block == 0 && upcoming.is_none() && winograd.to.square.is_none() {
                        for row in rows * e / elements..rows * (e + 1) / elements {
                            ask_for_pixels::<S, OUT>(piece, *phase, panel, piece.tiles[0] * OUT + row);
                        }
                    }
                    if !is_used(e) {
                        continue;
                    }
                    let weights = matrices.add(e * apart);
                    let next = match upcoming {
                        None => Prefetch::of::<S>(weights, panel.vectors),
                        // Every element asks for its share.
                        Some(upcoming) => Prefetch {
                            from: upcoming.wrapping_add(e * share),
                            pace: share.div_ceil(channels.count * tiles.div_ceil(S::ROWS)),
                        },
                    };
                    add_products::<S>(piece, panel, e, channels, weights, next, begun >> e & 1 == 1);
                    begun |= 1 << e;
                }
            }
        }
        // SAFETY: sums of all elements have begun or are zero.
        unsafe {
            for e in (0..elements).filter(|e| begun >> e & 1 == 0) {
                let sums = piece.sums.add(e * winograd.sums_of_element());
                std::ptr::write_bytes(sums, 0, tiles * width);
            }
            finish_tiles::<S, F, SIDE, OUT, TAPS>(piece, *phase, panel);
        }
    }
}

/// Asks for what will be read and written where a row of a tile's pixels is finished; rows are counted over all tiles.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
unsafe fn ask_for_pixels<S: Simd, const OUT: usize>(piece: &Piece<'_>, phase: usize, panel: &Panel, row: usize) {
    let (to, stride) = (&piece.finish.to, piece.winograd.to.stride);
    let [image, y, x] = piece.place(row / OUT);
    let y = (stride * (y + row % OUT) + phase / stride).min(to.height - 1);
    for x in x..x + OUT {
        let x = (stride * x + phase % stride).min(to.width - 1);
        let pixel = (image * to.height + y) * to.width + x;
        // SAFETY: the caller's.
        unsafe {
            piece.finish.prefetch::<S>(pixel, panel.first, panel.columns);
            piece.finish.prefetch_writes::<S>(pixel, panel.first, panel.columns);
        }
    }
}

/// Gives the sums of one element what some channels make with these weights, or, when they go `on`, adds it.
///
/// # Safety
/// As [`Simd`]; the channels lie in one block of the transformed tiles.
#[inline(always)]
unsafe fn add_products<S: Simd>(
    piece: &Piece<'_>,
    panel: &Panel,
    element: usize,
    channels: Channels,
    weights: *const f32,
    mut next: Prefetch,
    on: bool,
) {
    let tiles = piece.tiles[1] - piece.tiles[0];
    let run = [Run { offset: 0, count: channels.count, skipped: 0 }];
    let Tiles { data, depth, block, element: apart } = piece.to;
    // SAFETY: the caller's.
    unsafe {
        let from = data.add(channels.block * block + element * apart + (piece.tiles[0] - piece.first) * depth);
        let to = piece.sums.add(element * piece.winograd.sums_of_element());
        for (row, last) in cut(tiles, S::ROWS) {
            let to = to.add(row * panel.vectors * S::LANES);
            let shape = [last - row, panel.vectors];
            product::<S>(shape, &run, from.add(row * depth), depth, weights, next, Totals { sums: to, on });
            next.from = next.from.wrapping_add(channels.count * next.pace);
        }
    }
}

/// Transforms the kernels `[channels, taps, vectors * lanes]` to matrices `[channels, vectors * lanes]`, `matrix` values
/// from one to the next.
///
/// # Safety
/// As [`Simd`]; all of them lie in memory.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "columns are scattered over the rows of a kernel")]
unsafe fn transform_kernels<
    S: Simd,
    F: Filtering<SIDE, OUT, TAPS>,
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
unsafe fn finish_tiles<
    S: Simd,
    F: Filtering<SIDE, OUT, TAPS>,
    const SIDE: usize,
    const OUT: usize,
    const TAPS: usize,
>(
    piece: &Piece<'_>,
    phase: usize,
    panel: &Panel,
) {
    let winograd = piece.winograd;
    let to = &piece.finish.to;
    let apart = winograd.sums_of_element();
    let vectors = panel.vectors;
    let stride = winograd.to.stride;
    for tile in piece.tiles[0]..piece.tiles[1] {
        let [image, y, x] = piece.place(tile);
        let mut values = MaybeUninit::<[[[f32; 2 * LANES]; OUT]; OUT]>::uninit();
        let values = values.as_mut_ptr().cast::<f32>();
        if winograd.to.square.is_some() {
            // SAFETY: all of them. The rows of a square are read as whole vectors, over the end of what is computed.
            unsafe { std::ptr::write_bytes(values, 0, OUT * OUT * 2 * LANES) };
        }
        for v in 0..vectors {
            // SAFETY: sums of all elements of this tile were computed.
            unsafe {
                let from = piece.sums.add(((tile - piece.tiles[0]) * vectors + v) * S::LANES);
                let mut half = [[S::splat(0.0); SIDE]; OUT];
                for j in 0..SIDE {
                    let mut column = [S::splat(0.0); SIDE];
                    for (i, value) in column.iter_mut().enumerate() {
                        *value = S::load(from.add((i * SIDE + j) * apart));
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
        // Pixels outside the map are left out.
        let inside = |length: usize, first: usize| length.div_ceil(stride).saturating_sub(first).min(OUT);
        if let Some(square) = winograd.to.square {
            for (i, j) in (0..inside(to.height, y)).flat_map(|i| (0..inside(to.width, x)).map(move |j| (i, j))) {
                // SAFETY: the square begins on the map; all of the values that are read were written.
                unsafe {
                    let values = values.add((i * OUT + j) * 2 * LANES);
                    square.scatter::<S>(piece.finish, image, [y + i, x + j], panel.first, values, panel.columns);
                }
            }
            continue;
        }
        let origin = [phase / stride, phase % stride];
        let (rows, pixels) = (inside(to.height - origin[0], y), inside(to.width - origin[1], x));
        let first = (image * to.height + stride * y + origin[0]) * to.width + stride * x + origin[1];
        let row = Block::row(first, pixels, panel.first, panel.columns);
        // SAFETY: the block lies in the map; all of the values that are read were written.
        unsafe {
            let block = Block { rows, below: stride * to.width, apart: stride, ..row };
            piece.finish.block::<S>(block, values, [OUT * 2 * LANES, 2 * LANES]);
        }
    }
}
