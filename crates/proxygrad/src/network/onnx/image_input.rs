//! Image input of the network: its name, size and layout.

use std::collections::HashSet;

use super::ImportOptions;
use super::error::ImportError;
use super::proto::{Dimension, GraphProto, NodeProto, ValueInfoProto};
use super::stored_tensor::data_type;

/// Longest side, and most channels, of an image.
const LONGEST_AXIS: usize = 1 << 16;

/// The image input of a graph.
#[derive(Debug)]
pub(super) struct ImageInput {
    /// Name of the tensor.
    pub name: String,
    /// `[C,H,W]`.
    pub size: [usize; 3],
    /// Length of the batch axis that the file was exported with, if fixed.
    pub batch: Option<usize>,
    /// Whether the height or width is dynamic.
    pub dynamic_size: bool,
    /// Whether its elements are bytes, 0 to 255, which the network itself converts.
    pub bytes: bool,
    /// Whether the tensor is `[N,H,W,C]`, as TensorFlow's converters export it.
    pub channels_last: bool,
}

/// Names of the inputs that [`find_image_input`] ignores because no node reads them.
pub(super) fn unread_inputs(graph: &GraphProto, image: &str, options: &ImportOptions) -> Vec<String> {
    let read = read_tensors(graph);
    let stored = stored_tensors(graph);
    let unread = graph.input.iter().map(|input| input.name.as_str()).filter(|name| {
        *name != image && !read.contains(name) && !stored.contains(name) && !options.constants.contains_key(*name)
    });
    unread.map(str::to_owned).collect()
}

/// Names of the tensors that the file stores.
fn stored_tensors(graph: &GraphProto) -> HashSet<&str> {
    let stored = graph.initializer.iter().map(|tensor| tensor.name.as_str());
    let sparse = graph.sparse_initializer.iter().filter_map(|sparse| Some(sparse.values.as_ref()?.name.as_str()));
    stored.chain(sparse).collect()
}

/// Names of the tensors that nodes read.
fn read_tensors(graph: &GraphProto) -> HashSet<&str> {
    graph.node.iter().flat_map(|node| &node.input).map(String::as_str).collect()
}

/// Finds the only input `[N,C,H,W]` or `[N,H,W,C]`; the options' size `[C,H,W]` sets its dynamic axes. Inputs with a
/// constant value are ignored, and so are inputs that no node reads, such as a training switch, if another is read.
///
/// # Errors
/// [`ImportError::Input`] without exactly one such input, [`ImportError::DynamicInput`] when a dynamic axis is not
/// given.
pub(super) fn find_image_input(graph: &GraphProto, options: &ImportOptions) -> Result<ImageInput, ImportError> {
    let mut constants = stored_tensors(graph);
    constants.extend(options.constants.keys().map(String::as_str));
    let mut inputs: Vec<&ValueInfoProto> =
        graph.input.iter().filter(|input| !constants.contains(input.name.as_str())).collect();
    let read = read_tensors(graph);
    if inputs.iter().any(|input| read.contains(input.name.as_str())) {
        inputs.retain(|input| read.contains(input.name.as_str()));
    }
    let &[input] = inputs.as_slice() else {
        let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
        let image = inputs.iter().position(|input| axes(input).is_ok()).unwrap_or_default();
        let others: Vec<&str> = names.iter().enumerate().filter(|&(i, _)| i != image).map(|(_, &name)| name).collect();
        let is_input = |name: &&String| graph.input.iter().any(|input| input.name == **name);
        if let Some(name) = options.constants.keys().find(|name| !is_input(name)) {
            let others = if others.is_empty() { "no input besides the image".into() } else { others.join(", ") };
            let why = format!("{name} cannot have a constant value; the network has {others}");
            return Err(ImportError::Input(why));
        }
        return Err(ImportError::Input(match names.as_slice() {
            [] => "expected one image [N,C,H,W], found no input".into(),
            _ => format!(
                "expected one image [N,C,H,W], found {} inputs ({}); give {} a constant value, for example \
                 --constant {}=1",
                names.len(),
                names.join(", "),
                if others.len() == 1 { "the other one" } else { "the others" },
                others.join("=1 --constant ")
            ),
        }));
    };
    let mut axes = axes(input)?;
    let elements = input.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()).map(|tensor| tensor.elem_type);
    let bytes = elements == Some(data_type::UINT8);
    let channels_last = is_channels_last(axes.map(fixed)) && graph.node.iter().any(is_to_channels_first);
    if channels_last {
        axes[1..].rotate_right(1);
    }
    let [batch, _, height, width] = axes.map(fixed);
    let size = size(input, axes, options.input)?;
    let dynamic_size = height.is_none() || width.is_none();
    Ok(ImageInput { name: input.name.clone(), size, batch, dynamic_size, bytes, channels_last })
}

