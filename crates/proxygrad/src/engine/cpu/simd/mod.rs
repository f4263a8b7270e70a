//! SIMD: [`Simd`] vectors of f32 for AVX-512, AVX2 and portable code, chosen at run time.
//!
//! A kernel is a [`SimdOp`], written once for any [`Simd`]. [`Instructions::run`] compiles it for each instruction set
//! and calls the selected one, so the program itself is built for the baseline processor.
#![expect(unsafe_code, reason = "calls of functions compiled for other instruction sets")]

pub(crate) mod math;
mod portable;
pub(crate) mod vector;
#[cfg(target_arch = "x86_64")]
mod x86;

use self::portable::Portable;
use self::vector::{Simd, SimdOp};

/// A SIMD instruction set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[cfg_attr(feature = "clap", value(rename_all = "lower"))]
pub enum Instructions {
    /// AVX-512: vectors of 16 values, fused multiply-add.
    Avx512,
    /// AVX2 with FMA: vectors of 8 values, fused multiply-add.
    Avx2,
    /// Portable Rust, compiled for the baseline processor.
    Portable,
}

impl Instructions {
    /// The fastest that this processor supports.
    pub fn detect() -> Self {
        [Self::Avx512, Self::Avx2].into_iter().find(|set| set.available()).unwrap_or(Self::Portable)
    }

    /// Whether this processor supports it.
    pub fn available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// Values of one vector.
    pub(crate) fn lanes(self) -> usize {
        match self {
            Self::Avx512 => 16,
            Self::Avx2 | Self::Portable => 8,
        }
    }

    /// Runs an operation with this instruction set.
    ///
    /// # Safety
    /// The processor supports it ([`Instructions::available`]), and the requirements of the operation are met.
    pub(crate) unsafe fn run<O: SimdOp>(self, op: O) -> O::Output {
        // SAFETY: the caller's.
        unsafe {
            match self {
                #[cfg(target_arch = "x86_64")]
                Self::Avx512 => x86::with_avx512(op),
                #[cfg(target_arch = "x86_64")]
                Self::Avx2 => x86::with_avx2(op),
                #[cfg(not(target_arch = "x86_64"))]
                Self::Avx512 | Self::Avx2 => Portable::call(op),
                Self::Portable => Portable::call(op),
            }
        }
    }
}
