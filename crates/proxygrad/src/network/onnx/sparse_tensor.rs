//! Sparse tensors, as stored by pruned networks.

use super::const_tensor::{ConstData, ConstTensor, product, row_major};
use super::external_data::ExternalData;
use super::proto::SparseTensorProto;
use super::stored_tensor;

/// Reads a sparse tensor of floating-point numbers as a dense one of at most `room` values.
///
/// # Errors
/// A phrase about the tensor: a part is missing or cannot be read, or an index is out of range.
pub(super) fn read(sparse: &SparseTensorProto, files: &ExternalData, room: usize) -> Result<ConstTensor, String> {
    let part = |part: &Option<_>, name| {
        let stored = part.as_ref().ok_or_else(|| format!("is sparse but has no {name}"))?;
        stored_tensor::read(stored, files).map_err(|why| format!("is sparse, and the tensor of its {name} {why}"))
    };
    let (values, indices) = (part(&sparse.values, "values")?, part(&sparse.indices, "indices")?);
    let length = |&d: &i64| usize::try_from(d).map_err(|_| format!("has dimensions {:?}", sparse.dims));
    let shape = sparse.dims.iter().map(length).collect::<Result<Vec<usize>, _>>()?;
    let count = product(&shape).filter(|&count| count <= room);
    let count = count.ok_or_else(|| format!("has dimensions {shape:?}, which is too large"))?;
    let (values, places) = (values.floats()?, indices.ints()?);
    let steps = match *indices.shape() {
        [n] if n == values.len() => vec![1],
        [n, axes] if n == values.len() && axes == shape.len() && axes > 0 => row_major(&shape),
        ref other => return Err(format!("is sparse and has indices of shape {other:?} for {} values", values.len())),
    };
    let lengths = if steps.len() == 1 { vec![count] } else { shape.clone() };
    let mut dense = vec![0.0; count];
    for (value, place) in values.iter().zip(places.chunks(steps.len())) {
        let mut at = 0;
        for ((&index, &step), &length) in place.iter().zip(&steps).zip(&lengths) {
            let inside = usize::try_from(index).ok().filter(|&index| index < length);
            let inside =
                inside.ok_or_else(|| format!("is sparse and has index {index} on an axis of length {length}"))?;
            at += inside * step.unsigned_abs();
        }
        dense[at] = *value;
    }
    ConstTensor::new(shape, ConstData::Float(dense.into()))
}
