//! The image input: which it is, and how large.

use std::collections::HashSet;

use super::error::ImportError;
use super::messages::{Dimension, GraphProto, NodeProto, ValueInfoProto};
use super::tensor::data_type;

/// Longest side, and most channels, of an image.
const LONGEST_AXIS: usize = 1 << 16;

/// The image input of a graph.
#[derive(Debug)]
pub(super) struct ImageInput {
    /// Name of the tensor.
    pub name: String,
    /// `[C,H,W]`.
    pub size: [usize; 3],
    /// Length of the batch axis that the file was exported with, if that is fixed.
    pub batch: Option<usize>,
    /// Whether the file leaves the height and width open.
    pub open: bool,
    /// Whether it holds bytes, 0 to 255, which the network itself converts.
    pub bytes: bool,
    /// Whether the tensor is `[N,H,W,C]`, as TensorFlow's converters export it.
    pub channels_last: bool,
}

/// Finds the one input `[N,C,H,W]` or `[N,H,W,C]`, whose open axes are closed by `given` `[C,H,W]`. Inputs that nothing
/// reads, such as a switch for training, do not count beside one that is read.
///
/// # Errors
/// [`ImportError::Input`] when there is no such input, [`ImportError::DynamicInput`] when its size is open.
pub(super) fn find(graph: &GraphProto, given: Option<[usize; 3]>) -> Result<ImageInput, ImportError> {
    let stored = graph.initializer.iter().map(|tensor| tensor.name.as_str());
    let sparse = graph.sparse_initializer.iter().filter_map(|sparse| Some(sparse.values.as_ref()?.name.as_str()));
    let constants: HashSet<&str> = stored.chain(sparse).collect();
    let mut inputs: Vec<&ValueInfoProto> =
        graph.input.iter().filter(|input| !constants.contains(input.name.as_str())).collect();
    let read: HashSet<&str> = graph.node.iter().flat_map(|node| &node.input).map(String::as_str).collect();
    if inputs.iter().any(|input| read.contains(input.name.as_str())) {
        inputs.retain(|input| read.contains(input.name.as_str()));
    }
    let &[input] = inputs.as_slice() else {
        let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
        return Err(ImportError::Input(match names.as_slice() {
            [] => "there is none; expected one image [N,C,H,W]".into(),
            _ => format!("there are {} ({}); expected one image [N,C,H,W]", names.len(), names.join(", ")),
        }));
    };
    let mut axes = axes(input)?;
    let elements = input.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()).map(|tensor| tensor.elem_type);
    let bytes = elements == Some(data_type::UINT8);
    let channels_last = is_channels_last(axes.map(fixed)) && graph.node.iter().any(puts_channels_first);
    if channels_last {
        axes[1..].rotate_right(1);
    }
    let [batch, _, height, width] = axes.map(fixed);
    let size = size(input, axes, given)?;
    let open = height.is_none() || width.is_none();
    Ok(ImageInput { name: input.name.clone(), size, batch, open, bytes, channels_last })
}

/// The length of an axis that the file fixes.
fn fixed(axis: Option<&Dimension>) -> Option<usize> {
    let length = axis.and_then(|axis| axis.dim_value).filter(|&length| length > 0)?;
    Some(usize::try_from(length).unwrap_or(usize::MAX))
}

/// Whether the node brings `[N,H,W,C]` to `[N,C,H,W]`, as files that read `[N,H,W,C]` do before their first convolution.
fn puts_channels_first(node: &NodeProto) -> bool {
    node.op_type == "Transpose" && node.attribute.iter().any(|a| a.name == "perm" && a.ints == [0, 3, 1, 2])
}

/// Whether the last axis has as many elements as an image has channels, and the second has not.
fn is_channels_last([_, second, _, last]: [Option<usize>; 4]) -> bool {
    let is_channels = |length: usize| matches!(length, 1 | 3);
    last.is_some_and(is_channels) && !second.is_some_and(is_channels)
}

/// The four axes; `None` for each when the file does not say how many there are.
fn axes(input: &ValueInfoProto) -> Result<[Option<&Dimension>; 4], ImportError> {
    let name = &input.name;
    let Some(tensor) = input.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()) else {
        return Err(ImportError::Input(format!("{name} is no tensor; expected one image [N,C,H,W]")));
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
    let mut open = Vec::new();
    for i in 0..3 {
        let axis = axes[i + 1];
        size[i] = match (fixed(axis), given) {
            (Some(fixed), Some(given)) if fixed != given[i] => {
                let what = format!("{} has {fixed} {}, not {}", input.name, NAMES[i], given[i]);
                return Err(ImportError::Input(format!("{what}; leave the input size out, or give the file's")));
            }
            (Some(length), _) => length,
            (None, Some(given)) => given[i],
            (None, None) => {
                let symbol = axis.and_then(|axis| axis.dim_param.as_deref()).filter(|symbol| !symbol.is_empty());
                open.push(symbol.map_or_else(|| NAMES[i].into(), |symbol| format!("{} (\"{symbol}\")", NAMES[i])));
                continue;
            }
        };
        if size[i] == 0 || size[i] > LONGEST_AXIS {
            let what = format!("{} has {} {}", input.name, size[i], NAMES[i]);
            return Err(ImportError::Input(format!("{what}; expected 1 to {LONGEST_AXIS}")));
        }
    }
    match open.is_empty() {
        true => Ok(size),
        false => Err(ImportError::DynamicInput { input: input.name.clone(), axes: open.join(", ") }),
    }
}
