//! Gradients of the weights of convolutions and dense layers.
//!
//! The gradient of the weights of one tap is `X^T G`, with the pixels of the batch as the inner axis: both operands are
//! read as they lie in channels-last maps, and nothing is packed. A block of it stays in registers while the pixels of
//! some images go by. Pixels are summed in the order of the batch, whichever thread computes the block.
#![expect(unsafe_code, reason = "register tiles over raw pixels")]

use std::ops::Range;

use crate::engine::cpu::buffer::SharedPtr;
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::kernel::ThreadCtx;
use crate::engine::cpu::simd::vector::{Simd, SimdOp, load_vector};
use crate::network::Window;

/// Bytes of both maps that a thread goes through before it begins again with its next block.
const IMAGES_BYTES: usize = 512 << 10;

/// Blocks that each thread gets, so that none waits long for the last.
const PIECES_PER_THREAD: usize = 4;

/// The gradient of the weights of a convolution: blocks of input channels by output channels of one tap.
pub(crate) struct WeightGradient {
    window: Window,
    blocks: Vec<Block>,
    /// Input and output channels of a group.
    channels: [usize; 2],
    depthwise: bool,
}

/// Weights whose gradients are computed together.
#[derive(Clone, Copy)]
struct Block {
    tap: [usize; 2],
    /// First input channel, and number of them.
    inputs: [usize; 2],
    /// First output channel, and number of them.
    outputs: [usize; 2],
    /// Offset of the first weight in the gradient, see [`WeightGradient::run`].
    at: usize,
}

/// Input channels and vectors of output channels of a block, for the widest layers and for those whose output channels
/// fit in one vector.
fn tiles(lanes: usize) -> [[usize; 2]; 2] {
    if lanes == 16 { [[8, 2], [16, 1]] } else { [[4, 2], [8, 1]] }
}

impl WeightGradient {
    /// For a convolution with `channels` input and output channels, in groups.
    pub(crate) fn new(window: &Window, [inputs, outputs]: [usize; 2], groups: usize, lanes: usize) -> Self {
        let [c, o] = [inputs / groups.max(1), outputs / groups.max(1)];
        let taps = || (0..window.kernel[0]).flat_map(|y| (0..window.kernel[1]).map(move |x| [y, x]));
        let depthwise = c == 1 && o == 1 && groups > 1;
        let mut blocks = Vec::new();
        if depthwise {
            for (t, tap) in taps().enumerate() {
                for first in (0..inputs).step_by(lanes) {
                    let range = [first, (inputs - first).min(lanes)];
                    blocks.push(Block { tap, inputs: range, outputs: range, at: t * inputs + first });
                }
            }
            return Self { window: *window, blocks, channels: [c, o], depthwise };
        }
        let [wide, narrow] = tiles(lanes);
        let [rows, vectors] = if o <= lanes { narrow } else { wide };
        let count = window.kernel[0] * window.kernel[1];
        for group in 0..groups {
            for (t, tap) in taps().enumerate() {
                for row in (0..c).step_by(rows) {
                    for column in (0..o).step_by(vectors * lanes) {
                        blocks.push(Block {
                            tap,
                            inputs: [group * c + row, (c - row).min(rows)],
                            outputs: [group * o + column, (o - column).min(vectors * lanes)],
                            at: ((group * count + t) * c + row) * o + column,
                        });
                    }
                }
            }
        }
        Self { window: *window, blocks, channels: [c, o], depthwise }
    }

    /// Number of weights.
    pub(crate) fn len(&self) -> usize {
        self.blocks.iter().map(|block| block.outputs[1] * if self.depthwise { 1 } else { block.inputs[1] }).sum()
    }

    /// Writes the gradient to `to`, in the order group, tap, input channel of the group, output channel of the group.
    ///
    /// # Safety
    /// `x` and `g` are the dense input of the convolution and the gradient of its output, and are only read; `to` has
    /// [`WeightGradient::len`] values that are not used by others.
    pub(crate) unsafe fn run(&self, ctx: &ThreadCtx<'_>, x: FeatureMap, g: FeatureMap, to: SharedPtr) {
        let image_bytes = 4 * (x.size() * x.channels + g.size() * g.channels);
        let together = (IMAGES_BYTES / image_bytes.max(1)).clamp(1, x.images.max(1));
        let pieces = self.blocks.len().min(PIECES_PER_THREAD * ctx.worker.count());
        ctx.worker.for_each_piece(pieces, |piece| {
            let range = self.blocks.len() * piece / pieces..self.blocks.len() * (piece + 1) / pieces;
            for first in (0..x.images).step_by(together) {
                let images = first..x.images.min(first + together);
                for block in &self.blocks[range.clone()] {
                    // SAFETY: the caller's; every block is computed by one thread; the instruction set is supported.
                    unsafe {
                        let to = to.pointer().add(block.at);
                        let images = images.clone();
                        ctx.instructions.run(BlockSum { gradient: self, block, x, g, images, to });
                    }
                }
            }
        });
    }

