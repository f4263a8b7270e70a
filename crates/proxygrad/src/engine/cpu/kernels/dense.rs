//! Dense layers: pointwise convolutions of tokens. The gradient of a single vector is a weighted sum of the rows of the
//! weights.
#![expect(unsafe_code, reason = "vector code over raw pixels")]

use std::mem::MaybeUninit;

use crate::engine::cpu::epilogue::Epilogue;
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::kernel::{BackwardArgs, ForwardArgs, Kernel, KernelConfig, MICRO_BATCH, ThreadCtx};
use crate::engine::cpu::kernels::conv::pointwise::Pointwise;
use crate::engine::cpu::simd::vector::{Simd, SimdOp};
use crate::network::Array;

/// Largest number of features of a piece of work. Their weights are contiguous in a row, and their sums stay in the
/// cache.
const BLOCK: usize = 2048;
/// Features of a piece of work are a multiple of it.
const UNIT: usize = 64;

/// Computes `epilogue.to = gradient * weights` with `weights` `[O, I]`. The gradient of one logit is zero almost
/// everywhere: rows whose gradient is zero are not read. All images of a micro-batch use a row while it is in the cache.
pub(crate) fn dense_gradient(ctx: &ThreadCtx<'_>, weights: &[f32], gradient: FeatureMap, epilogue: &Epilogue<'_>) {
    let (features, images) = (epilogue.to.channels, gradient.pixels());
    assert_eq!(weights.len(), features * gradient.channels);
    assert!(images <= MICRO_BATCH);
    let width = features.div_ceil(4 * ctx.worker.count()).next_multiple_of(UNIT).min(BLOCK);
    ctx.worker.for_each_piece(features.div_ceil(width), |piece| {
        let first = piece * width;
        let count = (features - first).min(width);
        // SAFETY: the instruction set is supported; no two pieces write the same features.
        unsafe { ctx.instructions.run(FeatureBlock { weights, gradient, epilogue, first, count }) };
    });
}

struct FeatureBlock<'a> {
    weights: &'a [f32],
    gradient: FeatureMap,
    epilogue: &'a Epilogue<'a>,
    first: usize,
    count: usize,
}

impl SimdOp for FeatureBlock<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { weights, gradient, epilogue, first, count } = self;
        let (features, images) = (epilogue.to.channels, gradient.pixels());
        let mut sums = MaybeUninit::<[[f32; BLOCK]; MICRO_BATCH]>::uninit();
        let sums = sums.as_mut_ptr().cast::<f32>();
        // SAFETY: the images and features lie in both maps; features after the last are not accessed, and there is room
        // for the sums of whole vectors.
        unsafe {
            for image in 0..images {
                sums.add(image * BLOCK).write_bytes(0, count.next_multiple_of(UNIT));
            }
            for o in 0..gradient.channels {
                let row = weights.as_ptr().add(o * features + first);
                for image in 0..images {
                    let factor = *gradient.at(image).add(o);
                    if factor == 0.0 {
                        continue;
                    }
                    let (sums, factor) = (sums.add(image * BLOCK), S::splat(factor));
                    for c in (0..count).step_by(S::LANES) {
                        let weight = S::load_up_to(row.add(c), count - c);
                        S::store(sums.add(c), S::mul_add(factor, weight, S::load(sums.add(c))));
                    }
                }
            }
            for image in 0..images {
                epilogue.store_row::<S>(image, first, sums.add(image * BLOCK), count);
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
        let backward = match &self.backward {
            DenseBackward::Vector(_) => 0,
            DenseBackward::Vectors(backward) => backward.scratch_len(),
        };
        self.forward.scratch_len().max(backward)
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
