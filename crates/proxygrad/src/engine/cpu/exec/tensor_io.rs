//! Conversion between row-major tensors `[N,C,H,W]` at the engine's border and channels-last feature maps.
#![expect(unsafe_code, reason = "maps of the plan's own memory")]

use candle_core::{CpuStorage, DType, Storage, Tensor};

use crate::engine::EngineError;
use crate::engine::cpu::buffer::SharedPtr;
use crate::engine::cpu::exec::arenas::ArenaPtrs;
use crate::engine::cpu::exec::threads::Worker;
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::plan::steps::pixel_len;
use crate::engine::subgraph::SubgraphTarget;

/// Which channels of a layer a map holds.
#[derive(Clone, Copy)]
pub(crate) struct ChannelSelection<'a> {
    /// Channels of the layer.
    pub(crate) channels: usize,
    /// Those that the map holds. None: all of them.
    kept: Option<&'a [usize]>,
}

impl<'a> ChannelSelection<'a> {
    pub(crate) fn of(target: &'a SubgraphTarget) -> Self {
        Self { channels: pixel_len(&target.shape), kept: target.kept.as_deref() }
    }

    pub(crate) fn all(map: FeatureMap) -> Self {
        Self { channels: map.channels, kept: None }
    }

    /// The layer's channel at a channel of the map.
    pub(crate) fn at(&self, channel: usize) -> usize {
        self.kept.map_or(channel, |kept| kept[channel])
    }
}

/// Seeds of one target, row-major `[N,C,H,W]`.
#[derive(Clone, Copy)]
pub(crate) struct Seed<'a> {
    pub(crate) values: &'a [f32],
    /// Values per image.
    image_len: usize,
    pub(crate) selection: ChannelSelection<'a>,
}

impl<'a> Seed<'a> {
    pub(crate) fn new(values: &'a [f32], target: &'a SubgraphTarget) -> Self {
        Self { values, image_len: target.shape.elements(), selection: ChannelSelection::of(target) }
    }

    /// Those of the images of a micro-batch.
    pub(crate) fn of(&self, arenas: &ArenaPtrs) -> Self {
        let images = arenas.first..arenas.first + arenas.images;
        Self { values: &self.values[images.start * self.image_len..images.end * self.image_len], ..*self }
    }
}

/// Copies row-major values `[N,C,H,W]` to a map.
pub(crate) fn load_nchw(worker: &Worker<'_>, from: *const f32, selection: ChannelSelection<'_>, to: FeatureMap) {
    let from = SharedPtr(from.cast_mut());
    worker.for_each_piece(to.images * to.height, |row| {
        let (image, y) = (row / to.height, row % to.height);
        for c in 0..to.channels {
            let start = (image * selection.channels + selection.at(c)) * to.size() + y * to.width;
            for x in 0..to.width {
                // SAFETY: the position lies in both; no two pieces write the same row.
                unsafe { *to.at(row * to.width + x).add(c) = *from.pointer().add(start + x) };
            }
        }
    });
}

/// Copies a map to row-major values `[N,C,H,W]`.
pub(crate) fn store_nchw(worker: &Worker<'_>, from: FeatureMap, selection: ChannelSelection<'_>, to: *mut f32) {
    worker.for_each_piece(from.images * from.height, |row| {
        let (image, y) = (row / from.height, row % from.height);
        for c in 0..from.channels {
            let start = (image * selection.channels + selection.at(c)) * from.size() + y * from.width;
            for x in 0..from.width {
                // SAFETY: the position lies in both; no two pieces write the same row.
                unsafe { *to.add(start + x) = *from.at(row * from.width + x).add(c) };
            }
        }
    });
}

/// Calls `f` with the values of a tensor in row-major order.
pub(crate) fn with_values<T>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> T) -> Result<T, EngineError> {
    let tensor = tensor.to_dtype(DType::F32)?.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(CpuStorage::F32(values)) => {
            let start = layout.start_offset();
            Ok(f(&values[start..start + tensor.elem_count()]))
        }
        _ => Err(EngineError::Mismatch("a tensor is not in the memory of the CPU".into())),
    }
}
