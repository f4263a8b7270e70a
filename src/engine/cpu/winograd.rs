//! 3x3 convolution of stride 1 by Winograd's minimal filtering, F(2x2, 3x3) and F(4x4, 3x3).
//!
//! Lavin & Gray, arXiv:1509.09308, section 4: tiles of input and kernel are transformed, multiplied element by element
//! (here: one product of tiles and channels per element), and transformed back; F(4x4) needs 2.25 products of a channel
//! pair per output where direct convolution needs 9. Both directions are this; the backward one turns the kernel round.
#![expect(unsafe_code, reason = "vector code over raw tiles")]

use std::mem::MaybeUninit;

use super::Site;
use super::direct::Filters;
use super::finish::{Block, Finish};
use super::map::Map;
use super::simd::{Job, Simd};
use super::tile::{Panel, Panels, Run, cut, product};
use crate::network;

/// Side of an output tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub(super) enum Size {
    /// 2x2 from 4x4.
    Two,
    /// 4x4 from 6x6.
    Four,
}

impl Size {
    /// Side of an output tile.
    fn output(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Four => 4,
        }
    }

    /// Side of an input tile.
    fn input(self) -> usize {
        self.output() + 2
    }

    /// The kernel's transform `G`, `[input side, 3]`.
    fn kernel_transform(self) -> &'static [[f64; 3]] {
        const TWO: [[f64; 3]; 4] = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]];
        const FOUR: [[f64; 3]; 6] = [
            [0.25, 0.0, 0.0],
            [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
            [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
            [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
            [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
            [0.0, 0.0, 1.0],
        ];
        match self {
            Self::Two => &TWO,
            Self::Four => &FOUR,
        }
    }
}

/// Values between two elements' matrices, so that they do not fall into the same lines of the cache.
const SKEW: usize = 16;

/// Most values of a vector.
const LANES: usize = 16;

/// Bytes of weights that are worth more to share out than tiles.
const HEAVY: usize = 8 << 20;

/// One direction of a convolution.
pub(super) struct Winograd {
    size: Size,
    /// One matrix `[inputs, outputs]` per element of a tile, one below the other.
    weights: Panels,
    /// Elements of a tile.
    elements: usize,
    inputs: usize,
    /// Values of a tile's transformed pixel: `inputs`, rounded up to vectors.
    pixel: usize,
    /// Zeros before the map, vertically and horizontally.
    padding: [usize; 2],
    /// Most tiles of a block: rows of one product, so that all weights and transformed tiles stay in the cache.
    tiles: usize,
    lanes: usize,
}

/// Whether a convolution is of the kind that this module computes.
pub(super) fn fits(conv: &network::Conv) -> bool {
    let window = &conv.window;
    let padding = window.before().into_iter().chain(window.after()).all(|padding| padding <= 2);
    conv.groups == 1 && window.kernel == [3, 3] && window.stride == [1, 1] && window.dilation == [1, 1] && padding
}

impl Winograd {
    pub(super) fn forward(conv: &network::Conv, size: Size, lanes: usize) -> Self {
        let filters = Filters::new(conv);
        let padding = conv.window.before();
        Self::new(size, [filters.inputs, filters.outputs], padding, lanes, |o, c, tap| filters.weight(0, o, c, tap))
    }

    pub(super) fn backward(conv: &network::Conv, size: Size, lanes: usize) -> Self {
        let filters = Filters::new(conv);
        let padding = conv.window.before().map(|padding| 2 - padding);
        let rotated = |c, o, tap| filters.weight(0, o, c, 8 - tap);
        Self::new(size, [filters.outputs, filters.inputs], padding, lanes, rotated)
    }

    fn new(
        size: Size,
        [inputs, outputs]: [usize; 2],
        padding: [usize; 2],
        lanes: usize,
        weight: impl Fn(usize, usize, usize) -> f32,
    ) -> Self {
        let (side, transform) = (size.input(), size.kernel_transform());
        // Transformed kernels `[elements, inputs, outputs]`.
        let mut transformed = vec![0f32; side * side * inputs * outputs];
        for c in 0..inputs {
            for o in 0..outputs {
                let kernel: [f64; 9] = std::array::from_fn(|tap| f64::from(weight(o, c, tap)));
                for (i, row) in transform.iter().enumerate() {
                    let half: [f64; 3] = std::array::from_fn(|x| (0..3).map(|y| row[y] * kernel[y * 3 + x]).sum());
                    for (j, column) in transform.iter().enumerate() {
                        let value: f64 = (0..3).map(|x| half[x] * column[x]).sum();
                        transformed[((i * side + j) * inputs + c) * outputs + o] = value as f32;
                    }
                }
            }
        }
        let elements = side * side;
        let weights = Panels::new(elements * inputs, outputs, lanes, |k, line| {
            line.copy_from_slice(&transformed[k * outputs..(k + 1) * outputs]);
        });
        let tiles = if lanes == 16 { 14 } else { 12 };
        let pixel = inputs.div_ceil(lanes) * lanes;

        Self { size, weights, elements, inputs, pixel, padding, tiles, lanes }
    }

    /// Tiles of one image of a map.
    fn grid(&self, map: &Map) -> [usize; 2] {
        [map.height.div_ceil(self.size.output()), map.width.div_ceil(self.size.output())]
    }

    /// Whether so few tiles are there that threads share the panels of weights instead.
    fn shares_panels(&self, tiles: usize, threads: usize) -> bool {
        let blocks = tiles.div_ceil(self.tiles);
        threads > 1 && blocks < threads * if self.weights.bytes() > HEAVY { 4 } else { 1 }
    }

    fn sums(&self) -> usize {
        self.elements * (self.tiles * 2 * self.lanes + SKEW)
    }

    /// Values that every thread needs for itself.
    pub(super) fn scratch(&self) -> usize {
        self.sums() + self.elements * (self.tiles * self.pixel + SKEW)
    }

    /// Values that the threads share, for `images` destination maps of height and width `size`.
    pub(super) fn shared(&self, images: usize, size: [usize; 2], threads: usize) -> usize {
        let tiles = images * size.iter().map(|side| side.div_ceil(self.size.output())).product::<usize>();
        if self.shares_panels(tiles, threads) { self.elements * (tiles * self.pixel + SKEW) } else { 0 }
    }

    /// Computes `finish` from `source`.
    pub(super) fn run(&self, site: &Site<'_>, source: Map, finish: &Finish<'_>) {
        assert_eq!(source.channels, self.inputs);
        assert_eq!(source.images, finish.to.images);
        let grid = self.grid(&finish.to);
        let tiles = source.images * grid[0] * grid[1];
        let job = |transformed, stride, sums, tiles, panels| Piece {
            winograd: self,
            source,
            finish,
            grid,
            transformed,
            stride,
            sums,
            tiles,
            panels,
            channels: [0, self.pixel],
        };
        let panels = self.weights.panels().len();
        if !self.shares_panels(tiles, site.member.count()) {
            let blocks = tiles.div_ceil(self.tiles);
            site.member.each(blocks, |block| {
                let tiles = [tiles * block / blocks, tiles * (block + 1) / blocks];
                let stride = (tiles[1] - tiles[0]) * self.pixel + SKEW;
                // SAFETY: the instructions are available; no two blocks write the same pixels; the scratch memory is
                // this thread's own and has room for `self.tiles` tiles behind the sums.
                unsafe {
                    let transformed = site.scratch.add(self.sums());
                    site.instructions.run(Transform(job(transformed, stride, site.scratch, tiles, [0, panels])));
                    site.instructions.run(Multiply(job(transformed, stride, site.scratch, tiles, [0, panels])));
                }
            });
            return;
        }
        let stride = tiles * self.pixel + SKEW;
        let vectors = self.pixel / self.lanes;
        let shares = vectors.min(2 * site.member.count());
        site.member.each(tiles * shares, |piece| {
            let (tile, share) = (piece / shares, piece % shares);
            let channels = [vectors * share / shares * self.lanes, vectors * (share + 1) / shares * self.lanes];
            let piece = job(site.shared, stride, site.scratch, [tile, tile + 1], [0, 0]);
            // SAFETY: as above; the shared memory has room for all tiles, and no two pieces write the same.
            unsafe {
                let transformed = site.shared.add(tile * self.pixel);
                site.instructions.run(Transform(Piece { channels, transformed, ..piece }));
            }
        });
        let blocks = tiles.div_ceil(self.tiles);
        site.member.each(panels * blocks, |piece| {
            let (panel, block) = (piece / blocks, piece % blocks);
            let tiles = [tiles * block / blocks, tiles * (block + 1) / blocks];
            // SAFETY: as above; the shared memory was filled before and is only read.
            unsafe {
                let transformed = site.shared.add(tiles[0] * self.pixel);
                let piece = job(transformed, stride, site.scratch, tiles, [panel, panel + 1]);
                site.instructions.run(Multiply(piece));
            }
        });
    }
}

/// Some tiles, and the panels of output channels to compute for them.
#[derive(Clone, Copy)]
struct Piece<'a> {
    winograd: &'a Winograd,
    source: Map,
    finish: &'a Finish<'a>,
    grid: [usize; 2],
    /// Transformed input `[elements, tiles, pixel]`, `stride` values from element to element.
    transformed: *mut f32,
    stride: usize,
    sums: *mut f32,
    tiles: [usize; 2],
    panels: [usize; 2],
    channels: [usize; 2],
}

impl Piece<'_> {
    /// Image, and row and column of the first output pixel of a tile.
    #[inline(always)]
    fn place(&self, tile: usize) -> [usize; 3] {
        let per_image = self.grid[0] * self.grid[1];
        let (image, tile) = (tile / per_image, tile % per_image);
        let side = self.winograd.size.output();
        [image, tile / self.grid[1] * side, tile % self.grid[1] * side]
    }
}

