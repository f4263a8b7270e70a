//! Inputs besides the image, to which the caller gives a constant value.

use std::collections::{BTreeMap, HashMap};

use super::const_tensor::{ConstData, ConstTensor, product};
use super::error::ImportError;
use super::proto::{GraphProto, ValueInfoProto};
use super::stored_tensor::data_type;

/// Maximum number of elements of an input that gets a constant value.
const MOST_ELEMENTS: usize = 1 << 20;

/// A tensor for each of `values`, the inputs besides `image`, in which all elements have the value. Dynamic axes have
/// length 1.
///
/// # Errors
/// [`ImportError::Input`] when there is no such input, or it cannot have the value.
pub(super) fn constant_inputs<'g>(
    graph: &'g GraphProto,
    image: &str,
    values: &BTreeMap<String, f64>,
) -> Result<HashMap<&'g str, ConstTensor>, ImportError> {
    let mut constants = HashMap::new();
    for (name, &value) in values {
        let input = graph.input.iter().find(|input| input.name == *name && *name != image).ok_or_else(|| {
            let others: Vec<&str> = graph.input.iter().map(|input| input.name.as_str()).collect();
            let others = others.into_iter().filter(|other| *other != image).collect::<Vec<_>>().join(", ");
            let others = if others.is_empty() { "no input besides the image".to_owned() } else { others };
            ImportError::Input(format!("{name} cannot have a constant value; the network has {others}"))
        })?;
        let tensor = filled(input, value).map_err(|why| ImportError::Input(format!("{name} {why}")))?;
        constants.insert(input.name.as_str(), tensor);
    }
    Ok(constants)
}

fn filled(input: &ValueInfoProto, value: f64) -> Result<ConstTensor, String> {
    let tensor = input.r#type.as_ref().and_then(|r#type| r#type.tensor_type.as_ref());
    let tensor = tensor.ok_or("is not a tensor, so it cannot have a constant value")?;
    let axes = tensor.shape.as_ref().map(|shape| shape.dim.as_slice()).unwrap_or_default();
    let length = |axis: Option<i64>| usize::try_from(axis.unwrap_or(1)).unwrap_or(1).max(1);
    let shape: Vec<usize> = axes.iter().map(|axis| length(axis.dim_value)).collect();
    let count = product(&shape).filter(|&count| count <= MOST_ELEMENTS);
    let count = count.ok_or_else(|| format!("has shape {shape:?}, which is too large for a constant value"))?;
    let wrong = |expected: &str| format!("cannot be {value}; expected {expected}");
    let data = match tensor.elem_type {
        kind if data_type::is_float(kind) => match value.is_finite() {
            true => ConstData::Float(vec![value as f32; count].into()),
            false => return Err(wrong("a finite number")),
        },
        data_type::BOOL => match value {
            0.0 => ConstData::Bool(vec![false; count].into()),
            1.0 => ConstData::Bool(vec![true; count].into()),
            _ => return Err(wrong("0 (false) or 1 (true)")),
        },
        kind if data_type::is_integer(kind) => match value.fract() == 0.0 && value.abs() <= 2f64.powi(53) {
            true => ConstData::Int(vec![value as i64; count].into()),
            false => return Err(wrong("an integer")),
        },
        other => return Err(format!("has element type {}, which is not supported", data_type::name(other))),
    };
    ConstTensor::new(shape, data)
}
