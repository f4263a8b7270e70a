//! A node with its inputs at hand, and typed access to both its inputs and its attributes.

use super::draft::{Draft, Id};
use super::external::ExternalData;
use super::messages::{AttributeProto, NodeProto, TensorProto};
use super::value::{MOST_AXES, Value, product};
use crate::network::Shape;

/// Largest length that an attribute may hold: far beyond any network, and small enough that no product of two overflows.
const LARGEST_LENGTH: usize = 1 << 24;

/// Largest kernel, stride, dilation or padding of a window.
const LARGEST_WINDOW: usize = 1 << 16;

/// What the name of a tensor stands for while the graph is walked.
#[derive(Debug, Clone)]
pub(super) enum Tensor {
    /// It depends on the image: the output of a drafted node. Its first axis is the batch, which shapes here leave out.
    Map(Id),
    /// Its values are known.
    Value(Value),
    /// It depends on a node that could not be lowered: the index of that node in the file.
    Failed(usize),
}

/// One node about to be lowered or folded.
pub(super) struct Call<'a> {
    /// The node as stored.
    pub node: &'a NodeProto,
    /// Version of ONNX's operations in this file.
    pub opset: i64,
    /// Its inputs; `None` for omitted optional ones.
    pub inputs: Vec<Option<Tensor>>,
    /// Length of the batch axis that the file was exported with, if that is fixed.
    pub batch: Option<usize>,
    /// Number of elements that constants computed by this node may have.
    pub room: usize,
    /// The files that tensors may be stored in.
    pub files: &'a ExternalData,
}

impl Call<'_> {
    /// Input `i`, unless it is omitted.
    pub fn input(&self, i: usize) -> Option<&Tensor> {
        self.inputs.get(i).and_then(Option::as_ref)
    }

    /// Input `i`, which depends on the image.
    ///
    /// # Errors
    /// When it is omitted or constant.
    pub fn map(&self, i: usize) -> Result<Id, String> {
        match self.input(i) {
            Some(Tensor::Map(id)) => Ok(*id),
            Some(_) => Err(format!("its input {} is constant, which is not supported", self.input_name(i))),
            None => Err(format!("lacks input number {i}")),
        }
    }

    /// Input `i`, which depends on the image, with its shape.
    ///
    /// # Errors
    /// When it is omitted or constant.
    pub fn shaped<'d>(&self, draft: &'d Draft, i: usize) -> Result<(Id, &'d Shape), String> {
        let id = self.map(i)?;
        Ok((id, &draft.node(id).shape))
    }

    /// Input `i`, whose values must be known; `None` when it is omitted.
    ///
    /// # Errors
    /// When it depends on the image.
    pub fn value(&self, i: usize) -> Result<Option<&Value>, String> {
        match self.input(i) {
            None => Ok(None),
            Some(Tensor::Value(value)) => Ok(Some(value)),
            Some(_) => Err(format!("its input {} is not constant, which is not supported", self.input_name(i))),
        }
    }

    /// Input `i`, whose values must be known.
    ///
    /// # Errors
    /// When it is omitted or depends on the image.
    pub fn required(&self, i: usize) -> Result<&Value, String> {
        self.value(i)?.ok_or_else(|| format!("lacks input number {i}"))
    }

    /// All inputs, whose values must be known.
    ///
    /// # Errors
    /// When one is omitted or depends on the image.
    pub fn values(&self) -> Result<Vec<&Value>, String> {
        (0..self.inputs.len()).map(|i| self.required(i)).collect()
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

    /// A number, or `default` when omitted.
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

    /// A list of numbers.
    ///
    /// # Errors
    /// When it has another type.
    pub fn floats(&self, name: &str) -> Result<Option<&[f32]>, String> {
        self.attribute(name, AttributeProto::FLOATS, "a list of numbers").map(|a| a.map(|a| a.floats.as_slice()))
    }

    /// A word, or `default` when omitted.
    ///
    /// # Errors
    /// When it has another type or is no text.
    pub fn text<'a>(&'a self, name: &str, default: &'a str) -> Result<&'a str, String> {
        let Some(attribute) = self.attribute(name, AttributeProto::STRING, "a text")? else { return Ok(default) };
        std::str::from_utf8(attribute.s.as_deref().unwrap_or_default()).map_err(|_| format!("its {name} is no text"))
    }

    /// A tensor.
    ///
    /// # Errors
    /// When it has another type.
    pub fn tensor(&self, name: &str) -> Result<Option<&TensorProto>, String> {
        self.attribute(name, AttributeProto::TENSOR, "a tensor").map(|a| a.and_then(|a| a.t.as_deref()))
    }

    /// A list of integers that older opsets have as an attribute and newer ones as input `i`.
    ///
    /// # Errors
    /// When it is neither omitted nor a constant list of integers.
    pub fn ints_or_input(&self, name: &str, i: usize) -> Result<Option<&[i64]>, String> {
        match (self.ints(name)?, self.value(i)?) {
            (Some(ints), _) => Ok(Some(ints)),
            (None, Some(value)) => value.ints().map(Some).map_err(|why| format!("its input {name} {why}")),
            (None, None) => Ok(None),
        }
    }

    fn attribute(&self, name: &str, kind: i32, what: &str) -> Result<Option<&AttributeProto>, String> {
        match self.node.attribute.iter().find(|attribute| attribute.name == name) {
            // Very old exporters do not say the type.
            Some(attribute) if attribute.r#type == kind || attribute.r#type == 0 => Ok(Some(attribute)),
            Some(_) => Err(format!("its attribute {name} is not {what}")),
            None => Ok(None),
        }
    }

    /// Number of elements of a constant that this node computes.
    ///
    /// # Errors
    /// When there are too many.
    pub fn claim(&self, shape: &[usize]) -> Result<usize, String> {
        let count = product(shape).filter(|&count| count <= self.room);
        count.ok_or_else(|| format!("computes a constant of shape {shape:?}, which is too large"))
    }
}

