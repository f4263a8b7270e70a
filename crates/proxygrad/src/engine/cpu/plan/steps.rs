//! Data types of an execution plan: forward steps, backward steps, values and their placement in memory.

use std::sync::Arc;

use crate::engine::cpu::breakpoints::FusedActivation;
use crate::engine::cpu::kernel::Kernel;
use crate::engine::cpu::layout::Layout;
use crate::network::NodeId;

/// One step of the forward pass, a kernel with everything fused into it: `activation(kernel(inputs) + residual)`.
pub(crate) struct ForwardStep {
    /// None for a concatenation whose parts are computed in place.
    pub(crate) kernel: Option<Arc<dyn Kernel>>,
    pub(crate) inputs: Vec<usize>,
    /// Value that is added to the kernel's sums.
    pub(crate) residual: Option<usize>,
    pub(crate) activation: Option<FusedActivation>,
    /// Offset in [`Arena::Saved`] of what the kernel saves for the backward pass.
    pub(crate) saved: Option<usize>,
    /// Node that the kernel computes.
    pub(crate) node: NodeId,
    /// Scale of a soft gate's temperature, where the kernel is an activation.
    pub(crate) scale: f32,
}

/// The result of a forward step. Value `v` is the result of step `v - 1`; value 0 is the image.
pub(crate) struct Value {
    pub(crate) layout: Layout,
    pub(crate) placement: Placement,
    /// The fused activation that computed the value.
    pub(crate) activation: Option<FusedActivation>,
    /// Offset in [`Arena::Saved`] of what is kept for that activation: a mask, or the pre-activations.
    pub(crate) kept: usize,
    /// Offset of the pre-activations among the recorded ones, if the activation is piecewise linear.
    pub(crate) record: usize,
    /// The values that are computed in place as channel slices of this one.
    pub(crate) parts: Vec<usize>,
    /// Last node of the step: the activation's node where one was fused.
    pub(crate) node: NodeId,
    /// Factors on a soft gate's inverse temperature, one per channel of the activation.
    pub(crate) inverse_scales: Vec<f32>,
}

/// A block of memory that the memory planner places tensors in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Arena {
    /// What the backward pass reads: every micro-batch has its own.
    Saved,
    /// Everything else: one for all micro-batches, which take turns.
    Transient,
}

/// Where a feature map is: `offset` counts values per image, `first` is its first channel, `pixel_stride` the channels
/// of the map that it is a slice of. During planning `offset` is the index of a lifetime.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Placement {
    pub(crate) arena: Arena,
    pub(crate) offset: usize,
    pub(crate) first: usize,
    pub(crate) pixel_stride: usize,
}

/// One step of the backward pass: a contribution to the gradient of one value.
pub(crate) enum BackwardStep {
    /// The seed of a target.
    Seed { target: usize, sink: GradientSink },
    /// The gradient with respect to one input of a forward step's kernel.
    Kernel { forward_step: usize, input: usize, gradient: Placement, sink: GradientSink },
    /// Another gradient, unchanged.
    Accumulate { gradient: Placement, sink: GradientSink },
}

impl BackwardStep {
    pub(crate) fn sink(&self) -> &GradientSink {
        let (Self::Seed { sink, .. } | Self::Kernel { sink, .. } | Self::Accumulate { sink, .. }) = self;
        sink
    }

    /// The same step with its placements mapped by `f`.
    pub(crate) fn placed(self, f: impl Fn(Placement) -> Placement) -> Self {
        let sink = |sink: GradientSink| GradientSink { to: f(sink.to), addend: sink.addend.map(&f), ..sink };
        match self {
            Self::Seed { target, sink: to } => Self::Seed { target, sink: sink(to) },
            Self::Kernel { forward_step, input, gradient, sink: to } => {
                Self::Kernel { forward_step, input, gradient: f(gradient), sink: sink(to) }
            }
            Self::Accumulate { gradient, sink: to } => Self::Accumulate { gradient: f(gradient), sink: sink(to) },
        }
    }
}

/// Where a contribution to a gradient is written.
#[derive(Clone, Copy)]
pub(crate) struct GradientSink {
    /// Value whose gradient it is.
    pub(crate) value: usize,
    pub(crate) to: Placement,
    /// Sum of the contributions before this one.
    pub(crate) addend: Option<Placement>,
    /// Whether this is the last contribution, so that the gate is applied.
    pub(crate) complete: bool,
}

/// A value during planning, before it is placed in memory.
pub(crate) struct ValueDraft {
    pub(crate) node: NodeId,
    pub(crate) layout: Layout,
    pub(crate) activation: Option<FusedActivation>,
    /// Whether the value depends on the image, so that it gets a gradient.
    pub(crate) needs_gradient: bool,
    pub(crate) is_target: bool,
    /// The value that it is a channel slice of, and its first channel there.
    pub(crate) within: Option<(usize, usize)>,
}

/// Number of reads of a value by forward steps.
pub(crate) fn read_count(steps: &[ForwardStep], value: usize) -> usize {
    let all = steps.iter().flat_map(|step| step.inputs.iter().chain(&step.residual));
    all.filter(|&&input| input == value).count()
}
