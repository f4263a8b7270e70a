//! Matrix products on slices.

/// `out[r, c] += sum over k of left[r, k] * right[k, c]`, all row-major and dense, on the calling thread.
///
/// # Panics
/// When a slice does not hold exactly its matrix.
pub(super) fn multiply_add(out: &mut [f32], left: &[f32], right: &[f32], [rows, inner, columns]: [usize; 3]) {
    assert_eq!(out.len(), rows * columns);
    assert_eq!(left.len(), rows * inner);
    assert_eq!(right.len(), inner * columns);
    // SAFETY: the three slices hold exactly the matrices that sizes and strides describe (asserted above), `out` is
    // borrowed exclusively, and every position of `out` is initialized.
    #[expect(unsafe_code)]
    unsafe {
        gemm::gemm(
            rows,
            columns,
            inner,
            out.as_mut_ptr(),
            1,
            columns as isize,
            true,
            left.as_ptr(),
            1,
            inner as isize,
            right.as_ptr(),
            1,
            columns as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_sums_written_out() {
        for [rows, inner, columns] in [[1, 1, 1], [3, 5, 2], [1, 70, 9], [33, 17, 65], [128, 3, 40]] {
            let value = |i: usize| ((i * 7919) % 23) as f32 - 11.0;
            let left: Vec<f32> = (0..rows * inner).map(value).collect();
            let right: Vec<f32> = (0..inner * columns).map(|i| value(i + 5)).collect();
            let mut out: Vec<f32> = (0..rows * columns).map(|i| value(i + 9)).collect();
            let mut expected = out.clone();
            for r in 0..rows {
                for c in 0..columns {
                    for k in 0..inner {
                        expected[r * columns + c] += left[r * inner + k] * right[k * columns + c];
                    }
                }
            }
            multiply_add(&mut out, &left, &right, [rows, inner, columns]);
            assert_eq!(out, expected, "{rows}x{inner}x{columns}: whole numbers are exact");
        }
    }
}
