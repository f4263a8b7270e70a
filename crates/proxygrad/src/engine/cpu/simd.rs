//! Vectors of f32: one trait, three instruction sets, chosen at run time.
//!
//! A kernel is a [`Job`], written once for any [`Simd`]. [`Instructions::run`] compiles it for each instruction set and
//! calls the one that was chosen, so that the program itself is built for the baseline processor.
#![expect(unsafe_code, reason = "vector instructions, and loads and stores through pointers")]

/// A family of vector instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[cfg_attr(feature = "clap", value(rename_all = "lower"))]
pub enum Instructions {
    /// 16 values at once, fused multiply-add.
    Avx512,
    /// 8 values at once, fused multiply-add.
    Avx2,
    /// Whatever the compiler makes of plain Rust for the baseline processor.
    Portable,
}

impl Instructions {
    /// The fastest that this processor has.
    pub fn detect() -> Self {
        [Self::Avx512, Self::Avx2].into_iter().find(|set| set.available()).unwrap_or(Self::Portable)
    }

    /// Whether this processor has them.
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
    pub(super) fn lanes(self) -> usize {
        match self {
            Self::Avx512 => 16,
            Self::Avx2 | Self::Portable => 8,
        }
    }

    /// Runs `job` with these instructions.
    ///
    /// # Safety
    /// The processor has the instructions ([`Instructions::available`]), and what `job` asks for holds.
    pub(super) unsafe fn run<J: Job>(self, job: J) -> J::Output {
        // SAFETY: passed on to the caller.
        unsafe {
            match self {
                #[cfg(target_arch = "x86_64")]
                Self::Avx512 => x86::with_avx512(job),
                #[cfg(target_arch = "x86_64")]
                Self::Avx2 => x86::with_avx2(job),
                #[cfg(not(target_arch = "x86_64"))]
                Self::Avx512 | Self::Avx2 => Portable::call(job),
                Self::Portable => Portable::call(job),
            }
        }
    }
}

/// Work written for any vector instructions.
pub(super) trait Job {
    /// What comes out.
    type Output;

    /// Does the work. Implementations are `#[inline(always)]`, so that they are compiled with the instructions of `S`.
    ///
    /// # Safety
    /// The processor has the instructions of `S`; the implementation may ask for more.
    unsafe fn run<S: Simd>(self) -> Self::Output;
}

/// Vectors of [`Simd::LANES`] values.
///
/// # Safety
/// All functions need a processor that has the instructions; those with pointers need as many readable or writable
/// values behind them as they name, at any alignment.
pub(super) unsafe trait Simd: Copy + 'static {
    /// A vector.
    type V: Copy;
    /// Values of one vector.
    const LANES: usize;
    /// Rows of the largest product tile of two vectors' width whose sums fit the registers.
    const ROWS: usize;

    /// The same value everywhere.
    unsafe fn splat(x: f32) -> Self::V;
    /// The [`Simd::LANES`] values at `from`.
    unsafe fn load(from: *const f32) -> Self::V;
    /// The first `count` values at `from`, then zeros.
    unsafe fn load_some(from: *const f32, count: usize) -> Self::V;
    /// A whole vector where there are so many values at `from`, else the first `count`, then zeros.
    #[inline(always)]
    unsafe fn load_up_to(from: *const f32, count: usize) -> Self::V {
        // SAFETY: the caller's.
        unsafe { if count >= Self::LANES { Self::load(from) } else { Self::load_some(from, count) } }
    }
    /// Stores all values.
    unsafe fn store(to: *mut f32, x: Self::V);
    /// Stores the first `count` values.
    unsafe fn store_some(to: *mut f32, x: Self::V, count: usize);
    /// `a * b + c`
    unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `a + b`
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    /// `a * b`
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    /// The larger of both; `b` where one is not a number.
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    /// The smaller of both; `b` where one is not a number.
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    /// `yes` where `a > b`, else `no`.
    unsafe fn where_greater(a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V;
    /// `yes` where `a == b`, else `no`.
    unsafe fn where_equal(a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V;
    /// A bit for each value, the first one's lowest: set unless `a > b`.
    unsafe fn unless_greater(a: Self::V, b: Self::V) -> u32;
    /// A bit for each value, the first one's lowest: set where `a >= b`.
    unsafe fn where_at_least(a: Self::V, b: Self::V) -> u32;
    /// `yes` where the value's bit at `from` is set, else `no`. Reads up to four bytes.
    unsafe fn where_set(from: *const u8, yes: Self::V, no: Self::V) -> Self::V;
    /// 2 to the power of `n`, whole numbers from -126 to 127.
    unsafe fn exp2(n: Self::V) -> Self::V;
    /// Asks for the cache line at `at`, which may lie anywhere.
    unsafe fn prefetch(at: *const f32);
    /// Runs a job as a function of its own, compiled for these instructions.
    unsafe fn call<J: Job>(job: J) -> J::Output;
}

/// `1 / (1 + exp(-x))`, within 2e-7.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(super) unsafe fn logistic<S: Simd>(x: S::V) -> S::V {
    // SAFETY: passed on to the caller.
    unsafe {
        let one = S::splat(1.0);
        S::div(one, S::add(one, exp::<S>(S::sub(S::splat(0.0), x))))
    }
}

