//! Linear maps of the plane: where a zoomed or rotated view takes its pixels from.

/// A linear map about the image's centre, from output to source positions: `[[yy, yx], [xy, xx]]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Linear(pub(super) [[f32; 2]; 2]);

impl Linear {
    pub(super) const IDENTITY: Self = Self([[1.0, 0.0], [0.0, 1.0]]);

    pub(super) fn zoom(factor: f32) -> Self {
        Self([[1.0 / factor, 0.0], [0.0, 1.0 / factor]])
    }

    pub(super) fn rotation(angle: f32) -> Self {
        let (sin, cos) = angle.sin_cos();
        Self([[cos, -sin], [sin, cos]])
    }

    /// This map on an image that `first` (if any) has already changed.
    pub(super) fn after(self, first: Option<Self>) -> Self {
        let Some(Self(a)) = first else { return self };
        let b = self.0;
        let entry = |i: usize, j: usize| a[i][0] * b[0][j] + a[i][1] * b[1][j];
        Self([[entry(0, 0), entry(0, 1)], [entry(1, 0), entry(1, 1)]])
    }

    /// The map from source to output positions. Zooms and rotations always have one.
    pub(super) fn inverse(self) -> Self {
        let [[a, b], [c, d]] = self.0;
        let determinant = a * d - b * c;
        Self([[d / determinant, -b / determinant], [-c / determinant, a / determinant]])
    }
}

/// Row and column of the centre of an image.
pub(super) fn center(size: [usize; 2]) -> [f32; 2] {
    size.map(|length| (length as f32 - 1.0) / 2.0)
}

/// Brings a position into `0..=length-1` by mirroring at both ends.
pub(super) fn mirror(position: f32, length: usize) -> f32 {
    let last = (length - 1) as f32;
    if last == 0.0 {
        return 0.0;
    }
    let wrapped = position.rem_euclid(2.0 * last);
    if wrapped > last { 2.0 * last - wrapped } else { wrapped }
}
