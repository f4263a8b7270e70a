//! Device and element type of a run's tensors, and whether its arithmetic is host loops or tensor operations.

use candle_core::{DType, Device};

use crate::engine::Engine;

/// Implementation of the arithmetic on images, parameters and activations. Both compute the same formulas; they differ
/// in rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::maximize) enum Arithmetic {
    /// Loops over `f32` or `f64` in main memory, on all cores: faster there than chains of tensor operations.
    Host,
    /// Tensor operations on the device that holds the tensors.
    Device,
}

/// Where the tensors of a run are stored and how they are computed.
#[derive(Debug, Clone)]
pub(in crate::maximize) struct Placement {
    pub(in crate::maximize) device: Device,
    pub(in crate::maximize) dtype: DType,
    pub(in crate::maximize) arithmetic: Arithmetic,
}

impl Placement {
    pub(in crate::maximize) fn new(device: &Device, dtype: DType) -> Self {
        let host = device.is_cpu() && matches!(dtype, DType::F32 | DType::F64);
        let arithmetic = if host { Arithmetic::Host } else { Arithmetic::Device };
        Self { device: device.clone(), dtype, arithmetic }
    }

    /// Placement of the tensors that an engine takes and returns.
    pub(in crate::maximize) fn of(engine: &dyn Engine) -> Self {
        Self::new(engine.device(), engine.dtype())
    }

    /// `f64` in main memory.
    pub(in crate::maximize) fn host_f64() -> Self {
        Self::new(&Device::Cpu, DType::F64)
    }
}

/// Element type of sums: `f64` unless the device lacks it, so that a mean over a large map is exact to `f32`.
pub(in crate::maximize) fn sum_dtype(device: &Device) -> DType {
    if device.is_metal() { DType::F32 } else { DType::F64 }
}
