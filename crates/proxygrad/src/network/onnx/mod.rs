//! Import of ONNX networks.
//!
//! 1. The file is decoded (`proto`), calls of its functions are replaced by their nodes (`flatten`), and all nodes are
//!    sorted topologically (`toposort`).
//! 2. Nodes whose inputs are constant are computed at once (`constant_folding`): exporters build reshape targets and
//!    weights from small subgraphs. All other nodes are lowered to operations of networks (`lower`).
//! 3. Normalizations and activations that were exported in pieces are fused (`fuse_normalizations`,
//!    `fuse_activations`).
//! 4. Batch normalizations and other per-channel factors are folded into the layer before them (`fold_batch_norm`).
//! 5. The part of the graph that the outputs depend on becomes the network (`build`). Layers that are stored
//!    channels-last or as tokens get views `[C,H,W]` (`Network::add_views`).
//!
//! The reference for every operation is the ONNX operator specification, <https://onnx.ai/onnx/operators/>, and, where
//! that is ambiguous, ONNX Runtime.

mod build;
mod const_tensor;
mod constant_folding;
mod constant_inputs;
mod error;
mod export;
mod external_data;
mod flatten;
mod fold_batch_norm;
mod fuse_activations;
mod fuse_normalizations;
mod graph_builder;
mod image_input;
mod image_tensor;
mod layer_names;
mod limits;
mod lower;
mod lower_graph;
mod module_paths;
mod node_context;
mod obstacles;
mod proto;
mod sparse_tensor;
mod stated_shapes;
mod stored_tensor;
mod toposort;
mod unary_functions;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use prost::Message;

pub use error::{ImportError, UnsupportedNode};
pub use export::{ExportError, export};
pub use external_data::{ExternalData, external_files};
pub(super) use stored_tensor::half;

use super::file_type;
use super::graph::Network;
use build::BuiltNetwork;
use flatten::FlatGraph;
use node_context::Operand;
use proto::{GraphProto, ModelProto};

/// Supported ONNX opsets. From 21 to 28 the imported operations only got new element types, and attributes for those
/// (`round_mode` of Cast, `stash_type` of Range).
pub const OPSETS: RangeInclusive<i64> = 7..=28;

/// Settings for what a file may leave unspecified.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ImportOptions {
    /// Size `[C,H,W]` of the image; required if the file does not fix it. The batch axis may always be dynamic.
    pub input: Option<[usize; 3]>,
    /// Values of inputs besides the image, by name, such as a dropout rate: all elements of the input have this value.
    /// Truth values are 0 and 1.
    pub constants: BTreeMap<String, f64>,
}

/// An imported network, and how it relates to the file.
#[derive(Debug, Clone)]
pub struct Imported {
    /// The network. Its outputs are those of the file that can be computed, in the file's order, or else the layers
    /// that no other layer reads. [`Network::unavailable`] lists the nodes without a layer.
    pub network: Network,
    /// Name of the image input in the file.
    pub input_name: String,
    /// Size `[C,H,W]` of the image.
    pub input: [usize; 3],
    /// Whether the file reads images `[N,H,W,C]`. The network itself always reads `[N,C,H,W]`.
    pub channels_last: bool,
    /// Whether the file reads pixels as bytes, 0 to 255. The network itself reads them as f32.
    pub bytes: bool,
    /// Whether the height or width of the image is dynamic in the file.
    pub dynamic_size: bool,
    /// Length of the batch axis that the file was exported with; `None` if it is dynamic.
    pub batch: Option<usize>,
    /// Name in the file of each of the network's outputs.
    pub output_names: Vec<String>,
    /// For each node of the network, the tensor of the file with the same values; `None` for intermediate results and
    /// views, which the file does not have.
    pub tensor_names: Vec<Option<String>>,
    /// The nodes that could not be lowered.
    pub unsupported: Vec<UnsupportedNode>,
    /// Number of nodes that the file's outputs depend on.
    pub total: usize,
    /// Opset of the file.
    pub opset: i64,
    /// Name and version of the program that wrote the file; empty if the file does not state them.
    pub producer: String,
}

/// Imports an ONNX file that fixes its image size and holds all its weights.
///
/// # Examples
/// ```
/// use proxygrad::network::onnx;
///
/// let imported = onnx::import(&std::fs::read("assets/fashion-resnet8/model.onnx")?)?;
/// assert!(imported.network.find("logits").is_some());
/// assert!(imported.unsupported.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// See [`ImportError`].
pub fn import(bytes: &[u8]) -> Result<Imported, ImportError> {
    import_with(bytes, &ExternalData::default(), &ImportOptions::default())
}

