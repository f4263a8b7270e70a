//! SIMD instruction sets of x86-64: AVX-512, and AVX2 with FMA.
#![expect(unsafe_code, reason = "vector instructions, and loads and stores through pointers")]

use std::arch::x86_64::*;

use crate::engine::cpu::simd::vector::{Simd, SimdOp};

/// Runs an operation compiled for AVX-512.
#[inline(never)]
#[target_feature(enable = "avx512f,avx2,fma")]
pub(crate) unsafe fn with_avx512<O: SimdOp>(op: O) -> O::Output {
    // SAFETY: the caller checked the processor and the requirements of the operation.
    unsafe { op.run::<Avx512>() }
}

/// Runs an operation compiled for AVX2 with fused multiply-add.
#[inline(never)]
#[target_feature(enable = "avx2,fma")]
pub(crate) unsafe fn with_avx2<O: SimdOp>(op: O) -> O::Output {
    // SAFETY: the caller checked the processor and the requirements of the operation.
    unsafe { op.run::<Avx2>() }
}

#[derive(Clone, Copy)]
pub(crate) struct Avx512;

#[inline(always)]
fn first(count: usize) -> __mmask16 {
    ((1u32 << count.min(16)) - 1) as __mmask16
}

macro_rules! forward {
    ($($name:ident($($x:ident),*) = $intrinsic:expr;)*) => {$(
        #[inline(always)]
        unsafe fn $name($($x: Self::V),*) -> Self::V {
            // SAFETY: the processor supports the instruction set (the trait's condition).
            unsafe { $intrinsic }
        }
    )*};
}

// SAFETY: every function is its intrinsic; masked forms touch only the values in the mask.
unsafe impl Simd for Avx512 {
    type V = __m512;
    const LANES: usize = 16;
    const TILE_ROWS: usize = 14;

