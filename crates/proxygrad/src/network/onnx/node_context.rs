//! Context of the node that is lowered or folded: its operands, and typed access to its attributes.

use super::const_tensor::{ConstTensor, MOST_AXES, product};
use super::external_data::ExternalData;
use super::graph_builder::{BuilderId, GraphBuilder};
use super::image_tensor::ImageTensor;
use super::proto::{AttributeProto, NodeProto, TensorProto};
use crate::network::Shape;

/// Largest length in an attribute: far beyond any network, and small enough that no product of two overflows.
const LARGEST_LENGTH: usize = 1 << 24;

/// Largest kernel, stride, dilation or padding of a window.
const LARGEST_WINDOW: usize = 1 << 16;

/// A tensor of the file, as nodes read it.
#[derive(Debug, Clone)]
pub(super) enum Operand {
    /// Depends on the image: the output of a node of the graph.
    Dynamic(ImageTensor),
    /// Known at import.
    Constant(ConstTensor),
    /// Depends on a node that could not be lowered: that node's index in the file.
    Unavailable(usize),
}

impl Operand {
    /// The tensor, if it depends on the image.
    pub fn dynamic(&self) -> Option<ImageTensor> {
        if let Self::Dynamic(tensor) = self { Some(*tensor) } else { None }
    }
}

/// A node about to be lowered or folded.
#[derive(Clone)]
pub(super) struct NodeContext<'a> {
    /// The node as stored.
    pub node: &'a NodeProto,
    /// Opset of the file.
    pub opset: i64,
    /// Its inputs; `None` for omitted optional ones.
    pub inputs: Vec<Option<Operand>>,
    /// Length of the batch axis that the file was exported with, if fixed.
    pub batch: Option<usize>,
    /// Maximum number of elements of a constant computed by this node.
    pub most_elements: usize,
    /// The files that tensors may be stored in.
    pub files: &'a ExternalData,
}

impl NodeContext<'_> {
    /// Input `i`, unless omitted.
    pub fn input(&self, i: usize) -> Option<&Operand> {
        self.inputs.get(i).and_then(Option::as_ref)
    }

    /// Input `i`.
    ///
    /// # Errors
    /// When it is omitted.
    pub fn required(&self, i: usize) -> Result<&Operand, String> {
        self.input(i).ok_or_else(|| missing_input(i))
    }

    /// Input `i`, which depends on the image and may have its batch axis anywhere.
    ///
    /// # Errors
    /// When it is omitted or constant.
    pub fn image_tensor(&self, i: usize) -> Result<ImageTensor, String> {
        match self.input(i) {
            Some(Operand::Dynamic(tensor)) => Ok(*tensor),
            Some(_) => Err(format!("input {} must not be constant", self.input_name(i))),
            None => Err(missing_input(i)),
        }
    }

    /// Input `i`, which depends on the image and has its batch axis first.
    ///
    /// # Errors
    /// When it is omitted or constant, or has its batch axis elsewhere.
    pub fn dynamic(&self, i: usize) -> Result<BuilderId, String> {
        let tensor = self.image_tensor(i)?;
        match tensor.batch {
            Some(0) => Ok(tensor.id),
            _ => Err(format!("the first axis of input {} is not the batch", self.input_name(i))),
        }
    }

    /// Input `i`, which depends on the image and has its batch axis first, with its shape without the batch.
    ///
    /// # Errors
    /// When it is omitted or constant, or has its batch axis elsewhere.
    pub fn dynamic_with_shape<'b>(
        &self,
        builder: &'b GraphBuilder,
        i: usize,
    ) -> Result<(BuilderId, &'b Shape), String> {
        let id = self.dynamic(i)?;
        Ok((id, &builder.node(id).shape))
    }

    /// Input `i`, which must be constant; `None` if omitted.
    ///
    /// # Errors
    /// When it depends on the image.
    pub fn optional_constant(&self, i: usize) -> Result<Option<&ConstTensor>, String> {
        match self.input(i) {
            None => Ok(None),
            Some(Operand::Constant(tensor)) => Ok(Some(tensor)),
            Some(_) => Err(format!("input {} must be constant, but depends on the image", self.input_name(i))),
        }
    }

    /// Input `i`, which must be constant.
    ///
    /// # Errors
    /// When it is omitted or depends on the image.
    pub fn constant(&self, i: usize) -> Result<&ConstTensor, String> {
        self.optional_constant(i)?.ok_or_else(|| missing_input(i))
    }

    /// The inputs that are constant.
    pub fn constants_given(&self) -> impl Iterator<Item = &ConstTensor> {
        self.inputs.iter().flatten().filter_map(|input| match input {
            Operand::Constant(tensor) => Some(tensor),
            _ => None,
        })
    }

    /// All inputs, which must be constant.
    ///
    /// # Errors
    /// When one is omitted or depends on the image.
    pub fn constants(&self) -> Result<Vec<&ConstTensor>, String> {
        (0..self.inputs.len()).map(|i| self.constant(i)).collect()
    }

    fn input_name(&self, i: usize) -> &str {
        self.node.input.get(i).map_or("", String::as_str)
    }

    /// An integer attribute.
    ///
    /// # Errors
    /// When it has another type.
    pub fn int(&self, name: &str) -> Result<Option<i64>, String> {
        self.attribute(name, AttributeProto::INT, "an integer").map(|a| a.map(|a| a.i.unwrap_or_default()))
    }

    /// A 0/1 attribute, false when omitted.
    ///
    /// # Errors
    /// When it has another type.
    pub fn flag(&self, name: &str) -> Result<bool, String> {
        self.int(name).map(|value| value.is_some_and(|v| v != 0))
    }

    /// A float attribute, `default` when omitted.
    ///
    /// # Errors
    /// When it has another type.
    pub fn float(&self, name: &str, default: f32) -> Result<f32, String> {
        let attribute = self.attribute(name, AttributeProto::FLOAT, "a number")?;
        Ok(attribute.map_or(default, |a| a.f.unwrap_or_default()))
    }

    /// A list of integers.
    ///
    /// # Errors
    /// When it has another type.
    pub fn ints(&self, name: &str) -> Result<Option<&[i64]>, String> {
        self.attribute(name, AttributeProto::INTS, "a list of integers").map(|a| a.map(|a| a.ints.as_slice()))
    }

    /// A list of floats.
    ///
    /// # Errors
    /// When it has another type.
    pub fn floats(&self, name: &str) -> Result<Option<&[f32]>, String> {
        self.attribute(name, AttributeProto::FLOATS, "a list of numbers").map(|a| a.map(|a| a.floats.as_slice()))
    }

    /// A string attribute, `default` when omitted.
    ///
    /// # Errors
    /// When it has another type or is not UTF-8.
    pub fn text<'a>(&'a self, name: &str, default: &'a str) -> Result<&'a str, String> {
        let Some(attribute) = self.attribute(name, AttributeProto::STRING, "a string")? else { return Ok(default) };
        std::str::from_utf8(attribute.s.as_deref().unwrap_or_default())
            .map_err(|_| format!("attribute {name} is not valid UTF-8"))
    }

    /// A tensor attribute.
    ///
    /// # Errors
    /// When it has another type.
    pub fn tensor(&self, name: &str) -> Result<Option<&TensorProto>, String> {
        self.attribute(name, AttributeProto::TENSOR, "a tensor").map(|a| a.and_then(|a| a.t.as_deref()))
    }

    /// A list of integers: an attribute in older opsets, input `i` in newer ones.
    ///
    /// # Errors
    /// When it is neither omitted nor a constant list of integers.
    pub fn ints_or_input(&self, name: &str, i: usize) -> Result<Option<&[i64]>, String> {
        match (self.ints(name)?, self.optional_constant(i)?) {
            (Some(ints), _) => Ok(Some(ints)),
            (None, Some(tensor)) => tensor.ints().map(Some).map_err(|why| format!("input {name}: {why}")),
            (None, None) => Ok(None),
        }
    }

    fn attribute(&self, name: &str, kind: i32, expected: &str) -> Result<Option<&AttributeProto>, String> {
        match self.node.attribute.iter().find(|attribute| attribute.name == name) {
            // Very old exporters omit the type.
            Some(attribute) if attribute.r#type == kind || attribute.r#type == 0 => Ok(Some(attribute)),
            Some(_) => Err(format!("attribute {name} is not {expected}")),
            None => Ok(None),
        }
    }

    /// Number of elements of a constant that this node computes.
    ///
    /// # Errors
    /// When it exceeds [`NodeContext::most_elements`].
    pub fn checked_elements(&self, shape: &[usize]) -> Result<usize, String> {
        let count = product(shape).filter(|&count| count <= self.most_elements);
        count.ok_or_else(|| format!("it computes a constant of shape {shape:?}, which is too large"))
    }
}

