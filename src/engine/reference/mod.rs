//! The reference engine: plain tensor operations, on any device and in any float type that candle has.
//!
//! Forward and backward are written out operation by operation; nothing relies on automatic differentiation. In f64 on
//! the CPU it is what other engines are compared with.

mod activation;
mod binary;
mod conv;
mod pool;
mod rearrange;
mod reduce;
mod taps;

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};

use super::{Engine, EngineError, Forward, Gate, Plan};
use crate::network::{Network, NodeId, Op, Shape};

/// The reference engine on one device.
#[derive(Debug, Clone)]
pub struct Reference {
    device: Device,
    dtype: DType,
}

impl Reference {
    /// Runs networks on `device` in `dtype` (`F32`, or `F64` on the CPU).
    pub fn new(device: Device, dtype: DType) -> Self {
        Self { device, dtype }
    }
}

/// One operation with its weights on the device.
trait Operation: Send {
    /// The output for these inputs, all with a leading batch axis.
    fn forward(&self, inputs: &[&Tensor], forward: Forward) -> Result<Tensor>;

    /// Gradients for those inputs that are `wanted`, given inputs, output and the output's gradient.
    fn backward(&self, pass: Backward<'_>) -> Result<Vec<Option<Tensor>>>;
}

/// One operation's view of a backward pass.
struct Backward<'a> {
    inputs: &'a [&'a Tensor],
    output: &'a Tensor,
    gradient: &'a Tensor,
    wanted: &'a [bool],
    gate: Gate,
}

impl Engine for Reference {
    fn device(&self) -> &Device {
        &self.device
    }

    fn dtype(&self) -> DType {
        self.dtype
    }

    fn plan(
        &self,
        network: &Arc<Network>,
        targets: &[NodeId],
        input: &Shape,
    ) -> std::result::Result<Box<dyn Plan>, EngineError> {
        let order = network.below(targets);
        let shapes =
            network.shapes_at(input, &order).map_err(|why| EngineError::Size { input: input.to_string(), why })?;
        let slot = |id: &NodeId| order.binary_search(id).ok();
        let mut steps = Vec::with_capacity(order.len());
        for &id in &order {
            let node = network.node(id);
            let inputs: Vec<usize> = node.inputs.iter().filter_map(slot).collect();
            let input_shapes: Vec<&Shape> = node.inputs.iter().map(|input| &shapes[input]).collect();
            let depends = id == Network::INPUT || inputs.iter().any(|&i| steps_depend(&steps, i));
            let operation = self.operation(&node.op, &input_shapes, &shapes[&id])?;
            let constant = match &node.op {
                Op::Constant(array) => Some(self.tensor(array.data(), &batched(array.shape()))?),
                _ => None,
            };
            steps.push(Step { operation, inputs, constant, depends });
        }
        let targets = targets.iter().filter_map(slot).collect();
        Ok(Box::new(ReferencePlan { steps, targets, input: input.clone(), values: Vec::new() }))
    }
}

impl Reference {
    /// Moves constants to the device.
    fn tensor(&self, data: &[f32], shape: &[usize]) -> Result<Tensor> {
        Tensor::from_slice(data, shape, &Device::Cpu)?.to_dtype(self.dtype)?.to_device(&self.device)
    }

    fn operation(&self, op: &Op, inputs: &[&Shape], output: &Shape) -> Result<Option<Box<dyn Operation>>> {
        Ok(Some(match op {
            Op::Input | Op::Constant(_) => return Ok(None),
            Op::Conv(conv) => Box::new(conv::Conv::new(self, conv, inputs[0], output)?),
            Op::Dense { weight, bias } => Box::new(conv::Dense::new(self, weight, bias.as_ref())?),
            Op::Affine { scale, shift } => Box::new(binary::Affine::new(self, scale, shift, inputs[0])?),
            Op::Activation(activation) => Box::new(activation::Activated::new(self, activation, inputs[0])?),
            Op::Binary(kind) => Box::new(binary::Elementwise { kind: *kind, rank: output.len() }),
            Op::Concat { axis } => Box::new(rearrange::Concat { dim: axis + 1 }),
            Op::MaxPool(window) => Box::new(pool::MaxPool::new(window, inputs[0], output)),
            Op::AveragePool { window, count_padding } => {
                Box::new(pool::AveragePool::new(self, window, *count_padding, inputs[0], output)?)
            }
            Op::Reduce { kind, axes, keep } => Box::new(reduce::Reduced::new(*kind, axes, *keep, output)),
            Op::Pad { before, after, mode } => Box::new(rearrange::Pad::new(self, before, after, *mode, inputs[0])?),
            Op::Reshape(_) => Box::new(rearrange::Reshape { target: output.to_vec() }),
            Op::Transpose(order) => Box::new(rearrange::Transpose::new(order)),
            Op::Slice { axis, start, end, step } => {
                let indices = (*start..(*end).min(inputs[0][*axis])).step_by(*step).collect();
                Box::new(rearrange::Select::new(self, axis + 1, indices)?)
            }
            Op::Resize(resize) => Box::new(rearrange::Resized::new(self, resize, inputs[0], output)?),
            Op::Softmax { axis } => Box::new(reduce::Softmax { dim: axis + 1 }),
        }))
    }
}

