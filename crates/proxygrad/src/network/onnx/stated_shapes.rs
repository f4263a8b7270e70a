//! Shapes that the file states for its tensors (`value_info`). They let nodes be checked that stand behind one which
//! cannot be computed, so that all obstacles are found at once.

use std::collections::HashMap;

use super::image_input::ImageInput;
use super::proto::{Dimension, GraphProto, TensorType, ValueInfoProto};
use super::stored_tensor::data_type;
use crate::network::Shape;

/// Maximum number of values of a stated tensor, far beyond any network.
const LARGEST: usize = 1 << 28;

/// The shapes of floating-point tensors, as the file states them.
#[derive(Debug)]
pub(super) struct StatedShapes<'g> {
    types: HashMap<&'g str, &'g TensorType>,
    /// Lengths of the axes of the image that have names.
    lengths: HashMap<&'g str, usize>,
    batch: Batch<'g>,
}

/// How the file states the length of its batch.
#[derive(Debug)]
enum Batch<'g> {
    Fixed(usize),
    Named(&'g str),
    Unknown,
}

impl<'g> StatedShapes<'g> {
    /// The shapes that `graph` states, for the image `input`.
    pub fn new(graph: &'g GraphProto, input: &ImageInput) -> Self {
        let tensor_type = |info: &'g ValueInfoProto| info.r#type.as_ref()?.tensor_type.as_ref();
        let stated = graph.value_info.iter().chain(&graph.output);
        let types = stated.filter_map(|info| Some((info.name.as_str(), tensor_type(info)?))).collect();
        let image = graph.input.iter().find(|info| info.name == input.name).and_then(tensor_type);
        let axes: &[Dimension] = image.and_then(|image| image.shape.as_ref()).map_or(&[], |shape| &shape.dim);
        let [channels, height, width] = input.size;
        let size = if input.channels_last { [height, width, channels] } else { [channels, height, width] };
        let named = |(axis, length): (&'g Dimension, usize)| Some((axis.dim_param.as_deref()?, length));
        let batch = match (input.batch, axes.first().and_then(|axis| axis.dim_param.as_deref())) {
            (Some(batch), _) => Batch::Fixed(batch),
            (None, Some(name)) => Batch::Named(name),
            (None, None) => Batch::Unknown,
        };
        Self { types, lengths: axes.iter().skip(1).zip(size).filter_map(named).collect(), batch }
    }

    /// Shape of a tensor for one image, and the position of its batch axis; `None` if the file does not state it, or
    /// the tensor holds no floating-point numbers.
    pub fn of(&self, name: &str) -> Option<(Shape, Option<usize>)> {
        let stated = self.types.get(name)?;
        let is_float =
            matches!(stated.elem_type, data_type::FLOAT | data_type::FLOAT16 | data_type::BFLOAT16 | data_type::DOUBLE);
        let axes = &stated.shape.as_ref().filter(|_| is_float)?.dim;
        let is_batch = |axis: &Dimension| match (&self.batch, axis.dim_value, axis.dim_param.as_deref()) {
            (Batch::Named(batch), None, Some(name)) => name == *batch,
            (Batch::Fixed(batch), Some(length), _) => usize::try_from(length) == Ok(*batch),
            _ => false,
        };
        let batch = match self.batch {
            // Other axes may have the same length by chance.
            Batch::Fixed(_) => axes.first().filter(|axis| is_batch(axis)).map(|_| 0),
            _ => axes.iter().position(is_batch),
        };
        let length = |axis: &Dimension| match (axis.dim_value, axis.dim_param.as_deref()) {
            (Some(length), _) => usize::try_from(length).ok().filter(|&length| length > 0),
            (None, Some(name)) => self.lengths.get(name).copied(),
            (None, None) => None,
        };
        let own = axes.iter().enumerate().filter(|&(i, _)| Some(i) != batch);
        let lengths: Vec<usize> = own.map(|(_, axis)| length(axis)).collect::<Option<_>>()?;
        // With a batch of several images, an axis without it may hold all of them.
        let is_clear = batch.is_some() || matches!(self.batch, Batch::Fixed(1));
        let shape = Shape::from(lengths);
        (is_clear && shape.elements() <= LARGEST).then_some((shape, batch))
    }
}
