//! `Expand`.

use super::super::call::{Call, length};
use super::super::draft::{Draft, Id};
use super::super::value::Origin;
use crate::network::{Array, Binary, Op, Shape, broadcast};

/// <https://onnx.ai/onnx/operators/onnx__Expand.html>: axes of length 1 are repeated. Usually the tensor is expanded to be
/// combined with a larger one, and then the elementwise operation reads it unexpanded.
pub(super) fn expand(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    let (input, shape) = call.shaped(draft, 0)?;
    let target = call.required(1)?.int_dims()?;
    if target.len() > shape.len() + 1 {
        return Err(format!("adds axes in front of the batch of {shape}"));
    }
    let inner = match target.split_first() {
        Some((&(first, origin), inner)) if target.len() == shape.len() + 1 => {
            let is_batch = first == 1 || origin == Origin::Batch || usize::try_from(first).ok() == call.batch;
            if !is_batch {
                return Err(format!("repeats the batch {first} times"));
            }
            inner
        }
        _ => &target,
    };
    if inner.iter().any(|&(_, origin)| origin >= Origin::Batch) {
        return Err("repeats an axis as often as there are images in the batch".into());
    }
    let sized = inner.iter().any(|&(_, origin)| origin == Origin::Size);
    let wanted = inner.iter().map(|&(v, _)| length(v, "shape")).collect::<Result<Vec<_>, _>>()?;
    let expanded = broadcast(shape, &Shape::from(wanted))?;
    if expanded == *shape {
        return Ok(input);
    }
    let ones = vec![1.0; call.claim(&expanded)?];
    let ones = draft.push_constant(Array::new(expanded.to_vec(), ones)?)?;
    let output = draft.push_sized(Op::Binary(Binary::Mul), &[input, ones], sized)?;
    draft.node_mut(output).expands = Some(input);
    Ok(output)
}