    forward! {
        mul_add(a, b, c) = _mm512_fmadd_ps(a, b, c);
        add(a, b) = _mm512_add_ps(a, b);
        sub(a, b) = _mm512_sub_ps(a, b);
        mul(a, b) = _mm512_mul_ps(a, b);
        div(a, b) = _mm512_div_ps(a, b);
        max(a, b) = _mm512_max_ps(a, b);
        min(a, b) = _mm512_min_ps(a, b);
        where_greater(a, b, yes, no) = _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b), no, yes);
        where_equal(a, b, yes, no) = _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_EQ_OQ>(a, b), no, yes);
        scale(x, n) = _mm512_scalef_ps(x, n);
    }
    #[inline(always)]
    unsafe fn unless_greater(a: Self::V, b: Self::V) -> u32 {
        // SAFETY: as above.
        unsafe { _mm512_cmp_ps_mask::<_CMP_NGT_UQ>(a, b) }.into()
    }
    #[inline(always)]
    unsafe fn where_at_least(a: Self::V, b: Self::V) -> u32 {
        // SAFETY: as above.
        unsafe { _mm512_cmp_ps_mask::<_CMP_GE_OQ>(a, b) }.into()
    }
    #[inline(always)]
    unsafe fn where_set(from: *const u8, yes: Self::V, no: Self::V) -> Self::V {
        // SAFETY: two bytes are readable.
        unsafe { _mm512_mask_blend_ps(from.cast::<__mmask16>().read_unaligned(), no, yes) }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        // SAFETY: as above.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::V {
        // SAFETY: sixteen values are readable.
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn load_some(from: *const f32, count: usize) -> Self::V {
        // SAFETY: `count` values are readable.
        unsafe { _mm512_maskz_loadu_ps(first(count), from) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, x: Self::V) {
        // SAFETY: sixteen values are writable.
        unsafe { _mm512_storeu_ps(to, x) }
    }
    #[inline(always)]
    unsafe fn store_some(to: *mut f32, x: Self::V, count: usize) {
        // SAFETY: `count` values are writable.
        unsafe { _mm512_mask_storeu_ps(to, first(count), x) }
    }
    #[inline(always)]
    unsafe fn prefetch(at: *const f32) {
        // SAFETY: a hint that never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
    #[inline(always)]
    unsafe fn call<O: SimdOp>(op: O) -> O::Output {
        // SAFETY: the processor supports the instruction set.
        unsafe { with_avx512(op) }
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Avx2;

impl Avx2 {
    /// 2 to the power of `n`, for integers from -126 to 127.
    #[inline(always)]
    unsafe fn power(n: __m256i) -> __m256 {
        // SAFETY: the processor supports the instruction set (the trait's condition).
        unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(n, _mm256_set1_epi32(127)))) }
    }

    /// A mask of the first `count` lanes.
    #[inline(always)]
    unsafe fn first(count: usize) -> __m256i {
        const ONES: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
        // SAFETY: eight numbers are readable from any of the first nine places.
        unsafe { _mm256_loadu_si256(ONES.as_ptr().add(8 - count.min(8)).cast()) }
    }
}

// SAFETY: every function is its intrinsic; masked forms touch only the values in the mask.
unsafe impl Simd for Avx2 {
    type V = __m256;
    const LANES: usize = 8;
    const TILE_ROWS: usize = 6;

    forward! {
        mul_add(a, b, c) = _mm256_fmadd_ps(a, b, c);
        add(a, b) = _mm256_add_ps(a, b);
        sub(a, b) = _mm256_sub_ps(a, b);
        mul(a, b) = _mm256_mul_ps(a, b);
        div(a, b) = _mm256_div_ps(a, b);
        max(a, b) = _mm256_max_ps(a, b);
        min(a, b) = _mm256_min_ps(a, b);
        where_greater(a, b, yes, no) = _mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_GT_OQ>(a, b));
        where_equal(a, b, yes, no) = _mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_EQ_OQ>(a, b));
        scale(x, n) = {
            // One factor alone would leave the range of f32.
            let n = _mm256_cvtps_epi32(n);
            let half = _mm256_srai_epi32::<1>(n);
            let [first, second] = [half, _mm256_sub_epi32(n, half)];
            _mm256_mul_ps(_mm256_mul_ps(x, Self::power(first)), Self::power(second))
        };
    }
    #[inline(always)]
    unsafe fn unless_greater(a: Self::V, b: Self::V) -> u32 {
        // SAFETY: as above.
        unsafe { _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_NGT_UQ>(a, b)) as u32 }
    }
    #[inline(always)]
    unsafe fn where_at_least(a: Self::V, b: Self::V) -> u32 {
        // SAFETY: as above.
        unsafe { _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(a, b)) as u32 }
    }
    #[inline(always)]
    unsafe fn where_set(from: *const u8, yes: Self::V, no: Self::V) -> Self::V {
        // SAFETY: four bytes are readable.
        unsafe {
            let bits = _mm256_set1_epi32(from.cast::<i32>().read_unaligned());
            let own = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
            let is_set = _mm256_cmpeq_epi32(_mm256_and_si256(bits, own), own);
            _mm256_blendv_ps(no, yes, _mm256_castsi256_ps(is_set))
        }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        // SAFETY: as above.
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::V {
        // SAFETY: eight values are readable.
        unsafe { _mm256_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn load_some(from: *const f32, count: usize) -> Self::V {
        // SAFETY: `count` values are readable.
        unsafe { _mm256_maskload_ps(from, Self::first(count)) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, x: Self::V) {
        // SAFETY: eight values are writable.
        unsafe { _mm256_storeu_ps(to, x) }
    }
    #[inline(always)]
    unsafe fn store_some(to: *mut f32, x: Self::V, count: usize) {
        // SAFETY: `count` values are writable.
        unsafe { _mm256_maskstore_ps(to, Self::first(count), x) }
    }
    #[inline(always)]
    unsafe fn prefetch(at: *const f32) {
        // SAFETY: a hint that never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
    #[inline(always)]
    unsafe fn call<O: SimdOp>(op: O) -> O::Output {
        // SAFETY: the processor supports the instruction set.
        unsafe { with_avx2(op) }
    }
}
