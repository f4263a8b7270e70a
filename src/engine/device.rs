//! Devices and engines by name.

use candle_core::{DType, Device};

use super::{Cpu, Engine, EngineError, Reference};

/// The engine for the device called `cpu`, `cuda:INDEX` or `metal`: the CPU's own, or the reference engine in f32.
///
/// # Errors
/// As [`device`].
pub fn open(name: &str) -> Result<Box<dyn Engine>, EngineError> {
    match device(name)? {
        Device::Cpu => Ok(Box::new(Cpu)),
        device => Ok(Box::new(Reference::new(device, DType::F32))),
    }
}

/// Opens the device called `cpu`, `cuda:INDEX` (feature `cuda`) or `metal` (feature `metal`).
///
/// # Errors
/// When the name is unknown, this build has no support for it, or the device is not there.
pub fn device(name: &str) -> Result<Device, EngineError> {
    let missing = |why: String| EngineError::Device { device: name.to_owned(), why };
    match name.split_once(':') {
        None if name == "cpu" => Ok(Device::Cpu),
        None if name == "metal" => {
            if !candle_core::utils::metal_is_available() {
                return Err(missing("this build has no Metal support (cargo feature `metal`)".into()));
            }
            Device::new_metal(0).map_err(|e| missing(e.to_string()))
        }
        Some(("cuda", index)) => {
            let index = index.parse().map_err(|_| missing("the index behind cuda: is a whole number".into()))?;
            cuda(index).map_err(missing)
        }
        _ => Err(missing("devices are cpu, cuda:0, cuda:1, … and metal".into())),
    }
}

#[cfg(feature = "cuda")]
fn cuda(index: usize) -> Result<Device, String> {
    Device::new_cuda(index).map_err(|e| e.to_string())
}

#[cfg(not(feature = "cuda"))]
fn cuda(_: usize) -> Result<Device, String> {
    Err("this build has no CUDA support (cargo feature `cuda`)".into())
}
