//! Dense layers: pointwise convolutions of tokens. The gradient of a single vector is a weighted sum of the rows of the
//! weights.
#![expect(unsafe_code, reason = "vector code over raw pixels")]

use crate::engine::cpu::epilogue::Epilogue;
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::kernel::{BackwardArgs, ForwardArgs, Kernel, KernelConfig, ThreadCtx};
use crate::engine::cpu::kernels::conv::pointwise::Pointwise;
use crate::engine::cpu::simd::vector::{Simd, SimdOp};
use crate::network::Array;

/// Vectors per piece of work.
const TOGETHER: usize = 4;

/// Computes `epilogue.to = gradient * weights` with `weights` `[O, I]`. The gradient of one logit is zero almost
/// everywhere: rows whose gradient is zero are not read.
pub(crate) fn dense_gradient(ctx: &ThreadCtx<'_>, weights: &[f32], gradient: FeatureMap, epilogue: &Epilogue<'_>) {
    let features = epilogue.to.channels;
    assert_eq!(weights.len(), features * gradient.channels);
    let width = TOGETHER * ctx.instructions.lanes();
    let blocks = features.div_ceil(width);
    ctx.worker.for_each_piece(gradient.pixels() * blocks, |piece| {
        let (pixel, first) = (piece / blocks, piece % blocks * width);
        // SAFETY: the instruction set is supported; no two pieces write the same features of a pixel.
        unsafe { ctx.instructions.run(FeatureBlock { weights, gradient, epilogue, pixel, first }) };
    });
}

struct FeatureBlock<'a> {
    weights: &'a [f32],
    gradient: FeatureMap,
    epilogue: &'a Epilogue<'a>,
    pixel: usize,
    first: usize,
}

impl SimdOp for FeatureBlock<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let features = self.epilogue.to.channels;
        let left = features - self.first;
        // SAFETY: the pixel lies in both maps, and features after the last are not accessed.
        unsafe {
            let mut sums = [S::splat(0.0); TOGETHER];
            for o in 0..self.gradient.channels {
                let factor = *self.gradient.at(self.pixel).add(o);
                if factor == 0.0 {
                    continue;
                }
                let row = self.weights.as_ptr().add(o * features + self.first);
                for (v, sum) in sums.iter_mut().enumerate() {
                    let count = left.saturating_sub(v * S::LANES);
                    if count > 0 {
                        let from = row.add(v * S::LANES);
                        let weight = S::load_up_to(from, count);
                        *sum = S::mul_add(S::splat(factor), weight, *sum);
                    }
                }
            }
            for (v, &sum) in sums.iter().enumerate() {
                let count = left.saturating_sub(v * S::LANES);
                if count > 0 {
                    self.epilogue.store_vector::<S>(self.pixel, self.first + v * S::LANES, sum, count);
                }
            }
        }
    }
}

/// A matrix applied to every vector along the last axis.
pub(crate) struct DenseKernel {
    forward: Pointwise,
    backward: DenseBackward,
    bias: Option<Array>,
}

enum DenseBackward {
    /// Of one vector per image, with weights `[O, I]`, which are the file's own.
    Vector(Array),
    /// Of several vectors, which share the packed weights.
    Vectors(Pointwise),
}

impl DenseKernel {
    /// A layer of `vectors` vectors per image.
    pub(crate) fn new(weight: &Array, bias: Option<&Array>, vectors: usize, config: KernelConfig) -> Self {
        let (out, features) = (weight.shape()[0], weight.shape()[1]);
        let forward = Pointwise::new(features, out, config, |i, line| {
            line.iter_mut().enumerate().for_each(|(o, value)| *value = weight.data()[o * features + i]);
        });
        let backward = match vectors {
            1 => DenseBackward::Vector(weight.clone()),
            _ => DenseBackward::Vectors(Pointwise::new(out, features, config, |o, line| {
                line.copy_from_slice(&weight.data()[o * features..(o + 1) * features]);
            })),
        };
        Self { forward, backward, bias: bias.cloned() }
    }
}

impl Kernel for DenseKernel {
    fn weight_bytes(&self) -> usize {
        let backward = match &self.backward {
            DenseBackward::Vector(_) => 0,
            DenseBackward::Vectors(backward) => backward.bytes(),
        };
        self.forward.bytes() + backward
    }

    fn scratch_len(&self) -> usize {
        Pointwise::scratch_len()
    }

    fn bias(&self) -> Option<&[f32]> {
        self.bias.as_ref().map(Array::data)
    }

    fn forward(&self, ctx: &ThreadCtx<'_>, args: &ForwardArgs<'_>, epilogue: &Epilogue<'_>) {
        self.forward.run(ctx, args.inputs[0], epilogue);
    }

    fn backward(&self, ctx: &ThreadCtx<'_>, _: usize, args: &BackwardArgs<'_>, epilogue: &Epilogue<'_>) {
        match &self.backward {
            DenseBackward::Vector(weight) => dense_gradient(ctx, weight.data(), args.gradient, epilogue),
            DenseBackward::Vectors(backward) => backward.run_gradient(ctx, args.gradient, epilogue),
        }
    }
}
