//! Kernel traits: what a layer implements to run on the CPU engine, and the arguments that it gets.
//!
//! A [`Kernel`] is one operation with packed weights, forward and backward. Where one of its passes can compute some
//! rows of an image on their own, that pass is also a [`RowKernel`], which row tiling needs.

use std::ops::Range;

use crate::engine::cpu::epilogue::Epilogue;
use crate::engine::cpu::exec::threads::Worker;
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::simd::Instructions;
use crate::engine::{Forward, Gate};

/// Bytes of a typical L2 cache, from which block sizes are derived.
pub(crate) const L2_BYTES: usize = 1 << 20;

/// Default of [`KernelConfig::on_the_fly_bytes`].
pub(crate) const ON_THE_FLY_BYTES: usize = 2 << 20;

/// Maximum images of a micro-batch, which goes through the network together: enough for deep layers to use their
/// weights more than once, few enough for the feature maps of early layers to stay in the cache.
pub(crate) const MICRO_BATCH: usize = 4;

/// What weight packing and work partitioning depend on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KernelConfig {
    /// Values of a SIMD vector.
    pub(crate) lanes: usize,
    pub(crate) threads: usize,
    /// Winograd weights of at least this many bytes are transformed on every use, since reading them would take longer.
    pub(crate) on_the_fly_bytes: usize,
    /// Whether kernels are built without weights and tables, for planning only.
    pub(crate) weightless: bool,
    /// Whether passes may round the operands of matrix products to bf16, see [`ThreadCtx::bf16`].
    pub(crate) bf16: bool,
}

/// Context of the thread that runs a kernel.
pub(crate) struct ThreadCtx<'a> {
    pub(crate) worker: &'a Worker<'a>,
    pub(crate) instructions: Instructions,
    /// Whether this pass rounds the operands of matrix products to bf16, where a kernel can.
    pub(crate) bf16: bool,
    /// Private memory of this thread, [`Kernel::scratch_len`] values.
    pub(crate) scratch: *mut f32,
    /// Memory shared by all threads, [`Kernel::shared_len`] values.
    pub(crate) shared: *mut f32,
}

/// Arguments of [`Kernel::forward`].
pub(crate) struct ForwardArgs<'a> {
    pub(crate) inputs: &'a [FeatureMap],
    /// Where values for the backward pass are saved, [`Kernel::saved_len`] per image.
    pub(crate) saved: Option<*mut f32>,
    pub(crate) forward: Forward,
}

/// Arguments of [`Kernel::backward`]. Inputs and output are only valid where [`Kernel::backward_needs`] asks for them.
pub(crate) struct BackwardArgs<'a> {
    pub(crate) inputs: &'a [FeatureMap],
    pub(crate) output: FeatureMap,
    /// What the forward pass saved.
    pub(crate) saved: Option<*mut f32>,
    /// Gradient with respect to the output.
    pub(crate) gradient: FeatureMap,
    pub(crate) gate: Gate,
}

/// Which values of the forward pass the backward pass of a kernel reads.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct BackwardNeeds {
    pub(crate) inputs: bool,
    pub(crate) output: bool,
}

/// Forward or backward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Forward,
    Backward,
}

/// One operation with packed weights. All threads of a pass call it together and share the work out among themselves.
pub(crate) trait Kernel: Send + Sync {
    /// Fills `epilogue.to`.
    fn forward(&self, ctx: &ThreadCtx<'_>, args: &ForwardArgs<'_>, epilogue: &Epilogue<'_>);

    /// Fills `epilogue.to` with the gradient with respect to input `input`.
    fn backward(&self, ctx: &ThreadCtx<'_>, input: usize, args: &BackwardArgs<'_>, epilogue: &Epilogue<'_>);

    /// Bias per channel of the forward pass, which the caller puts into the [`Epilogue`].
    fn bias(&self) -> Option<&[f32]> {
        None
    }

    /// The pass in this direction as a row kernel, None if it cannot compute single rows. Only for kernels with one
    /// input.
    fn row_kernel(&self, _direction: Direction) -> Option<&dyn RowKernel> {
        None
    }

    /// Whether the forward pass applies every part of its [`Epilogue`], and both passes accept channel slices of wider
    /// maps.
    fn fuses_epilogue(&self) -> bool {
        true
    }

    /// Which values the backward pass reads.
    fn backward_needs(&self) -> BackwardNeeds {
        BackwardNeeds::default()
    }

    /// Whether the gradient with respect to an input equals the gradient with respect to the output.
    fn passes_gradient(&self, _input: usize) -> bool {
        false
    }

    /// First channel of each input in the output, for a concatenation of channels.
    fn concat_offsets(&self) -> Option<&[usize]> {
        None
    }

    /// Bytes of the packed weights, also where they were left out ([`KernelConfig::weightless`]).
    fn weight_bytes(&self) -> usize {
        0
    }

    /// Values per image that the forward pass saves for the backward pass.
    fn saved_len(&self) -> usize {
        0
    }

    /// Values of private memory per thread.
    fn scratch_len(&self) -> usize {
        0
    }

    /// Values of memory shared by the threads, for a number of images, and height and width of input and output.
    fn shared_len(&self, _images: usize, _sizes: [[usize; 2]; 2], _threads: usize) -> usize {
        0
    }
}

/// One pass of a kernel that a single thread can compute for some rows of an image.
pub(crate) trait RowKernel: Sync {
    /// Source rows that these destination rows are computed from; they may reach beyond the map.
    fn input_rows(&self, rows: &Range<usize>) -> Range<isize>;

    /// Whether no further step may be fused after this one, because its rows must not be computed twice or do not stay
    /// within the range that was asked for.
    fn ends_group(&self) -> bool {
        false
    }

    /// Fills some rows of `epilogue.to`. Of the source, the rows of [`RowKernel::input_rows`] are in memory. `saved` is
    /// as in [`ForwardArgs`] and [`BackwardArgs`].
    fn compute_rows(
        &self,
        ctx: &ThreadCtx<'_>,
        range: &RowRange,
        source: FeatureMap,
        saved: Option<*mut f32>,
        epilogue: &Epilogue<'_>,
    );
}

/// Some rows of one image.
pub(crate) struct RowRange {
    pub(crate) image: usize,
    pub(crate) rows: Range<usize>,
}

/// Computes all rows of `epilogue.to`, shared out among the threads.
pub(crate) fn run_rows(
    pass: &dyn RowKernel,
    ctx: &ThreadCtx<'_>,
    source: FeatureMap,
    saved: Option<*mut f32>,
    epilogue: &Epilogue<'_>,
) {
    let height = epilogue.to.height;
    ctx.worker.for_each_piece(epilogue.to.images * height, |piece| {
        let (image, row) = (piece / height, piece % height);
        pass.compute_rows(ctx, &RowRange { image, rows: row..row + 1 }, source, saved, epilogue);
    });
}
