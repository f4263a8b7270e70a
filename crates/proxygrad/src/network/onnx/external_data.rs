//! External data: weights in files next to the model (<https://github.com/onnx/onnx/blob/main/docs/ExternalData.md>).
//! PyTorch's exporter writes `NAME.onnx.data` by default.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;

use super::error::ImportError;
use super::limits;
use super::proto::{StringStringEntryProto, TensorProto};
use super::stored_tensor::EXTERNAL;
use crate::network::file_type;

/// Maximum number of files of one model; some exporters write one per tensor.
const MOST_FILES: usize = 10_000;
/// Longest file name, in bytes.
const LONGEST_NAME: usize = 255;

/// The files next to a model that hold its weights, by name.
#[derive(Debug, Clone, Default)]
pub struct ExternalData {
    files: BTreeMap<String, Vec<u8>>,
}

impl ExternalData {
    /// Adds the content of the file `name`.
    pub fn insert(&mut self, name: impl Into<String>, content: Vec<u8>) {
        self.files.insert(name.into(), content);
    }

    /// The files and their contents, ordered by name.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|(name, content)| (name.as_str(), content.as_slice()))
    }

    /// Whether there are no files.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Number of bytes of all files.
    pub fn len(&self) -> usize {
        self.files.values().map(Vec::len).sum()
    }
}

/// Names of the files in the model's folder that an ONNX file stores tensors in. Reads no file.
///
/// # Errors
/// [`ImportError::Format`] when `bytes` are not an ONNX file, [`ImportError::ExternalData`] when a tensor refers to a
/// file outside of the model's folder.
pub fn external_files(bytes: &[u8]) -> Result<BTreeSet<String>, ImportError> {
    limits::check(bytes).map_err(|why| super::not_onnx(bytes, why))?;
    let model = Model::decode(bytes).map_err(|why| super::not_onnx(bytes, format!("is damaged: {why}")))?;
    let mut tensors = Vec::new();
    model.graph.into_iter().for_each(|graph| graph.collect_into(&mut tensors));
    model.functions.into_iter().for_each(|function| {
        let defaults = function.attribute.into_iter();
        let attributes = function.node.into_iter().flat_map(|node| node.attribute).chain(defaults);
        attributes.for_each(|attribute| attribute.collect_into(&mut tensors));
    });
    let mut names = BTreeSet::new();
    for tensor in tensors.iter().filter(|tensor| tensor.data_location == EXTERNAL) {
        let name = file_name(&tensor.external_data);
        names
            .insert(name.map_err(|why| ImportError::ExternalData(format!("tensor {} {why}", tensor.name)))?.to_owned());
        if names.len() > MOST_FILES {
            return Err(ImportError::ExternalData(format!("the tensors are stored in more than {MOST_FILES} files")));
        }
    }
    Ok(names)
}

/// The bytes of a tensor stored in one of `files`, which must be `needed` bytes.
///
/// # Errors
/// A phrase about the tensor: the file is missing or too short, or an entry is invalid.
pub(super) fn stored<'f>(tensor: &TensorProto, files: &'f ExternalData, needed: usize) -> Result<&'f [u8], String> {
    let entries = &tensor.external_data;
    let number = |key: &str| {
        let number = |text: &str| {
            let bytes = text.parse::<usize>();
            bytes.map_err(|_| format!("has {key} {text:?} in its external data; expected a number of bytes"))
        };
        value(entries, key).map(number).transpose()
    };
    let name = file_name(entries)?;
    let Some(content) = files.files.get(name) else {
        return Err(format!("is stored in the file {name}, which is missing"));
    };
    let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?.unwrap_or(needed));
    if length != needed {
        return Err(format!(
            "has dimensions {:?}, which need {needed} bytes, but {length} bytes in {name}",
            tensor.dims
        ));
    }
    let end = offset.checked_add(length);
    end.and_then(|end| content.get(offset..end)).ok_or_else(|| {
        let hint = file_type::other_format(content).map(|what| format!(": it {what}")).unwrap_or_default();
        format!("needs {length} bytes at offset {offset} of {name}, which has only {} bytes{hint}", content.len())
    })
}

/// Name of the file that a tensor is stored in.
fn file_name(entries: &[StringStringEntryProto]) -> Result<&str, String> {
    let location = value(entries, "location").ok_or("is stored in another file, but its location is missing")?;
    let mut name = location;
    while let Some(rest) = name.strip_prefix("./") {
        name = rest;
    }
    let control = |c: char| c.is_control() || matches!(c, '/' | '\\' | ':');
    if name.is_empty() || name.starts_with('.') || name.contains(control) || name.len() > LONGEST_NAME {
        let shown: String = location.chars().take(120).collect();
        return Err(format!("is stored in {shown:?}; expected the name of a file in the model's folder"));
    }
    Ok(name)
}

fn value<'e>(entries: &'e [StringStringEntryProto], key: &str) -> Option<&'e str> {
    entries.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str())
}

/// The part of the schema that locates tensors; decoding skips everything else, which then costs no memory.
#[derive(Clone, PartialEq, prost::Message)]
struct Model {
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
    #[prost(message, repeated, tag = "25")]
    functions: Vec<Function>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Graph {
    #[prost(message, repeated, tag = "1")]
    node: Vec<Node>,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<Tensor>,
    #[prost(message, repeated, tag = "15")]
    sparse_initializer: Vec<Sparse>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Function {
    #[prost(message, repeated, tag = "7")]
    node: Vec<Node>,
    /// Attributes with defaults.
    #[prost(message, repeated, tag = "11")]
    attribute: Vec<Attribute>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Node {
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<Attribute>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Attribute {
    #[prost(message, optional, tag = "5")]
    t: Option<Tensor>,
    /// A branch or loop body.
    #[prost(message, optional, boxed, tag = "6")]
    g: Option<Box<Graph>>,
}

impl Graph {
    /// Moves all tensors of the graph and of the graphs inside to `tensors`.
    fn collect_into(self, tensors: &mut Vec<Tensor>) {
        tensors.extend(self.initializer);
        tensors
            .extend(self.sparse_initializer.into_iter().flat_map(|sparse| [sparse.values, sparse.indices]).flatten());
        self.node.into_iter().flat_map(|node| node.attribute).for_each(|attribute| attribute.collect_into(tensors));
    }
}

impl Attribute {
    fn collect_into(self, tensors: &mut Vec<Tensor>) {
        tensors.extend(self.t);
        self.g.into_iter().for_each(|graph| graph.collect_into(tensors));
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct Sparse {
    #[prost(message, optional, tag = "1")]
    values: Option<Tensor>,
    #[prost(message, optional, tag = "2")]
    indices: Option<Tensor>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Tensor {
    #[prost(string, tag = "8")]
    name: String,
    #[prost(message, repeated, tag = "13")]
    external_data: Vec<StringStringEntryProto>,
    #[prost(int32, tag = "14")]
    data_location: i32,
}
