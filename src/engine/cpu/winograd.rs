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
    /// The one that needs the fewest products for a map of this height and width: small maps may leave most of a large tile
    /// unused.
    pub(super) fn fewest_products(size: [usize; 2]) -> Self {
        let products = |of: Self| size.map(|side| side.div_ceil(of.output())).iter().product::<usize>() * of.elements();
        if products(Self::Four) < products(Self::Two) { Self::Four } else { Self::Two }
    }

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

    /// Values of an input tile.
    fn elements(self) -> usize {
        self.input() * self.input()
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

/// Bytes of transformed weights from which on they are transformed anew at every use: reading them takes longer.
const HEAVY: usize = 2 << 20;

/// Input channels whose weights are transformed together.
const DEPTH: usize = 64;

/// Most tiles that use weights that were transformed for them.
const SHARING: usize = 64;

/// One direction of a convolution.
pub(super) struct Winograd {
    size: Size,
    weights: Weights,
    inputs: usize,
    /// `inputs`, rounded up to vectors.
    pixel: usize,
    /// Zeros before the map, vertically and horizontally.
    padding: [usize; 2],
    lanes: usize,
}

/// The kernels, in panels of output channels.
enum Weights {
    /// One matrix `[inputs, outputs]` per element of a tile, one below the other.
    Transformed(Panels),
    /// `[inputs, 9, outputs]`, as they are.
    Plain(Panels),
}

/// Where the transformed tiles lie: `[blocks of channels, elements, tiles, channels]`.
#[derive(Clone, Copy)]
struct Tiles {
    data: *mut f32,
    /// Channels of a block.
    depth: usize,
    /// Values from a block to the next.
    block: usize,
    /// Values from an element to the next.
    element: usize,
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
        let pixel = inputs.div_ceil(lanes) * lanes;
        let weights = if size.elements() * inputs * outputs * size_of::<f32>() >= HEAVY {
            Weights::Plain(Panels::new(9 * inputs, outputs, lanes, |k, line| {
                line.iter_mut().enumerate().for_each(|(o, value)| *value = weight(o, k / 9, k % 9));
            }))
        } else {
            Weights::Transformed(transformed(size, [inputs, outputs], lanes, weight))
        };
        Self { size, weights, inputs, pixel, padding, lanes }
    }

    /// Tiles of one image of a map.
    fn grid(&self, map: &Map) -> [usize; 2] {
        [map.height.div_ceil(self.size.output()), map.width.div_ceil(self.size.output())]
    }

    /// Most tiles of a block: rows of two products, or all that share weights.
    fn tiles(&self) -> usize {
        match self.weights {
            Weights::Transformed(_) if self.lanes == 16 => 14,
            Weights::Transformed(_) => 12,
            Weights::Plain(_) => SHARING,
        }
    }

    /// Whether so few tiles are there that threads share the panels of weights instead.
    fn shares_panels(&self, tiles: usize, threads: usize) -> bool {
        let few = threads > 1 && tiles.div_ceil(self.tiles()) < threads;
        few || matches!(self.weights, Weights::Plain(_))
    }

    fn sums(&self) -> usize {
        self.size.elements() * self.sums_of_element()
    }

    #[inline(always)]
    fn sums_of_element(&self) -> usize {
        self.tiles() * 2 * self.lanes + SKEW
    }

    /// Values that every thread needs for itself.
    pub(super) fn scratch(&self) -> usize {
        let own = match self.weights {
            Weights::Transformed(_) => self.tiles() * self.pixel,
            Weights::Plain(_) => DEPTH * 2 * self.lanes,
        };
        self.sums() + self.size.elements() * (own + SKEW)
    }

    /// Where so many transformed tiles lie in memory.
    fn layout(&self, data: *mut f32, tiles: usize) -> Tiles {
        let depth = match self.weights {
            Weights::Transformed(_) => self.pixel,
            Weights::Plain(_) => DEPTH,
        };
        let element = tiles * depth + SKEW;
        Tiles { data, depth, block: self.size.elements() * element, element }
    }

    /// Values that the threads share, for `images` destination maps of height and width `size`.
    pub(super) fn shared(&self, images: usize, size: [usize; 2], threads: usize) -> usize {
        let tiles = images * size.iter().map(|side| side.div_ceil(self.size.output())).product::<usize>();
        if !self.shares_panels(tiles, threads) {
            return 0;
        }
        let layout = self.layout(std::ptr::null_mut(), tiles);
        self.pixel.div_ceil(layout.depth) * layout.block
    }

    /// Computes `finish` from `source`.
    pub(super) fn run(&self, site: &Site<'_>, source: Map, finish: &Finish<'_>) {
        assert_eq!(source.channels, self.inputs);
        assert_eq!(source.images, finish.to.images);
        let grid = self.grid(&finish.to);
        let tiles = source.images * grid[0] * grid[1];
        let (Weights::Transformed(weights) | Weights::Plain(weights)) = &self.weights;
        let panels = weights.panels().len();
        let job = |to: Tiles, tiles, panels| {
            let (channels, sums) = ([0, self.pixel], site.scratch);
            Piece { winograd: self, source, finish, grid, to, first: 0, sums, tiles, panels, channels }
        };
        let blocks = tiles.div_ceil(self.tiles());
        if !self.shares_panels(tiles, site.member.count()) {
            site.member.each(blocks, |block| {
                let tiles = [tiles * block / blocks, tiles * (block + 1) / blocks];
                // SAFETY: the instructions are available; no two blocks write the same pixels; the scratch memory is
                // this thread's own and has room for `self.tiles()` tiles behind the sums.
                unsafe {
                    let to = self.layout(site.scratch.add(self.sums()), tiles[1] - tiles[0]);
                    let piece = Piece { first: tiles[0], ..job(to, tiles, [0, panels]) };
                    site.instructions.run(Transform(piece));
                    site.instructions.run(Multiply(piece));
                }
            });
            return;
        }
        let to = self.layout(site.shared, tiles);
        let vectors = self.pixel / self.lanes;
        let shares = vectors.min(2 * site.member.count());
        site.member.each(tiles * shares, |piece| {
            let (tile, share) = (piece / shares, piece % shares);
            let channels = [vectors * share / shares * self.lanes, vectors * (share + 1) / shares * self.lanes];
            // SAFETY: as above; the shared memory has room for all tiles, and no two pieces write the same.
            unsafe { site.instructions.run(Transform(Piece { channels, ..job(to, [tile, tile + 1], [0, 0]) })) };
        });
        site.member.each(panels * blocks, |piece| {
            let (panel, block) = (piece / blocks, piece % blocks);
            let tiles = [tiles * block / blocks, tiles * (block + 1) / blocks];
            // SAFETY: as above; the shared memory was filled before and is only read.
            unsafe { site.instructions.run(Multiply(job(to, tiles, [panel, panel + 1]))) };
        });
    }
}

