//! Sums, products and their relatives.

use super::super::call::{Call, Tensor};
use super::super::draft::{Draft, Id};
use super::super::elementary::Elementary;
use super::super::value::Value;
use super::activation::clipped;
use super::broadcast::{beside_batch, per_channel};
use super::softmax::log_of_softmax;
use crate::network::{Array, Binary, Op, Shape, broadcast};

/// <https://onnx.ai/onnx/operators/onnx__Add.html>
pub(super) fn add(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    binary(draft, call, Binary::Add)
}

/// <https://onnx.ai/onnx/operators/onnx__Sub.html>
pub(super) fn sub(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    binary(draft, call, Binary::Sub)
}

/// <https://onnx.ai/onnx/operators/onnx__Mul.html>
pub(super) fn mul(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    binary(draft, call, Binary::Mul)
}

/// <https://onnx.ai/onnx/operators/onnx__Div.html>
pub(super) fn div(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    binary(draft, call, Binary::Div)
}

/// <https://onnx.ai/onnx/operators/onnx__Sum.html>: any number of summands.
pub(super) fn sum(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    let mut summands = (0..call.inputs.len()).map(|i| call.input(i).ok_or_else(|| format!("lacks input number {i}")));
    let first = summands.next().ok_or("has no inputs")??;
    let mut total = first.clone();
    for summand in summands {
        total = Tensor::Map(combined(draft, call, Binary::Add, &total, summand?)?);
    }
    match total {
        Tensor::Map(id) => Ok(id),
        _ => Err("adds up constants only".into()),
    }
}

/// <https://onnx.ai/onnx/operators/onnx__Max.html> of a tensor and constant numbers.
pub(super) fn max(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    let (input, bounds) = bounded(call)?;
    let min = bounds.into_iter().fold(f32::NEG_INFINITY, f32::max);
    clipped(draft, input, min, f32::INFINITY)
}

/// <https://onnx.ai/onnx/operators/onnx__Min.html> of a tensor and constant numbers.
pub(super) fn min(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    let (input, bounds) = bounded(call)?;
    let max = bounds.into_iter().fold(f32::INFINITY, f32::min);
    clipped(draft, input, f32::NEG_INFINITY, max)
}

/// <https://onnx.ai/onnx/operators/onnx__Neg.html>
pub(super) fn neg(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    let (input, shape) = call.shaped(draft, 0)?;
    let channels = call.claim(&[shape.channels()])?;
    affine(draft, input, vec![-1.0; channels], vec![0.0; channels], false)
}

/// <https://onnx.ai/onnx/operators/onnx__Pow.html> with a constant exponent.
pub(super) fn pow(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    let value = call.required(1)?;
    let exponent = match value.ints() {
        Ok(&[exponent]) => exponent as f64,
        _ => value.scalar().map(f64::from).map_err(|why| format!("its exponent {why}"))?,
    };
    elementary(draft, call, Elementary::Power(exponent))
}

/// <https://onnx.ai/onnx/operators/onnx__Erf.html>
pub(super) fn erf(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    elementary(draft, call, Elementary::Erf)
}

/// <https://onnx.ai/onnx/operators/onnx__Exp.html>
pub(super) fn exp(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    elementary(draft, call, Elementary::Exp)
}

/// <https://onnx.ai/onnx/operators/onnx__Log.html>
pub(super) fn log(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    if let Some(output) = log_of_softmax(draft, call.map(0)?)? {
        return Ok(output);
    }
    elementary(draft, call, Elementary::Log)
}

/// <https://onnx.ai/onnx/operators/onnx__Sqrt.html>
pub(super) fn sqrt(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    elementary(draft, call, Elementary::Sqrt)
}

/// <https://onnx.ai/onnx/operators/onnx__Abs.html>
pub(super) fn abs(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    elementary(draft, call, Elementary::Abs)
}

/// <https://onnx.ai/onnx/operators/onnx__Reciprocal.html>
pub(super) fn reciprocal(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    elementary(draft, call, Elementary::Power(-1.0))
}

fn elementary(draft: &mut Draft, call: &Call, function: Elementary) -> Result<Id, String> {
    Ok(draft.push_elementary(function, call.map(0)?))
}

