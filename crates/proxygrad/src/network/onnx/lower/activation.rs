//! Activations that are one node.

use super::super::call::Call;
use super::super::draft::{Draft, Id};
use super::broadcast::{beside_batch, per_channel};
use crate::network::{Activation, Array, Op, SELU_ALPHA, SELU_LAMBDA};

/// <https://onnx.ai/onnx/operators/onnx__Relu.html>
pub(super) fn relu(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    activation(draft, call, Activation::Relu)
}

/// <https://onnx.ai/onnx/operators/onnx__LeakyRelu.html>
pub(super) fn leaky_relu(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    activation(draft, call, Activation::LeakyRelu { slope: call.float("alpha", 0.01)? })
}

/// <https://onnx.ai/onnx/operators/onnx__PRelu.html> with one slope, or one per channel.
pub(super) fn prelu(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    let (_, shape) = call.shaped(draft, 0)?;
    let slopes = beside_batch(call.required(1)?, shape.len())?;
    let slopes = if slopes.len() == 1 { Some(slopes.data().to_vec()) } else { per_channel(&slopes, shape) };
    let slopes = slopes.ok_or("has slopes that differ within a channel")?;
    activation(draft, call, Activation::PRelu { slopes: Array::vector(slopes) })
}

/// <https://onnx.ai/onnx/operators/onnx__Clip.html>; bounds are attributes before opset 11, and inputs since.
pub(super) fn clip(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    let bound = |name: &str, i: usize, open: f32| match call.value(i)? {
        Some(value) => value.scalar(),
        None => call.float(name, open),
    };
    let min = bound("min", 1, f32::NEG_INFINITY)?;
    let max = bound("max", 2, f32::INFINITY)?;
    clipped(draft, call.map(0)?, min, max)
}

/// Clips to a range; the largest f32 stands for infinity, and a range open above 0 is a ReLU.
///
/// # Errors
/// When the range is empty.
pub(super) fn clipped(draft: &mut Draft, input: Id, min: f32, max: f32) -> Result<Id, String> {
    let min = if min == f32::MIN { f32::NEG_INFINITY } else { min };
    let max = if max == f32::MAX { f32::INFINITY } else { max };
    match (min, max) {
        (f32::NEG_INFINITY, f32::INFINITY) => Ok(input),
        (0.0, f32::INFINITY) => draft.push(Op::Activation(Activation::Relu), &[input]),
        _ => draft.push(Op::Activation(Activation::Clip { min, max }), &[input]),
    }
}

/// <https://onnx.ai/onnx/operators/onnx__HardSigmoid.html>
pub(super) fn hard_sigmoid(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    let (alpha, beta) = (call.float("alpha", 0.2)?, call.float("beta", 0.5)?);
    activation(draft, call, Activation::HardSigmoid { alpha, beta })
}

/// <https://onnx.ai/onnx/operators/onnx__HardSwish.html>
pub(super) fn hard_swish(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    activation(draft, call, Activation::HardSwish)
}

/// <https://onnx.ai/onnx/operators/onnx__Sigmoid.html>
pub(super) fn sigmoid(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    activation(draft, call, Activation::Sigmoid)
}

/// <https://onnx.ai/onnx/operators/onnx__Tanh.html>
pub(super) fn tanh(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    activation(draft, call, Activation::Tanh)
}

/// <https://onnx.ai/onnx/operators/onnx__Elu.html>
pub(super) fn elu(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    activation(draft, call, Activation::Elu { alpha: call.float("alpha", 1.0)? })
}

/// <https://onnx.ai/onnx/operators/onnx__Selu.html> with its usual constants.
pub(super) fn selu(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    for (name, usual) in [("alpha", SELU_ALPHA), ("gamma", SELU_LAMBDA)] {
        let found = call.float(name, usual as f32)?;
        if (f64::from(found) - usual).abs() > 1e-6 {
            return Err(format!("has {name} {found}; only {usual} is supported"));
        }
    }
    activation(draft, call, Activation::Selu)
}

/// <https://onnx.ai/onnx/operators/onnx__Mish.html>
pub(super) fn mish(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    activation(draft, call, Activation::Mish)
}

/// <https://onnx.ai/onnx/operators/onnx__Softplus.html>
pub(super) fn softplus(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    activation(draft, call, Activation::Softplus)
}

/// <https://onnx.ai/onnx/operators/onnx__Gelu.html>
pub(super) fn gelu(draft: &mut Draft, call: &Call) -> Result<Id, String> {
    let tanh = match call.text("approximate", "none")? {
        "none" => false,
        "tanh" => true,
        other => return Err(format!("has approximate {other}; expected none or tanh")),
    };
    activation(draft, call, Activation::Gelu { tanh })
}

fn activation(draft: &mut Draft, call: &Call, activation: Activation) -> Result<Id, String> {
    draft.push(Op::Activation(activation), &[call.map(0)?])
}
