//! Kernel of activations that are not fused into another kernel, with all gates.
#![expect(unsafe_code, reason = "rows of maps")]

use std::mem::MaybeUninit;

use crate::engine::cpu::activation::{ActivationBlock, Strided, Task};
use crate::engine::cpu::epilogue::{Epilogue, OutputRegion};
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::kernel::{BackwardArgs, BackwardNeeds, ForwardArgs, Kernel, MICRO_BATCH, ThreadCtx};
use crate::engine::cpu::layout::Layout;
use crate::engine::cpu::simd::vector::{Simd, SimdOp};
use crate::engine::{Forward, Gate};
use crate::network::{Activation, Array};

/// Values per piece of work.
const PIECE: usize = 8 * 1024;
/// Values that are computed before their epilogue.
const STAGED: usize = 2048;

/// An activation and its gates.
pub(crate) struct ActivationKernel {
    activation: Activation,
}

impl ActivationKernel {
    pub(crate) fn new(activation: &Activation, input: &Layout) -> Self {
        let activation = match activation {
            // All values are one pixel, see `layouts`.
            Activation::PRelu { slopes } if slopes.len() > 1 && slopes.len() != input.pixel_len() => {
                let stride = input.strides().first().copied().unwrap_or(1);
                let slope = |at: usize| slopes.data()[at / stride % slopes.len()];
                Activation::PRelu { slopes: Array::vector((0..input.elements()).map(slope).collect::<Vec<f32>>()) }
            }
            activation => activation.clone(),
        };
        Self { activation }
    }

    fn run(&self, ctx: &ThreadCtx<'_>, z: FeatureMap, task: BlockTask, epilogue: &Epilogue<'_>) {
        let (pixels, channels) = (z.pixels(), z.channels);
        let pieces = (pixels * channels).div_ceil(PIECE);
        // Pieces divide the pixels, or the channels of a few large ones.
        let parts = pieces.div_ceil(pixels.max(1)).min(channels.div_ceil(CHANNEL_UNIT)).max(1);
        let pieces = pieces.min(pixels);
        ctx.worker.for_each_piece(pieces * parts, |piece| {
            let (piece, part) = (piece / parts, piece % parts);
            let border = |part: usize| (channels.div_ceil(CHANNEL_UNIT) * part / parts * CHANNEL_UNIT).min(channels);
            let (pixels, channels) = (share(pixels, piece, pieces), [border(part), border(part + 1)]);
            let activation = &self.activation;
            // SAFETY: the instruction set is supported; all maps have these pixels and channels, which no other piece
            // writes.
            unsafe { ctx.instructions.run(StagedRange { activation, z, task, epilogue, pixels, channels }) };
        });
    }

    /// Whether the plain gradient of an image vanishes.
    fn is_dead(&self, ctx: &ThreadCtx<'_>, z: FeatureMap, gradient: FeatureMap, image: usize) -> bool {
        let mut staged = [0.0; STAGED];
        (image * z.size()..(image + 1) * z.size()).all(|pixel| {
            (0..z.channels).step_by(STAGED).all(|channel| {
                let channels = (z.channels - channel).min(STAGED);
                let to = Strided { first: staged.as_mut_ptr(), row: 0, pixel: 0 };
                let (z, gradient) = (strided(&z, pixel, channel), strided(&gradient, pixel, channel));
                let task = Task::Gradient(gradient, Gate::Plain);
                let activation = &self.activation;
                let block = ActivationBlock { activation, task, z, to, rows: 1, pixels: 1, channel, channels };
                // SAFETY: the instruction set is supported, and the staged values have room for the channels.
                unsafe { ctx.instructions.run(block) };
                staged[..channels].iter().all(|&value| value == 0.0)
            })
        })
    }
}

/// Channels that a piece of work is a multiple of: whole bytes of activation masks, and whole vectors.
const CHANNEL_UNIT: usize = 16;

fn share(count: usize, piece: usize, pieces: usize) -> [usize; 2] {
    [count * piece / pieces, count * (piece + 1) / pieces]
}

