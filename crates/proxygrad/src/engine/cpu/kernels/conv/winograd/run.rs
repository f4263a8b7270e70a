//! Execution of a Winograd convolution: the threads divide the tiles, or the panels of the weights.
#![expect(unsafe_code, reason = "vector code over raw tiles")]

use crate::engine::cpu::epilogue::Epilogue;
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::kernel::ThreadCtx;
use crate::engine::cpu::kernels::conv::winograd::input_transform::{Piece, Transform};
use crate::engine::cpu::kernels::conv::winograd::multiply::Multiply;
use crate::engine::cpu::kernels::conv::winograd::packed::{TileBuffer, Winograd};

impl Winograd {
    /// Computes `epilogue.to` from `source`.
    pub(crate) fn run(&self, ctx: &ThreadCtx<'_>, source: FeatureMap, epilogue: &Epilogue<'_>) {
        assert_eq!(source.channels, self.from.pixel_block.map_or(self.inputs, |pixel_block| pixel_block.channels));
        assert_eq!(source.images, epilogue.to.images);
        let grid = self.grid([epilogue.to.height, epilogue.to.width]);
        let tiles = source.images * grid[0] * grid[1];
        let panels = self.weights.panels.len();
        let vectors = self.from.phases * self.padded_inputs / self.lanes;
        let job = |to: TileBuffer, tiles, panels| {
            let sums = ctx.scratch;
            Piece { winograd: self, source, epilogue, grid, to, first: 0, sums, tiles, panels, vectors: [0, vectors] }
        };
        let blocks = tiles.div_ceil(self.block_tiles());
        if !self.shares_panels(tiles, ctx.worker.count()) {
            ctx.worker.for_each_piece(blocks, |block| {
                let tiles = [tiles * block / blocks, tiles * (block + 1) / blocks];
                // SAFETY: the instruction set is supported; no two blocks write the same pixels; the scratch memory is
                // private to this thread and has room for `self.block_tiles()` tiles after the sums.
                unsafe {
                    let to = self.tile_buffer(ctx.scratch.add(self.sums_len()), tiles[1] - tiles[0]);
                    let piece = Piece { first: tiles[0], ..job(to, tiles, [0, panels]) };
                    ctx.instructions.run(Transform(piece));
                    ctx.instructions.run(Multiply(piece));
                }
            });
            return;
        }
        let to = self.tile_buffer(ctx.shared, tiles);
        let shares = vectors.min(2 * ctx.worker.count());
        ctx.worker.for_each_piece(tiles * shares, |piece| {
            let (tile, share) = (piece / shares, piece % shares);
            let vectors = [vectors * share / shares, vectors * (share + 1) / shares];
            // SAFETY: as above; the shared memory has room for all tiles, and no two pieces write the same.
            unsafe { ctx.instructions.run(Transform(Piece { vectors, ..job(to, [tile, tile + 1], [0, 0]) })) };
        });
        ctx.worker.for_each_piece(panels * blocks, |piece| {
            let (panel, block) = (piece / blocks, piece % blocks);
            let tiles = [tiles * block / blocks, tiles * (block + 1) / blocks];
            // SAFETY: as above; the shared memory was filled before the barrier and is only read.
            unsafe { ctx.instructions.run(Multiply(job(to, tiles, [panel, panel + 1]))) };
        });
    }
}