/// `exp(x)` for x cut to -87..=88, within 2e-7 relative: 2^n times a polynomial of the rest (Cephes' `expf`).
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(super) unsafe fn exp<S: Simd>(x: S::V) -> S::V {
    // SAFETY: passed on to the caller.
    unsafe {
        let x = S::max(S::min(x, S::splat(88.0)), S::splat(-87.0));
        // Adding and taking away 1.5 * 2^23 rounds to the nearest whole number.
        let round = S::splat(12_582_912.0);
        let n = S::sub(S::mul_add(x, S::splat(std::f32::consts::LOG2_E), round), round);
        let r = S::mul_add(n, S::splat(-0.693_359_4), x);
        let r = S::mul_add(n, S::splat(2.121_944_4e-4), r);
        let mut p = S::splat(1.987_569_1e-4);
        for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
            p = S::mul_add(p, r, S::splat(c));
        }
        let p = S::add(S::mul_add(S::mul(r, r), p, r), S::splat(1.0));
        S::mul(p, S::exp2(n))
    }
}

/// Plain Rust.
#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Portable {
    #[inline(always)]
    fn map(a: [f32; 8], b: [f32; 8], f: impl Fn(f32, f32) -> f32) -> [f32; 8] {
        std::array::from_fn(|i| f(a[i], b[i]))
    }
}

// SAFETY: needs no special instructions; pointers are read and written exactly as far as the trait says.
unsafe impl Simd for Portable {
    type V = [f32; 8];
    const LANES: usize = 8;
    const ROWS: usize = 4;

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
    unsafe fn exp2(n: Self::V) -> Self::V {
        n.map(|n| f32::from_bits(((n as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    unsafe fn prefetch(_: *const f32) {}
    #[inline(never)]
    unsafe fn call<J: Job>(job: J) -> J::Output {
        // SAFETY: the caller's.
        unsafe { job.run::<Self>() }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    //! The vector units of x86-64.

    use std::arch::x86_64::*;

    use super::{Job, Simd};

    /// Runs a job compiled for AVX-512.
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx2,fma")]
    pub(super) unsafe fn with_avx512<J: Job>(job: J) -> J::Output {
        // SAFETY: the caller checked the processor and what the job asks for.
        unsafe { job.run::<Avx512>() }
    }

    /// Runs a job compiled for AVX2 with fused multiply-add.
    #[inline(never)]
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn with_avx2<J: Job>(job: J) -> J::Output {
        // SAFETY: the caller checked the processor and what the job asks for.
        unsafe { job.run::<Avx2>() }
    }

    #[derive(Clone, Copy)]
    pub(super) struct Avx512;

    #[inline(always)]
    fn first(count: usize) -> __mmask16 {
        ((1u32 << count.min(16)) - 1) as __mmask16
    }

    macro_rules! forward {
        ($($name:ident($($x:ident),*) = $intrinsic:expr;)*) => {$(
            #[inline(always)]
            unsafe fn $name($($x: Self::V),*) -> Self::V {
                // SAFETY: the processor has the instructions (the trait's condition).
                unsafe { $intrinsic }
            }
        )*};
    }

    // SAFETY: every function is its intrinsic; masked forms touch only the values that the mask names.
    unsafe impl Simd for Avx512 {
        type V = __m512;
        const LANES: usize = 16;
        const ROWS: usize = 14;

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
            exp2(n) = {
                let biased = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
                _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
            };
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
        unsafe fn call<J: Job>(job: J) -> J::Output {
            // SAFETY: the processor has the instructions.
            unsafe { with_avx512(job) }
        }
    }

    #[derive(Clone, Copy)]
    pub(super) struct Avx2;

    impl Avx2 {
        /// A mask of the first `count` lanes.
        #[inline(always)]
        unsafe fn first(count: usize) -> __m256i {
            const ONES: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
            // SAFETY: eight numbers are readable from any of the first nine places.
            unsafe { _mm256_loadu_si256(ONES.as_ptr().add(8 - count.min(8)).cast()) }
        }
    }

    // SAFETY: every function is its intrinsic; masked forms touch only the values that the mask names.
    unsafe impl Simd for Avx2 {
        type V = __m256;
        const LANES: usize = 8;
        const ROWS: usize = 6;

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
            exp2(n) = {
                let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
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
        unsafe fn call<J: Job>(job: J) -> J::Output {
            // SAFETY: the processor has the instructions.
            unsafe { with_avx2(job) }
        }
    }
}
