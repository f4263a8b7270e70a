//! Local response normalization, as in AlexNet and GoogLeNet.

use std::ops::Range;

use super::error::ShapeError;
use super::shape::Shape;

/// `x / (bias + alpha / size * sum(x²))^beta`, where the sum is over `size` neighbouring channels, fewer at the border
/// (Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", 2012; the
/// division by `size` is that of ONNX and PyTorch).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LocalResponse {
    /// Number of channels summed over, at least 1; of an even number one more follows than precedes.
    pub size: usize,
    /// Factor of the mean square, at least 0.
    pub alpha: f32,
    /// Exponent.
    pub beta: f32,
    /// Summand, larger than 0.
    pub bias: f32,
}

impl LocalResponse {
    /// The channels that are summed over for one of `channels`.
    pub(crate) fn window(&self, channel: usize, channels: usize) -> Range<usize> {
        let (before, after) = ((self.size - 1) / 2, self.size / 2);
        channel.saturating_sub(before)..channel.saturating_add(after).saturating_add(1).min(channels)
    }

    /// The channels whose sums include one of `channels`.
    pub(crate) fn readers(&self, channel: usize, channels: usize) -> Range<usize> {
        let (before, after) = ((self.size - 1) / 2, self.size / 2);
        channel.saturating_sub(after)..channel.saturating_add(before).saturating_add(1).min(channels)
    }

    /// The shape of the output, which is that of the input.
    pub(crate) fn infer(&self, input: &Shape) -> Result<Shape, ShapeError> {
        let Self { size, alpha, beta, bias } = *self;
        if input.is_empty() {
            let expected = "channels".into();
            return Err(ShapeError::Input { expected, found: input.to_string() });
        }
        let is_valid = size > 0 && alpha >= 0.0 && bias > 0.0 && [alpha, beta, bias].iter().all(|v| v.is_finite());
        if !is_valid {
            let why = format!(
                "has the size {size}, alpha {alpha}, beta {beta} and bias {bias}; expected size >= 1, alpha >= 0 and bias > 0"
            );
            return Err(ShapeError::Parameter(why));
        }
        Ok(input.clone())
    }
}
