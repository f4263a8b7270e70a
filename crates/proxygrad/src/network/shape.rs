//! Tensor shapes without the batch axis.

use std::fmt;
use std::ops::Deref;

/// Lengths of a tensor's axes without the batch axis: `[C,H,W]` for feature maps, `[K]` for vectors, `[]` for one
/// number.
#[derive(Clone, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct Shape(Vec<usize>);

impl Shape {
    /// Number of values of one sample; `usize::MAX` on overflow.
    pub fn elements(&self) -> usize {
        self.0.iter().fold(1, |n, &axis| n.saturating_mul(axis))
    }

    /// `[C,H,W]` if this is a feature map.
    pub fn feature_map(&self) -> Option<[usize; 3]> {
        <[usize; 3]>::try_from(self.0.as_slice()).ok()
    }

    /// Whether a channel has a center: it has rows and columns, or a single value.
    pub fn has_center(&self) -> bool {
        self.feature_map().is_some() || self.len() <= 1
    }

    /// Number of channels `C` or neurons `K`, which is the number of units of a layer; 1 for a scalar.
    pub fn channels(&self) -> usize {
        self.0.first().copied().unwrap_or(1)
    }
}

impl Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.0
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(axes: [usize; N]) -> Self {
        Self(axes.into())
    }
}

impl From<Vec<usize>> for Shape {
    fn from(axes: Vec<usize>) -> Self {
        Self(axes)
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `[64,55,55]`
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[")?;
        for (i, axis) in self.0.iter().enumerate() {
            write!(f, "{}{axis}", if i > 0 { "," } else { "" })?;
        }
        write!(f, "]")
    }
}
