//! Constants beside tensors that depend on the image.

use super::super::value::Value;
use crate::network::{Array, Shape};

/// A constant as an operand of a tensor of `rank` axes without the batch: an axis of length 1 that stands beside the batch
/// is left out.
///
/// # Errors
/// When the constant differs between the images of a batch, or would add axes in front of the batch.
pub(super) fn beside_batch(value: &Value, rank: usize) -> Result<Array, String> {
    let array = value.array()?;
    match *array.shape() {
        [1, ref rest @ ..] if rest.len() == rank => Ok(array.reshape(rest)?),
        ref shape if shape.len() <= rank => Ok(array),
        ref shape => Err(format!("combines a constant {shape:?} with the batch axis")),
    }
}

/// One value per channel of `shape`, when the constant is the same within each channel and adds no elements.
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
