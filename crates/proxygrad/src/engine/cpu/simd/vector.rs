//! The traits [`Simd`] (vectors of f32) and [`SimdOp`] (work on them).
#![expect(unsafe_code, reason = "vector instructions, and loads and stores through pointers")]

/// Loads a whole vector, or its first `count` values.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(crate) unsafe fn load_vector<S: Simd, const WHOLE: bool>(from: *const f32, count: usize) -> S::V {
    // SAFETY: the caller's.
    unsafe { if WHOLE { S::load(from) } else { S::load_some(from, count) } }
}

/// An operation written for any instruction set.
pub(crate) trait SimdOp {
    type Output;

    /// Implementations are `#[inline(always)]`, so that they are compiled for the instruction set of `S`.
    ///
    /// # Safety
    /// The processor supports the instruction set of `S`; the implementation may require more.
    unsafe fn run<S: Simd>(self) -> Self::Output;
}

/// Vectors of [`Simd::LANES`] values.
///
/// # Safety
/// All functions need a processor that supports the instruction set. Pointers must be readable or writable for as many
/// values as the function names, at any alignment.
pub(crate) unsafe trait Simd: Copy + 'static {
    /// A vector.
    type V: Copy;
    /// Values of one vector.
    const LANES: usize;
    /// Rows of the largest tile, two vectors wide, whose sums fit in the registers.
    const TILE_ROWS: usize;

    /// The same value everywhere.
    unsafe fn splat(x: f32) -> Self::V;
    /// The [`Simd::LANES`] values at `from`.
    unsafe fn load(from: *const f32) -> Self::V;
    /// The first `count` values at `from`, then zeros.
    unsafe fn load_some(from: *const f32, count: usize) -> Self::V;
    /// [`Simd::load`] if `count` is at least a whole vector, else [`Simd::load_some`].
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
    /// The larger of both; `b` if one is NaN.
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    /// The smaller of both; `b` if one is NaN.
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    /// `yes` where `a > b`, else `no`.
    unsafe fn where_greater(a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V;
    /// `yes` where `a == b`, else `no`.
    unsafe fn where_equal(a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V;
    /// One bit per value, the first value in the lowest bit: set unless `a > b`.
    unsafe fn unless_greater(a: Self::V, b: Self::V) -> u32;
    /// One bit per value, the first value in the lowest bit: set where `a >= b`.
    unsafe fn where_at_least(a: Self::V, b: Self::V) -> u32;
    /// `yes` where the value's bit at `from` is set, else `no`. Reads up to four bytes.
    unsafe fn where_set(from: *const u8, yes: Self::V, no: Self::V) -> Self::V;
    /// `x` times 2 to the power of `n`, rounded once, for x from 0.5 to 2 and integers n from -252 to 254.
    unsafe fn scale(x: Self::V, n: Self::V) -> Self::V;
    /// Prefetches the cache line at `at`, which may be any address.
    unsafe fn prefetch(at: *const f32);
    /// Runs an operation in a separate function that is compiled for this instruction set.
    unsafe fn call<O: SimdOp>(op: O) -> O::Output;
}
