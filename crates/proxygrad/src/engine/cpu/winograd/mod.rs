//! Convolution by Winograd's minimal filtering.
//!
//! Lavin & Gray, arXiv:1509.09308, section 4: tiles of input and kernel are transformed, multiplied element by element
//! (here: one product of tiles and channels per element), and transformed back; F(4x4, 3x3) needs 2.25 products of a channel
//! pair per output where direct convolution needs 9. Both directions are this; the backward one turns the kernel round. A
//! window of stride 2 is four kernels of stride 1, see [`mod@phases`].
#![expect(unsafe_code, reason = "vector code over raw tiles")]

mod filtering;
mod phases;
mod tiles;

pub(super) use self::filtering::Size;
use self::phases::Phases;
use self::tiles::{Multiply, Piece, Tiles, Transform};
use super::direct::{Filters, SCATTERED};
use super::finish::Finish;
use super::map::Map;
use super::square::Square;
use super::tile::{Panel, Panels};
use super::{Heading, Layout, Site};
use crate::network;

/// Values between two elements' matrices, so that they do not fall into the same lines of the cache.
const SKEW: usize = 16;

/// Most values of a vector.
const LANES: usize = 16;

/// Input channels whose weights are transformed together.
const DEPTH: usize = 64;

/// Most tiles that use weights that were transformed for them.
const SHARING: usize = 64;

/// One direction of a convolution.
pub(super) struct Winograd {
    size: Size,
    weights: Weights,
    /// Channels of a phase of the source; where they are few, of all its phases.
    inputs: usize,
    /// `inputs`, rounded up to vectors.
    pixel: usize,
    from: Side,
    to: Side,
    /// Row and column of the first tap in a phase of the source, from the pixel that is computed.
    start: [isize; 2],
    /// For each phase, of the side that has more than one: the elements where its kernels are not zero, a bit for each.
    elements: Vec<u64>,
    lanes: usize,
}

/// The source or the destination.
#[derive(Clone, Copy)]
struct Side {
    /// Rows, and columns, from a pixel of a phase to the next.
    stride: usize,
    phases: usize,
    /// Where all phases share one product: the squares of pixels that are its rows, or the columns of its sums.
    square: Option<Square>,
}

/// The kernels.
struct Weights {
    /// Whether they lie there as they are, `[phases of the source, inputs, taps, outputs]`, and are transformed at every use;
    /// else they are transformed, `[phases of the source, elements, inputs, outputs]`.
    plain: bool,
    /// For each phase of the destination.
    phases: Vec<Panels>,
    /// Those panels, each with its phase.
    panels: Vec<(usize, Panel)>,
}

/// Input channels of one phase of the source that are multiplied together.
#[derive(Clone, Copy)]
struct Channels {
    /// Number of their block of transformed tiles.
    block: usize,
    phase: usize,
    first: usize,
    count: usize,
}

/// The kernels of stride 1 that make one direction of a convolution, where this module computes it.
fn phases(conv: &network::Conv, heading: Heading) -> Option<Phases> {
    let window = &conv.window;
    let padding = window.before().into_iter().zip(window.after()).zip(window.kernel);
    let little = padding.into_iter().all(|((before, after), kernel)| before.max(after) < kernel);
    let phases = match heading {
        Heading::Forward => Phases::forward(window),
        Heading::Backward => Phases::backward(window),
    };
    phases.filter(|phases| conv.groups == 1 && little && phases.stride <= 2 && !Size::for_taps(phases.taps).is_empty())
}

/// The sizes that a convolution can be computed with, in both directions; none where it is not of this module's kind.
pub(super) fn sizes(conv: &network::Conv) -> &'static [Size] {
    phases(conv, Heading::Forward).map_or(&[], |phases| Size::for_taps(phases.taps))
}