/// Transformed kernels, one matrix per element.
fn transformed(
    size: Size,
    [inputs, outputs]: [usize; 2],
    lanes: usize,
    weight: impl Fn(usize, usize, usize) -> f32,
) -> Panels {
    let (side, transform) = (size.input(), size.kernel_transform());
    // `[elements, inputs, outputs]`
    let mut transformed = vec![0f32; size.elements() * inputs * outputs];
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
    Panels::new(size.elements() * inputs, outputs, lanes, |k, line| {
        line.copy_from_slice(&transformed[k * outputs..(k + 1) * outputs]);
    })
}

/// Some tiles, and the panels of output channels to compute for them.
#[derive(Clone, Copy)]
struct Piece<'a> {
    winograd: &'a Winograd,
    source: Map,
    finish: &'a Finish<'a>,
    grid: [usize; 2],
    /// The transformed tiles.
    to: Tiles,
    /// The tile that is the first there.
    first: usize,
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
            let mut c = piece.channels[0];
            while c < piece.channels[1] {
                let Tiles { data, depth, block, element } = piece.to;
                let to = data.add(c / depth * block + (tile - piece.first) * depth + c % depth);
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
                        S::store(to.add((i * SIDE + j) * element), value);
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
        // SAFETY: the caller's.
        unsafe {
            match piece.winograd.size {
                Size::Two => multiply::<S, Two, 4, 2>(piece),
                Size::Four => multiply::<S, Four, 6, 4>(piece),
            }
        }
    }
}

#[inline(always)]
unsafe fn multiply<S: Simd, F: Filtering<SIDE, OUT>, const SIDE: usize, const OUT: usize>(piece: &Piece<'_>) {
    let winograd = piece.winograd;
    let elements = SIDE * SIDE;
    for p in piece.panels[0]..piece.panels[1] {
        // SAFETY: all tiles and elements lie in the buffers that `Winograd::run` gave.
        unsafe {
            let panel = match &winograd.weights {
                Weights::Transformed(weights) => {
                    let panel = &weights.panels()[p];
                    let matrix = winograd.inputs * panel.vectors * S::LANES;
                    for e in 0..elements {
                        let weights = weights.weights(panel).add(e * matrix);
                        add_products::<S>(piece, panel, e, [0, winograd.inputs], weights);
                    }
                    panel
                }
                Weights::Plain(weights) => {
                    let panel = &weights.panels()[p];
                    let width = panel.vectors * S::LANES;
                    let (to, matrix) = (piece.sums.add(winograd.sums()), DEPTH * width + SKEW);
                    let mut first = 0;
                    while first < winograd.inputs {
                        let channels = (winograd.inputs - first).min(DEPTH);
                        let from = weights.weights(panel).add(9 * first * width);
                        transform_kernels::<S, F, SIDE, OUT>([channels, panel.vectors], from, to, matrix);
                        let next = from.wrapping_add(9 * channels * width);
                        for e in 0..elements {
                            // A share of the weights that are needed next.
                            let lines = 9 * DEPTH * width / LANES;
                            for line in lines * e / elements..lines * (e + 1) / elements {
                                S::prefetch(next.wrapping_add(line * LANES));
                            }
                            add_products::<S>(piece, panel, e, [first, channels], to.add(e * matrix));
                        }
                        first += channels;
                    }
                    panel
                }
            };
            finish_tiles::<S, F, SIDE, OUT>(piece, panel);
        }
    }
}