/// Transforms input tiles.
struct Transform<'a>(Piece<'a>);

impl Job for Transform<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the caller's.
        unsafe {
            match self.0.winograd.size {
                Size::Two => transform_tiles::<S, Two, 4, 2>(&self.0),
                Size::Four => transform_tiles::<S, Four, 6, 4>(&self.0),
            }
        }
    }
}

#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "columns are scattered over the rows of a tile")]
unsafe fn transform_tiles<S: Simd, F: Filtering<SIDE, OUT>, const SIDE: usize, const OUT: usize>(piece: &Piece<'_>) {
    let Piece { winograd, source, .. } = piece;
    let [above, before] = winograd.padding;
    for tile in piece.tiles[0]..piece.tiles[1] {
        let [image, y, x] = piece.place(tile);
        let (top, left) = (y as isize - above as isize, x as isize - before as isize);
        // Rows and columns of the tile that lie on the map.
        let within = |start: isize, length: usize| {
            let first = (-start).clamp(0, SIDE as isize).unsigned_abs();
            [first, (length as isize - start).clamp(0, SIDE as isize).unsigned_abs()]
        };
        let (rows, columns) = (within(top, source.height), within(left, source.width));
        let whole = top >= 0
            && left >= 0
            && top.unsigned_abs() + SIDE <= source.height
            && left.unsigned_abs() + SIDE <= source.width;
        let row = source.width * source.pixel;
        // SAFETY: rows and columns outside the map are not read; channels behind the last are loaded as zeros.
        unsafe {
            // Only formed, not read, where it lies outside.
            let corner = source
                .data
                .wrapping_add(image * source.size() * source.pixel)
                .wrapping_offset(top * row as isize + left * source.pixel as isize);
            let to = piece.transformed.add((tile - piece.tiles[0]) * winograd.pixel);
            let mut c = piece.channels[0];
            while c < piece.channels[1] {
                let count = (winograd.inputs - c).min(S::LANES);
                let mut half = [[S::splat(0.0); SIDE]; SIDE];
                for j in 0..SIDE {
                    let mut column = [S::splat(0.0); SIDE];
                    if whole && count == S::LANES {
                        for (i, value) in column.iter_mut().enumerate() {
                            *value = S::load(corner.wrapping_add(i * row + j * source.pixel + c));
                        }
                    } else if j >= columns[0] && j < columns[1] {
                        for (i, value) in column.iter_mut().enumerate() {
                            if i >= rows[0] && i < rows[1] {
                                *value = S::load_some(corner.wrapping_add(i * row + j * source.pixel + c), count);
                            }
                        }
                    }
                    for (i, value) in F::input::<S>(column).into_iter().enumerate() {
                        half[i][j] = value;
                    }
                }
                for (i, row) in half.into_iter().enumerate() {
                    for (j, value) in F::input::<S>(row).into_iter().enumerate() {
                        S::store(to.add((i * SIDE + j) * piece.stride + c), value);
                    }
                }
                c += S::LANES;
            }
        }
    }
}

