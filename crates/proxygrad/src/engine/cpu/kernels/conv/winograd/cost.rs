//! Cost model of Winograd convolutions: which tile size is fastest, if any.

use crate::engine::cpu::kernel::Direction;
use crate::engine::cpu::kernels::conv::winograd::packed::LANES;
use crate::engine::cpu::kernels::conv::winograd::phases::{is_scattered, phases, used};
use crate::engine::cpu::kernels::conv::winograd::transforms::TileSize;
use crate::network;

/// Tile sizes that support a convolution, in both directions; empty if Winograd does not apply.
pub(crate) fn supported_sizes(conv: &network::Conv) -> &'static [TileSize] {
    phases(conv, Direction::Forward).map_or(&[], |phases| TileSize::for_taps(phases.taps))
}

/// The tile size that is probably fastest, for maps of height and width `inside` before and `outside` after the
/// convolution. None if direct convolution is faster.
pub(crate) fn best_size(
    conv: &network::Conv,
    direction: Direction,
    inside: [usize; 2],
    outside: [usize; 2],
) -> Option<TileSize> {
    /// Cost of transforming one channel of a tile, in multiply-adds.
    const TRANSFORM: usize = 300;
    let phases = phases(conv, direction)?;
    let (inputs, outputs, count) = (conv.in_channels(), conv.out_channels(), phases.count());
    let together = is_scattered(&phases, inputs);
    if inputs.min(outputs) < 8 && !together {
        // With few channels the transforms cost more than they save.
        return None;
    }
    let area = |[height, width]: [usize; 2]| height * width;
    let tiles = |size: TileSize, map: [usize; 2]| area(map.map(|side| side.div_ceil(size.output())));
    if phases.stride == 1 && phases.taps == 3 {
        // Small maps may leave most of a large tile unused.
        let sizes = TileSize::for_taps(3).iter().copied();
        return sizes.min_by_key(|&size| tiles(size, outside) * size.elements());
    }
    let size = *TileSize::for_taps(phases.taps).first()?;
    let vectors = |channels: usize| channels.div_ceil(LANES) * LANES;
    // Channels of a phase, and of all phases, of source and destination; pixels of a computed phase.
    let ([from, to], [all_from, all_to], grid) = match direction {
        Direction::Forward => ([inputs, outputs], [count * inputs, outputs], outside),
        Direction::Backward => {
            ([outputs, inputs], [outputs, count * inputs], inside.map(|side| side.div_ceil(phases.stride)))
        }
    };
    let as_written = area(outside) * area(conv.window.kernel) * from * vectors(to);
    // Multiply-adds of direct convolution and per tile, and the factor by which Winograd must be cheaper.
    let (direct, products, share) = if together {
        let products = size.elements() * all_from * vectors(all_to);
        match direction {
            Direction::Forward => (as_written, products, 0.7),
            // Winograd cannot be row-tiled, which must be outweighed.
            Direction::Backward => (area(grid) * phases.taps * phases.taps * from * vectors(all_to), products, 0.5),
        }
    } else {
        let elements: u32 = (0..count).map(|phase| used(&phases, phase, size).count_ones()).sum();
        (as_written, elements as usize * from * vectors(to), 0.8)
    };
    let taken = tiles(size, grid) * (products + TRANSFORM * (vectors(all_from) + vectors(all_to)));
    ((taken as f64) < share * direct as f64).then_some(size)
}
