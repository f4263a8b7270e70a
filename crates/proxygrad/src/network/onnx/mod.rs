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
mod external;
mod finish;
mod fold;
mod fold_affine;
mod input;
mod limits;
mod lower;
mod messages;
mod modules;
mod names;
mod order;
mod recognize;
mod sparse;
mod tensor;
mod value;
mod walk;

#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;

use prost::Message;

pub use error::{ImportError, UnsupportedNode};
pub use external::{ExternalData, external_files};

use super::graph::Network;
use super::signature;
use call::Tensor;
use messages::{GraphProto, ModelProto};

/// Versions of ONNX's operations that are understood. What changed in the operations that are imported from 21 to 28 are
/// element types, and attributes for those (`round_mode` of Cast, `stash_type` of Range).
pub const OPSETS: RangeInclusive<i64> = 7..=28;

/// What a file leaves open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ImportOptions {
    /// Size `[C,H,W]` of the image, needed when the file does not fix it. The batch axis never needs one.
    pub input: Option<[usize; 3]>,
}

/// An imported network and its connection to the file.
#[derive(Debug, Clone)]
pub struct Imported {
    /// The network. Its outputs are those of the file that can be computed, in the file's order; when there is none, the
    /// layers that no other layer reads. [`Network::unavailable`] tells which nodes have no layer.
    pub network: Network,
    /// Name of the image input in the file.
    pub input_name: String,
    /// Size `[C,H,W]` of the image.
    pub input: [usize; 3],
    /// Whether the file wants images `[N,H,W,C]`. The network itself always reads `[N,C,H,W]`.
    pub channels_last: bool,
    /// Whether the file wants pixels as bytes: values from 0 to 255. The network itself reads them as f32.
    pub bytes: bool,
    /// Whether the file leaves the height or width of the image open.
    pub open_size: bool,
    /// Length of the batch axis that the file was exported with, unless that is open.
    pub batch: Option<usize>,
    /// Names of the outputs in the file, one for each of the network's outputs.
    pub output_names: Vec<String>,
    /// For each node of the network, the tensor of the file that holds the same values; `None` for intermediate results
    /// that the file does not have.
    pub tensor_names: Vec<Option<String>>,
    /// The nodes that could not be lowered.
    pub unsupported: Vec<UnsupportedNode>,
    /// Number of nodes that the file's outputs depend on.
    pub total: usize,
    /// Version of ONNX's operations that the file uses.
    pub opset: i64,
    /// The program that wrote the file, as far as the file tells.
    pub producer: String,
}

/// Imports the bytes of an ONNX file whose image size is fixed, and which holds all its weights.
///
/// # Errors
/// See [`ImportError`].
pub fn import(bytes: &[u8]) -> Result<Imported, ImportError> {
    import_with(bytes, &ExternalData::default(), &ImportOptions::default())
}

/// Imports the bytes of an ONNX file, with the files next to it that hold weights (see [`external_files`]).
///
/// The network has one input, a batch of images `[N,C,H,W]` (a file that reads `[N,H,W,C]` is turned around, which costs
/// nothing where it turns the image itself); weights and calculations of every floating-point type become
/// f32. Layers are named like the nodes of the file without a leading slash (`layer1/conv1/Conv`), an output like the
/// output of the file (`logits`). Where the exporter numbered the nodes (`node_Conv_45`) and told their modules, layers are
/// named by the paths of these (`layer1.0.conv1`). `:` and `@` in names become `_`, and a name that occurs again gets `_2`,
/// `_3` ... at its end. A layer is also found by the name of its node, by that of its tensor in the file, and by the paths
/// of the modules whose output it is.
///
/// Nodes that cannot be lowered, and what depends on them, are left out: see [`Network::unavailable`].
///
/// # Errors
/// See [`ImportError`]; when no layer is left, all nodes that cannot be lowered are named at once.
pub fn import_with(bytes: &[u8], files: &ExternalData, options: &ImportOptions) -> Result<Imported, ImportError> {
    limits::check(bytes).map_err(|why| no_onnx(bytes, why))?;
    let model = ModelProto::decode(bytes).map_err(|why| no_onnx(bytes, format!("is damaged: {why}")))?;
    let graph = model.graph.as_ref().ok_or_else(|| no_onnx(bytes, "holds no graph".into()))?;
    let opset = opset(&model)?;
    let input = input::find(graph, options.input)?;
    if graph.output.is_empty() {
        return Err(ImportError::Graph("has no outputs".into()));
    }

    let mut walked = walk::walk(graph, opset, &input, files, bytes.len().saturating_add(files.len()))?;
    recognize::activations(graph, &mut walked);
    let unsupported: Vec<UnsupportedNode> = walked.failures.values().cloned().collect();
    let total = walked.order.len();
    let is_layer = |tensor: &Tensor| matches!(tensor, Tensor::Map(id) if *id > walked.image);
    if !walked.tensors.values().any(is_layer) || walked.exhausted {
        return Err(match unsupported.is_empty() {
            true => ImportError::Graph(no_output(graph)),
            false => ImportError::Unsupported { nodes: unsupported, total },
        });
    }
    if unsupported.is_empty() && walked.outputs(graph).is_empty() {
        return Err(ImportError::Graph(no_output(graph)));
    }
    let modules = modules::Modules::find(&model, graph, &walked);
    let roots = walked.roots(graph);
    let moved = fold_affine::fold(&mut walked.draft, &roots);
    let finish::Finished { network, output_names, tensor_names } = finish::finish(graph, walked, &modules, &moved)?;
    Ok(Imported {
        network,
        input_name: input.name.clone(),
        input: input.size,
        channels_last: input.channels_last,
        bytes: input.bytes,
        open_size: input.open,
        batch: input.batch,
        output_names,
        tensor_names,
        unsupported,
        total,
        opset,
        producer: format!("{} {}", model.producer_name, model.producer_version).trim().to_owned(),
    })
}

/// What is wrong with bytes that are no ONNX file: that they are something else, or else `why`.
fn no_onnx(bytes: &[u8], why: String) -> ImportError {
    let tensorflow = || {
        let what = "is a TensorFlow graph; convert the network to ONNX";
        signature::is_tensorflow(bytes).then(|| what.to_owned())
    };
    ImportError::Format(signature::foreign(bytes).or_else(tensorflow).unwrap_or(why))
}

fn opset(model: &ModelProto) -> Result<i64, ImportError> {
    let own = model.opset_import.iter().find(|set| matches!(set.domain.as_str(), "" | "ai.onnx"));
    match own.map(|set| set.version) {
        Some(version) if OPSETS.contains(&version) => Ok(version),
        Some(version) => Err(ImportError::Opset(version.to_string())),
        None => Err(ImportError::Opset("(none)".into())),
    }
}

/// Why nothing can be maximized although every node is known.
fn no_output(graph: &GraphProto) -> String {
    let names: Vec<&str> = graph.output.iter().map(|output| output.name.as_str()).collect();
    format!("no output is computed from the image (outputs: {})", names.join(", "))
}
