//! TODO-DOC

use crate::engine::cpu::kernel::Direction;
use crate::engine::cpu::kernels::conv::winograd::packed::LANES;
use crate::engine::cpu::kernels::conv::winograd::phases::{is_scattered, phases, used};
use crate::engine::cpu::kernels::conv::winograd::transforms::TileSize;
use crate::network;

/// The sizes that a convolution can be computed with, in both directions; none where it is not of this module's kind.
pub(crate) fn supported_sizes(conv: &network::Conv) -> &'static [TileSize] {
    phases(conv, Direction::Forward).map_or(&[], |phases| TileSize::for_taps(phases.taps))
}

/// The size that likely takes the least time, for maps of height and width `inside` before the convolution and `outside`
/// behind it; none where sums as they are written take less.
pub(crate) fn best_size(
    conv: &network::Conv,
    direction: Direction,
    inside: [usize; 2],
    outside: [usize; 2],
) -> Option<TileSize> {
    /// Multiply-adds that take as long as to transform a channel of a tile.
    const TRANSFORM: usize = 300;
    let phases = phases(conv, direction)?;
    let (inputs, outputs, count) = (conv.in_channels(), conv.out_channels(), phases.count());
    let together = is_scattered(&phases, inputs);
    if inputs.min(outputs) < 8 && !together {
        // Few channels do not pay for the transforms.
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
    // ChannelBlock of a phase, and of all, on the way in and out; pixels of a phase that is computed.
    let ([from, to], [all_from, all_to], grid) = match direction {
        Direction::Forward => ([inputs, outputs], [count * inputs, outputs], outside),
        Direction::Backward => {
            ([outputs, inputs], [outputs, count * inputs], inside.map(|side| side.div_ceil(phases.stride)))
        }
    };
    let as_written = area(outside) * area(conv.window.kernel) * from * vectors(to);
    // Multiply-adds of the direct way and of a tile, and by how much these have to be less.
    let (direct, products, share) = if together {
        let products = size.elements() * all_from * vectors(all_to);
        match direction {
            Direction::Forward => (as_written, products, 0.7),
            // What this saves must outweigh that it is not walked in bands.
            Direction::Backward => (area(grid) * phases.taps * phases.taps * from * vectors(all_to), products, 0.5),
        }
    } else {
        let elements: u32 = (0..count).map(|phase| used(&phases, phase, size).count_ones()).sum();
        (as_written, elements as usize * from * vectors(to), 0.8)
    };
    let taken = tiles(size, grid) * (products + TRANSFORM * (vectors(all_from) + vectors(all_to)));
    ((taken as f64) < share * direct as f64).then_some(size)
}