/// A length from an attribute: of an axis, of a border.
///
/// # Errors
/// When it is negative or absurdly large.
pub(super) fn length(value: i64, name: &str) -> Result<usize, String> {
    at_most(LARGEST_LENGTH, value, name)
}

/// A length that describes a window: a kernel, a stride, a dilation, a padding.
///
/// # Errors
/// When it is negative or absurdly large.
pub(super) fn window_length(value: i64, name: &str) -> Result<usize, String> {
    at_most(LARGEST_WINDOW, value, name)
}

fn at_most(most: usize, value: i64, name: &str) -> Result<usize, String> {
    let length = usize::try_from(value).ok().filter(|&length| length <= most);
    length.ok_or_else(|| format!("has {name} {value}; expected a number from 0 to {most}"))
}

/// The axes of a tensor of `rank` axes, each at most once, that a list names.
///
/// # Errors
/// When there is no such axis, or one is named twice.
pub(super) fn distinct_axes(axes: &[i64], rank: usize) -> Result<Vec<usize>, String> {
    if rank > MOST_AXES {
        return Err(format!("makes tensors of {rank} axes"));
    }
    let mut found: Vec<usize> = Vec::new();
    for &value in axes {
        let axis = axis(value, rank)?;
        if found.contains(&axis) {
            return Err(format!("names axis {axis} twice"));
        }
        found.push(axis);
    }
    Ok(found)
}

/// Index of an axis that may be counted from the end, for a tensor of `rank` axes.
///
/// # Errors
/// When there is no such axis.
pub(super) fn axis(axis: i64, rank: usize) -> Result<usize, String> {
    let counted = if axis < 0 { axis.saturating_add(rank as i64) } else { axis };
    let found = usize::try_from(counted).ok().filter(|&i| i < rank);
    found.ok_or_else(|| format!("works along axis {axis}, but its input has {rank} axes"))
}

/// Like [`axis`] for a tensor that depends on the image: the result leaves out the batch.
///
/// # Errors
/// When there is no such axis or it is the batch.
pub(super) fn image_axis(value: i64, shape: &Shape) -> Result<usize, String> {
    let counted = axis(value, shape.len() + 1)?;
    counted.checked_sub(1).ok_or_else(|| "works across the images of a batch".into())
}
