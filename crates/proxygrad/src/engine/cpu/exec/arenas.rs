//! Memory of a plan's micro-batches, and pointers into it for the threads of a pass.
#![expect(unsafe_code, reason = "maps of the plan's own memory")]

use crate::engine::cpu::activation_mask::ActivationMask;
use crate::engine::cpu::breakpoints::Breakpoints;
use crate::engine::cpu::buffer::Buffer;
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::layout::Layout;
use crate::engine::cpu::plan::steps::{Arena, Placement, Value};

/// Memory of one micro-batch, from its forward pass to its backward pass.
pub(crate) struct MicroBatch {
    /// See [`Arena::Saved`].
    pub(crate) saved: Buffer,
    /// Pre-activations, which only the soft gate reads.
    pub(crate) records: Option<Buffer>,
}

impl MicroBatch {
    pub(crate) fn held_bytes(&self) -> usize {
        let buffers = [Some(&self.saved), self.records.as_ref()].into_iter().flatten();
        buffers.map(|buffer| size_of_val(buffer.values())).sum()
    }
}

/// Pointers into the memory of a micro-batch.
#[derive(Clone, Copy)]
pub(crate) struct ArenaPtrs {
    pub(crate) saved: *mut f32,
    pub(crate) transient: *mut f32,
    pub(crate) records: Option<*mut f32>,
    /// Images that the memory has room for.
    pub(crate) capacity: usize,
    pub(crate) images: usize,
    /// Index of the first image in the batch.
    pub(crate) first: usize,
}

// SAFETY: the pass that makes the pointers ends before the memory's owner continues, and steps write disjoint pieces.
unsafe impl Sync for ArenaPtrs {}

impl ArenaPtrs {
    pub(crate) fn map(&self, placement: Placement, layout: &Layout) -> FeatureMap {
        let memory = match placement.arena {
            Arena::Saved => self.saved,
            Arena::Transient => self.transient,
        };
        self.map_in(memory, placement, layout)
    }

    fn map_in(&self, memory: *mut f32, placement: Placement, layout: &Layout) -> FeatureMap {
        let (channels, [height, width]) = (layout.pixel_len(), layout.size());
        // SAFETY: the plan's placements are within the memory that was allocated for `capacity` images.
        let data = unsafe { memory.add(placement.offset * self.capacity + placement.first) };
        FeatureMap { data, images: self.images, height, width, channels, pixel_stride: placement.pixel_stride }
    }

    /// The mask of the activation that computes a value.
    pub(crate) fn mask(&self, value: &Value, breakpoints: &Breakpoints) -> ActivationMask {
        // SAFETY: the plan has room there for the masks of `capacity` images.
        let data = unsafe { self.saved.add(value.kept * self.capacity).cast::<u8>() };
        ActivationMask::new(data, value.placement.pixel_stride, breakpoints).slice(value.placement.first)
    }

    /// The pre-activations of a value with a smooth activation.
    pub(crate) fn pre_activations(&self, value: &Value) -> FeatureMap {
        self.map_in(self.saved, Placement { offset: value.kept, ..value.placement }, &value.layout)
    }

    /// The pre-activations of a value with a piecewise linear activation, if they are recorded.
    pub(crate) fn record(&self, value: &Value) -> Option<FeatureMap> {
        let placement = Placement { offset: value.record, ..value.placement };
        self.records.map(|records| self.map_in(records, placement, &value.layout))
    }
}