fn missing_input(i: usize) -> String {
    format!("input number {i} is missing")
}

/// A length in an attribute: of an axis, of a border.
///
/// # Errors
/// When it is negative or absurdly large.
pub(super) fn length(value: i64, name: &str) -> Result<usize, String> {
    at_most(LARGEST_LENGTH, value, name)
}

/// A length of a window: a kernel, a stride, a dilation, a padding.
///
/// # Errors
/// When it is negative or absurdly large.
pub(super) fn window_length(value: i64, name: &str) -> Result<usize, String> {
    at_most(LARGEST_WINDOW, value, name)
}

fn at_most(most: usize, value: i64, name: &str) -> Result<usize, String> {
    let length = usize::try_from(value).ok().filter(|&length| length <= most);
    length.ok_or_else(|| format!("{name} contains {value}; expected a number from 0 to {most}"))
}

/// Indices of `axes` in a tensor of `rank` axes, without duplicates.
///
/// # Errors
/// When there is no such axis, or one is listed twice.
pub(super) fn distinct_axes(axes: &[i64], rank: usize) -> Result<Vec<usize>, String> {
    if rank > MOST_AXES {
        return Err(format!("tensors of {rank} axes are not supported"));
    }
    let mut found: Vec<usize> = Vec::new();
    for &value in axes {
        let axis = axis(value, rank)?;
        if found.contains(&axis) {
            return Err(format!("axis {axis} is listed twice"));
        }
        found.push(axis);
    }
    Ok(found)
}

/// Index of an axis, which may be counted from the end, of a tensor of `rank` axes.
///
/// # Errors
/// When there is no such axis.
pub(super) fn axis(axis: i64, rank: usize) -> Result<usize, String> {
    let counted = if axis < 0 { axis.saturating_add(rank as i64) } else { axis };
    let found = usize::try_from(counted).ok().filter(|&i| i < rank);
    found.ok_or_else(|| format!("axis {axis} does not exist; the input has {rank} axes"))
}
