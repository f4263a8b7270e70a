//! Convolution by Winograd's minimal filtering.
//!
//! Lavin & Gray, arXiv:1509.09308, section 4: tiles of input and kernel are transformed, multiplied element by element
//! (here: one product of tiles and channels per element), and transformed back; F(4x4, 3x3) needs 2.25 products of a channel
//! pair per output where direct convolution needs 9. Both directions are this; the backward one turns the kernel round. A
//! window of stride 2 is four kernels of stride 1, see [`mod@phases`].

use crate::engine::cpu::kernel::{Direction, KernelConfig};
use crate::engine::cpu::kernels::conv::pixel_block::PixelBlock;
use crate::engine::cpu::kernels::conv::weights::ConvWeights;
use crate::engine::cpu::kernels::conv::winograd::phases::{Phases, is_scattered, phases, used};
use crate::engine::cpu::kernels::conv::winograd::transforms::TileSize;
use crate::engine::cpu::kernels::gemm::{PackedMatrix, Panel};
use crate::network;

/// Values between two elements' matrices, so that they do not fall into the same lines of the cache.
pub(crate) const SKEW: usize = 16;

/// Most values of a vector.
pub(crate) const LANES: usize = 16;

/// Input channels whose weights are transformed together.
pub(crate) const DEPTH: usize = 64;

/// Most tiles that use weights that were transformed for them.
pub(crate) const TILES_PER_TRANSFORM: usize = 64;

/// One direction of a convolution.
pub(crate) struct Winograd {
    pub(crate) size: TileSize,
    pub(crate) weights: WinogradWeights,
    /// ChannelBlock of a phase of the source; where they are few, of all its phases.
    pub(crate) inputs: usize,
    /// `inputs`, rounded up to vectors.
    pub(crate) pixel: usize,
    pub(crate) from: PhaseSplit,
    pub(crate) to: PhaseSplit,
    /// Row and column of the first tap in a phase of the source, from the pixel that is computed.
    pub(crate) start: [isize; 2],
    /// For each phase, of the side that has more than one: the elements where its kernels are not zero, a bit for each.
    pub(crate) elements: Vec<u64>,
    pub(crate) lanes: usize,
}

/// The source or the destination.
#[derive(Clone, Copy)]
pub(crate) struct PhaseSplit {
    /// Rows, and columns, from a pixel of a phase to the next.
    pub(crate) stride: usize,
    pub(crate) phases: usize,
    /// Where all phases share one product: the squares of pixels that are its rows, or the columns of its sums.
    pub(crate) pixel_block: Option<PixelBlock>,
}

/// The kernels.
pub(crate) struct WinogradWeights {
    /// Whether they lie there as they are, `[phases of the source, inputs, taps, outputs]`, and are transformed at every use;
    /// else they are transformed, `[phases of the source, elements, inputs, outputs]`.
    pub(crate) on_the_fly: bool,
    /// For each phase of the destination.
    pub(crate) phases: Vec<PackedMatrix>,
    /// Those panels, each with its phase.
    pub(crate) panels: Vec<(usize, Panel)>,
}

/// Input channels of one phase of the source that are multiplied together.
#[derive(Clone, Copy)]
pub(crate) struct ChannelBlock {
    /// Number of their block of transformed tiles.
    pub(crate) block: usize,
    pub(crate) phase: usize,
    pub(crate) first: usize,
    pub(crate) count: usize,
}

/// Every element of the one kernel there is.
pub(crate) fn all_elements(size: TileSize) -> Vec<u64> {
    vec![u64::MAX >> (u64::BITS as usize - size.elements())]
}

/// Where the transformed tiles lie: `[blocks of channels, elements, tiles, channels]`.
#[derive(Clone, Copy)]
pub(crate) struct TileBuffer {
    pub(crate) data: *mut f32,
    /// ChannelBlock of a block.
    pub(crate) depth: usize,
    /// Values from a block to the next.
    pub(crate) block: usize,
    /// Values from an element to the next.
    pub(crate) element: usize,
}