/// Multiplies transformed tiles and transforms the products back.
struct Multiply<'a>(Piece<'a>);

impl Job for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let piece = &self.0;
        let winograd = piece.winograd;
        let count = piece.tiles[1] - piece.tiles[0];
        let run = [Run { offset: 0, count: winograd.inputs, skipped: 0 }];
        for p in piece.panels[0]..piece.panels[1] {
            let panel = &winograd.weights.panels()[p];
            let vectors = panel.vectors;
            // SAFETY: all tiles and elements lie in the buffers that `Winograd::run` gave.
            unsafe {
                for e in 0..winograd.elements {
                    let weights = winograd.weights.weights(panel).add(e * winograd.inputs * vectors * S::LANES);
                    let from = piece.transformed.add(e * piece.stride);
                    let to = piece.sums.add(e * (winograd.tiles * 2 * S::LANES + SKEW));
                    for (first, last) in cut(count, S::ROWS) {
                        let from = from.add(first * winograd.pixel);
                        let to = to.add(first * vectors * S::LANES);
                        let shape = [last - first, vectors];
                        product::<S>(shape, &run, from, winograd.pixel, weights, to);
                    }
                }
                match winograd.size {
                    Size::Two => finish_tiles::<S, Two, 4, 2>(piece, panel),
                    Size::Four => finish_tiles::<S, Four, 6, 4>(piece, panel),
                }
            }
        }
    }
}