/// A per-sample shape with a batch axis of 1 before it.
fn batched(shape: &[usize]) -> Vec<usize> {
    std::iter::once(1).chain(shape.iter().copied()).collect()
}

/// Shape `[1, C, 1, ...]` that broadcasts one value per channel over a tensor of `rank` axes, the batch included.
fn per_channel(channels: usize, rank: usize) -> Vec<usize> {
    let mut shape = vec![1; rank];
    if let Some(axis) = shape.get_mut(1) {
        *axis = channels;
    }
    shape
}

struct Step {
    /// `None` for the input and for constants.
    operation: Option<Box<dyn Operation>>,
    /// Positions of the inputs among the steps.
    inputs: Vec<usize>,
    constant: Option<Tensor>,
    /// Whether the value depends on the image, so that a gradient is wanted.
    depends: bool,
}

fn steps_depend(steps: &[Step], i: usize) -> bool {
    steps.get(i).is_some_and(|step| step.depends)
}

struct ReferencePlan {
    steps: Vec<Step>,
    targets: Vec<usize>,
    input: Shape,
    /// Outputs of all steps in the last forward pass.
    values: Vec<Tensor>,
}

impl Plan for ReferencePlan {
    fn forward(&mut self, images: &Tensor, forward: Forward) -> std::result::Result<Vec<Tensor>, EngineError> {
        if images.dims().get(1..) != Some(&self.input[..]) {
            let found = images.dims();
            return Err(EngineError::Mismatch(format!("images of {found:?} do not fit a plan for {}", self.input)));
        }
        let mut values: Vec<Tensor> = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            let inputs: Vec<&Tensor> = step.inputs.iter().map(|&i| &values[i]).collect();
            values.push(match (&step.operation, &step.constant) {
                (Some(operation), _) => operation.forward(&inputs, forward)?,
                (None, Some(constant)) => constant.clone(),
                (None, None) => images.contiguous()?,
            });
        }
        self.values = values;
        Ok(self.targets.iter().map(|&i| self.values[i].clone()).collect())
    }

    fn backward(&mut self, seeds: &[Tensor], gate: Gate) -> std::result::Result<Tensor, EngineError> {
        if self.values.is_empty() {
            return Err(EngineError::Mismatch("a backward pass needs a forward pass before it".into()));
        }
        if seeds.len() != self.targets.len() {
            let expected = self.targets.len();
            return Err(EngineError::Mismatch(format!("{} seeds for {expected} targets", seeds.len())));
        }
        let mut gradients: Vec<Option<Tensor>> = vec![None; self.steps.len()];
        for (&target, seed) in self.targets.iter().zip(seeds) {
            if seed.dims() != self.values[target].dims() {
                let (found, expected) = (seed.dims(), self.values[target].dims());
                return Err(EngineError::Mismatch(format!("a seed of {found:?} for an output of {expected:?}")));
            }
            accumulate(&mut gradients[target], seed.clone())?;
        }
        for (i, step) in self.steps.iter().enumerate().rev() {
            let Some(operation) = &step.operation else { continue };
            let Some(gradient) = gradients[i].take().filter(|_| step.depends) else { continue };
            let inputs: Vec<&Tensor> = step.inputs.iter().map(|&i| &self.values[i]).collect();
            let wanted: Vec<bool> = step.inputs.iter().map(|&i| self.steps[i].depends).collect();
            let pass =
                Backward { inputs: &inputs, output: &self.values[i], gradient: &gradient, wanted: &wanted, gate };
            for (&input, part) in step.inputs.iter().zip(operation.backward(pass)?) {
                if let Some(part) = part {
                    accumulate(&mut gradients[input], part)?;
                }
            }
        }
        match gradients.swap_remove(0) {
            Some(gradient) => Ok(gradient.contiguous()?),
            None => Ok(self.values[0].zeros_like()?),
        }
    }
}

fn accumulate(sum: &mut Option<Tensor>, part: Tensor) -> Result<()> {
    *sum = Some(match sum.take() {
        Some(sum) => (sum + part)?,
        None => part,
    });
    Ok(())
}
