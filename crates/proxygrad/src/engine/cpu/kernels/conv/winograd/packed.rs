//! Packed weights and tile geometry of a Winograd convolution.

use crate::engine::cpu::kernel::{Direction, KernelConfig};
use crate::engine::cpu::kernels::conv::pixel_block::PixelBlock;
use crate::engine::cpu::kernels::conv::weights::ConvWeights;
use crate::engine::cpu::kernels::conv::winograd::phases::{Phases, is_scattered, phases, used};
use crate::engine::cpu::kernels::conv::winograd::transforms::TileSize;
use crate::engine::cpu::kernels::gemm::{PackedMatrix, Panel};
use crate::network;

/// Padding between the matrices of two elements, so that they do not map to the same cache sets.
pub(crate) const SKEW: usize = 16;

/// Maximum number of values of a vector, for any instruction set.
pub(crate) const LANES: usize = 16;

/// Input channels whose weights are transformed at a time, where that happens on the fly.
pub(crate) const DEPTH: usize = 64;

/// Maximum number of tiles that share weights transformed on the fly.
pub(crate) const TILES_PER_TRANSFORM: usize = 64;

/// One direction of a Winograd convolution.
pub(crate) struct Winograd {
    pub(crate) size: TileSize,
    pub(crate) weights: WinogradWeights,
    /// Input channels of a phase of the source, or of all its phases where they share one product.
    pub(crate) inputs: usize,
    /// `inputs`, rounded up to vectors.
    pub(crate) padded_inputs: usize,
    pub(crate) from: PhaseSplit,
    pub(crate) to: PhaseSplit,
    /// Row and column of the first tap in a phase of the source, relative to the output pixel.
    pub(crate) start: [isize; 2],
    /// For each phase, of source or destination, a bit per element: set where its kernels are not zero.
    pub(crate) elements: Vec<u64>,
    pub(crate) lanes: usize,
}

/// How the source or the destination is split into phases.
#[derive(Clone, Copy)]
pub(crate) struct PhaseSplit {
    /// Rows, and columns, from one pixel of a phase to the next.
    pub(crate) stride: usize,
    pub(crate) phases: usize,
    /// If all phases share one product: the pixel blocks that are its rows, or the columns of its sums.
    pub(crate) pixel_block: Option<PixelBlock>,
}

/// Packed kernels.
pub(crate) struct WinogradWeights {
    /// Whether they are untransformed, `[phases of the source, inputs, taps, outputs]`, and transformed on every use.
    /// Otherwise they are transformed, `[phases of the source, elements, inputs, outputs]`.
    pub(crate) on_the_fly: bool,
    /// One matrix per phase of the destination.
    pub(crate) phases: Vec<PackedMatrix>,
    /// The panels of all matrices, each with its phase.
    pub(crate) panels: Vec<(usize, Panel)>,
}

/// Input channels of one phase of the source that are multiplied at a time.
#[derive(Clone, Copy)]
pub(crate) struct ChannelBlock {
    /// Index of the block.
    pub(crate) block: usize,
    pub(crate) phase: usize,
    pub(crate) first: usize,
    pub(crate) count: usize,
}

/// All elements, of a single kernel.
pub(crate) fn all_elements(size: TileSize) -> Vec<u64> {
    vec![u64::MAX >> (u64::BITS as usize - size.elements())]
}

/// Memory of transformed tiles: `[channel blocks, elements, tiles, channels]`.
#[derive(Clone, Copy)]
pub(crate) struct TileBuffer {
    pub(crate) data: *mut f32,
    /// Channels per block.
    pub(crate) depth: usize,
    /// Values from one block to the next.
    pub(crate) block_stride: usize,
    /// Values from one element to the next.
    pub(crate) element_stride: usize,
}

impl Winograd {
    /// None if Winograd does not apply to the convolution, or the tile size is for other kernels.
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

