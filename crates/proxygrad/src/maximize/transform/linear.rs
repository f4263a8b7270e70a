//! Affine maps from output to source positions: zoom, rotation, flip and crop.

/// An affine map from output to source positions: a linear map about the image's centre, then a shift.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Linear {
    /// `[[yy, yx], [xy, xx]]`.
    pub(super) matrix: [[f32; 2]; 2],
    /// Down and to the right, in source pixels.
    pub(super) shift: [f32; 2],
}

impl Linear {
    pub(super) const IDENTITY: Self = Self::about_center([[1.0, 0.0], [0.0, 1.0]]);
    /// Horizontal flip.
    pub(super) const FLIP: Self = Self::about_center([[1.0, 0.0], [0.0, -1.0]]);

    const fn about_center(matrix: [[f32; 2]; 2]) -> Self {
        Self { matrix, shift: [0.0; 2] }
    }

    pub(super) fn zoom(factor: f32) -> Self {
        Self::about_center([[1.0 / factor, 0.0], [0.0, 1.0 / factor]])
    }

    pub(super) fn rotation(angle: f32) -> Self {
        let (sin, cos) = angle.sin_cos();
        Self::about_center([[cos, -sin], [sin, cos]])
    }

    /// Crop to a window of `share` of the height and width, in (0, 1], of an image of this size. `at` is its position
    /// along each axis, from 0 (top, left) to 1 (bottom, right).
    pub(super) fn window(share: f32, at: [f32; 2], size: [usize; 2]) -> Self {
        let [y, x] = center(size);
        let shift = [y * (1.0 - share) * (2.0 * at[0] - 1.0), x * (1.0 - share) * (2.0 * at[1] - 1.0)];
        Self { matrix: [[share, 0.0], [0.0, share]], shift }
    }

    /// This map, applied after `first` if any.
    pub(super) fn after(self, first: Option<Self>) -> Self {
        let Some(Self { matrix: a, shift: s }) = first else { return self };
        let (b, t) = (self.matrix, self.shift);
        let entry = |i: usize, j: usize| a[i][0] * b[0][j] + a[i][1] * b[1][j];
        Self {
            matrix: [[entry(0, 0), entry(0, 1)], [entry(1, 0), entry(1, 1)]],
            shift: [0, 1].map(|i| a[i][0] * t[0] + a[i][1] * t[1] + s[i]),
        }
    }

    /// The map from source to output positions. All maps of this module are invertible.
    pub(super) fn inverse(self) -> Self {
        let [[a, b], [c, d]] = self.matrix;
        let determinant = a * d - b * c;
        let matrix = [[d / determinant, -b / determinant], [-c / determinant, a / determinant]];
        Self { matrix, shift: matrix.map(|[y, x]| -(y * self.shift[0] + x * self.shift[1])) }
    }
}

/// Row and column of the centre of an image.
pub(super) fn center(size: [usize; 2]) -> [f32; 2] {
    size.map(|length| (length as f32 - 1.0) / 2.0)
}

/// Reflects a position at both ends into `0..=length-1`.
pub(super) fn mirror(position: f32, length: usize) -> f32 {
    let last = (length - 1) as f32;
    if last == 0.0 {
        return 0.0;
    }
    let wrapped = position.rem_euclid(2.0 * last);
    if wrapped > last { 2.0 * last - wrapped } else { wrapped }
}
