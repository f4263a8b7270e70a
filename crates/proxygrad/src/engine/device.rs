//! Devices and engines by name.

use candle_core::{DType, Device};

use super::{Cpu, CpuSettings, Engine, EngineError, Precision, Reference};

/// The engine for a device: for `cpu` the CPU's own, with the settings `cpu`; for the names of [`device`] the reference engine in f32, with
/// `+tf32` (CUDA) or `+bf16` (CUDA, Metal) behind them for matrix products of that [`Precision`].
///
/// # Errors
/// As [`device`], and when the device has no such precision. Whether CUDA rounds to TF32 is one setting for the whole
/// process: once a card was opened with or without `+tf32`, all others must be opened alike.
pub fn open(name: &str, cpu: &CpuSettings) -> Result<Box<dyn Engine>, EngineError> {
    let (place, precision) = name.split_once('+').map_or((name, None), |(place, precision)| (place, Some(precision)));
    let refused = |why: &str| EngineError::Device { device: name.to_owned(), why: why.to_owned() };
    let precision = match precision {
        None => Precision::Full,
        Some("tf32") => Precision::Tf32,
        Some("bf16") => Precision::Bf16,
        Some(_) => return Err(refused("behind + stands tf32 or bf16")),
    };
    let device = match (device(place)?, precision) {
        (Device::Cpu, Precision::Full) => return Ok(Box::new(Cpu::new(cpu)?)),
        (Device::Cpu, _) => return Err(refused("the CPU computes in f32 only")),
        (Device::Metal(_), Precision::Tf32) => return Err(refused("only CUDA has tf32")),
        (device, _) => device,
    };
    if device.is_cuda() {
        round_to_tf32(precision == Precision::Tf32).map_err(refused)?;
    }
    Ok(Box::new(Reference::new(device, DType::F32).with_precision(precision)))
}

/// Opens the device called `cpu`, `cuda:INDEX` (feature `cuda`) or `metal` (feature `metal`).
///
/// # Errors
/// When the name is unknown, this build has no support for it, or the device is not there.
pub fn device(name: &str) -> Result<Device, EngineError> {
    // Below the first line candle may print the stack.
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
            let index = index.parse().map_err(|_| missing("the index behind cuda: is a whole number".into()))?;
            cuda(index).map_err(missing)
        }
        _ => Err(missing("devices are cpu, cuda:0, cuda:1, … and metal".into())),
    }
}

#[cfg(feature = "cuda")]
fn cuda(index: usize) -> Result<Device, String> {
    let open = || -> candle_core::Result<Device> {
        // One stream for all threads: a plan may be made on one and run on another.
        let device = Device::new_cuda_with_stream(index)?;
        // SAFETY: events keep several streams apart; every tensor of this device is made, used and freed on its one
        // stream, and no other stream is ever made from its context.
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

/// Sets whether f32 products on CUDA round their operands to TF32, once for the process.
#[cfg(feature = "cuda")]
fn round_to_tf32(wanted: bool) -> Result<(), &'static str> {
    static CHOICE: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    if *CHOICE.get_or_init(|| wanted) != wanted {
        return Err("this process already runs CUDA otherwise: give +tf32 to all cards or to none");
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
            ("gpu", "devices are cpu"),
            ("cuda", "devices are cpu"),
            ("cuda:x", "whole number"),
            ("cpu+bf16", "the CPU computes in f32 only"),
            ("cpu+tf32", "the CPU computes in f32 only"),
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