impl Winograd {
    /// None where the convolution is not of this module's kind, or the size for other kernels.
    pub(crate) fn forward(conv: &network::Conv, size: TileSize, config: KernelConfig) -> Option<Self> {
        let phases = phases(conv, Direction::Forward).filter(|phases| phases.taps == size.taps())?;
        let conv_weights = ConvWeights::new(conv);
        if is_scattered(&phases, conv_weights.inputs) {
            let channels = [phases.count() * conv_weights.inputs, conv_weights.outputs];
            let splits = [PhaseSplit::of_pixel_blocks(&phases, conv_weights.inputs), PhaseSplit::WHOLE];
            let weight = |_, _, o, column, tap| {
                let (phase, c) = (column / conv_weights.inputs, column % conv_weights.inputs);
                phases.index(phase, tap).map_or(0.0, |tap| conv_weights.weight(0, o, c, tap))
            };
            return Some(Self::new(size, channels, splits, phases.start, all_elements(size), config, weight));
        }
        let channels = [conv_weights.inputs, conv_weights.outputs];
        let splits = [PhaseSplit::of(&phases), PhaseSplit::WHOLE];
        let weight =
            |_, phase, o, c, tap| phases.index(phase, tap).map_or(0.0, |tap| conv_weights.weight(0, o, c, tap));
        let elements = (0..phases.count()).map(|phase| used(&phases, phase, size)).collect();
        Some(Self::new(size, channels, splits, phases.start, elements, config, weight))
    }

    /// As [`Winograd::forward`].
    pub(crate) fn backward(conv: &network::Conv, size: TileSize, config: KernelConfig) -> Option<Self> {
        let phases = phases(conv, Direction::Backward).filter(|phases| phases.taps == size.taps())?;
        let conv_weights = ConvWeights::new(conv);
        let at = |phase, c, o, tap| phases.index(phase, tap).map_or(0.0, |tap| conv_weights.weight(0, o, c, tap));
        if is_scattered(&phases, conv_weights.inputs) {
            let channels = [conv_weights.outputs, phases.count() * conv_weights.inputs];
            let splits = [PhaseSplit::WHOLE, PhaseSplit::of_pixel_blocks(&phases, conv_weights.inputs)];
            let weight = |_, _, column, o, tap| at(column / conv_weights.inputs, column % conv_weights.inputs, o, tap);
            return Some(Self::new(size, channels, splits, phases.start, all_elements(size), config, weight));
        }
        let channels = [conv_weights.outputs, conv_weights.inputs];
        let splits = [PhaseSplit::WHOLE, PhaseSplit::of(&phases)];
        let weight = |phase, _, c, o, tap| at(phase, c, o, tap);
        let elements = (0..phases.count()).map(|phase| used(&phases, phase, size)).collect();
        Some(Self::new(size, channels, splits, phases.start, elements, config, weight))
    }

    /// `weight` takes a phase of the destination and one of the source, a column of the sums, an input and a tap.
    fn new(
        size: TileSize,
        [inputs, outputs]: [usize; 2],
        [from, to]: [PhaseSplit; 2],
        start: [isize; 2],
        elements: Vec<u64>,
        config: KernelConfig,
        weight: impl Fn(usize, usize, usize, usize, usize) -> f32,
    ) -> Self {
        let lanes = config.lanes;
        let rows = from.phases * inputs;
        let on_the_fly = size.elements() * rows * outputs * to.phases * size_of::<f32>() >= config.on_the_fly_bytes;
        let panels = |phase: usize| {
            let weight = |k: usize, o: usize, tap: usize| weight(phase, k / inputs, o, k % inputs, tap);
            let taps = size.taps() * size.taps();
            if on_the_fly {
                return PackedMatrix::new(taps * rows, outputs, config, |k, line| {
                    line.iter_mut().enumerate().for_each(|(o, value)| *value = weight(k / taps, o, k % taps));
                });
            }
            transformed(size, [from.phases, inputs, outputs], config, weight)
        };
        let phases: Vec<PackedMatrix> = (0..to.phases).map(panels).collect();
        let each = phases.iter().enumerate();
        let panels =
            each.flat_map(|(phase, panels)| panels.panels().iter().map(move |&panel| (phase, panel))).collect();
        let weights = WinogradWeights { on_the_fly, phases, panels };
        let pixel = inputs.div_ceil(lanes) * lanes;
        Self { size, weights, inputs, pixel, from, to, start, elements, lanes }
    }

    /// Whether the kernels between two phases are not zero at an element.
    #[inline(always)]
    pub(crate) fn uses(&self, to: usize, from: usize, element: usize) -> bool {
        // One of the mask has only one phase.
        self.elements[to + from] >> element & 1 == 1
    }