    /// Reorders a gradient of [`WeightGradient::run`] to `[O, C/groups, kh, kw]`.
    pub(crate) fn in_weight_order(&self, gradient: &[f32]) -> Vec<f32> {
        let [c, o] = self.channels;
        let taps = self.window.kernel[0] * self.window.kernel[1];
        let groups = gradient.len() / (taps * c * o).max(1);
        let mut ordered = Vec::with_capacity(gradient.len());
        for group in 0..groups {
            for output in 0..o {
                for input in 0..c {
                    let at = |tap: usize| match self.depthwise {
                        true => tap * groups + group,
                        false => ((group * taps + tap) * c + input) * o + output,
                    };
                    ordered.extend((0..taps).map(|tap| gradient[at(tap)]));
                }
            }
        }
        ordered
    }
}

/// The sums of one block over some images.
struct BlockSum<'a> {
    gradient: &'a WeightGradient,
    block: &'a Block,
    x: FeatureMap,
    g: FeatureMap,
    images: Range<usize>,
    /// The block's first weight.
    to: *mut f32,
}

/// Output positions at which a tap reads a pixel of the map, along one axis.
fn inside(window: &Window, axis: usize, tap: usize, input: usize, output: usize) -> Range<usize> {
    let (stride, before) = (window.stride[axis], window.before()[axis]);
    let offset = tap * window.dilation[axis];
    // position * stride + offset - before is in 0..input
    let start = before.saturating_sub(offset).div_ceil(stride);
    let end = (input + before).saturating_sub(offset).div_ceil(stride);
    start.min(output)..end.min(output).max(start.min(output))
}

impl SimdOp for BlockSum<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Block { inputs, outputs, .. } = *self.block;
        macro_rules! dispatch {
            ($whole:literal: $($rows:literal x $vectors:literal,)*) => {
                match (inputs[1], outputs[1].div_ceil(S::LANES)) {
                    $(($rows, $vectors) => S::call(TileSum::<'_, $rows, $vectors, $whole>(self)),)*
                    (rows, vectors) => debug_assert!(false, "a block of {rows} x {vectors}"),
                }
            };
        }
        // SAFETY: the caller's.
        unsafe {
            if self.gradient.depthwise {
                return S::call(DepthwiseSum(self));
            }
            if outputs[1].is_multiple_of(S::LANES) {
                dispatch!(true: 1 x 1, 2 x 1, 3 x 1, 4 x 1, 5 x 1, 6 x 1, 7 x 1, 8 x 1, 9 x 1, 10 x 1, 11 x 1, 12 x 1,
                    13 x 1, 14 x 1, 15 x 1, 16 x 1, 1 x 2, 2 x 2, 3 x 2, 4 x 2, 5 x 2, 6 x 2, 7 x 2, 8 x 2,);
            } else {
                dispatch!(false: 1 x 1, 2 x 1, 3 x 1, 4 x 1, 5 x 1, 6 x 1, 7 x 1, 8 x 1, 9 x 1, 10 x 1, 11 x 1, 12 x 1,
                    13 x 1, 14 x 1, 15 x 1, 16 x 1, 1 x 2, 2 x 2, 3 x 2, 4 x 2, 5 x 2, 6 x 2, 7 x 2, 8 x 2,);
            }
        }
    }
}

impl BlockSum<'_> {
    /// Calls `row` with the first pixel of the input and of the gradient, and the number of pixels, of every row of
    /// output positions at which the tap reads the map.
    #[inline(always)]
    unsafe fn for_each_row(&self, mut row: impl FnMut(*const f32, *const f32, usize)) {
        let Self { x, g, .. } = self;
        let (window, Block { tap, inputs, outputs, .. }) = (&self.gradient.window, *self.block);
        let [rows, columns] =
            [(0, x.height, g.height), (1, x.width, g.width)].map(|(i, x, g)| inside(window, i, tap[i], x, g));
        if columns.is_empty() {
            return;
        }
        let source =
            |i: usize, position: usize| position * window.stride[i] + tap[i] * window.dilation[i] - window.before()[i];
        for image in self.images.clone() {
            for y in rows.clone() {
                let from = (image * x.height + source(0, y)) * x.width + source(1, columns.start);
                let gradient = (image * g.height + y) * g.width + columns.start;
                // SAFETY: both pixels and their channels lie in the maps.
                unsafe { row(x.at(from).add(inputs[0]), g.at(gradient).add(outputs[0]), columns.len()) };
            }
        }
    }
}