    /// `weight` takes a phase of the destination, a phase of the source, a column of the sums, an input and a tap.
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
        let padded_inputs = inputs.div_ceil(lanes) * lanes;
        Self { size, weights, inputs, padded_inputs, from, to, start, elements, lanes }
    }

    /// Whether the kernels between two phases have values other than zero at an element.
    #[inline(always)]
    pub(crate) fn uses(&self, to: usize, from: usize, element: usize) -> bool {
        // Source or destination has only one phase.
        self.elements[to + from] >> element & 1 == 1
    }

    /// Rows and columns of tiles in one image of height and width `size`.
    pub(crate) fn grid(&self, size: [usize; 2]) -> [usize; 2] {
        size.map(|side| side.div_ceil(self.to.stride).div_ceil(self.size.output()))
    }

    /// Maximum number of tiles per cache block: the rows of two products, or all that share transformed weights.
    pub(crate) fn block_tiles(&self) -> usize {
        match self.weights.on_the_fly {
            false if self.lanes == 16 => 14,
            false => 12,
            true => TILES_PER_TRANSFORM,
        }
    }

    /// Whether there are so few tiles that the threads divide the panels of the weights instead.
    pub(crate) fn shares_panels(&self, tiles: usize, threads: usize) -> bool {
        let few = threads > 1 && tiles.div_ceil(self.block_tiles()) < threads;
        few || self.weights.on_the_fly
    }

    pub(crate) fn sums_len(&self) -> usize {
        self.size.elements() * self.sums_per_element()
    }

    #[inline(always)]
    pub(crate) fn sums_per_element(&self) -> usize {
        self.block_tiles() * 2 * self.lanes + SKEW
    }

    /// Bytes of the weights.
    pub(crate) fn bytes(&self) -> usize {
        self.weights.phases.iter().map(PackedMatrix::bytes).sum()
    }

    /// Values of private memory per thread.
    pub(crate) fn scratch_len(&self) -> usize {
        let own = if self.weights.on_the_fly {
            self.size.elements() * (DEPTH * 2 * self.lanes + SKEW)
        } else {
            self.from.phases * self.size.elements() * (self.block_tiles() * self.padded_inputs + SKEW)
        };
        self.sums_len() + own
    }

    /// Channels per block of transformed tiles.
    pub(crate) fn depth(&self) -> usize {
        if self.weights.on_the_fly { DEPTH } else { self.padded_inputs }
    }

    /// Number of channel blocks.
    pub(crate) fn blocks(&self) -> usize {
        self.from.phases * self.padded_inputs.div_ceil(self.depth())
    }

    /// The channels of a block.
    #[inline(always)]
    pub(crate) fn channel_block(&self, block: usize) -> ChannelBlock {
        let (of_phase, depth) = (self.padded_inputs.div_ceil(self.depth()), self.depth());
        let first = block % of_phase * depth;
        ChannelBlock { block, phase: block / of_phase, first, count: (self.inputs - first).min(depth) }
    }

    /// Layout of this many transformed tiles at `data`.
    pub(crate) fn tile_buffer(&self, data: *mut f32, tiles: usize) -> TileBuffer {
        let depth = self.depth();
        let element_stride = tiles * depth + SKEW;
        TileBuffer { data, depth, block_stride: self.size.elements() * element_stride, element_stride }
    }

    /// Values of memory shared by the threads, for `images` destination maps of height and width `size`.
    pub(crate) fn shared_len(&self, images: usize, size: [usize; 2], threads: usize) -> usize {
        let tiles = images * self.grid(size).iter().product::<usize>();
        if !self.shares_panels(tiles, threads) {
            return 0;
        }
        self.blocks() * self.tile_buffer(std::ptr::null_mut(), tiles).block_stride
    }
}

impl PhaseSplit {
    /// A map with a single phase.
    const WHOLE: Self = Self { stride: 1, phases: 1, pixel_block: None };

    pub(crate) fn of(phases: &Phases) -> Self {
        Self { stride: phases.stride, phases: phases.count(), pixel_block: None }
    }

    /// All phases together, as blocks of pixels with this many channels.
    pub(crate) fn of_pixel_blocks(phases: &Phases, channels: usize) -> Self {
        let pixel_block = PixelBlock { size: [phases.stride; 2], channels };
        Self { stride: phases.stride, phases: 1, pixel_block: Some(pixel_block) }
    }
}

/// Transforms the kernels: one matrix `[inputs, outputs]` per phase of the source and element. `weight` takes an input,
/// counted over all phases, an output and a tap.
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
    // Of one input: the kernels `[taps, taps, outputs]`, and those transformed along one axis, `[side, taps, outputs]`.
    let mut kernels = vec![0f64; taps * taps * outputs];
    let mut half = vec![0f64; side * taps * outputs];
    let mut sums = vec![0f64; outputs];
    for k in 0..phases * inputs {
        for (tap, kernels) in kernels.chunks_exact_mut(outputs.max(1)).enumerate() {
            kernels.iter_mut().enumerate().for_each(|(o, value)| *value = weight(k, o, tap).into());
        }
        for (at, half) in half.chunks_exact_mut(outputs.max(1)).enumerate() {
            let (i, x) = (at / taps, at % taps);
            half.fill(0.0);
            add_lines(half, transform[i], |y| &kernels[(y * taps + x) * outputs..]);
        }
        for at in 0..side * side {
            let (i, j) = (at / side, at % side);
            sums.fill(0.0);
            add_lines(&mut sums, transform[j], |x| &half[(i * taps + x) * outputs..]);
            let to = ((k / inputs * size.elements() + at) * inputs + k % inputs) * outputs;
            let line = transformed[to..].iter_mut().zip(&sums);
            line.for_each(|(to, &sum)| *to = sum as f32);
        }
    }
    PackedMatrix::new(rows, outputs, config, |k, line| {
        line.copy_from_slice(&transformed[k * outputs..(k + 1) * outputs]);
    })
}

/// Adds lines of values, each with its factor.
fn add_lines<'a>(sums: &mut [f64], factors: &[f64], line: impl Fn(usize) -> &'a [f64]) {
    for (i, &factor) in factors.iter().enumerate().filter(|(_, factor)| **factor != 0.0) {
        sums.iter_mut().zip(line(i)).for_each(|(sum, value)| *sum += factor * value);
    }
}
