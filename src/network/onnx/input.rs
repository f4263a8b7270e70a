//! The image input: which it is, and how large.

use std::collections::HashSet;

use super::error::ImportError;
use super::messages::{Dimension, GraphProto, ValueInfoProto};
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
}

/// Finds the one input `[N,C,H,W]`, whose open axes are closed by `given`.
///
/// # Errors
/// [`ImportError::Input`] when there is no such input, [`ImportError::DynamicInput`] when its size is open.
pub(super) fn find(graph: &GraphProto, given: Option<[usize; 3]>) -> Result<ImageInput, ImportError> {
    let constants: HashSet<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    let mut inputs = graph.input.iter().filter(|input| !constants.contains(input.name.as_str()));
    let (Some(input), None) = (inputs.next(), inputs.next()) else {
        let names: Vec<&str> = graph.input.iter().map(|input| input.name.as_str()).collect();
        let names: Vec<&str> = names.into_iter().filter(|name| !constants.contains(name)).collect();
        return Err(ImportError::Input(match names.as_slice() {
            [] => "there is none; expected one image [N,C,H,W]".into(),
            _ => format!("there are {} ({}); expected one image [N,C,H,W]", names.len(), names.join(", ")),
        }));
    };
    let axes = axes(input)?;
    let lengths = axes.map(|axis| axis.and_then(|axis| axis.dim_value).filter(|&length| length > 0));
    let [batch, ..] = lengths;
    let size = size(input, axes, given)?;
    let open = lengths[2].is_none() || lengths[3].is_none();
    Ok(ImageInput { name: input.name.clone(), size, batch: batch.and_then(|n| usize::try_from(n).ok()), open })
}

/// The four axes; `None` for each when the file does not say how many there are.
fn axes(input: &ValueInfoProto) -> Result<[Option<&Dimension>; 4], ImportError> {
    let name = &input.name;
    let Some(tensor) = input.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()) else {
        return Err(ImportError::Input(format!("{name} is no tensor; expected one image [N,C,H,W]")));
    };
    if !data_type::is_float(tensor.elem_type) {
        let found = data_type::name(tensor.elem_type);
        return Err(ImportError::Input(format!("{name} has element type {found}; expected FLOAT")));
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
        let fixed = axis.and_then(|axis| axis.dim_value).filter(|&length| length > 0);
        let fixed = fixed.map(|length| usize::try_from(length).unwrap_or(usize::MAX));
        size[i] = match (fixed, given) {
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
