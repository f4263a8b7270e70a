//! Colour decorrelation.

use serde::{Deserialize, Serialize};

use crate::Invalid;

/// Colour decorrelation matrix: a linear map from decorrelated colours to the channels of an image (grey; or red,
/// green, blue), with one row per channel and one column per decorrelated colour.
///
/// `M M^T` is the covariance of the channels. Only proportions matter: it is applied
/// [normalized](ColourMatrix::normalized).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ColourMatrix(Vec<Vec<f32>>);

impl ColourMatrix {
    /// The matrix with these rows, unchecked; see [`ColourMatrix::check`].
    pub fn new(rows: Vec<Vec<f32>>) -> Self {
        Self(rows)
    }

    /// The identity, for independent channels.
    pub fn identity(channels: usize) -> Self {
        let row = |i: usize| (0..channels).map(|j| if i == j { 1.0 } else { 0.0 }).collect();
        Self((0..channels).map(row).collect())
    }

    /// The matrix of `ImageNet` pixels, as measured for Lucid (`lucid/optvis/param/color.py`, two digits) for Olah,
    /// Mordvintsev & Schubert, "Feature Visualization", Distill 2017.
    pub fn imagenet() -> Self {
        Self(vec![vec![0.26, 0.09, 0.02], vec![0.27, 0.0, -0.05], vec![0.27, -0.09, 0.03]])
    }

    /// A square root of a covariance of the channels, `V sqrt(L)` with its eigenvectors `V` and eigenvalues `L`,
    /// largest first.
    ///
    /// # Errors
    /// When the matrix is not square, not symmetric, or has an eigenvalue that is not positive.
    pub fn of_covariance(covariance: &[Vec<f64>]) -> Result<Self, Invalid> {
        let n = covariance.len();
        let invalid = |expected: &str| Invalid::new("covariance", format!("{covariance:?}"), expected);
        if n == 0 || covariance.iter().any(|row| row.len() != n || row.iter().any(|x| !x.is_finite())) {
            return Err(invalid("a square matrix of finite numbers, one row per channel"));
        }
        let largest = covariance.iter().flatten().fold(0.0, |largest: f64, x| largest.max(x.abs()));
        let mirrored = |i: usize, j: usize| (covariance[i][j] - covariance[j][i]).abs() <= 1e-4 * largest;
        if !(0..n).all(|i| (0..i).all(|j| mirrored(i, j))) {
            return Err(invalid("a symmetric matrix"));
        }
        let (values, vectors) = eigen(covariance);
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
        if order.iter().any(|&k| values[k] <= 1e-6 * largest) {
            return Err(invalid("a covariance whose eigenvalues are all positive"));
        }
        // The sign of eigenvectors is arbitrary: choose the one with a positive sum.
        let signed = |k: usize| {
            let sum: f64 = vectors.iter().map(|row| row[k]).sum();
            values[k].sqrt() * if sum < 0.0 { -1.0 } else { 1.0 }
        };
        let row = |row: &Vec<f64>| order.iter().map(|&k| (row[k] * signed(k)) as f32).collect();
        Ok(Self(vectors.iter().map(row).collect()))
    }

    /// The rows.
    pub fn rows(&self) -> &[Vec<f32>] {
        &self.0
    }

    /// Number of channels.
    pub fn channels(&self) -> usize {
        self.0.len()
    }

    /// Checks that the matrix fits images with this number of channels and is invertible.
    ///
    /// # Errors
    /// An [`Invalid`] with an empty field.
    pub fn check(&self, channels: usize) -> Result<(), Invalid> {
        let square = self.0.len() == channels && self.0.iter().all(|row| row.len() == channels);
        if square && self.0.iter().flatten().all(|x| x.is_finite()) && self.inverse().is_some() {
            return Ok(());
        }
        let expected = format!("{channels} rows of {channels} finite numbers, linearly independent");
        Err(Invalid::new("", format!("{:?}", self.0), expected))
    }

    /// The matrix scaled so that its longest column has length 1, in row-major order.
    pub fn normalized(&self) -> Vec<f64> {
        let column = |j: usize| self.0.iter().map(|row| f64::from(row[j]).powi(2)).sum::<f64>();
        let longest = (0..self.channels()).map(column).fold(0.0, f64::max).sqrt();
        let factor = if longest > 0.0 { 1.0 / longest } else { 1.0 };
        self.0.iter().flatten().map(|&x| f64::from(x) * factor).collect()
    }

    /// The inverse of [`ColourMatrix::normalized`]; `None` if it is singular.
    pub fn inverse(&self) -> Option<Vec<f64>> {
        let n = self.channels();
        let mut from = self.normalized();
        let mut to = Self::identity(n).normalized();
        for column in 0..n {
            let pivot =
                (column..n).max_by(|&a, &b| from[a * n + column].abs().total_cmp(&from[b * n + column].abs()))?;
            // Columns of length at most 1.
            if from[pivot * n + column].abs() < 1e-4 {
                return None;
            }
            for matrix in [&mut from, &mut to] {
                (0..n).for_each(|j| matrix.swap(pivot * n + j, column * n + j));
            }
            let scale = 1.0 / from[column * n + column];
            for matrix in [&mut from, &mut to] {
                matrix[column * n..][..n].iter_mut().for_each(|x| *x *= scale);
            }
            for row in (0..n).filter(|&row| row != column) {
                let factor = from[row * n + column];
                for matrix in [&mut from, &mut to] {
                    (0..n).for_each(|j| matrix[row * n + j] -= factor * matrix[column * n + j]);
                }
            }
        }
        Some(to)
    }
}

