//! 5x5 Gaussian blur; at the border, the weights inside the image are normalized to sum to 1.

use crate::maximize::ops::host::Real;

/// Radius of the kernel in pixels.
pub(super) const REACH: usize = 2;

/// Blur of images of one size: a separable convolution with `taps`, scaled by `rows[y] * columns[x]`.
///
/// The taps are symmetric, so the adjoint scales before it convolves.
#[derive(Debug)]
pub(super) struct Blur {
    pub(super) taps: [f32; 2 * REACH + 1],
    /// Per row: one over the sum of the taps inside the image.
    pub(super) rows: Vec<f32>,
    /// Per column: one over the sum of the taps inside the image.
    pub(super) columns: Vec<f32>,
}

impl Blur {
    pub(super) fn new(sigma: f32, [height, width]: [usize; 2]) -> Self {
        let taps = std::array::from_fn(|i| {
            let distance = (i as f32 - REACH as f32) / sigma;
            (-0.5 * distance * distance).exp()
        });
        let factor = |i, length| 1.0 / inside(&taps, i, length).map(|(_, tap)| tap).sum::<f32>();
        let rows = (0..height).map(|y| factor(y, height)).collect();
        let columns = (0..width).map(|x| factor(x, width)).collect();
        Self { taps, rows, columns }
    }

    /// Blurs a plane.
    pub(super) fn apply<T: Real>(&self, source: &[T], blurred: &mut [T]) {
        let columns = reals(&self.columns);
        self.sum_neighbours(
            source,
            blurred,
            |_, tap| real(tap),
            |_| {},
            |row, sums| {
                let factor: T = real(self.rows[row]);
                sums.iter_mut().zip(&columns).for_each(|(sum, &column)| *sum *= factor * column);
            },
        );
    }

    /// The adjoint of [`Blur::apply`].
    pub(super) fn adjoint<T: Real>(&self, gradient: &[T], sink: &mut [T]) {
        let columns = reals(&self.columns);
        self.sum_neighbours(
            gradient,
            sink,
            |row, tap| real::<T>(tap) * real(self.rows[row]),
            |line| line.iter_mut().zip(&columns).for_each(|(g, &column)| *g *= column),
            |_, _| {},
        );
    }

    /// Separable convolution. `weight(y, tap)` is the weight of source row `y`; `before` and `after` modify a row
    /// before and after the horizontal pass.
    fn sum_neighbours<T: Real>(
        &self,
        source: &[T],
        sums: &mut [T],
        weight: impl Fn(usize, f32) -> T,
        before: impl Fn(&mut [T]),
        after: impl Fn(usize, &mut [T]),
    ) {
        let (height, width) = (self.rows.len(), self.columns.len());
        let taps: [T; 2 * REACH + 1] = self.taps.map(real);
        // Zero padding on both sides.
        let mut padded = vec![T::zero(); width + 2 * REACH];
        for (row, sums) in sums.chunks_exact_mut(width).enumerate() {
            let line = &mut padded[REACH..][..width];
            line.fill(T::zero());
            for (y, tap) in inside(&self.taps, row, height) {
                let weight = weight(y, tap);
                line.iter_mut().zip(&source[y * width..]).for_each(|(sum, &x)| *sum += weight * x);
            }
            before(line);
            for (sum, near) in sums.iter_mut().zip(padded.windows(2 * REACH + 1)) {
                *sum =
                    taps[0] * near[0] + taps[1] * near[1] + taps[2] * near[2] + taps[3] * near[3] + taps[4] * near[4];
            }
            after(row, sums);
        }
    }
}

/// Positions around `i` within `0..length`, each with its tap.
fn inside(taps: &[f32; 2 * REACH + 1], i: usize, length: usize) -> impl Iterator<Item = (usize, f32)> {
    let near = i..i + 2 * REACH + 1;
    near.zip(taps).filter_map(move |(j, &tap)| Some((j.checked_sub(REACH).filter(|&j| j < length)?, tap)))
}

fn real<T: Real>(x: f32) -> T {
    T::from_f64(f64::from(x))
}

fn reals<T: Real>(values: &[f32]) -> Vec<T> {
    values.iter().copied().map(real).collect()
}
