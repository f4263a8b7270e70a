//! Numpy's broadcasting of known values.

use super::super::call::Call;
use super::super::value::{Origin, Value, row_major, strided};
use crate::network::{Shape, broadcast};

/// Several values brought to one shape: for each, which of its elements stands at each place.
pub(super) struct Together<'v> {
    /// The common shape.
    pub shape: Vec<usize>,
    values: Vec<(&'v Value, Vec<usize>)>,
}

impl<'v> Together<'v> {
    /// Brings `values` to their common shape.
    ///
    /// # Errors
    /// When they have none, or it is too large.
    pub fn new(call: &Call, values: &[&'v Value]) -> Result<Self, String> {
        let mut shape = Shape::from(Vec::new());
        for value in values {
            shape = broadcast(&shape, &Shape::from(value.shape().to_vec()))?;
        }
        call.claim(&shape)?;
        let values = values.iter().map(|&value| (value, repeated(value.shape(), &shape))).collect();
        Ok(Self { shape: shape.to_vec(), values })
    }

    /// For each place, the index into value `i`.
    pub fn indices(&self, i: usize) -> &[usize] {
        &self.values[i].1
    }

    /// Origins of results that depend on all values.
    pub fn origins(&self) -> Option<Vec<Origin>> {
        if self.values.iter().all(|(value, _)| value.is_constant()) {
            return None;
        }
        let places = self.values.first().map_or(0, |(_, indices)| indices.len());
        let origin = |place: usize| {
            let origins = self.values.iter().map(|(value, indices)| value.origin(indices[place]));
            // Whatever is computed from the batch is no longer the batch.
            let origin = origins.max().unwrap_or(Origin::Constant);
            if origin == Origin::Batch { Origin::Mixed } else { origin }
        };
        Some((0..places).map(origin).collect())
    }
}

/// For each element of `to`, the index of the element of `from` that is repeated there.
pub(super) fn repeated(from: &[usize], to: &[usize]) -> Vec<usize> {
    let missing = to.len() - from.len();
    let own = row_major(from);
    let steps: Vec<isize> = (0..to.len())
        .map(|i| match i.checked_sub(missing) {
            Some(i) if from[i] != 1 => own[i],
            _ => 0,
        })
        .collect();
    strided(to, &steps, 0)
}