/// Eigenvalues and eigenvectors (as columns) of a symmetric matrix by Jacobi rotations (Golub & Van Loan, "Matrix
/// Computations", section 8.5).
fn eigen(symmetric: &[Vec<f64>]) -> (Vec<f64>, Vec<Vec<f64>>) {
    let n = symmetric.len();
    let mut a: Vec<Vec<f64>> = symmetric.to_vec();
    let mut vectors: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| if i == j { 1.0 } else { 0.0 }).collect()).collect();
    // Convergence is quadratic; small matrices need five or six sweeps.
    for _ in 0..32 {
        for p in 0..n {
            for q in p + 1..n {
                if a[p][q] == 0.0 {
                    continue;
                }
                let theta = (a[q][q] - a[p][p]) / (2.0 * a[p][q]);
                let tangent = theta.signum() / (theta.abs() + theta.hypot(1.0));
                let cosine = 1.0 / tangent.hypot(1.0);
                let sine = tangent * cosine;
                let rotate = |x: f64, y: f64| (cosine * x - sine * y, sine * x + cosine * y);
                for row in a.iter_mut().chain(&mut vectors) {
                    (row[p], row[q]) = rotate(row[p], row[q]);
                }
                let (above, below) = a.split_at_mut(q);
                for (x, y) in above[p].iter_mut().zip(&mut below[0]) {
                    (*x, *y) = rotate(*x, *y);
                }
            }
        }
    }
    ((0..n).map(|i| a[i][i]).collect(), vectors)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn product(a: &[f64], b: &[f64], n: usize) -> Vec<f64> {
        (0..n * n).map(|at| (0..n).map(|k| a[at / n * n + k] * b[k * n + at % n]).sum()).collect()
    }

    proptest! {
        #[test]
        fn a_root_times_its_transpose_is_the_covariance(values in prop::collection::vec(-1f64..1.0, 16), n in 1usize..5) {
            let any = |i: usize, j: usize| values[i * 4 + j];
            let entry = |i: usize, j: usize| (0..n).map(|k| any(i, k) * any(j, k)).sum::<f64>() + if i == j { 0.1 } else { 0.0 };
            let covariance: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| entry(i, j)).collect()).collect();
            let root = ColourMatrix::of_covariance(&covariance).unwrap();
            for (i, row) in covariance.iter().enumerate() {
                for (j, expected) in row.iter().enumerate() {
                    let again: f64 = (0..n).map(|k| f64::from(root.rows()[i][k]) * f64::from(root.rows()[j][k])).sum();
                    prop_assert!((again - expected).abs() < 1e-5, "{again}, not {expected}");
                }
            }
            let length = |k: usize| root.rows().iter().map(|row| row[k].powi(2)).sum::<f32>();
            prop_assert!((1..n).all(|k| length(k) <= length(k - 1)), "the largest comes first");
        }

        #[test]
        fn the_inverse_undoes_the_map(values in prop::collection::vec(-1f32..1.0, 9)) {
            let matrix = ColourMatrix::new(values.chunks(3).map(<[f32]>::to_vec).collect());
            if let Some(inverse) = matrix.inverse() {
                let product = product(&matrix.normalized(), &inverse, 3);
                for (at, value) in product.iter().enumerate() {
                    let expected = if at % 4 == 0 { 1.0 } else { 0.0 };
                    prop_assert!((value - expected).abs() < 1e-8, "{} at {}", value, at);
                }
            }
        }
    }

    #[test]
    fn unusable_matrices_are_refused() {
        assert!(ColourMatrix::imagenet().check(3).is_ok());
        for (rows, why) in [
            (vec![vec![1.0, 0.0], vec![0.0, 1.0]], "too small"),
            (vec![vec![1.0, 0.0, 0.0], vec![0.0, 1.0, 0.0], vec![0.0, 1.0]], "a short row"),
            (vec![vec![1.0, 2.0, 3.0], vec![2.0, 4.0, 6.0], vec![0.0, 0.0, 1.0]], "dependent rows"),
            (vec![vec![f32::NAN, 0.0, 0.0], vec![0.0, 1.0, 0.0], vec![0.0, 0.0, 1.0]], "not a number"),
        ] {
            assert!(ColourMatrix::new(rows).check(3).is_err(), "{why}");
        }
        for covariance in [vec![], vec![vec![1.0, 0.2], vec![0.3, 1.0]], vec![vec![1.0, 2.0], vec![2.0, 1.0]]] {
            let invalid = ColourMatrix::of_covariance(&covariance).unwrap_err();
            assert_eq!(invalid.field, "covariance");
        }
    }
}