/// Imports an ONNX file with its external data (see [`external_files`]).
///
/// The network has one input, a batch of images `[N,C,H,W]` (a file that reads `[N,H,W,C]` is transposed, which is free
/// if the file transposes the image itself). Weights and computations of all floating-point types become f32.
///
/// A layer is named after its node in the file without a leading slash (`layer1/conv1/Conv`), an output like the output
/// of the file (`logits`). If the exporter numbered the nodes (`node_Conv_45`) and recorded their modules, layers are
/// named by module paths (`layer1.0.conv1`). `:` and `@` in names become `_`, and duplicates get the suffix `_2`, `_3`
/// ... A layer is also found by the name of its node, by that of its tensor in the file, and by the paths of the
/// modules whose output it is.
///
/// Unsupported nodes, and nodes that depend on them, are left out: see [`Network::unavailable`].
///
/// # Errors
/// See [`ImportError`]; if no layer is left, the error lists all unsupported nodes.
pub fn import_with(bytes: &[u8], files: &ExternalData, options: &ImportOptions) -> Result<Imported, ImportError> {
    let (model, flat, opset) = decode(bytes)?;
    let graph = &flat.graph;
    let input = image_input::find_image_input(graph, options)?;
    let constants = constant_inputs::constant_inputs(graph, &input.name, &options.constants)?;
    if graph.output.is_empty() {
        return Err(ImportError::Graph("it has no outputs".into()));
    }

    let file_bytes = bytes.len().saturating_add(files.len());
    let mut lowered = lower_graph::lower_graph(&flat, &input, constants, files, file_bytes)?;
    let roots = lowered.roots(graph);
    fuse_normalizations::fuse_normalizations(&mut lowered.builder, &roots);
    fuse_activations::fuse_activations(graph, &mut lowered);
    let unsupported: Vec<UnsupportedNode> = lowered.failures.values().cloned().collect();
    let total = lowered.order.len();
    let is_layer = |operand: &Operand| matches!(operand, Operand::Dynamic(tensor) if tensor.id > lowered.image);
    if !lowered.tensors.values().any(is_layer) || lowered.exhausted {
        return Err(match unsupported.is_empty() {
            true => ImportError::Graph(no_output(graph)),
            false => ImportError::Unsupported { nodes: unsupported, total },
        });
    }
    if unsupported.is_empty() && lowered.outputs(graph).is_empty() {
        return Err(ImportError::Graph(no_output(graph)));
    }
    let modules = module_paths::ModulePaths::find(&model, graph, &lowered);
    let roots = lowered.roots(graph);
    let moved_to = fold_batch_norm::fold_batch_norm(&mut lowered.builder, &roots);
    let BuiltNetwork { network, output_names, tensor_names } = build::build(graph, lowered, &modules, &moved_to)?;
    Ok(Imported {
        network,
        input_name: input.name.clone(),
        input: input.size,
        channels_last: input.channels_last,
        bytes: input.bytes,
        dynamic_size: input.dynamic_size,
        batch: input.batch,
        output_names,
        tensor_names,
        unsupported,
        total,
        opset,
        producer: format!("{} {}", model.producer_name, model.producer_version).trim().to_owned(),
    })
}

/// The inputs of an ONNX file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inputs {
    /// Size `[C,H,W]` of the image.
    pub image: [usize; 3],
    /// Whether the file reads pixels as bytes, 0 to 255.
    pub bytes: bool,
    /// Names of the inputs that no node reads, and that are therefore ignored.
    pub unread: Vec<String>,
}

/// Finds the image input of an ONNX file, without importing the network.
///
/// # Errors
/// See [`ImportError`].
pub fn read_inputs(bytes: &[u8], options: &ImportOptions) -> Result<Inputs, ImportError> {
    let (_, flat, _) = decode(bytes)?;
    let input = image_input::find_image_input(&flat.graph, options)?;
    let unread = image_input::unread_inputs(&flat.graph, &input.name, options);
    Ok(Inputs { image: input.size, bytes: input.bytes, unread })
}

/// The model without its graph, its nodes as one list, and the opset.
fn decode(bytes: &[u8]) -> Result<(ModelProto, FlatGraph, i64), ImportError> {
    limits::check(bytes).map_err(|why| not_onnx(bytes, why))?;
    let mut model = ModelProto::decode(bytes).map_err(|why| not_onnx(bytes, format!("is damaged: {why}")))?;
    if model.graph.is_none() {
        return Err(not_onnx(bytes, "contains no graph".into()));
    }
    let opset = opset(&model)?;
    let flat = flatten::flatten(&mut model, opset, bytes.len());
    Ok((model, flat, opset))
}

/// The error for bytes that are not an ONNX file: it names the format they have, or else says `why`.
fn not_onnx(bytes: &[u8], why: String) -> ImportError {
    let tensorflow = || {
        let what = "is a TensorFlow graph; convert the network to ONNX";
        file_type::is_tensorflow(bytes).then(|| what.to_owned())
    };
    ImportError::Format(file_type::other_format(bytes).or_else(tensorflow).unwrap_or(why))
}

fn opset(model: &ModelProto) -> Result<i64, ImportError> {
    let own = model.opset_import.iter().find(|set| matches!(set.domain.as_str(), "" | "ai.onnx"));
    let version = own.map(|set| set.version);
    version.filter(|version| OPSETS.contains(version)).ok_or(ImportError::Opset(version))
}

/// Why nothing can be maximized although every node is supported.
fn no_output(graph: &GraphProto) -> String {
    let names: Vec<&str> = graph.output.iter().map(|output| output.name.as_str()).collect();
    format!("no output is computed from the image (outputs: {})", names.join(", "))
}
