//! Sliding windows of convolutions and pools.

use super::error::ShapeError;

/// A border of a `[H,W]` map, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Padding {
    /// Rows added above.
    pub top: usize,
    /// Columns added to the left.
    pub left: usize,
    /// Rows added below.
    pub bottom: usize,
    /// Columns added to the right.
    pub right: usize,
}

impl Padding {
    /// Whether nothing is added.
    pub fn is_none(self) -> bool {
        self == Self::default()
    }
}

/// A window that slides over a `[H,W]` map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Height and width.
    pub kernel: [usize; 2],
    /// Step between two windows, vertically and horizontally.
    pub stride: [usize; 2],
    /// Distance between two taps of the window.
    pub dilation: [usize; 2],
    /// Border added to the map.
    pub padding: Padding,
    /// Ceil mode: whether a last window that only partly fits is kept (it must start inside the map or its leading
    /// border).
    pub ceil: bool,
}

impl Window {
    /// A dense window of stride 1 without padding.
    pub fn new(kernel: [usize; 2]) -> Self {
        Self { kernel, stride: [1, 1], dilation: [1, 1], padding: Padding::default(), ceil: false }
    }

    /// Distance between the first and one past the last tap, vertically and horizontally.
    pub fn extent(&self) -> [usize; 2] {
        [0, 1].map(|i| self.dilation[i].saturating_mul(self.kernel[i].saturating_sub(1)).saturating_add(1))
    }

    /// Border before the map, vertically and horizontally.
    pub fn before(&self) -> [usize; 2] {
        [self.padding.top, self.padding.left]
    }

    /// Border after the map, vertically and horizontally.
    pub fn after(&self) -> [usize; 2] {
        [self.padding.bottom, self.padding.right]
    }

    /// Height and width of the output for an input of height and width `size`. In ceil mode the first window may be
    /// larger than the padded map, by less than a step.
    ///
    /// # Errors
    /// When the window does not fit the padded map, or one of its lengths is zero.
    pub fn output(&self, size: [usize; 2]) -> Result<[usize; 2], ShapeError> {
        let mut output = [0; 2];
        for i in 0..2 {
            if self.kernel[i] == 0 || self.stride[i] == 0 || self.dilation[i] == 0 {
                return Err(ShapeError::Parameter("has a kernel, stride or dilation of zero".into()));
            }
            let padded = size[i].saturating_add(self.before()[i]).saturating_add(self.after()[i]);
            let slack = if self.ceil { self.stride[i] - 1 } else { 0 };
            let Some(room) = padded.saturating_add(slack).checked_sub(self.extent()[i]) else {
                return Err(ShapeError::Window { window: self.extent(), input: size });
            };
            let count = room / self.stride[i] + 1;
            let starts_outside =
                self.ceil && (count - 1).saturating_mul(self.stride[i]) >= padded - self.after()[i] && count > 1;
            output[i] = if starts_outside { count - 1 } else { count };
        }
        Ok(output)
    }

    /// Divisor of an average along axis `i` (0 = vertical) for each of `output` windows over a map of length `input`:
    /// the taps on the map, with `padding` also those on its border, but not those that only ceil mode reaches.
    pub(crate) fn counts(&self, i: usize, input: usize, output: usize, padding: bool) -> Vec<usize> {
        let (before, after) = (self.before()[i], self.after()[i]);
        let counted = if padding { 0..input + before + after } else { before..before + input };
        let taps = |o: usize| (0..self.kernel[i]).map(move |k| o * self.stride[i] + k * self.dilation[i]);
        (0..output).map(|o| taps(o).filter(|position| counted.contains(position)).count()).collect()
    }
}
