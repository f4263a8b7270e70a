//! Constant operands of tensors that depend on the image.

use super::super::const_tensor::ConstTensor;
use crate::network::{Array, Shape};

/// A constant as an operand of a tensor of `rank` axes, not counting the batch: its own batch axis, of length 1, is
/// removed.
///
/// # Errors
/// When the constant differs between the images of a batch, or would insert axes before the batch axis.
pub(super) fn without_batch_axis(value: &ConstTensor, rank: usize) -> Result<Array, String> {
    let array = value.array()?;
    match *array.shape() {
        [1, ref rest @ ..] if rest.len() == rank => Ok(array.reshape(rest)?),
        ref shape if shape.len() <= rank => Ok(array),
        ref shape => Err(format!("a constant of shape {shape:?} would be combined with the batch axis")),
    }
}

/// One value per channel of `shape`; `None` if the constant varies within a channel or adds elements.
pub(super) fn per_channel(array: &Array, shape: &Shape) -> Option<Vec<f32>> {
    let channels = shape.channels();
    let (leading, inner) = match array.shape() {
        axes if axes.len() == shape.len() => axes.split_first().map_or((1, axes), |(&first, inner)| (first, inner)),
        axes => (1, axes),
    };
    match leading {
        _ if inner.iter().any(|&axis| axis != 1) => None,
        1 => Some(vec![array.data()[0]; channels]),
        n if n == channels => Some(array.data().to_vec()),
        _ => None,
    }
}