/// The size that likely takes the least time, for maps of height and width `inside` before the convolution and `outside`
/// behind it; none where sums as they are written take less.
pub(super) fn estimate(
    conv: &network::Conv,
    heading: Heading,
    inside: [usize; 2],
    outside: [usize; 2],
) -> Option<Size> {
    /// Multiply-adds that take as long as to transform a channel of a tile.
    const TRANSFORM: usize = 300;
    let phases = phases(conv, heading)?;
    let (inputs, outputs, count) = (conv.in_channels(), conv.out_channels(), phases.count());
    let together = is_scattered(&phases, inputs);
    if inputs.min(outputs) < 8 && !together {
        // Few channels do not pay for the transforms.
        return None;
    }
    let area = |[height, width]: [usize; 2]| height * width;
    let tiles = |size: Size, map: [usize; 2]| area(map.map(|side| side.div_ceil(size.output())));
    if phases.stride == 1 && phases.taps == 3 {
        // Small maps may leave most of a large tile unused.
        let sizes = Size::for_taps(3).iter().copied();
        return sizes.min_by_key(|&size| tiles(size, outside) * size.elements());
    }
    let size = *Size::for_taps(phases.taps).first()?;
    let vectors = |channels: usize| channels.div_ceil(LANES) * LANES;
    // Channels of a phase, and of all, on the way in and out; pixels of a phase that is computed.
    let ([from, to], [all_from, all_to], grid) = match heading {
        Heading::Forward => ([inputs, outputs], [count * inputs, outputs], outside),
        Heading::Backward => {
            ([outputs, inputs], [outputs, count * inputs], inside.map(|side| side.div_ceil(phases.stride)))
        }
    };
    let as_written = area(outside) * area(conv.window.kernel) * from * vectors(to);
    // Multiply-adds of the direct way and of a tile, and by how much these have to be less.
    let (direct, products, share) = if together {
        let products = size.elements() * all_from * vectors(all_to);
        match heading {
            Heading::Forward => (as_written, products, 0.7),
            // What this saves must outweigh that it is not walked in bands.
            Heading::Backward => (area(grid) * phases.taps * phases.taps * from * vectors(all_to), products, 0.5),
        }
    } else {
        let elements: u32 = (0..count).map(|phase| used(&phases, phase, size).count_ones()).sum();
        (as_written, elements as usize * from * vectors(to), 0.8)
    };
    let taken = tiles(size, grid) * (products + TRANSFORM * (vectors(all_from) + vectors(all_to)));
    ((taken as f64) < share * direct as f64).then_some(size)
}

/// Whether the phases of a strided window share one product, since they fill a vector together.
fn is_scattered(phases: &Phases, channels: usize) -> bool {
    phases.stride > 1 && channels <= SCATTERED
}

/// The elements where a phase's kernels are not zero.
fn used(phases: &Phases, phase: usize, size: Size) -> u64 {
    (0..size.elements()).filter(|&e| phases.uses(phase, e, size.input())).map(|e| 1 << e).sum()
}

/// Every element of the one kernel there is.
fn all_elements(size: Size) -> Vec<u64> {
    vec![u64::MAX >> (u64::BITS as usize - size.elements())]
}

impl Winograd {
    /// None where the convolution is not of this module's kind, or the size for other kernels.
    pub(super) fn forward(conv: &network::Conv, size: Size, layout: Layout) -> Option<Self> {
        let phases = phases(conv, Heading::Forward).filter(|phases| phases.taps == size.taps())?;
        let filters = Filters::new(conv);
        if is_scattered(&phases, filters.inputs) {
            let channels = [phases.count() * filters.inputs, filters.outputs];
            let sides = [Side::of_squares(&phases, filters.inputs), Side::WHOLE];
            let weight = |_, _, o, column, tap| {
                let (phase, c) = (column / filters.inputs, column % filters.inputs);
                phases.index(phase, tap).map_or(0.0, |tap| filters.weight(0, o, c, tap))
            };
            return Some(Self::new(size, channels, sides, phases.start, all_elements(size), layout, weight));
        }
        let channels = [filters.inputs, filters.outputs];
        let sides = [Side::of(&phases), Side::WHOLE];
        let weight = |_, phase, o, c, tap| phases.index(phase, tap).map_or(0.0, |tap| filters.weight(0, o, c, tap));
        let elements = (0..phases.count()).map(|phase| used(&phases, phase, size)).collect();
        Some(Self::new(size, channels, sides, phases.start, elements, layout, weight))
    }

