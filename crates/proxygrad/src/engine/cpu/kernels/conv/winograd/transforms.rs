//! Winograd transforms along one axis: tile sizes and their matrices `A`, `B` and `G`.
//!
//! F(m, r) computes `m` outputs of a kernel of `r` taps from `m + r - 1` products: `A^T ((G g) * (B^T d))`. All with
//! six products evaluate polynomials at 0, 1, -1, 2, -2 and infinity, so they share `B^T`.
#![expect(unsafe_code, reason = "vector code")]

use crate::engine::cpu::simd::vector::Simd;

/// Size of an output tile, and of the kernels that it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub(crate) enum TileSize {
    /// F(2x2, 3x3): 2x2 from 4x4.
    #[serde(rename = "Two")]
    F23,
    /// F(3x3, 4x4): 3x3 from 6x6.
    #[serde(rename = "Three")]
    F34,
    /// F(4x4, 3x3): 4x4 from 6x6.
    #[serde(rename = "Four")]
    F43,
    /// F(5x5, 2x2): 5x5 from 6x6.
    #[serde(rename = "Five")]
    F52,
}

impl TileSize {
    /// The sizes for kernels with this many taps along each axis.
    pub(crate) fn for_taps(taps: usize) -> &'static [Self] {
        match taps {
            2 => &[Self::F52],
            3 => &[Self::F43, Self::F23],
            4 => &[Self::F34],
            _ => &[],
        }
    }

    /// Side of an output tile.
    pub(crate) fn output(self) -> usize {
        match self {
            Self::F23 => 2,
            Self::F34 => 3,
            Self::F43 => 4,
            Self::F52 => 5,
        }
    }

    /// Taps of a kernel along each axis.
    pub(crate) fn taps(self) -> usize {
        match self {
            Self::F23 | Self::F43 => 3,
            Self::F34 => 4,
            Self::F52 => 2,
        }
    }

    /// Side of an input tile.
    pub(crate) fn input(self) -> usize {
        self.output() + self.taps() - 1
    }

    /// Values of an input tile.
    pub(crate) fn elements(self) -> usize {
        self.input() * self.input()
    }

    /// The kernel transform `G`, `[input side, taps]`.
    pub(crate) fn kernel_transform(self) -> &'static [&'static [f64]] {
        match self {
            Self::F23 => &[&[1.0, 0.0, 0.0], &[0.5, 0.5, 0.5], &[0.5, -0.5, 0.5], &[0.0, 0.0, 1.0]],
            Self::F34 => &[
                &[0.25, 0.0, 0.0, 0.0],
                &[-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
                &[-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0, 1.0 / 6.0],
                &[1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0, 1.0 / 3.0],
                &[1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0, -1.0 / 3.0],
                &[0.0, 0.0, 0.0, 1.0],
            ],
            Self::F43 => &[
                &[0.25, 0.0, 0.0],
                &[-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
                &[-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
                &[1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
                &[1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
                &[0.0, 0.0, 1.0],
            ],
            Self::F52 => &[
                &[0.25, 0.0],
                &[-1.0 / 6.0, -1.0 / 6.0],
                &[-1.0 / 6.0, 1.0 / 6.0],
                &[1.0 / 24.0, 1.0 / 12.0],
                &[1.0 / 24.0, -1.0 / 12.0],
                &[0.0, 1.0],
            ],
        }
    }
}

/// The transforms of one tile size.
pub(crate) trait WinogradTransform<const SIDE: usize, const OUT: usize, const TAPS: usize> {
    /// `B^T d`
    ///
    /// # Safety
    /// As [`Simd`].
    unsafe fn input<S: Simd>(tile: [S::V; SIDE]) -> [S::V; SIDE];

    /// `G g`
    ///
    /// # Safety
    /// As [`Simd`].
    unsafe fn kernel<S: Simd>(taps: [S::V; TAPS]) -> [S::V; SIDE];

    /// `A^T m`
    ///
    /// # Safety
    /// As [`Simd`].
    unsafe fn output<S: Simd>(products: [S::V; SIDE]) -> [S::V; OUT];
}

/// F(2, 3).
pub(crate) struct F23;

/// F(3, 4).
pub(crate) struct F34;

/// F(4, 3).
pub(crate) struct F43;

/// F(5, 2).
pub(crate) struct F52;

impl WinogradTransform<4, 2, 3> for F23 {
    #[inline(always)]
    unsafe fn input<S: Simd>([a, b, c, d]: [S::V; 4]) -> [S::V; 4] {
        // SAFETY: the caller's.
        unsafe { [S::sub(a, c), S::add(b, c), S::sub(c, b), S::sub(b, d)] }
    }

    #[inline(always)]
    unsafe fn kernel<S: Simd>([a, b, c]: [S::V; 3]) -> [S::V; 4] {
        // SAFETY: the caller's.
        unsafe {
            let (even, odd) = (S::mul(S::splat(0.5), S::add(a, c)), S::mul(S::splat(0.5), b));
            [a, S::add(even, odd), S::sub(even, odd), c]
        }
    }

    #[inline(always)]
    unsafe fn output<S: Simd>([a, b, c, d]: [S::V; 4]) -> [S::V; 2] {
        // SAFETY: the caller's.
        unsafe { [S::add(S::add(a, b), c), S::sub(S::sub(b, c), d)] }
    }
}

impl WinogradTransform<6, 3, 4> for F34 {
    #[inline(always)]
    unsafe fn input<S: Simd>(tile: [S::V; 6]) -> [S::V; 6] {
        // SAFETY: the caller's.
        unsafe { at_six_points::<S>(tile) }
    }

    #[inline(always)]
    unsafe fn kernel<S: Simd>([a, b, c, d]: [S::V; 4]) -> [S::V; 6] {
        // SAFETY: the caller's.
        unsafe {
            let near = [S::mul(S::splat(-1.0 / 6.0), S::add(a, c)), S::mul(S::splat(1.0 / 6.0), S::add(b, d))];
            let far = [
                times::<S>(1.0 / 24.0, a, S::mul(S::splat(1.0 / 6.0), c)),
                times::<S>(1.0 / 12.0, b, S::mul(S::splat(1.0 / 3.0), d)),
            ];
            six_values::<S>(a, near, far, d)
        }
    }

    #[inline(always)]
    unsafe fn output<S: Simd>([a, b, c, d, e, f]: [S::V; 6]) -> [S::V; 3] {
        // SAFETY: the caller's.
        unsafe {
            let (near_sum, near_difference) = (S::add(b, c), S::sub(b, c));
            let (far_sum, far_difference) = (S::add(d, e), S::sub(d, e));
            [
                S::add(S::add(a, near_sum), far_sum),
                times::<S>(2.0, far_difference, near_difference),
                S::add(times::<S>(4.0, far_sum, near_sum), f),
            ]
        }
    }
}

impl WinogradTransform<6, 4, 3> for F43 {
    #[inline(always)]
    unsafe fn input<S: Simd>(tile: [S::V; 6]) -> [S::V; 6] {
        // SAFETY: the caller's.
        unsafe { at_six_points::<S>(tile) }
    }

    #[inline(always)]
    unsafe fn kernel<S: Simd>([a, b, c]: [S::V; 3]) -> [S::V; 6] {
        // SAFETY: the caller's.
        unsafe {
            let near = [S::mul(S::splat(-1.0 / 6.0), S::add(a, c)), S::mul(S::splat(1.0 / 6.0), b)];
            let far = [times::<S>(1.0 / 24.0, a, S::mul(S::splat(1.0 / 6.0), c)), S::mul(S::splat(1.0 / 12.0), b)];
            six_values::<S>(a, near, far, c)
        }
    }

    #[inline(always)]
    unsafe fn output<S: Simd>([a, b, c, d, e, f]: [S::V; 6]) -> [S::V; 4] {
        // SAFETY: the caller's.
        unsafe {
            let (near_sum, near_difference) = (S::add(b, c), S::sub(b, c));
            let (far_sum, far_difference) = (S::add(d, e), S::sub(d, e));
            [
                S::add(S::add(a, near_sum), far_sum),
                times::<S>(2.0, far_difference, near_difference),
                times::<S>(4.0, far_sum, near_sum),
                S::add(times::<S>(8.0, far_difference, near_difference), f),
            ]
        }
    }
}

impl WinogradTransform<6, 5, 2> for F52 {
    #[inline(always)]
    unsafe fn input<S: Simd>(tile: [S::V; 6]) -> [S::V; 6] {
        // SAFETY: the caller's.
        unsafe { at_six_points::<S>(tile) }
    }

    #[inline(always)]
    unsafe fn kernel<S: Simd>([a, b]: [S::V; 2]) -> [S::V; 6] {
        // SAFETY: the caller's.
        unsafe {
            let near = [S::mul(S::splat(-1.0 / 6.0), a), S::mul(S::splat(1.0 / 6.0), b)];
            let far = [S::mul(S::splat(1.0 / 24.0), a), S::mul(S::splat(1.0 / 12.0), b)];
            six_values::<S>(a, near, far, b)
        }
    }

    #[inline(always)]
    unsafe fn output<S: Simd>([a, b, c, d, e, f]: [S::V; 6]) -> [S::V; 5] {
        // SAFETY: the caller's.
        unsafe {
            let (near_sum, near_difference) = (S::add(b, c), S::sub(b, c));
            let (far_sum, far_difference) = (S::add(d, e), S::sub(d, e));
            [
                S::add(S::add(a, near_sum), far_sum),
                times::<S>(2.0, far_difference, near_difference),
                times::<S>(4.0, far_sum, near_sum),
                times::<S>(8.0, far_difference, near_difference),
                S::add(times::<S>(16.0, far_sum, near_sum), f),
            ]
        }
    }
}

/// `B^T d` for six products.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(crate) unsafe fn at_six_points<S: Simd>([a, b, c, d, e, f]: [S::V; 6]) -> [S::V; 6] {
    // SAFETY: the caller's.
    unsafe {
        let (even, odd) = (times::<S>(-4.0, c, e), times::<S>(-4.0, b, d));
        let (even_far, odd_far) = (S::sub(e, c), S::sub(d, b));
        [
            times::<S>(4.0, a, times::<S>(-5.0, c, e)),
            S::add(even, odd),
            S::sub(even, odd),
            times::<S>(2.0, odd_far, even_far),
            times::<S>(-2.0, odd_far, even_far),
            times::<S>(4.0, b, times::<S>(-5.0, d, f)),
        ]
    }
}

/// `G g` for six products, from the first and last tap, and the even and odd parts at 1 and 2, the odd part at 1
/// negated.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(crate) unsafe fn six_values<S: Simd>(first: S::V, near: [S::V; 2], far: [S::V; 2], last: S::V) -> [S::V; 6] {
    // SAFETY: the caller's.
    unsafe {
        [
            S::mul(S::splat(0.25), first),
            S::sub(near[0], near[1]),
            S::add(near[0], near[1]),
            S::add(far[0], far[1]),
            S::sub(far[0], far[1]),
            last,
        ]
    }
}

/// `k * x + y`
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(crate) unsafe fn times<S: Simd>(k: f32, x: S::V, y: S::V) -> S::V {
    // SAFETY: the caller's.
    unsafe { S::mul_add(S::splat(k), x, y) }
}
