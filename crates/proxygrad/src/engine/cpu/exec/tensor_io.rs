//! Conversion between row-major tensors at the engine's border and maps.
#![expect(unsafe_code, reason = "maps of the plan's own memory")]

use candle_core::{CpuStorage, DType, Storage, Tensor};

use crate::engine::EngineError;
use crate::engine::cpu::buffer::SharedPtr;
use crate::engine::cpu::exec::arenas::ArenaPtrs;
use crate::engine::cpu::exec::threads::Worker;
use crate::engine::cpu::feature_map::FeatureMap;
use crate::engine::cpu::layout::Layout;
use crate::engine::subgraph::SubgraphTarget;

/// A map that holds some entries of the first axis of a row-major tensor.
#[derive(Clone, Copy)]
pub(crate) struct Selected<'a> {
    pub(crate) map: FeatureMap,
    layout: &'a Layout,
    /// Length of the tensor's first axis.
    channels: usize,
    /// The entries that the map holds. None: all of them.
    kept: Option<&'a [usize]>,
}

impl<'a> Selected<'a> {
    pub(crate) fn all(map: FeatureMap, layout: &'a Layout) -> Self {
        Self { map, layout, channels: layout.channels(), kept: None }
    }

    /// That of a target, which other channels of the layer may have been left out of.
    pub(crate) fn of(map: FeatureMap, layout: &'a Layout, target: &'a SubgraphTarget) -> Self {
        Self { map, layout, channels: target.shape.channels(), kept: target.kept.as_deref() }
    }

    /// Values of one entry of the first axis.
    fn inner(&self) -> usize {
        self.layout.elements() / self.layout.channels().max(1)
    }

    /// Calls `f` for every value of the map with its address and its index in the tensor. The threads divide the work.
    fn for_each_value(&self, worker: &Worker<'_>, f: impl Fn(*mut f32, usize)) {
        let &Self { map, layout, channels, kept } = self;
        let (own, inner) = (layout.channels(), self.inner());
        let start = |image: usize, c: usize| (image * channels + kept.map_or(c, |kept| kept[c])) * inner;
        if layout.is_channels_last() {
            return worker.for_each_piece(map.images * map.height, |row| {
                let (image, y) = (row / map.height, row % map.height);
                for c in 0..own {
                    let start = start(image, c) + y * map.width;
                    for x in 0..map.width {
                        f(map.at(row * map.width + x).wrapping_add(c), start + x);
                    }
                }
            });
        }
        worker.for_each_piece(map.images * own, |entry| {
            let start = start(entry / own, entry % own);
            for i in 0..inner {
                f(map.data.wrapping_add(entry * inner + i), start + i);
            }
        });
    }
}

/// Seeds of one target, row-major.
#[derive(Clone, Copy)]
pub(crate) struct Seed<'a> {
    values: &'a [f32],
    target: &'a SubgraphTarget,
}

impl<'a> Seed<'a> {
    pub(crate) fn new(values: &'a [f32], target: &'a SubgraphTarget) -> Self {
        Self { values, target }
    }

    /// Writes the seeds of the images of a micro-batch to a map, or adds them to it.
    pub(crate) fn write(&self, worker: &Worker<'_>, arenas: &ArenaPtrs, map: FeatureMap, layout: &Layout, add: bool) {
        let to = Selected::of(map, layout, self.target);
        let values = &self.values[arenas.first * self.target.shape.elements()..];
        match add {
            // SAFETY: the address lies in the map, and no two threads write the same value.
            true => to.for_each_value(worker, |to, index| unsafe { *to += values[index] }),
            // SAFETY: as above.
            false => to.for_each_value(worker, |to, index| unsafe { *to = values[index] }),
        }
    }
}

/// Copies row-major values to a map.
pub(crate) fn load(worker: &Worker<'_>, from: *const f32, to: &Selected<'_>) {
    let from = SharedPtr(from.cast_mut());
    // SAFETY: the address lies in the map, the index in the tensor; no two threads write the same value.
    to.for_each_value(worker, |to, index| unsafe { *to = *from.pointer().add(index) });
}

/// Copies a map to row-major values.
pub(crate) fn store(worker: &Worker<'_>, from: &Selected<'_>, to: *mut f32) {
    // SAFETY: as in `load`.
    from.for_each_value(worker, |from, index| unsafe { *to.add(index) = *from });
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
