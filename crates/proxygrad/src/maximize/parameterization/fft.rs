//! Real FFT of a plane of pixels on the host.

use std::fmt;
use std::sync::Arc;

use realfft::num_complex::Complex;
use realfft::num_traits::Zero;
use realfft::{ComplexToReal, FftNum, RealFftPlanner, RealToComplex};
use rustfft::FftPlanner;

use crate::maximize::ops::host::Real;

/// Element types with the functions that the decoder needs.
pub(in crate::maximize) trait Number: Real + FftNum {
    fn exp(self) -> Self;
    fn sin_cos(self) -> (Self, Self);
    /// The transform for this type.
    fn fft(ffts: &Ffts) -> &Fft<Self>;
}

impl Number for f32 {
    fn exp(self) -> Self {
        self.exp()
    }

    fn sin_cos(self) -> (Self, Self) {
        self.sin_cos()
    }

    fn fft(ffts: &Ffts) -> &Fft<Self> {
        &ffts.single
    }
}

impl Number for f64 {
    fn exp(self) -> Self {
        self.exp()
    }

    fn sin_cos(self) -> (Self, Self) {
        self.sin_cos()
    }

    fn fft(ffts: &Ffts) -> &Fft<Self> {
        &ffts.double
    }
}

/// The transforms of one size of planes.
#[derive(Debug)]
pub(in crate::maximize) struct Ffts {
    single: Fft<f32>,
    double: Fft<f64>,
}

impl Ffts {
    pub(in crate::maximize) fn new(size: [usize; 2]) -> Self {
        Self { single: Fft::new(size), double: Fft::new(size) }
    }
}

/// Real FFT between a plane of `height * width` pixels and its half spectrum of `height * (width / 2 + 1)`
/// coefficients; row 0 and column 0 hold frequency 0, as in numpy's `rfft2`. Both directions are unnormalized.
pub(in crate::maximize) struct Fft<T> {
    size: [usize; 2],
    rows: Arc<dyn RealToComplex<T>>,
    rows_back: Arc<dyn ComplexToReal<T>>,
    columns: Arc<dyn rustfft::Fft<T>>,
    columns_back: Arc<dyn rustfft::Fft<T>>,
}

impl<T: FftNum> Fft<T> {
    fn new(size: [usize; 2]) -> Self {
        let [height, width] = size;
        let (mut reals, mut complexes) = (RealFftPlanner::new(), FftPlanner::new());
        Self {
            size,
            rows: reals.plan_fft_forward(width),
            rows_back: reals.plan_fft_inverse(width),
            columns: complexes.plan_fft_forward(height),
            columns_back: complexes.plan_fft_inverse(height),
        }
    }

    fn half(&self) -> usize {
        self.size[1] / 2 + 1
    }

    /// The plane with these coefficients `P`: `x(r, c) = sum of w Re(P(k, l) e^(2 pi i (k r / H + l c / W)))` over the
    /// half spectrum; `w` is 1 for a column that is its own conjugate (0, and `W / 2` of an even width), else 2.
    /// Overwrites the coefficients.
    pub(in crate::maximize) fn synthesize(&self, coefficients: &mut [Complex<T>], plane: &mut [T]) {
        let ([height, width], half) = (self.size, self.half());
        let mut turned = transposed(coefficients, [height, half]);
        self.columns_back.process(&mut turned);
        transpose(&turned, [half, height], coefficients);
        let mut scratch = self.rows_back.make_scratch_vec();
        for (row, pixels) in coefficients.chunks_exact_mut(half).zip(plane.chunks_exact_mut(width)) {
            // Imaginary parts cancel in the sum there, but the transform requires zeros.
            row[0].im = T::zero();
            if width % 2 == 0 {
                row[half - 1].im = T::zero();
            }
            // Fails only for wrong lengths.
            let done = self.rows_back.process_with_scratch(row, pixels, &mut scratch);
            debug_assert!(done.is_ok(), "{done:?}");
        }
    }

    /// The half spectrum of a plane: `sum of x(r, c) e^(-2 pi i (k r / H + l c / W))`.
    pub(in crate::maximize) fn analyze(&self, plane: &[T]) -> Vec<Complex<T>> {
        let ([height, width], half) = (self.size, self.half());
        let mut spectrum = vec![Complex::zero(); height * half];
        let mut scratch = self.rows.make_scratch_vec();
        let mut row = vec![T::zero(); width];
        for (pixels, coefficients) in plane.chunks_exact(width).zip(spectrum.chunks_exact_mut(half)) {
            row.copy_from_slice(pixels);
            let done = self.rows.process_with_scratch(&mut row, coefficients, &mut scratch);
            debug_assert!(done.is_ok(), "{done:?}");
        }
        let mut turned = transposed(&spectrum, [height, half]);
        self.columns.process(&mut turned);
        transpose(&turned, [half, height], &mut spectrum);
        spectrum
    }
}

fn transposed<T: FftNum>(matrix: &[Complex<T>], size: [usize; 2]) -> Vec<Complex<T>> {
    let mut turned = vec![Complex::zero(); matrix.len()];
    transpose(matrix, size, &mut turned);
    turned
}

fn transpose<T: Copy>(matrix: &[T], [height, width]: [usize; 2], turned: &mut [T]) {
    for (r, row) in matrix.chunks_exact(width).enumerate() {
        for (c, &value) in row.iter().enumerate() {
            turned[c * height + r] = value;
        }
    }
}

impl<T> fmt::Debug for Fft<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fft").field("size", &self.size).finish_non_exhaustive()
    }
}