fn strided(map: &FeatureMap, pixel: usize, channel: usize) -> Strided {
    Strided { first: map.at(pixel).wrapping_add(channel), row: 0, pixel: map.pixel_stride }
}

impl Kernel for ActivationKernel {
    fn backward_needs(&self) -> BackwardNeeds {
        BackwardNeeds { inputs: true, output: false }
    }

    fn forward(&self, ctx: &ThreadCtx<'_>, args: &ForwardArgs<'_>, epilogue: &Epilogue<'_>) {
        self.run(ctx, args.inputs[0], BlockTask::Value(args.forward), epilogue);
    }

    fn backward(&self, ctx: &ThreadCtx<'_>, _: usize, args: &BackwardArgs<'_>, epilogue: &Epilogue<'_>) {
        let (z, gradient, gate) = (args.inputs[0], args.gradient, args.gate);
        let dead = std::array::from_fn(|image| {
            gate == Gate::Redirect && image < z.images && self.is_dead(ctx, z, gradient, image)
        });
        self.run(ctx, z, BlockTask::Gradient { gradient, gate, dead }, epilogue);
    }
}

/// What is computed.
#[derive(Clone, Copy)]
enum BlockTask {
    Value(Forward),
    Gradient {
        gradient: FeatureMap,
        gate: Gate,
        /// The images whose plain gradient vanishes, with [`Gate::Redirect`].
        dead: [bool; MICRO_BATCH],
    },
}

/// Some channels of a range of pixels.
struct StagedRange<'a> {
    activation: &'a Activation,
    z: FeatureMap,
    task: BlockTask,
    epilogue: &'a Epilogue<'a>,
    pixels: [usize; 2],
    channels: [usize; 2],
}

impl SimdOp for StagedRange<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let mut staged = MaybeUninit::<[f32; STAGED]>::uninit();
        let staged = staged.as_mut_ptr().cast::<f32>();
        let Self { activation, z, task, epilogue, pixels: [first, end], channels: [start, stop] } = self;
        for channel in (start..stop).step_by(STAGED) {
            let channels = (stop - channel).min(STAGED);
            let step = channels.next_multiple_of(CHANNEL_UNIT);
            let mut pixel = first;
            while pixel < end {
                let pixels = (end - pixel).min(STAGED / step);
                let to = Strided { first: staged, row: 0, pixel: step };
                let task_here = match task {
                    BlockTask::Value(forward) => Task::Value(forward),
                    BlockTask::Gradient { gradient, gate, .. } => {
                        Task::Gradient(strided(&gradient, pixel, channel), gate)
                    }
                };
                let z_here = strided(&z, pixel, channel);
                let block =
                    ActivationBlock { activation, task: task_here, z: z_here, to, rows: 1, pixels, channel, channels };
                // SAFETY: the caller's; the staged values have room for whole vectors of every pixel.
                unsafe {
                    S::call(block);
                    if let BlockTask::Gradient { gradient, dead, .. } = task {
                        for i in (0..pixels).filter(|i| dead[(pixel + i) / z.size()]) {
                            let [z, gradient] = [&z, &gradient].map(|map| map.at(pixel + i).add(channel));
                            for c in 0..channels {
                                *staged.add(i * step + c) = redirected(activation, *z.add(c), *gradient.add(c));
                            }
                        }
                    }
                    let region = OutputRegion::row(pixel, pixels, channel, channels);
                    epilogue.store_region::<S>(region, staged, [0, step]);
                }
                pixel += pixels;
            }
        }
    }
}

/// A gradient with [`Gate::Redirect`] where the whole layer's gradient vanishes.
fn redirected(activation: &Activation, z: f32, gradient: f32) -> f32 {
    let ((low, high), z) = (activation.breakpoints(), f64::from(z));
    let outwards = (z <= low && gradient < 0.0) || (z >= high && gradient > 0.0);
    if outwards { 0.0 } else { gradient * activation.peak() as f32 }
}
