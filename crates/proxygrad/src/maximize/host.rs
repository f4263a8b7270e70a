//! Plain loops over tensors in main memory, where they are faster than a chain of tensor operations.

use candle_core::{DType, Device, Result, Storage, Tensor, WithDType, bail};
use rayon::prelude::*;

/// Elements that the loops are written for.
pub(super) trait Real: WithDType {
    fn sqrt(self) -> Self;
    fn abs(self) -> Self;
    fn copysign(self, sign: Self) -> Self;
}

macro_rules! real {
    ($T:ty) => {
        impl Real for $T {
            #[inline]
            fn sqrt(self) -> Self {
                self.sqrt()
            }

            #[inline]
            fn abs(self) -> Self {
                self.abs()
            }

            #[inline]
            fn copysign(self, sign: Self) -> Self {
                self.copysign(sign)
            }
        }
    };
}
real!(f32);
real!(f64);

/// Sums that vector units keep apart, to be added up in a fixed order.
pub(super) const SUMS: usize = 8;

/// Whether plain loops may work on tensors of this device and type.
pub(super) fn suits(device: &Device, dtype: DType) -> bool {
    device.is_cpu() && matches!(dtype, DType::F32 | DType::F64)
}

/// Calls `$function::<T>` with the element type `T` of a tensor that [`suits`].
macro_rules! for_type_of {
    ($tensor:expr, $T:ident => $call:expr) => {
        match $tensor.dtype() {
            candle_core::DType::F64 => {
                type $T = f64;
                $call
            }
            _ => {
                type $T = f32;
                $call
            }
        }
    };
}
pub(super) use for_type_of;

/// Shows `f` the values of a tensor in row-major order.
pub(super) fn read<T: WithDType, R>(tensor: &Tensor, f: impl FnOnce(&[T]) -> R) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(storage), Some((from, to))) => Ok(f(&storage.as_slice::<T>()?[from..to])),
        _ => bail!("a plain loop over a tensor outside of main memory"),
    }
}

/// A tensor with the shape of `x` whose pieces of `size` values are computed in parallel: `f(i, values of x, piece i)`.
pub(super) fn fill_like<T: Real>(
    x: &Tensor,
    size: usize,
    f: impl Fn(usize, &[T], &mut [T]) + Send + Sync,
) -> Result<Tensor> {
    fill(x, x.dims(), size, f)
}

/// As [`fill_like`], with a shape of its own.
pub(super) fn fill<T: Real>(
    x: &Tensor,
    shape: &[usize],
    size: usize,
    f: impl Fn(usize, &[T], &mut [T]) + Send + Sync,
) -> Result<Tensor> {
    let mut filled = vec![T::zero(); shape.iter().product()];
    read(x, |values| filled.par_chunks_mut(size.max(1)).enumerate().for_each(|(i, piece)| f(i, values, piece)))?;
    Tensor::from_vec(filled, shape, &Device::Cpu)
}

/// `[N,C,H,W]` of a batch of images, as `[N, C, H * W]`.
pub(super) fn planes(images: &Tensor) -> Result<[usize; 3]> {
    let (n, c, h, w) = images.dims4()?;
    Ok([n, c, h * w])
}
