//! Loops over tensors in main memory: element types, access to values, parallel fills.

use candle_core::{Device, Result, Storage, Tensor, WithDType, bail};
use rayon::prelude::*;

/// Element type of the loops.
pub(in crate::maximize) trait Real: WithDType {
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

/// Number of partial sums in a vectorized reduction; they are added in a fixed order.
pub(in crate::maximize) const SUMS: usize = 8;

/// Evaluates `$call` with `T` as the element type of an `f32` or `f64` tensor.
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
pub(in crate::maximize) use for_type_of;

/// Calls `f` with the values of a tensor in row-major order.
pub(in crate::maximize) fn read<T: WithDType, R>(tensor: &Tensor, f: impl FnOnce(&[T]) -> R) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(storage), Some((from, to))) => Ok(f(&storage.as_slice::<T>()?[from..to])),
        _ => bail!("a host loop needs a tensor in main memory"),
    }
}

/// A tensor with the shape of `x`, computed in parallel chunks of `size` values: `f(i, values of x, chunk i)`.
pub(in crate::maximize) fn fill_like<T: Real>(
    x: &Tensor,
    size: usize,
    f: impl Fn(usize, &[T], &mut [T]) + Send + Sync,
) -> Result<Tensor> {
    fill(x, x.dims(), size, f)
}

/// As [`fill_like`], for any shape.
pub(in crate::maximize) fn fill<T: Real>(
    x: &Tensor,
    shape: &[usize],
    size: usize,
    f: impl Fn(usize, &[T], &mut [T]) + Send + Sync,
) -> Result<Tensor> {
    let mut filled = vec![T::zero(); shape.iter().product()];
    read(x, |values| filled.par_chunks_mut(size.max(1)).enumerate().for_each(|(i, chunk)| f(i, values, chunk)))?;
    Tensor::from_vec(filled, shape, &Device::Cpu)
}

/// `[N, C, H * W]` of a batch of images `[N,C,H,W]`.
pub(in crate::maximize) fn planes(images: &Tensor) -> Result<[usize; 3]> {
    let (n, c, h, w) = images.dims4()?;
    Ok([n, c, h * w])
}