    /// As [`Winograd::forward`].
    pub(super) fn backward(conv: &network::Conv, size: Size, layout: Layout) -> Option<Self> {
        let phases = phases(conv, Heading::Backward).filter(|phases| phases.taps == size.taps())?;
        let filters = Filters::new(conv);
        let at = |phase, c, o, tap| phases.index(phase, tap).map_or(0.0, |tap| filters.weight(0, o, c, tap));
        if is_scattered(&phases, filters.inputs) {
            let channels = [filters.outputs, phases.count() * filters.inputs];
            let sides = [Side::WHOLE, Side::of_squares(&phases, filters.inputs)];
            let weight = |_, _, column, o, tap| at(column / filters.inputs, column % filters.inputs, o, tap);
            return Some(Self::new(size, channels, sides, phases.start, all_elements(size), layout, weight));
        }
        let channels = [filters.outputs, filters.inputs];
        let sides = [Side::WHOLE, Side::of(&phases)];
        let weight = |phase, _, c, o, tap| at(phase, c, o, tap);
        let elements = (0..phases.count()).map(|phase| used(&phases, phase, size)).collect();
        Some(Self::new(size, channels, sides, phases.start, elements, layout, weight))
    }

    /// `weight` takes a phase of the destination and one of the source, a column of the sums, an input and a tap.
    fn new(
        size: Size,
        [inputs, outputs]: [usize; 2],
        [from, to]: [Side; 2],
        start: [isize; 2],
        elements: Vec<u64>,
        layout: Layout,
        weight: impl Fn(usize, usize, usize, usize, usize) -> f32,
    ) -> Self {
        let lanes = layout.lanes;
        let rows = from.phases * inputs;
        let plain = size.elements() * rows * outputs * to.phases * size_of::<f32>() >= layout.heavy;
        let panels = |phase: usize| {
            let weight = |k: usize, o: usize, tap: usize| weight(phase, k / inputs, o, k % inputs, tap);
            let taps = size.taps() * size.taps();
            if plain {
                return Panels::new(taps * rows, outputs, layout, |k, line| {
                    line.iter_mut().enumerate().for_each(|(o, value)| *value = weight(k / taps, o, k % taps));
                });
            }
            transformed(size, [from.phases, inputs, outputs], layout, weight)
        };
        let phases: Vec<Panels> = (0..to.phases).map(panels).collect();
        let each = phases.iter().enumerate();
        let panels =
            each.flat_map(|(phase, panels)| panels.panels().iter().map(move |&panel| (phase, panel))).collect();
        let weights = Weights { plain, phases, panels };
        let pixel = inputs.div_ceil(lanes) * lanes;
        Self { size, weights, inputs, pixel, from, to, start, elements, lanes }
    }

    /// Whether the kernels between two phases are not zero at an element.
    #[inline(always)]
    fn uses(&self, to: usize, from: usize, element: usize) -> bool {
        // One of the sides has only one phase.
        self.elements[to + from] >> element & 1 == 1
    }

    /// Tiles of one image of height and width `size`.
    fn grid(&self, size: [usize; 2]) -> [usize; 2] {
        size.map(|side| side.div_ceil(self.to.stride).div_ceil(self.size.output()))
    }

    /// Most tiles of a block: rows of two products, or all that share weights.
    fn tiles(&self) -> usize {
        match self.weights.plain {
            false if self.lanes == 16 => 14,
            false => 12,
            true => SHARING,
        }
    }

    /// Whether so few tiles are there that threads share the panels of weights instead.
    fn shares_panels(&self, tiles: usize, threads: usize) -> bool {
        let few = threads > 1 && tiles.div_ceil(self.tiles()) < threads;
        few || self.weights.plain
    }

    fn sums(&self) -> usize {
        self.size.elements() * self.sums_of_element()
    }

    #[inline(always)]
    fn sums_of_element(&self) -> usize {
        self.tiles() * 2 * self.lanes + SKEW
    }

    /// Bytes of the weights.
    pub(super) fn bytes(&self) -> usize {
        self.weights.phases.iter().map(Panels::bytes).sum()
    }

    /// Values that every thread needs for itself.
    pub(super) fn scratch(&self) -> usize {
        let own = if self.weights.plain {
            self.size.elements() * (DEPTH * 2 * self.lanes + SKEW)
        } else {
            self.from.phases * self.size.elements() * (self.tiles() * self.pixel + SKEW)
        };
        self.sums() + own
    }

    /// Channels of a block of transformed tiles.
    fn depth(&self) -> usize {
        if self.weights.plain { DEPTH } else { self.pixel }
    }

    /// Blocks of transformed tiles.
    fn blocks(&self) -> usize {
        self.from.phases * self.pixel.div_ceil(self.depth())
    }

    /// The channels of a block.
    #[inline(always)]
    fn channels(&self, block: usize) -> Channels {
        let (of_phase, depth) = (self.pixel.div_ceil(self.depth()), self.depth());
        let first = block % of_phase * depth;
        Channels { block, phase: block / of_phase, first, count: (self.inputs - first).min(depth) }
    }

