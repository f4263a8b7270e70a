//! Average pooling over windows, and global pooling.
#![expect(unsafe_code, reason = "vector code over raw pixels")]

use crate::engine::cpu::epilogue::Epilogue;
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::kernel::{BackwardArgs, Direction, ForwardArgs, Kernel, RowKernel, ThreadCtx};
use crate::engine::cpu::kernels::conv::depthwise::Depthwise;
use crate::engine::cpu::kernels::elementwise::{VectorSource, for_each_vector, load_channels};
use crate::engine::cpu::simd::vector::Simd;
use crate::network::{Shape, Window};

/// Average pooling, as a depthwise convolution with constant weights.
pub(crate) struct AveragePool {
    forward: Depthwise,
    backward: Depthwise,
}

impl AveragePool {
    pub(crate) fn new(window: &Window, count_padding: bool, input: &Shape, output: &Shape) -> Self {
        let (inside, outside) = ([input[1], input[2]], [output[1], output[2]]);
        let counts = [0, 1].map(|i| window.counts(i, inside[i], outside[i], count_padding));
        let shares = counts[0].iter().flat_map(|y| counts[1].iter().map(move |x| 1.0 / (y * x).max(1) as f32));
        let shares: Vec<f32> = shares.collect();
        Self {
            forward: Depthwise::average(window, outside, shares.clone()),
            backward: Depthwise::average_backward(window, inside, shares),
        }
    }
}

impl Kernel for AveragePool {
    fn weight_bytes(&self) -> usize {
        self.forward.bytes() + self.backward.bytes()
    }

    fn row_kernel(&self, direction: Direction) -> Option<&dyn RowKernel> {
        Some(match direction {
            Direction::Forward => &self.forward,
            Direction::Backward => &self.backward,
        })
    }

    fn forward(&self, ctx: &ThreadCtx<'_>, args: &ForwardArgs<'_>, epilogue: &Epilogue<'_>) {
        self.forward.run(ctx, args.inputs[0], epilogue);
    }

    fn backward(&self, ctx: &ThreadCtx<'_>, _: usize, args: &BackwardArgs<'_>, epilogue: &Epilogue<'_>) {
        self.backward.run(ctx, args.gradient, epilogue);
    }
}

/// Global pooling: the sum of every channel over its whole map, times a factor.
pub(crate) struct GlobalPool {
    pub(crate) factor: f32,
}

/// Sums over the pixels of an image, which is one pixel of the result.
#[derive(Clone, Copy)]
struct GlobalPoolSum {
    map: FeatureMap,
    factor: f32,
}

impl VectorSource for GlobalPoolSum {
    #[inline(always)]
    unsafe fn vector<S: Simd>(&self, image: usize, channel: usize, count: usize) -> S::V {
        // SAFETY: the caller's; all pixels of the image lie in the map.
        unsafe {
            let mut total = S::splat(0.0);
            for row in 0..self.map.height {
                // Row by row: sums of sums are more accurate on large maps.
                let mut sum = S::splat(0.0);
                for column in 0..self.map.width {
                    let pixel = (image * self.map.height + row) * self.map.width + column;
                    sum = S::add(sum, load_channels::<S>(&self.map, pixel, channel, count));
                }
                total = S::add(total, sum);
            }
            S::mul(total, S::splat(self.factor))
        }
    }

    fn reads(&self) -> usize {
        self.map.size()
    }
}

/// The same gradient for all pixels of an image.
#[derive(Clone, Copy)]
struct GlobalPoolGradient {
    gradient: FeatureMap,
    size: usize,
    factor: f32,
}

impl VectorSource for GlobalPoolGradient {
    #[inline(always)]
    unsafe fn vector<S: Simd>(&self, pixel: usize, channel: usize, count: usize) -> S::V {
        // SAFETY: the caller's; the gradient has one pixel per image.
        unsafe { S::mul(load_channels::<S>(&self.gradient, pixel / self.size, channel, count), S::splat(self.factor)) }
    }
}

impl Kernel for GlobalPool {
    fn forward(&self, ctx: &ThreadCtx<'_>, args: &ForwardArgs<'_>, epilogue: &Epilogue<'_>) {
        // SAFETY: the result has one pixel per image, with the map's channels.
        unsafe { for_each_vector(ctx, epilogue, GlobalPoolSum { map: args.inputs[0], factor: self.factor }) };
    }

    fn backward(&self, ctx: &ThreadCtx<'_>, _: usize, args: &BackwardArgs<'_>, epilogue: &Epilogue<'_>) {
        let spread = GlobalPoolGradient { gradient: args.gradient, size: epilogue.to.size(), factor: self.factor };
        // SAFETY: as above.
        unsafe { for_each_vector(ctx, epilogue, spread) };
    }
}
