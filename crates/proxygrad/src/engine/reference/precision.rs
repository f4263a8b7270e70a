//! How exactly matrix products are computed.

use candle_core::{DType, Device, Result, Tensor};

/// How the reference engine computes the matrix products of convolutions and dense layers. Everything between them,
/// and images, outputs and gradients, keep the engine's own type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Precision {
    /// In the engine's own type.
    #[default]
    Full,
    /// f32 with operands rounded to 10 bits of mantissa, sums in f32: NVIDIA's tensor cores since Ampere. Elsewhere it
    /// is imitated by rounding the operands.
    Tf32,
    /// Operands and results in bf16 (7 bits of mantissa), sums in f32. Where bf16 products do not exist (the CPU), it is
    /// imitated by rounding operands and results.
    Bf16,
}

impl Precision {
    /// The operand as the product sees it.
    pub(super) fn operand(self, x: &Tensor) -> Result<Tensor> {
        match (self, x.device()) {
            (Self::Full, _) | (Self::Tf32, Device::Cuda(_)) => Ok(x.clone()),
            (Self::Tf32, _) => {
                // Dekker's split: the upper 11 bits of a 24-bit mantissa, rounded to nearest.
                let scaled = x.affine(f64::from((1u32 << 13) + 1), 0.0)?;
                &scaled - (&scaled - x)?
            }
            (Self::Bf16, Device::Cpu) => x.to_dtype(DType::BF16)?.to_dtype(x.dtype()),
            (Self::Bf16, _) => x.to_dtype(DType::BF16),
        }
    }

    /// The product of two operands.
    pub(super) fn product(self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        let product = a.matmul(b)?;
        match self {
            Self::Bf16 => product.to_dtype(DType::BF16)?.to_dtype(DType::F32),
            Self::Full | Self::Tf32 => Ok(product),
        }
    }
}