#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "columns are scattered over the rows of a tile")]
unsafe fn finish_tiles<S: Simd, F: Filtering<SIDE, OUT>, const SIDE: usize, const OUT: usize>(
    piece: &Piece<'_>,
    panel: &Panel,
) {
    let winograd = piece.winograd;
    let to = &piece.finish.to;
    let stride = winograd.tiles * 2 * S::LANES + SKEW;
    let vectors = panel.vectors;
    for tile in piece.tiles[0]..piece.tiles[1] {
        let [image, y, x] = piece.place(tile);
        for v in 0..vectors {
            // SAFETY: sums of all elements of this tile were computed; pixels outside the map are skipped.
            unsafe {
                let from = piece.sums.add(((tile - piece.tiles[0]) * vectors + v) * S::LANES);
                let mut half = [[S::splat(0.0); SIDE]; OUT];
                for j in 0..SIDE {
                    let mut column = [S::splat(0.0); SIDE];
                    for (i, value) in column.iter_mut().enumerate() {
                        *value = S::load(from.add((i * SIDE + j) * stride));
                    }
                    for (i, value) in F::output::<S>(column).into_iter().enumerate() {
                        half[i][j] = value;
                    }
                }
                let channel = panel.first + v * S::LANES;
                let channels = (panel.columns - v * S::LANES).min(S::LANES);
                for (i, row) in half.into_iter().enumerate().take(to.height - y) {
                    let mut line = MaybeUninit::<[[f32; LANES]; OUT]>::uninit();
                    let line = line.as_mut_ptr().cast::<f32>();
                    for (j, value) in F::output::<S>(row).into_iter().enumerate() {
                        S::store(line.add(j * LANES), value);
                    }
                    let pixel = (image * to.height + y + i) * to.width + x;
                    let block = Block { pixel, apart: 1, pixels: OUT.min(to.width - x), channel, channels };
                    piece.finish.block::<S>(block, line, LANES);
                }
            }
        }
    }
}

/// The transforms of one size, along one axis.
trait Filtering<const SIDE: usize, const OUT: usize> {
    /// `B^T d`
    ///
    /// # Safety
    /// As [`Simd`].
    unsafe fn input<S: Simd>(tile: [S::V; SIDE]) -> [S::V; SIDE];

    /// `A^T m`
    ///
    /// # Safety
    /// As [`Simd`].
    unsafe fn output<S: Simd>(products: [S::V; SIDE]) -> [S::V; OUT];
}

/// F(2x2, 3x3).
struct Two;

/// F(4x4, 3x3).
struct Four;

impl Filtering<4, 2> for Two {
    #[inline(always)]
    unsafe fn input<S: Simd>([a, b, c, d]: [S::V; 4]) -> [S::V; 4] {
        // SAFETY: the caller's.
        unsafe { [S::sub(a, c), S::add(b, c), S::sub(c, b), S::sub(b, d)] }
    }

    #[inline(always)]
    unsafe fn output<S: Simd>([a, b, c, d]: [S::V; 4]) -> [S::V; 2] {
        // SAFETY: the caller's.
        unsafe { [S::add(S::add(a, b), c), S::sub(S::sub(b, c), d)] }
    }
}

impl Filtering<6, 4> for Four {
    #[inline(always)]
    unsafe fn input<S: Simd>([a, b, c, d, e, f]: [S::V; 6]) -> [S::V; 6] {
        // SAFETY: the caller's.
        unsafe {
            let (even, odd) = (times::<S>(-4.0, c, e), times::<S>(-4.0, b, d));
            let (even_far, odd_far) = (S::sub(e, c), S::sub(d, b));
            [
                times::<S>(4.0, a, times::<S>(-5.0, c, e)),
                S::add(even, odd),
                S::sub(even, odd),
                times::<S>(2.0, odd_far, even_far),
                times::<S>(-2.0, odd_far, even_far),
                times::<S>(4.0, b, times::<S>(-5.0, d, f)),
            ]
        }
    }

    #[inline(always)]
    unsafe fn output<S: Simd>([a, b, c, d, e, f]: [S::V; 6]) -> [S::V; 4] {
        // SAFETY: the caller's.
        unsafe {
            let (near_sum, near_difference) = (S::add(b, c), S::sub(b, c));
            let (far_sum, far_difference) = (S::add(d, e), S::sub(d, e));
            [
                S::add(S::add(a, near_sum), far_sum),
                times::<S>(2.0, far_difference, near_difference),
                times::<S>(4.0, far_sum, near_sum),
                S::add(times::<S>(8.0, far_difference, near_difference), f),
            ]
        }
    }
}

/// `k * x + y`
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
unsafe fn times<S: Simd>(k: f32, x: S::V, y: S::V) -> S::V {
    // SAFETY: the caller's.
    unsafe { S::mul_add(S::splat(k), x, y) }
}
