//! Precision of matrix products.

use candle_core::{DType, Device, Result, Tensor};

/// Precision of the matrix products of convolutions and dense layers in the reference engine. All other operations, and
/// images, outputs and gradients, use the engine's own type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Precision {
    /// In the engine's own type.
    #[default]
    Full,
    /// f32 with operands rounded to 10 bits of mantissa and accumulation in f32, as on NVIDIA tensor cores since
    /// Ampere. On other devices it is emulated by rounding the operands.
    Tf32,
    /// Operands and results in bf16 (7 bits of mantissa), accumulation in f32. On the CPU, which has no bf16 products,
    /// it is emulated by rounding operands and results.
    Bf16,
}

impl Precision {
    /// Rounds an operand.
    pub(super) fn operand(self, x: &Tensor) -> Result<Tensor> {
        match (self, x.device()) {
            (Self::Full, _) | (Self::Tf32, Device::Cuda(_)) => Ok(x.clone()),
            (Self::Tf32, _) => {
                // Dekker's splitting: the upper 11 bits of a 24-bit mantissa, rounded to nearest.
                let scaled = x.affine(f64::from((1u32 << 13) + 1), 0.0)?;
                &scaled - (&scaled - x)?
            }
            (Self::Bf16, Device::Cpu) => x.to_dtype(DType::BF16)?.to_dtype(x.dtype()),
            (Self::Bf16, _) => x.to_dtype(DType::BF16),
        }
    }

    /// Multiplies two rounded operands.
    pub(super) fn product(self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        let product = a.matmul(b)?;
        match self {
            Self::Bf16 => product.to_dtype(DType::BF16)?.to_dtype(DType::F32),
            Self::Full | Self::Tf32 => Ok(product),
        }
    }
}