    /// TileBuffer of one image of height and width `size`.
    pub(crate) fn grid(&self, size: [usize; 2]) -> [usize; 2] {
        size.map(|side| side.div_ceil(self.to.stride).div_ceil(self.size.output()))
    }

    /// Most tiles of a block: rows of two products, or all that share weights.
    pub(crate) fn tiles(&self) -> usize {
        match self.weights.on_the_fly {
            false if self.lanes == 16 => 14,
            false => 12,
            true => TILES_PER_TRANSFORM,
        }
    }

    /// Whether so few tiles are there that threads share the panels of weights instead.
    pub(crate) fn shares_panels(&self, tiles: usize, threads: usize) -> bool {
        let few = threads > 1 && tiles.div_ceil(self.tiles()) < threads;
        few || self.weights.on_the_fly
    }

    pub(crate) fn sums(&self) -> usize {
        self.size.elements() * self.sums_of_element()
    }

    #[inline(always)]
    pub(crate) fn sums_of_element(&self) -> usize {
        self.tiles() * 2 * self.lanes + SKEW
    }

    /// Bytes of the weights.
    pub(crate) fn bytes(&self) -> usize {
        self.weights.phases.iter().map(PackedMatrix::bytes).sum()
    }

    /// Values that every thread needs for itself.
    pub(crate) fn scratch_len(&self) -> usize {
        let own = if self.weights.on_the_fly {
            self.size.elements() * (DEPTH * 2 * self.lanes + SKEW)
        } else {
            self.from.phases * self.size.elements() * (self.tiles() * self.pixel + SKEW)
        };
        self.sums() + own
    }

    /// ChannelBlock of a block of transformed tiles.
    pub(crate) fn depth(&self) -> usize {
        if self.weights.on_the_fly { DEPTH } else { self.pixel }
    }

    /// Blocks of transformed tiles.
    pub(crate) fn blocks(&self) -> usize {
        self.from.phases * self.pixel.div_ceil(self.depth())
    }

    /// The channels of a block.
    #[inline(always)]
    pub(crate) fn channel_block(&self, block: usize) -> ChannelBlock {
        let (of_phase, depth) = (self.pixel.div_ceil(self.depth()), self.depth());
        let first = block % of_phase * depth;
        ChannelBlock { block, phase: block / of_phase, first, count: (self.inputs - first).min(depth) }
    }

    /// Where so many transformed tiles lie in memory.
    pub(crate) fn tile_buffer(&self, data: *mut f32, tiles: usize) -> TileBuffer {
        let depth = self.depth();
        let element = tiles * depth + SKEW;
        TileBuffer { data, depth, block: self.size.elements() * element, element }
    }

    /// Values that the threads share, for `images` destination maps of height and width `size`.
    pub(crate) fn shared_len(&self, images: usize, size: [usize; 2], threads: usize) -> usize {
        let tiles = images * self.grid(size).iter().product::<usize>();
        if !self.shares_panels(tiles, threads) {
            return 0;
        }
        self.blocks() * self.tile_buffer(std::ptr::null_mut(), tiles).block
    }
}

impl PhaseSplit {
    /// A map that is its only phase.
    const WHOLE: Self = Self { stride: 1, phases: 1, pixel_block: None };

    pub(crate) fn of(phases: &Phases) -> Self {
        Self { stride: phases.stride, phases: phases.count(), pixel_block: None }
    }

    /// All phases together, of pixels with so many channels.
    pub(crate) fn of_pixel_blocks(phases: &Phases, channels: usize) -> Self {
        let pixel_block = PixelBlock { step: [phases.stride; 2], channels };
        Self { stride: phases.stride, phases: 1, pixel_block: Some(pixel_block) }
    }
}

/// Transformed kernels, one matrix `[inputs, outputs]` per phase of the source and element. `weight` takes an input, counted
/// over all phases, an output and a tap.
pub(crate) fn transformed(
    size: TileSize,
    [phases, inputs, outputs]: [usize; 3],
    config: KernelConfig,
    weight: impl Fn(usize, usize, usize) -> f32,
) -> PackedMatrix {
    let rows = phases * size.elements() * inputs;
    if config.weightless {
        return PackedMatrix::new(rows, outputs, config, |_, _| ());
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
    PackedMatrix::new(rows, outputs, config, |k, line| {
        line.copy_from_slice(&transformed[k * outputs..(k + 1) * outputs]);
    })
}
