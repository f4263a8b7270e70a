//! Concatenation, along channels or any other axis.
#![expect(unsafe_code, reason = "slices of maps")]

use crate::engine::cpu::activation_mask::CHANNELS_PER_BYTE;
use crate::engine::cpu::epilogue::Epilogue;
use crate::engine::cpu::kernel::{BackwardArgs, ForwardArgs, Kernel, ThreadCtx};
use crate::engine::cpu::kernels::elementwise::{CopyOf, for_each_vector};
use crate::engine::cpu::kernels::scalar::ScalarOp;
use crate::engine::cpu::layout::Layout;

/// Concatenation of feature maps along their channels.
pub(crate) struct ChannelConcat {
    first: Vec<usize>,
}

impl ChannelConcat {
    pub(crate) fn new(inputs: &[&Layout]) -> Self {
        let mut next = 0;
        let first = |shape: &&Layout| {
            let first = next;
            next += shape.channels();
            first
        };
        Self { first: inputs.iter().map(first).collect() }
    }
}

impl Kernel for ChannelConcat {
    fn concat_offsets(&self) -> Option<&[usize]> {
        self.fuses_epilogue().then_some(&self.first)
    }

    /// Inputs must not share a byte of an activation mask.
    fn fuses_epilogue(&self) -> bool {
        self.first.iter().all(|first| first.is_multiple_of(CHANNELS_PER_BYTE))
    }

    fn forward(&self, ctx: &ThreadCtx<'_>, args: &ForwardArgs<'_>, epilogue: &Epilogue<'_>) {
        for (&input, &first) in args.inputs.iter().zip(&self.first) {
            // SAFETY: the output has the channels of all inputs; the input has the slice's shape.
            unsafe { for_each_vector(ctx, &epilogue.slice(first, input.channels), CopyOf(input)) };
        }
    }

    fn backward(&self, ctx: &ThreadCtx<'_>, input: usize, args: &BackwardArgs<'_>, epilogue: &Epilogue<'_>) {
        // SAFETY: the gradient has the channels of all inputs; the slice has the sink's shape.
        unsafe {
            let slice = args.gradient.slice(self.first[input], epilogue.to.channels);
            for_each_vector(ctx, epilogue, CopyOf(slice));
        }
    }
}

/// Concatenation along any axis.
pub(crate) struct ScalarConcat {
    /// Length of each input's contiguous run.
    runs: Vec<usize>,
}

impl ScalarConcat {
    pub(crate) fn new(axis: usize, inputs: &[&Layout], output: &Layout) -> Self {
        // In memory the joined axis and those inside it form one run per input.
        let inner = output.strides()[axis];
        Self { runs: inputs.iter().map(|shape| shape[axis] * inner).collect() }
    }
}

impl ScalarOp for ScalarConcat {
    fn forward(&self, inputs: &[&[f32]], output: &mut [f32]) {
        let total: usize = self.runs.iter().sum();
        let mut start = 0;
        for (input, &run) in inputs.iter().zip(&self.runs) {
            for (out, part) in output.chunks_exact_mut(total).zip(input.chunks_exact(run)) {
                out[start..start + run].copy_from_slice(part);
            }
            start += run;
        }
    }

    fn backward(&self, i: usize, _: &[&[f32]], _: &[f32], gradient: &[f32], sink: &mut [f32]) {
        let total: usize = self.runs.iter().sum();
        let start: usize = self.runs[..i].iter().sum();
        let run = self.runs[i];
        for (gradient, sum) in gradient.chunks_exact(total).zip(sink.chunks_exact_mut(run)) {
            for (sum, part) in sum.iter_mut().zip(&gradient[start..start + run]) {
                *sum += part;
            }
        }
    }
}