struct TileSum<'a, const ROWS: usize, const VECTORS: usize, const WHOLE: bool>(BlockSum<'a>);

impl<const ROWS: usize, const VECTORS: usize, const WHOLE: bool> SimdOp for TileSum<'_, ROWS, VECTORS, WHOLE> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let sum = self.0;
        let columns = sum.block.outputs[1];
        let weights_per_input = sum.gradient.channels[1];
        let (x_step, g_step) = (sum.gradient.window.stride[1] * sum.x.pixel_stride, sum.g.pixel_stride);
        // The vector that holds the last output channels may be shorter.
        let count = |v: usize| (columns - v * S::LANES).min(S::LANES);
        // SAFETY: rows are within the maps, and the weights of the block within the gradient.
        unsafe {
            let mut totals = [[S::splat(0.0); VECTORS]; ROWS];
            if sum.images.start > 0 {
                for (r, total) in totals.iter_mut().enumerate() {
                    for (v, total) in total.iter_mut().enumerate() {
                        let from = sum.to.add(r * weights_per_input + v * S::LANES);
                        *total = load_vector::<S, WHOLE>(from, count(v));
                    }
                }
            }
            sum.for_each_row(|mut x, mut g, pixels| {
                for _ in 0..pixels {
                    let mut gradient = [S::splat(0.0); VECTORS];
                    for (v, gradient) in gradient.iter_mut().enumerate() {
                        *gradient = load_vector::<S, WHOLE>(g.add(v * S::LANES), count(v));
                    }
                    for (r, total) in totals.iter_mut().enumerate() {
                        let value = S::splat(*x.add(r));
                        for v in 0..VECTORS {
                            total[v] = S::mul_add(value, gradient[v], total[v]);
                        }
                    }
                    x = x.wrapping_add(x_step);
                    g = g.wrapping_add(g_step);
                }
            });
            for (r, total) in totals.iter().enumerate() {
                for (v, &total) in total.iter().enumerate() {
                    S::store_some(sum.to.add(r * weights_per_input + v * S::LANES), total, count(v));
                }
            }
        }
    }
}

/// One weight per channel and tap.
struct DepthwiseSum<'a>(BlockSum<'a>);

impl SimdOp for DepthwiseSum<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let sum = self.0;
        let count = sum.block.outputs[1];
        let (x_step, g_step) = (sum.gradient.window.stride[1] * sum.x.pixel_stride, sum.g.pixel_stride);
        // SAFETY: rows are within the maps, and the weights of the block within the gradient.
        unsafe {
            let mut total = S::splat(0.0);
            if sum.images.start > 0 {
                total = S::load_up_to(sum.to, count);
            }
            sum.for_each_row(|mut x, mut g, pixels| {
                for _ in 0..pixels {
                    total = S::mul_add(S::load_up_to(x, count), S::load_up_to(g, count), total);
                    x = x.wrapping_add(x_step);
                    g = g.wrapping_add(g_step);
                }
            });
            S::store_some(sum.to, total, count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Padding;

    #[test]
    fn a_tap_reads_the_map_at_exactly_the_positions_inside() {
        for stride in 1..=3 {
            for dilation in 1..=2 {
                for [before, after] in [[0, 0], [1, 2], [3, 0]] {
                    let padding = Padding { top: 0, left: before, bottom: 0, right: after };
                    let window =
                        Window { stride: [1, stride], dilation: [1, dilation], padding, ..Window::new([1, 3]) };
                    let input = 7;
                    let output = (input + before + after - 2 * dilation - 1) / stride + 1;
                    for tap in 0..3 {
                        let reads = |p: &usize| {
                            let position = p * stride + tap * dilation;
                            position >= before && position - before < input
                        };
                        let expected: Vec<usize> = (0..output).filter(reads).collect();
                        let found: Vec<usize> = inside(&window, 1, tap, input, output).collect();
                        assert_eq!(found, expected, "{window:?} tap {tap}");
                    }
                }
            }
        }
    }
}
