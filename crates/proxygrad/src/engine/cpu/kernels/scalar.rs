//! Scalar kernels: operations written without SIMD on slices, one image at a time.
#![expect(unsafe_code, reason = "slices of maps")]

use crate::engine::cpu::epilogue::Epilogue;
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::kernel::{BackwardArgs, BackwardNeeds, ForwardArgs, Kernel, ThreadCtx};
use crate::engine::cpu::kernels::elementwise::{CopyOf, PixelRange};

/// An operation on the values of one image, in the order of [`memory_order`](super::memory_order).
pub(crate) trait ScalarOp: Send + Sync {
    /// Fills `output`.
    fn forward(&self, inputs: &[&[f32]], output: &mut [f32]);

    /// Adds the gradient with respect to input `i` to `sink`.
    fn backward(&self, i: usize, inputs: &[&[f32]], output: &[f32], gradient: &[f32], sink: &mut [f32]);

    /// What [`ScalarOp::backward`] reads.
    fn backward_needs(&self) -> BackwardNeeds {
        BackwardNeeds::default()
    }
}

/// A scalar operation as a kernel.
pub(crate) struct ScalarKernel<T>(pub(crate) T);

impl<T: ScalarOp> Kernel for ScalarKernel<T> {
    fn fuses_epilogue(&self) -> bool {
        false
    }

    fn backward_needs(&self) -> BackwardNeeds {
        self.0.backward_needs()
    }

    fn forward(&self, ctx: &ThreadCtx<'_>, args: &ForwardArgs<'_>, epilogue: &Epilogue<'_>) {
        assert!(epilogue.to.is_dense() && args.inputs.iter().all(FeatureMap::is_dense));
        ctx.worker.for_each_piece(epilogue.to.images, |image| {
            // SAFETY: dense maps; inputs are only read in this step; each image of the output is one piece.
            let (inputs, output) = unsafe { (images(args.inputs, image), epilogue.to.image_mut(image)) };
            self.0.forward(&inputs, output);
        });
    }

    fn backward(&self, ctx: &ThreadCtx<'_>, input: usize, args: &BackwardArgs<'_>, epilogue: &Epilogue<'_>) {
        let to = epilogue.to;
        assert!(to.is_dense() && args.gradient.is_dense() && epilogue.addend.is_none_or(|addend| addend.is_dense()));
        ctx.worker.for_each_piece(to.images, |image| {
            // SAFETY: dense maps; all but `to` are only read in this step; each of its images is one piece. If the
            // addend is `to` itself, it is not borrowed a second time.
            unsafe {
                let sink = to.image_mut(image);
                match epilogue.addend {
                    Some(addend) if addend.data == to.data => {}
                    Some(addend) => sink.copy_from_slice(addend.image(image)),
                    None => sink.fill(0.0),
                }
                // What the operation does not need may have been overwritten.
                let needs = self.0.backward_needs();
                let inputs = if needs.inputs { images(args.inputs, image) } else { vec![&[][..]; args.inputs.len()] };
                let output = if needs.output { args.output.image(image) } else { &[] };
                self.0.backward(input, &inputs, output, args.gradient.image(image), sink);
                let pixels = [image * to.size(), (image + 1) * to.size()];
                ctx.instructions.run(PixelRange {
                    epilogue: &Epilogue { addend: None, ..*epilogue },
                    f: CopyOf(to),
                    pixels,
                    channels: [0, to.channels],
                });
            }
        });
    }
}

/// # Safety
/// As [`FeatureMap::image`].
unsafe fn images(maps: &[FeatureMap], image: usize) -> Vec<&[f32]> {
    // SAFETY: the caller's.
    maps.iter().map(|map| unsafe { map.image(image) }).collect()
}
