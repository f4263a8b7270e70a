//! Import of ONNX networks.
//!
//! The graph of the file is walked once. What does not depend on the image is computed at once (exporters build reshape
//! targets and weights from small graphs); every other node is lowered to the operations of [`Op`](super::Op). Then
//! activations that were exported in pieces are put together again, batch normalizations and other per-channel factors
//! are folded into the layer before them, and what no output depends on is dropped.
//!
//! The reference for every operation is the ONNX operator specification, <https://onnx.ai/onnx/operators/>, and, where
//! that leaves room, ONNX Runtime.

mod call;
mod draft;
mod elementary;
mod error;
mod finish;
mod fold;
mod fold_affine;
mod input;
mod limits;
mod lower;
mod messages;
mod names;
mod order;
mod recognize;
mod tensor;
mod value;
mod walk;

#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;

use prost::Message;

pub use error::{ImportError, UnsupportedNode};

use super::graph::Network;
use messages::{GraphProto, ModelProto};

/// Versions of ONNX's operations that are understood.
pub const OPSETS: RangeInclusive<i64> = 9..=21;

/// What a file leaves open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ImportOptions {
    /// Size `[C,H,W]` of the image, needed when the file does not fix it. The batch axis never needs one.
    pub input: Option<[usize; 3]>,
}

/// An imported network and its connection to the file.
#[derive(Debug, Clone)]
pub struct Imported {
    /// The network; its outputs are those of the file, in the file's order.
    pub network: Network,
    /// Name of the image input in the file.
    pub input_name: String,
    /// Size `[C,H,W]` of the image.
    pub input: [usize; 3],
    /// Whether the file wants images `[N,H,W,C]`. The network itself always reads `[N,C,H,W]`.
    pub channels_last: bool,
    /// Whether the file leaves the height or width of the image open.
    pub open_size: bool,
    /// Length of the batch axis that the file was exported with, unless that is open.
    pub batch: Option<usize>,
    /// Names of the outputs in the file, one for each of the network's outputs.
    pub output_names: Vec<String>,
    /// For each node of the network, the tensor of the file that holds the same values; `None` for intermediate results
    /// that the file does not have.
    pub tensor_names: Vec<Option<String>>,
    /// Version of ONNX's operations that the file uses.
    pub opset: i64,
    /// The program that wrote the file, as far as the file tells.
    pub producer: String,
}

/// Imports the bytes of an ONNX file whose image size is fixed.
///
/// # Errors
/// See [`ImportError`]; nodes that cannot be lowered are all named at once.
pub fn import(bytes: &[u8]) -> Result<Imported, ImportError> {
    import_with(bytes, &ImportOptions::default())
}

/// Imports the bytes of an ONNX file.
///
/// The network has one input, a batch of images `[N,C,H,W]` (a file that reads `[N,H,W,C]` is turned around, which costs
/// nothing where it turns the image itself); weights and calculations of every floating-point type become
/// f32. Layers are named like the nodes of the file without a leading slash (`layer1/conv1/Conv`), an output like the
/// output of the file (`logits`). `:` and `@` in names become `_`, and a name that occurs again gets `_2`, `_3` ... behind.
///
/// # Errors
/// See [`ImportError`]; nodes that cannot be lowered are all named at once.
pub fn import_with(bytes: &[u8], options: &ImportOptions) -> Result<Imported, ImportError> {
    limits::check(bytes).map_err(ImportError::Format)?;
    let model = ModelProto::decode(bytes).map_err(|why| ImportError::Format(format!("is damaged: {why}")))?;
    let graph = model.graph.as_ref().ok_or_else(|| ImportError::Format("holds no graph".into()))?;
    let opset = opset(&model)?;
    let input = input::find(graph, options.input)?;
    if graph.output.is_empty() {
        return Err(ImportError::Graph("has no outputs".into()));
    }

    let mut walked = walk::walk(graph, opset, &input, bytes.len())?;
    recognize::activations(graph, &mut walked);
    let walk::Walked { mut draft, outputs, total, failures } = walked;
    if !failures.is_empty() {
        return Err(ImportError::Unsupported { nodes: failures.into_values().collect(), total });
    }
    let outputs = fold_affine::fold(&mut draft, outputs);
    let (network, tensor_names) = finish::finish(graph, draft, &outputs)?;
    Ok(Imported {
        network,
        input_name: input.name,
        input: input.size,
        channels_last: input.channels_last,
        open_size: input.open,
        batch: input.batch,
        output_names: output_names(graph),
        tensor_names,
        opset,
        producer: format!("{} {}", model.producer_name, model.producer_version).trim().to_owned(),
    })
}

fn opset(model: &ModelProto) -> Result<i64, ImportError> {
    let own = model.opset_import.iter().find(|set| matches!(set.domain.as_str(), "" | "ai.onnx"));
    match own.map(|set| set.version) {
        Some(version) if OPSETS.contains(&version) => Ok(version),
        Some(version) => Err(ImportError::Opset(version.to_string())),
        None => Err(ImportError::Opset("(none)".into())),
    }
}

fn output_names(graph: &GraphProto) -> Vec<String> {
    graph.output.iter().map(|output| output.name.clone()).collect()
}