    /// Where so many transformed tiles lie in memory.
    fn layout(&self, data: *mut f32, tiles: usize) -> Tiles {
        let depth = self.depth();
        let element = tiles * depth + SKEW;
        Tiles { data, depth, block: self.size.elements() * element, element }
    }

    /// Values that the threads share, for `images` destination maps of height and width `size`.
    pub(super) fn shared(&self, images: usize, size: [usize; 2], threads: usize) -> usize {
        let tiles = images * self.grid(size).iter().product::<usize>();
        if !self.shares_panels(tiles, threads) {
            return 0;
        }
        self.blocks() * self.layout(std::ptr::null_mut(), tiles).block
    }

    /// Computes `finish` from `source`.
    pub(super) fn run(&self, site: &Site<'_>, source: Map, finish: &Finish<'_>) {
        assert_eq!(source.channels, self.from.square.map_or(self.inputs, |square| square.channels));
        assert_eq!(source.images, finish.to.images);
        let grid = self.grid([finish.to.height, finish.to.width]);
        let tiles = source.images * grid[0] * grid[1];
        let panels = self.weights.panels.len();
        let vectors = self.from.phases * self.pixel / self.lanes;
        let job = |to: Tiles, tiles, panels| {
            let sums = site.scratch;
            Piece { winograd: self, source, finish, grid, to, first: 0, sums, tiles, panels, vectors: [0, vectors] }
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
        let shares = vectors.min(2 * site.member.count());
        site.member.each(tiles * shares, |piece| {
            let (tile, share) = (piece / shares, piece % shares);
            let vectors = [vectors * share / shares, vectors * (share + 1) / shares];
            // SAFETY: as above; the shared memory has room for all tiles, and no two pieces write the same.
            unsafe { site.instructions.run(Transform(Piece { vectors, ..job(to, [tile, tile + 1], [0, 0]) })) };
        });
        site.member.each(panels * blocks, |piece| {
            let (panel, block) = (piece / blocks, piece % blocks);
            let tiles = [tiles * block / blocks, tiles * (block + 1) / blocks];
            // SAFETY: as above; the shared memory was filled before and is only read.
            unsafe { site.instructions.run(Multiply(job(to, tiles, [panel, panel + 1]))) };
        });
    }
}

impl Side {
    /// A map that is its only phase.
    const WHOLE: Self = Self { stride: 1, phases: 1, square: None };

    fn of(phases: &Phases) -> Self {
        Self { stride: phases.stride, phases: phases.count(), square: None }
    }

    /// All phases together, of pixels with so many channels.
    fn of_squares(phases: &Phases, channels: usize) -> Self {
        let square = Square { step: [phases.stride; 2], channels };
        Self { stride: phases.stride, phases: 1, square: Some(square) }
    }
}

/// Transformed kernels, one matrix `[inputs, outputs]` per phase of the source and element. `weight` takes an input, counted
/// over all phases, an output and a tap.
fn transformed(
    size: Size,
    [phases, inputs, outputs]: [usize; 3],
    layout: Layout,
    weight: impl Fn(usize, usize, usize) -> f32,
) -> Panels {
    let rows = phases * size.elements() * inputs;
    if layout.hollow {
        return Panels::new(rows, outputs, layout, |_, _| ());
    }
    let (side, taps, transform) = (size.input(), size.taps(), size.kernel_transform());
    // `[phases, elements, inputs, outputs]`
    let mut transformed = vec![0f32; rows * outputs];
    let mut half = vec![0f64; taps];
    for (k, o) in (0..phases * inputs).flat_map(|k| (0..outputs).map(move |o| (k, o))) {
        for (i, row) in transform.iter().enumerate() {
            for (x, half) in half.iter_mut().enumerate() {
                *half = row.iter().enumerate().map(|(y, factor)| factor * f64::from(weight(k, o, y * taps + x))).sum();
            }
            for (j, column) in transform.iter().enumerate() {
                let value: f64 = half.iter().zip(*column).map(|(half, factor)| half * factor).sum();
                let element = k / inputs * size.elements() + i * side + j;
                transformed[(element * inputs + k % inputs) * outputs + o] = value as f32;
            }
        }
    }
    Panels::new(rows, outputs, layout, |k, line| {
        line.copy_from_slice(&transformed[k * outputs..(k + 1) * outputs]);
    })
}
