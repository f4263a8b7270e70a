//! Kernel of activations that are not fused into another kernel, with all gates.
#![expect(unsafe_code, reason = "rows of maps")]

use std::mem::MaybeUninit;

use crate::engine::cpu::activation::{ActivationBlock, Strided, Task, redirected};
use crate::engine::cpu::epilogue::{Epilogue, OutputRegion};
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::kernel::{BackwardArgs, BackwardNeeds, ForwardArgs, Kernel, MICRO_BATCH, ThreadCtx};
use crate::engine::cpu::kernels::elementwise::{CHANNEL_UNIT, for_each_share};
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
        let differs = |parameters: &&Array| parameters.len() != input.pixel_len();
        let expanded = activation.channel_parameters().filter(differs).map(|parameters| {
            // All values are one pixel, see `layouts`.
            let stride = input.strides().first().copied().unwrap_or(1);
            let parameter = |at: usize| parameters.data()[at / stride % parameters.len()];
            Array::vector((0..input.elements()).map(parameter).collect::<Vec<f32>>())
        });
        let activation =
            expanded.map_or_else(|| activation.clone(), |parameters| activation.with_channel_parameters(parameters));
        Self { activation }
    }

    fn run(&self, ctx: &ThreadCtx<'_>, z: FeatureMap, task: BlockTask, epilogue: &Epilogue<'_>) {
        let activation = &self.activation;
        for_each_share(ctx, z, PIECE, |pixels, channels| {
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
                let (rows, pixels, inverse_scales) = (1, 1, &[]);
                let block =
                    ActivationBlock { activation, task, z, to, rows, pixels, channel, channels, inverse_scales };
                // SAFETY: the instruction set is supported, and the staged values have room for the channels.
                unsafe { ctx.instructions.run(block) };
                staged[..channels].iter().all(|&value| value == 0.0)
            })
        })
    }
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
                let block = ActivationBlock {
                    activation,
                    task: task_here,
                    z: z_here,
                    to,
                    rows: 1,
                    pixels,
                    channel,
                    channels,
                    inverse_scales: &[],
                };
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
