//! GEMM microkernel on pairs of bf16: operands are rounded to bf16, products are exact and summed in f32.
//!
//! AVX512-BF16 multiplies two pairs and adds both products to a sum in one instruction, so a sum takes half as many
//! instructions as in f32. A pair has the bits of one f32 in memory: the even row in the lower half, the odd row in the
//! upper half.
#![expect(unsafe_code, reason = "vector instructions, and a register tile over raw rows")]

use half::bf16;

use crate::engine::cpu::kernel::KernelConfig;
use crate::engine::cpu::kernels::gemm::PackedMatrix;

/// Whether this processor multiplies bf16.
pub(crate) fn available() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512f");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// The matrix `[K, N]` as pairs of rows, `[K / 2, N]`; see [`PackedMatrix::new`].
pub(crate) fn pack_pairs(
    rows: usize,
    columns: usize,
    config: KernelConfig,
    mut row: impl FnMut(usize, &mut [f32]),
) -> PackedMatrix {
    let (mut even, mut odd) = (vec![0.0; columns], vec![0.0; columns]);
    PackedMatrix::new(rows.div_ceil(2), columns, config, |pair, line| {
        row(2 * pair, &mut even);
        match 2 * pair + 1 < rows {
            true => row(2 * pair + 1, &mut odd),
            false => odd.fill(0.0),
        }
        for ((value, &even), &odd) in line.iter_mut().zip(&even).zip(&odd) {
            let [low, high] = [even, odd].map(|value| u32::from(bf16::from_f32(value).to_bits()));
            *value = f32::from_bits(low | high << 16);
        }
    })
}

/// Operands of [`microkernel`].
#[derive(Clone, Copy)]
pub(crate) struct Pairs {
    /// Pairs of a row.
    pub(crate) count: usize,
    /// First row of pixels.
    pub(crate) a: *const f32,
    /// Distance of the rows of pixels, in pairs.
    pub(crate) row_stride: usize,
    /// The weights, `[count, vectors * 16]`.
    pub(crate) b: *const f32,
}

#[cfg(target_arch = "x86_64")]
pub(crate) use self::x86::{microkernel, round_row};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Pairs;
    use crate::engine::cpu::kernels::gemm::Prefetch;

    const LANES: usize = 16;

    /// Rounds `count` values to pairs of bf16, padded with zeros to whole vectors of 16 pairs.
    ///
    /// # Safety
    /// The processor multiplies bf16; the values are readable and the pairs with their padding writable.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(crate) unsafe fn round_row(from: *const f32, count: usize, to: *mut f32) {
        let mask = |count: usize| ((1u32 << count.min(LANES)) - 1) as __mmask16;
        for first in (0..count).step_by(2 * LANES) {
            let left = count - first;
            // SAFETY: the masks leave out what is not readable; a whole vector is writable.
            unsafe {
                let low = _mm512_maskz_loadu_ps(mask(left), from.add(first));
                let high = _mm512_maskz_loadu_ps(mask(left.saturating_sub(LANES)), from.wrapping_add(first + LANES));
                let pairs = _mm512_cvtne2ps_pbh(high, low);
                _mm512_storeu_si512(to.add(first / 2).cast(), std::mem::transmute::<__m512bh, __m512i>(pairs));
            }
        }
    }

    /// Computes `sums[r, c] = sum over k of a[r][k] * b[k, c]`, one chain of pairs of products for each sum.
    ///
    /// # Safety
    /// The processor multiplies bf16; `1 <= rows <= 14`, `vectors` is 1 or 2, and the operands and
    /// `sums` `[rows, vectors * 16]` are in memory.
    #[inline(always)]
    pub(crate) unsafe fn microkernel([rows, vectors]: [usize; 2], pairs: Pairs, prefetch: Prefetch, sums: *mut f32) {
        macro_rules! dispatch {
            ($($count:literal)*) => {
                match (rows, vectors) {
                    // SAFETY: the caller's.
                    $(($count, 1) => unsafe { tile::<$count, 1>(pairs, prefetch, sums) },)*
                    // SAFETY: the caller's.
                    $(($count, 2) => unsafe { tile::<$count, 2>(pairs, prefetch, sums) },)*
                    _ => debug_assert!(false, "a tile of {rows} x {vectors}"),
                }
            };
        }
        dispatch!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);
    }

    /// # Safety
    /// As [`microkernel`].
    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn tile<const ROWS: usize, const VECTORS: usize>(
        Pairs { count, mut a, row_stride, mut b }: Pairs,
        Prefetch { from: mut next, pace }: Prefetch,
        sums: *mut f32,
    ) {
        // SAFETY: the caller's; a vector of integers and one of pairs of bf16 have the same bits.
        unsafe {
            let pairs = |bits: __m512i| std::mem::transmute::<__m512i, __m512bh>(bits);
            let mut totals = [[_mm512_setzero_ps(); VECTORS]; ROWS];
            for _ in 0..count {
                let mut weights = [_mm512_setzero_si512(); VECTORS];
                for (v, weight) in weights.iter_mut().enumerate() {
                    *weight = _mm512_loadu_si512(b.add(v * LANES).cast());
                    _mm_prefetch::<_MM_HINT_T0>(next.wrapping_add(v * LANES).cast());
                }
                for (r, total) in totals.iter_mut().enumerate() {
                    let pixel = pairs(_mm512_set1_epi32(a.add(r * row_stride).cast::<i32>().read()));
                    for v in 0..VECTORS {
                        total[v] = _mm512_dpbf16_ps(total[v], pixel, pairs(weights[v]));
                    }
                }
                a = a.add(1);
                b = b.add(VECTORS * LANES);
                next = next.wrapping_add(pace);
            }
            for (r, total) in totals.iter().enumerate() {
                for (v, &total) in total.iter().enumerate() {
                    _mm512_storeu_ps(sums.add((r * VECTORS + v) * LANES), total);
                }
            }
        }
    }
}

/// [`available`] is false here.
#[cfg(not(target_arch = "x86_64"))]
mod elsewhere {
    use super::Pairs;
    use crate::engine::cpu::kernels::gemm::Prefetch;

    pub(crate) unsafe fn round_row(_: *const f32, _: usize, _: *mut f32) {
        debug_assert!(false, "no bf16 products");
    }

    pub(crate) unsafe fn microkernel(_: [usize; 2], _: Pairs, _: Prefetch, _: *mut f32) {
        debug_assert!(false, "no bf16 products");
    }
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) use self::elsewhere::{microkernel, round_row};