/// The only input that depends on the image, and all others as numbers.
fn bounded(call: &Call) -> Result<(Id, Vec<f32>), String> {
    let (mut input, mut bounds) = (None, Vec::new());
    for i in 0..call.inputs.len() {
        match call.input(i) {
            Some(Tensor::Map(id)) if input.replace(*id).is_none() => {}
            Some(Tensor::Map(_)) => {
                return Err("of two tensors is not supported, only of one and constant numbers".into());
            }
            _ => bounds.push(call.required(i)?.scalar()?),
        }
    }
    input.map(|input| (input, bounds)).ok_or_else(|| "has no input that depends on the image".into())
}

fn binary(draft: &mut Draft, call: &Call, kind: Binary) -> Result<Id, String> {
    match (call.input(0), call.input(1)) {
        (Some(a), Some(b)) => combined(draft, call, kind, a, b),
        _ => Err("lacks an input".into()),
    }
}

fn combined(draft: &mut Draft, call: &Call, kind: Binary, a: &Tensor, b: &Tensor) -> Result<Id, String> {
    match (a, b) {
        (&Tensor::Map(a), &Tensor::Map(b)) => both(draft, kind, a, b),
        (&Tensor::Map(input), Tensor::Value(value)) => with_constant(draft, call, kind, (input, value), false),
        (Tensor::Value(value), &Tensor::Map(input)) => with_constant(draft, call, kind, (input, value), true),
        _ => Err("combines constants only".into()),
    }
}

/// Two tensors that depend on the image.
fn both(draft: &mut Draft, kind: Binary, a: Id, b: Id) -> Result<Id, String> {
    let (shape_a, shape_b) = (&draft.node(a).shape, &draft.node(b).shape);
    if shape_a.len() != shape_b.len() {
        return Err(format!("combines tensors {shape_a} and {shape_b} of different rank, so that batches do not meet"));
    }
    // What was only repeated to fit its partner is repeated by the combination itself.
    let unexpanded = |id: Id, partner: &Shape| {
        let node = draft.node(id);
        let source = node.expands?;
        let same = broadcast(&draft.node(source).shape, partner) == broadcast(&node.shape, partner);
        same.then_some(source)
    };
    let first = unexpanded(a, shape_b).unwrap_or(a);
    let second = unexpanded(b, &draft.node(first).shape).unwrap_or(b);
    draft.push(Op::Binary(kind), &[first, second])
}

/// A tensor and a constant; `turned` when the constant comes first.
fn with_constant(
    draft: &mut Draft,
    call: &Call,
    kind: Binary,
    (input, value): (Id, &Value),
    turned: bool,
) -> Result<Id, String> {
    let shape = draft.node(input).shape.clone();
    call.claim(&[shape.channels()])?;
    let constant = beside_batch(value, shape.len())?;
    let sized = value.is_sized();
    if let Some(values) = per_channel(&constant, &shape) {
        let ones = vec![1.0; values.len()];
        let zeros = vec![0.0; values.len()];
        let negated = |values: &[f32]| values.iter().map(|v| -v).collect();
        match (kind, turned) {
            (Binary::Add, _) => return affine(draft, input, ones, values, sized),
            (Binary::Sub, false) => return affine(draft, input, ones, negated(&values), sized),
            (Binary::Sub, true) => return affine(draft, input, negated(&ones), values, sized),
            (Binary::Mul, _) => return affine(draft, input, values, zeros, sized),
            (Binary::Div, false) => {
                return affine(draft, input, values.iter().map(|v| 1.0 / v).collect(), zeros, sized);
            }
            (Binary::Div, true) => {}
        }
    }
    let constant = draft.push_constant(constant)?;
    let inputs = if turned { [constant, input] } else { [input, constant] };
    draft.push_sized(Op::Binary(kind), &inputs, sized)
}

/// `scale * x + shift` per channel; nothing at all when that is `x`.
fn affine(draft: &mut Draft, input: Id, scale: Vec<f32>, shift: Vec<f32>, sized: bool) -> Result<Id, String> {
    if scale.iter().all(|&v| v == 1.0) && shift.iter().all(|&v| v == 0.0) {
        return Ok(input);
    }
    draft.push_sized(Op::Affine { scale: Array::vector(scale), shift: Array::vector(shift) }, &[input], sized)
}