/// Adds to the sums of one element what some channels, a first and how many, give with these weights.
///
/// # Safety
/// As [`Simd`]; the channels lie in one block of the transformed tiles.
#[inline(always)]
unsafe fn add_products<S: Simd>(
    piece: &Piece<'_>,
    panel: &Panel,
    element: usize,
    [first, channels]: [usize; 2],
    weights: *const f32,
) {
    let tiles = piece.tiles[1] - piece.tiles[0];
    let run = [Run { offset: 0, count: channels, skipped: 0 }];
    let Tiles { data, depth, block, element: apart } = piece.to;
    // SAFETY: the caller's.
    unsafe {
        let from = data.add(first / depth * block + element * apart + (piece.tiles[0] - piece.first) * depth);
        let to = piece.sums.add(element * piece.winograd.sums_of_element());
        for (row, last) in cut(tiles, S::ROWS) {
            let to = to.add(row * panel.vectors * S::LANES);
            let shape = [last - row, panel.vectors];
            product::<S>(shape, &run, from.add(row * depth), depth, weights, to, first > 0);
        }
    }
}

/// Transforms the kernels `[channels, 9, vectors * lanes]` to matrices `[channels, vectors * lanes]`, `matrix` values from
/// one to the next.
///
/// # Safety
/// As [`Simd`]; all of them lie in memory.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "columns are scattered over the rows of a kernel")]
unsafe fn transform_kernels<S: Simd, F: Filtering<SIDE, OUT>, const SIDE: usize, const OUT: usize>(
    [channels, vectors]: [usize; 2],
    from: *const f32,
    to: *mut f32,
    matrix: usize,
) {
    for c in 0..channels {
        for v in 0..vectors {
            // SAFETY: the caller's.
            unsafe {
                let from = from.add((c * 9 * vectors + v) * S::LANES);
                let to = to.add((c * vectors + v) * S::LANES);
                let mut half = [[S::splat(0.0); 3]; SIDE];
                for x in 0..3 {
                    let mut column = [S::splat(0.0); 3];
                    for (y, value) in column.iter_mut().enumerate() {
                        *value = S::load(from.add((y * 3 + x) * vectors * S::LANES));
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
unsafe fn finish_tiles<S: Simd, F: Filtering<SIDE, OUT>, const SIDE: usize, const OUT: usize>(
    piece: &Piece<'_>,
    panel: &Panel,
) {
    let winograd = piece.winograd;
    let to = &piece.finish.to;
    let stride = winograd.sums_of_element();
    let vectors = panel.vectors;
    for tile in piece.tiles[0]..piece.tiles[1] {
        let [image, y, x] = piece.place(tile);
        let mut square = MaybeUninit::<[[[f32; 2 * LANES]; OUT]; OUT]>::uninit();
        let square = square.as_mut_ptr().cast::<f32>();
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
                for (i, row) in half.into_iter().enumerate() {
                    for (j, value) in F::output::<S>(row).into_iter().enumerate() {
                        S::store(square.add((i * OUT + j) * 2 * LANES + v * S::LANES), value);
                    }
                }
            }
        }
        let (rows, pixels) = (OUT.min(to.height - y), OUT.min(to.width - x));
        let row = Block::row((image * to.height + y) * to.width + x, pixels, panel.first, panel.columns);
        // SAFETY: the block lies in the map; all of the square that is read was written.
        unsafe {
            let block = Block { rows, below: to.width, ..row };
            piece.finish.block::<S>(block, square, [OUT * 2 * LANES, 2 * LANES]);
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

    /// `G g`
    ///
    /// # Safety
    /// As [`Simd`].
    unsafe fn kernel<S: Simd>(taps: [S::V; 3]) -> [S::V; SIDE];

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
    unsafe fn kernel<S: Simd>([a, b, c]: [S::V; 3]) -> [S::V; 4] {
        // SAFETY: the caller's.
        unsafe {
            let (even, odd) = (S::mul(S::splat(0.5), S::add(a, c)), S::mul(S::splat(0.5), b));
            [a, S::add(even, odd), S::sub(even, odd), c]
        }
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
    unsafe fn kernel<S: Simd>([a, b, c]: [S::V; 3]) -> [S::V; 6] {
        // SAFETY: the caller's.
        unsafe {
            let near = [S::mul(S::splat(-1.0 / 6.0), S::add(a, c)), S::mul(S::splat(1.0 / 6.0), b)];
            let far = [times::<S>(1.0 / 24.0, a, S::mul(S::splat(1.0 / 6.0), c)), S::mul(S::splat(1.0 / 12.0), b)];
            [
                S::mul(S::splat(0.25), a),
                S::sub(near[0], near[1]),
                S::add(near[0], near[1]),
                S::add(far[0], far[1]),
                S::sub(far[0], far[1]),
                c,
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
