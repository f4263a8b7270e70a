//! Broadcasting of tensors whose batch axes are in different places, and constants as operands.

use super::super::const_tensor::{ConstTensor, row_major, strided};
use super::super::graph_builder::{BuilderId, GraphBuilder};
use super::super::image_tensor::ImageTensor;
use super::super::node_context::{NodeContext, Operand};
use crate::network::{Array, Shape};

/// Operands of an elementwise operation, whose nodes broadcast as the tensors of the file do.
pub(super) struct Aligned {
    /// One per operand.
    pub operands: Vec<AlignedOperand>,
    /// Position of the batch axis in the result.
    pub batch: Option<usize>,
}

/// An operand without its batch axis.
pub(super) enum AlignedOperand {
    /// A tensor that depends on the image.
    Node(BuilderId),
    /// A constant, and whether it depends on the image size.
    Constant(Array, bool),
}

impl AlignedOperand {
    /// Whether it is a constant that depends on the image size.
    pub fn is_sized(&self) -> bool {
        matches!(self, Self::Constant(_, true))
    }

    /// The node that computes the operand, or holds the constant.
    ///
    /// # Errors
    /// When the constant is empty.
    pub fn into_node(self, builder: &mut GraphBuilder) -> Result<BuilderId, String> {
        match self {
            Self::Node(id) => Ok(id),
            Self::Constant(array, _) => builder.push_constant(array),
        }
    }
}

/// Aligns operands as NumPy does, at the last axis of the file's shapes. The batch of the result
/// is an axis of which `may_be_batch` is true, if there is one.
///
/// # Errors
/// When an operand depends on an unsupported node, or a constant differs between the images of a batch.
pub(super) fn align(
    builder: &mut GraphBuilder,
    ctx: &NodeContext,
    operands: &[&Operand],
    may_be_batch: impl Fn(usize) -> bool,
) -> Result<Aligned, String> {
    let rank = |operand: &Operand| match operand {
        Operand::Dynamic(tensor) => tensor.rank(builder),
        Operand::Constant(value) => value.shape().len(),
        Operand::Unavailable(_) => 0,
    };
    let ranks: Vec<usize> = operands.iter().map(|operand| rank(operand)).collect();
    let most = ranks.iter().copied().max().unwrap_or(0);
    let positions = operands.iter().zip(&ranks).filter_map(|(operand, rank)| match operand {
        Operand::Dynamic(tensor) => tensor.batch.map(|batch| batch + most - rank),
        _ => None,
    });
    let mut batch = None;
    for position in positions.collect::<Vec<_>>() {
        let mut is_free = may_be_batch(position);
        for (operand, rank) in operands.iter().zip(&ranks) {
            let Some(axis) = (position + rank).checked_sub(most) else { continue };
            is_free &= match operand {
                Operand::Dynamic(tensor) => tensor.file_shape(builder).get(axis) == Some(&1),
                Operand::Constant(value) => is_same_for_all_images(value, axis, ctx.batch)?,
                Operand::Unavailable(_) => false,
            };
        }
        if is_free {
            batch = Some(position);
            break;
        }
    }
    let mut aligned = Vec::with_capacity(operands.len());
    for (operand, rank) in operands.iter().zip(&ranks) {
        let axis = batch.and_then(|batch| (batch + rank).checked_sub(most));
        aligned.push(match operand {
            Operand::Dynamic(tensor) => AlignedOperand::Node(tensor.with_batch(builder, axis)?.id),
            Operand::Constant(value) => {
                AlignedOperand::Constant(without_axis(value, axis)?, value.depends_on_image_size())
            }
            Operand::Unavailable(_) => return Err("an input cannot be computed".into()),
        });
    }
    Ok(Aligned { operands: aligned, batch })
}

/// A constant that broadcasts to `tensor` in the file, as an operand of its node.
///
/// # Errors
/// When its values differ between the images of a batch, or would repeat the batch.
pub(super) fn constant_operand(
    builder: &GraphBuilder,
    ctx: &NodeContext,
    tensor: ImageTensor,
    value: &ConstTensor,
) -> Result<Array, String> {
    let (shape, rank) = (value.shape(), tensor.rank(builder));
    let axis = tensor.batch.and_then(|batch| (batch + shape.len()).checked_sub(rank));
    let repeats = axis.is_some_and(|axis| !matches!(is_same_for_all_images(value, axis, ctx.batch), Ok(true)));
    if shape.len() > rank || repeats {
        return Err(format!("a constant of shape {shape:?} would repeat the batch"));
    }
    without_axis(value, axis)
}

/// Whether a constant has one value for the whole batch along `axis`; a file exported with a fixed batch may repeat it
/// for every image.
///
/// # Errors
/// When its values differ between the images of a batch.
pub(super) fn is_same_for_all_images(value: &ConstTensor, axis: usize, batch: Option<usize>) -> Result<bool, String> {
    let shape = value.shape();
    let length = shape.get(axis).copied().unwrap_or(1);
    if length == 1 || Some(length) != batch {
        return Ok(length == 1);
    }
    let numbers = value.numbers()?;
    let data = numbers.data();
    let inner: usize = shape[axis + 1..].iter().product();
    let is_repeated = data.chunks(inner.max(1) * length).all(|block| {
        let (first, rest) = block.split_at(inner.min(block.len()));
        rest.chunks(inner.max(1)).all(|other| other == first)
    });
    match is_repeated {
        true => Ok(true),
        false => Err(format!("a constant of shape {shape:?} differs between the images of a batch")),
    }
}

/// A constant at the first index of `axis`, without that axis.
///
/// # Errors
/// As [`ConstTensor::pick`].
pub(super) fn without_axis(value: &ConstTensor, axis: Option<usize>) -> Result<Array, String> {
    let Some(axis) = axis else { return value.numbers() };
    let mut shape = value.shape().to_vec();
    let mut strides = row_major(&shape);
    if axis >= shape.len() {
        return value.numbers();
    }
    if shape.remove(axis) == 1 {
        return Ok(value.numbers()?.reshape(shape)?);
    }
    strides.remove(axis);
    value.pick(shape.clone(), &strided(&shape, &strides, 0))?.numbers()
}

/// One value per channel of `shape`; `None` if the constant varies within a channel or adds elements.
pub(super) fn per_channel(array: &Array, shape: &Shape) -> Option<Vec<f32>> {
    let channels = shape.channels();
    let (leading, inner) = match array.shape() {
        axes if axes.len() > shape.len() => return None,
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
