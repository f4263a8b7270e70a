//! Layouts: in which order the values of a tensor are in memory.

use std::ops::Deref;

use crate::network::Shape;

/// The shape of a tensor of one image, and the order of its values in memory.
///
/// Vector code sees a tensor as pixels of channels, see [`FeatureMap`](super::feature_map::FeatureMap). The channels are
/// contiguous in memory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Layout {
    shape: Shape,
    order: Order,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Order {
    /// Of a feature map `[C,H,W]`: `H`, `W`, then `C`.
    ChannelsLast,
    /// As in the shape. The last axis is the channels; the axes before it are the pixels.
    RowMajor,
    /// As in the shape. All values are the channels of one pixel.
    Flat,
}

impl Layout {
    /// A tensor whose last axis is contiguous.
    pub(crate) fn row_major(shape: Shape) -> Self {
        Self { shape, order: Order::RowMajor }
    }

    /// A feature map `[C,H,W]` whose channels are contiguous; tensors of another number of axes are row-major.
    pub(crate) fn channels_last(shape: Shape) -> Self {
        match shape.len() {
            3 => Self { shape, order: Order::ChannelsLast },
            _ => Self::row_major(shape),
        }
    }

    /// A row-major tensor of one pixel.
    pub(crate) fn flat(shape: Shape) -> Self {
        Self { shape, order: Order::Flat }
    }

    /// Whether the last axis is the channels of a pixel.
    pub(crate) fn is_row_major(&self) -> bool {
        self.order == Order::RowMajor
    }

    /// Whether this is a feature map whose channels are contiguous.
    pub(crate) fn is_channels_last(&self) -> bool {
        self.order == Order::ChannelsLast
    }

    /// Channels per pixel, which are contiguous.
    pub(crate) fn pixel_len(&self) -> usize {
        match self.order {
            Order::ChannelsLast => self.shape[0],
            Order::RowMajor => self.shape.last().copied().unwrap_or(1),
            Order::Flat => self.shape.elements(),
        }
    }

    /// Rows and columns of pixels.
    pub(crate) fn size(&self) -> [usize; 2] {
        match self.order {
            Order::ChannelsLast => [self.shape[1], self.shape[2]],
            Order::RowMajor => [self.shape[..self.shape.len().saturating_sub(1)].iter().product(), 1],
            Order::Flat => [1, 1],
        }
    }

    /// Values from one index of each axis to the next.
    pub(crate) fn strides(&self) -> Vec<usize> {
        let shape = &self.shape;
        if self.is_channels_last() {
            return vec![1, shape[2] * shape[0], shape[0]];
        }
        let mut strides = vec![1; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis] * shape[axis];
        }
        strides
    }
}

impl Deref for Layout {
    type Target = Shape;

    fn deref(&self) -> &Shape {
        &self.shape
    }
}
