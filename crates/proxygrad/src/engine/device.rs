//! Opening of devices and engines by name.

use candle_core::{DType, Device};

use super::{Cpu, CpuSettings, Engine, EngineError, Precision, Reference, TrainingEngine};

/// Opens the engine for a device: [`Cpu`] with the settings `cpu` for the name `cpu`, otherwise [`Reference`] in f32 on
/// the [`device`] with this name. A suffix `+tf32` (CUDA) or `+bf16` (CUDA, Metal) selects the [`Precision`] of matrix
/// products; `cpu+bf16` is [`CpuSettings::bf16`].
///
/// # Errors
/// As [`device`], and when the device does not support the precision. TF32 on CUDA is a process-wide setting: all GPUs
/// must be opened with `+tf32`, or all without.
pub fn open(name: &str, cpu: &CpuSettings) -> Result<Box<dyn Engine>, EngineError> {
    let (place, precision) = name.split_once('+').map_or((name, None), |(place, precision)| (place, Some(precision)));
    let refused = |why: &str| EngineError::Device { device: name.to_owned(), why: why.to_owned() };
    let precision = match precision {
        None => Precision::Full,
        Some("tf32") => Precision::Tf32,
        Some("bf16") => Precision::Bf16,
        Some(_) => return Err(refused("the suffix after + must be tf32 or bf16")),
    };
    let device = match (device(place)?, precision) {
        (Device::Cpu, Precision::Full) => return Ok(Box::new(Cpu::new(cpu)?)),
        (Device::Cpu, Precision::Bf16) => return Ok(Box::new(Cpu::new(&CpuSettings { bf16: true, ..cpu.clone() })?)),
        (Device::Cpu, Precision::Tf32) => return Err(refused("only CUDA supports tf32")),
        (Device::Metal(_), Precision::Tf32) => return Err(refused("only CUDA supports tf32")),
        (device, _) => device,
    };
    if device.is_cuda() {
        round_to_tf32(precision == Precision::Tf32).map_err(refused)?;
    }
    Ok(Box::new(Reference::new(device, DType::F32).with_precision(precision)))
}

/// Opens the engine that trains on a device: [`Cpu`] with the settings `cpu` for the name `cpu`, otherwise [`Reference`]
/// in f32 on the [`device`] with this name.
///
/// # Errors
/// As [`device`].
pub fn open_training(name: &str, cpu: &CpuSettings) -> Result<Box<dyn TrainingEngine>, EngineError> {
    match device(name)? {
        Device::Cpu => Ok(Box::new(Cpu::new(cpu)?)),
        device => Ok(Box::new(Reference::new(device, DType::F32))),
    }
}

/// Opens the device called `cpu`, `cuda:INDEX` (feature `cuda`) or `metal` (feature `metal`).
///
/// # Errors
/// When the name is unknown, this build does not support the device, or it does not exist.
pub fn device(name: &str) -> Result<Device, EngineError> {
    // Candle may append a backtrace to the first line.
    let first_line = |why: String| why.lines().next().unwrap_or_default().to_owned();
    let missing = |why: String| EngineError::Device { device: name.to_owned(), why: first_line(why) };
    match name.split_once(':') {
        None if name == "cpu" => Ok(Device::Cpu),
        None if name == "metal" => {
            if !candle_core::utils::metal_is_available() {
                return Err(missing("this build has no Metal support (cargo feature `metal`)".into()));
            }
            Device::new_metal(0).map_err(|e| missing(e.to_string()))
        }
        Some(("cuda", index)) => {
            let index = index.parse().map_err(|_| missing("the index after cuda: must be a whole number".into()))?;
            cuda(index).map_err(missing)
        }
        _ => Err(missing("unknown device; expected cpu, cuda:0, cuda:1, … or metal".into())),
    }
}

#[cfg(feature = "cuda")]
fn cuda(index: usize) -> Result<Device, String> {
    let open = || -> candle_core::Result<Device> {
        // One stream for all threads: a plan may be created on one thread and run on another.
        let device = Device::new_cuda_with_stream(index)?;
        // SAFETY: events synchronize several streams; every tensor of this device is created, used and freed on its one
        // stream, and no other stream is created from its context.
        #[expect(unsafe_code)]
        unsafe {
            device.as_cuda_device()?.disable_event_tracking();
        }
        Ok(device)
    };
    open().map_err(|e| e.to_string())
}

#[cfg(not(feature = "cuda"))]
fn cuda(_: usize) -> Result<Device, String> {
    Err("this build has no CUDA support (cargo feature `cuda`)".into())
}

/// Sets whether f32 matrix products on CUDA round their operands to TF32, once per process.
#[cfg(feature = "cuda")]
fn round_to_tf32(wanted: bool) -> Result<(), &'static str> {
    static CHOICE: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    if *CHOICE.get_or_init(|| wanted) != wanted {
        return Err("another GPU was opened with a different precision: use +tf32 for all GPUs or for none");
    }
    candle_core::cuda::set_gemm_reduced_precision_f32(wanted);
    Ok(())
}

#[cfg(not(feature = "cuda"))]
fn round_to_tf32(_: bool) -> Result<(), &'static str> {
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn names_that_cannot_be_opened_say_why() {
        for (name, why) in [
            ("gpu", "expected cpu"),
            ("cuda", "expected cpu"),
            ("cuda:x", "whole number"),
            ("cpu+tf32", "only CUDA supports tf32"),
            ("cpu+int8", "tf32 or bf16"),
            ("cpu+", "tf32 or bf16"),
        ] {
            let error = open(name, &CpuSettings::default()).err().unwrap().to_string();
            assert!(error.contains(why), "{name}: {error}");
        }
        assert_eq!(open("cpu", &CpuSettings::default()).unwrap().dtype(), DType::F32);
    }

    #[test]
    #[cfg(not(any(feature = "cuda", feature = "metal")))]
    fn a_build_without_gpus_names_the_feature() {
        for (name, feature) in [("cuda:0", "cuda"), ("cuda:0+tf32", "cuda"), ("metal+bf16", "metal")] {
            let error = open(name, &CpuSettings::default()).err().unwrap().to_string();
            assert!(error.contains(&format!("(cargo feature `{feature}`)")), "{name}: {error}");
        }
    }
}