/// The length of an axis; `None` if it is dynamic.
fn fixed(axis: Option<&Dimension>) -> Option<usize> {
    let length = axis.and_then(|axis| axis.dim_value).filter(|&length| length > 0)?;
    Some(usize::try_from(length).unwrap_or(usize::MAX))
}

/// Whether the node transposes `[N,H,W,C]` to `[N,C,H,W]`, as channels-last files do before their first convolution.
fn is_to_channels_first(node: &NodeProto) -> bool {
    node.op_type == "Transpose" && node.attribute.iter().any(|a| a.name == "perm" && a.ints == [0, 3, 1, 2])
}

/// Whether the last axis can be the channels of an image, and the second cannot.
fn is_channels_last([_, second, _, last]: [Option<usize>; 4]) -> bool {
    let is_channels = |length: usize| matches!(length, 1 | 3);
    last.is_some_and(is_channels) && !second.is_some_and(is_channels)
}

/// The four axes; all `None` if the file does not declare a shape.
fn axes(input: &ValueInfoProto) -> Result<[Option<&Dimension>; 4], ImportError> {
    let name = &input.name;
    let Some(tensor) = input.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()) else {
        return Err(ImportError::Input(format!("{name} is not a tensor; expected one image [N,C,H,W]")));
    };
    if !data_type::is_float(tensor.elem_type) && tensor.elem_type != data_type::UINT8 {
        let found = data_type::name(tensor.elem_type);
        return Err(ImportError::Input(format!("{name} has element type {found}; expected FLOAT or UINT8")));
    }
    let Some(shape) = &tensor.shape else { return Ok([None; 4]) };
    match shape.dim.as_slice() {
        [n, c, h, w] => Ok([Some(n), Some(c), Some(h), Some(w)]),
        other => Err(ImportError::Input(format!("{name} has {} axes; expected an image [N,C,H,W]", other.len()))),
    }
}

fn size(
    input: &ValueInfoProto,
    axes: [Option<&Dimension>; 4],
    given: Option<[usize; 3]>,
) -> Result<[usize; 3], ImportError> {
    const NAMES: [&str; 3] = ["channels", "height", "width"];
    let mut size = [0; 3];
    let mut dynamic = Vec::new();
    for i in 0..3 {
        let axis = axes[i + 1];
        size[i] = match (fixed(axis), given) {
            (Some(fixed), Some(given)) if fixed != given[i] => {
                return Err(ImportError::Input(format!(
                    "{} has {} {fixed}, not {}; omit the input size or specify the one in the file",
                    input.name, NAMES[i], given[i]
                )));
            }
            (Some(length), _) => length,
            (None, Some(given)) => given[i],
            (None, None) => {
                let symbol = axis.and_then(|axis| axis.dim_param.as_deref()).filter(|symbol| !symbol.is_empty());
                dynamic.push(symbol.map_or_else(|| NAMES[i].into(), |symbol| format!("{} \"{symbol}\"", NAMES[i])));
                continue;
            }
        };
        if size[i] == 0 || size[i] > LONGEST_AXIS {
            let found = format!("{} has {} {}", input.name, NAMES[i], size[i]);
            return Err(ImportError::Input(format!("{found}; expected 1 to {LONGEST_AXIS}")));
        }
    }
    match dynamic.is_empty() {
        true => Ok(size),
        false => Err(ImportError::DynamicInput { input: input.name.clone(), axes: dynamic.join(", ") }),
    }
}
