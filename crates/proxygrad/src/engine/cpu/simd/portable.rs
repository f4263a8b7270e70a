//! Portable vectors of eight values, compiled for the baseline processor.
#![expect(unsafe_code, reason = "vector instructions, and loads and stores through pointers")]

use crate::engine::cpu::simd::vector::{Simd, SimdOp};

/// Vectors as arrays.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

impl Portable {
    #[inline(always)]
    fn map(a: [f32; 8], b: [f32; 8], f: impl Fn(f32, f32) -> f32) -> [f32; 8] {
        std::array::from_fn(|i| f(a[i], b[i]))
    }
}

// SAFETY: needs no special instructions; pointers are read and written exactly as far as the trait documents.
unsafe impl Simd for Portable {
    type V = [f32; 8];
    const LANES: usize = 8;
    const TILE_ROWS: usize = 4;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        [x; 8]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::V {
        // SAFETY: eight values are readable.
        unsafe { from.cast::<[f32; 8]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_some(from: *const f32, count: usize) -> Self::V {
        // SAFETY: `count` values are readable.
        std::array::from_fn(|i| if i < count { unsafe { *from.add(i) } } else { 0.0 })
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, x: Self::V) {
        // SAFETY: eight values are writable.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(x) }
    }
    #[inline(always)]
    unsafe fn store_some(to: *mut f32, x: Self::V, count: usize) {
        for (i, &value) in x.iter().enumerate().take(count) {
            // SAFETY: `count` values are writable.
            unsafe { *to.add(i) = value };
        }
    }
    #[inline(always)]
    unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        Self::map(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
        Self::map(a, b, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
        Self::map(a, b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V {
        Self::map(a, b, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
        Self::map(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V {
        Self::map(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn where_greater(a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V {
        std::array::from_fn(|i| if a[i] > b[i] { yes[i] } else { no[i] })
    }
    #[inline(always)]
    unsafe fn where_equal(a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V {
        std::array::from_fn(|i| if a[i] == b[i] { yes[i] } else { no[i] })
    }
    #[inline(always)]
    unsafe fn unless_greater(a: Self::V, b: Self::V) -> u32 {
        let is_greater = |i: usize| a[i] > b[i];
        (0..8).fold(0, |bits, i| bits | u32::from(!is_greater(i)) << i)
    }
    #[inline(always)]
    unsafe fn where_at_least(a: Self::V, b: Self::V) -> u32 {
        (0..8).fold(0, |bits, i| bits | u32::from(a[i] >= b[i]) << i)
    }
    #[inline(always)]
    unsafe fn where_set(from: *const u8, yes: Self::V, no: Self::V) -> Self::V {
        // SAFETY: a byte is readable.
        let bits = unsafe { *from };
        std::array::from_fn(|i| if bits >> i & 1 == 1 { yes[i] } else { no[i] })
    }
    #[inline(always)]
    unsafe fn scale(x: Self::V, n: Self::V) -> Self::V {
        let power = |n: i32| f32::from_bits(((n + 127) as u32) << 23);
        Self::map(x, n, |x, n| {
            let half = n as i32 >> 1;
            x * power(half) * power(n as i32 - half)
        })
    }
    #[inline(always)]
    unsafe fn prefetch(_: *const f32) {}
    #[inline(never)]
    unsafe fn call<O: SimdOp>(op: O) -> O::Output {
        // SAFETY: the caller's.
        unsafe { op.run::<Self>() }
    }
}
