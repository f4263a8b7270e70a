//! Tensors of the file that depend on the image, and where their batch axis is.
//!
//! Every image is computed as the file computes a batch of one. A node of the graph computes the tensor of one image;
//! the file's tensor has the same values in the same order, and one more axis of length 1 where the file keeps the
//! batch. Which axis that is only matters for how a tensor is stored: any axis of length 1 can take its place.

use super::graph_builder::{BuilderId, GraphBuilder};
use super::node_context::axis;
use crate::network::{Axis, Op, Shape};

/// A tensor of the file that depends on the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ImageTensor {
    /// The node that computes it for one image.
    pub id: BuilderId,
    /// Position of the batch axis among the file's axes; the node's shape leaves it out. `None` if the batch is part of
    /// another axis, such as `[N*windows,T,C]`, or was removed: all axes of the file are axes of the node.
    pub batch: Option<usize>,
}

impl ImageTensor {
    /// A tensor `[N,...]`.
    pub const fn batch_first(id: BuilderId) -> Self {
        Self { id, batch: Some(0) }
    }

    /// Number of axes in the file.
    pub fn rank(self, builder: &GraphBuilder) -> usize {
        builder.node(self.id).shape.len() + usize::from(self.batch.is_some())
    }

    /// Lengths of all axes in the file for a batch of one.
    pub fn file_shape(self, builder: &GraphBuilder) -> Shape {
        let mut lengths = builder.node(self.id).shape.to_vec();
        if let Some(batch) = self.batch {
            lengths.insert(batch.min(lengths.len()), 1);
        }
        lengths.into()
    }

    /// The node's axis that is the file's axis `axis`, which must exist; `None` for the batch.
    pub fn node_axis(self, axis: usize) -> Option<usize> {
        match self.batch {
            Some(batch) if axis == batch => None,
            Some(batch) if axis > batch => Some(axis - 1),
            _ => Some(axis),
        }
    }

    /// The node's axis that is the file's axis `value`, which may be counted from the end.
    ///
    /// # Errors
    /// When there is no such axis or it is the batch axis.
    pub fn image_axis(self, builder: &GraphBuilder, value: i64) -> Result<usize, String> {
        let axis = axis(value, self.rank(builder))?;
        self.node_axis(axis).ok_or_else(|| "operating along the batch axis is not supported".into())
    }

    /// Whether the length of the file's axis `axis` depends on the image size.
    pub fn depends_on_image_size(self, builder: &GraphBuilder, axis: usize) -> bool {
        self.node_axis(axis).is_some_and(|axis| builder.depends_on_image_size(self.id, axis))
    }

    /// The same tensor of the file with another of its axes, of length 1, as the batch, or with none.
    ///
    /// # Errors
    /// When the axis `batch` does not exist or its length is not 1.
    pub fn with_batch(self, builder: &mut GraphBuilder, batch: Option<usize>) -> Result<Self, String> {
        if self.batch == batch {
            return Ok(self);
        }
        let shape = self.file_shape(builder);
        if let Some(batch) = batch
            && shape.get(batch) != Some(&1)
        {
            return Err(format!("axis {batch} of {shape} is not the batch, but holds values of one image"));
        }
        let left = (0..shape.len()).filter(|&axis| Some(axis) != batch);
        let target = left.map(|axis| self.node_axis(axis).map_or(Axis::Exact(1), Axis::Copy)).collect();
        Ok(Self { id: builder.push_reshape(self.id, target, false)?, batch })
    }
}

impl GraphBuilder {
    /// Reshapes `input` to `target`, valid only at the network's own input size if `sized`. A reshape that changes
    /// nothing adds no node, and one that follows an intermediate reshape replaces it.
    ///
    /// # Errors
    /// When the number of values differs.
    pub fn push_reshape(&mut self, input: BuilderId, target: Vec<Axis>, sized: bool) -> Result<BuilderId, String> {
        let node = self.node(input);
        if !sized && target.iter().copied().eq((0..node.shape.len()).map(Axis::Copy)) {
            return Ok(input);
        }
        if let (Op::Reshape(first), None, None, &[source]) =
            (&node.op, &node.tensor, node.bound, node.inputs.as_slice())
        {
            let through = |axis: Axis| if let Axis::Copy(i) = axis { first.get(i).copied() } else { Some(axis) };
            let joined: Option<Vec<Axis>> = target.iter().map(|&axis| through(axis)).collect();
            let inferred = |axes: &Vec<Axis>| axes.iter().filter(|&&axis| axis == Axis::Infer).count() <= 1;
            if let Some(joined) = joined.filter(inferred) {
                return self.push_reshape(source, joined, sized);
            }
        }
        self.push_sized(Op::Reshape(target), &[input], sized)
    }
}
