//! Broadcasting of constants, as in numpy.

use super::super::const_tensor::{ConstTensor, Provenance, row_major, strided};
use super::super::node_context::NodeContext;
use crate::network::{Shape, broadcast};

/// Tensors broadcast to one shape: for each, the index of its element at every position.
pub(super) struct Broadcast<'v> {
    /// The common shape.
    pub shape: Vec<usize>,
    tensors: Vec<(&'v ConstTensor, Vec<usize>)>,
}

impl<'v> Broadcast<'v> {
    /// Broadcasts `tensors` to their common shape.
    ///
    /// # Errors
    /// When they do not broadcast, or the common shape is too large.
    pub fn new(ctx: &NodeContext, tensors: &[&'v ConstTensor]) -> Result<Self, String> {
        let mut shape = Shape::from(Vec::new());
        for tensor in tensors {
            shape = broadcast(&shape, &Shape::from(tensor.shape().to_vec()))?;
        }
        ctx.checked_elements(&shape)?;
        let tensors = tensors.iter().map(|&tensor| (tensor, repeated(tensor.shape(), &shape))).collect();
        Ok(Self { shape: shape.to_vec(), tensors })
    }

    /// For each position, the index into tensor `i`.
    pub fn indices(&self, i: usize) -> &[usize] {
        &self.tensors[i].1
    }

    /// Provenance of results that depend on all tensors.
    pub fn provenance(&self) -> Option<Vec<Provenance>> {
        if self.tensors.iter().all(|(tensor, _)| tensor.is_constant()) {
            return None;
        }
        let positions = self.tensors.first().map_or(0, |(_, indices)| indices.len());
        let at = |position: usize| {
            let all = self.tensors.iter().map(|(tensor, indices)| tensor.provenance(indices[position]));
            all.max().unwrap_or(Provenance::Constant).derived()
        };
        Some((0..positions).map(at).collect())
    }
}

/// For each element of `to`, the index of the element of `from` that is repeated there.
pub(super) fn repeated(from: &[usize], to: &[usize]) -> Vec<usize> {
    let missing = to.len() - from.len();
    let own = row_major(from);
    let strides: Vec<isize> = (0..to.len())
        .map(|i| match i.checked_sub(missing) {
            Some(i) if from[i] != 1 => own[i],
            _ => 0,
        })
        .collect();
    strided(to, &strides, 0)
}
