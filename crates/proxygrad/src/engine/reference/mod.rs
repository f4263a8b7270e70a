//! The reference engine: tensor operations on any device and in any float type of candle.
//!
//! Forward and backward are written out operation by operation, without automatic differentiation. In f64 on the CPU it
//! is the reference that other engines are tested against.
//!
//! On a GPU, weights, index lists and constants are copied to the device when a plan is created, and a pass never
//! synchronizes with the host; it only queues kernels.

mod activation;
mod binary;
mod conv;
mod local_response;
mod matmul;
mod normalize;
mod pool;
mod precision;
mod quantize;
mod rearrange;
mod reduce;
mod taps;
mod training;
mod unary;

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};

pub use precision::Precision;

use super::subgraph::{Subgraph, SubgraphTarget};
use super::{Engine, EngineError, Forward, Gate, MemoryModel, Plan, Target, TrainingEngine, scale_of};
use crate::network::{Network, NodeId, Op, Shape};

/// The reference engine on one device.
#[derive(Debug, Clone)]
pub struct Reference {
    device: Device,
    dtype: DType,
    precision: Precision,
}

impl Reference {
    /// Runs networks on `device` in `dtype` (`F32`, or `F64` on the CPU).
    pub fn new(device: Device, dtype: DType) -> Self {
        Self { device, dtype, precision: Precision::Full }
    }

    /// Sets the precision of matrix products. Reduced precision requires an engine in f32.
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }
}

/// One operation with its weights on the device.
trait Operation: Send {
    /// Computes the output of inputs with a leading batch axis.
    fn forward(&self, inputs: &[&Tensor], forward: Forward) -> Result<Tensor>;

    /// Computes the gradients of the inputs that are `wanted`.
    fn backward(&self, pass: Backward<'_>) -> Result<Vec<Option<Tensor>>>;
}

/// Arguments of an operation's backward pass.
struct Backward<'a> {
    inputs: &'a [&'a Tensor],
    output: &'a Tensor,
    gradient: &'a Tensor,
    wanted: &'a [bool],
    gate: Gate,
}

impl Engine for Reference {
    fn training(&self) -> Option<&dyn TrainingEngine> {
        Some(self)
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn dtype(&self) -> DType {
        self.dtype
    }

    fn memory_model(&self) -> MemoryModel {
        MemoryModel::tensors(self.dtype.size_in_bytes())
    }

    fn plan(
        &self,
        network: &Arc<Network>,
        targets: &[Target],
        input: &Shape,
    ) -> std::result::Result<Box<dyn Plan>, EngineError> {
        let subgraph = Subgraph::new(network, targets, input)?;
        let mut steps = Vec::with_capacity(subgraph.nodes.len());
        for node in &subgraph.nodes {
            let op = node.op(network);
            let operation = self.operation(op, &subgraph.input_shapes(node), &node.shape)?;
            let constant = match op {
                Op::Constant(array) => Some(self.tensor(array.data(), &batched(array.shape()))?),
                _ => None,
            };
            steps.push(Step { operation, constant, scale: 1.0 });
        }
        let kept_channels = subgraph.targets.iter().map(|target| {
            let index = |kept: &Vec<usize>| {
                let kept: Vec<u32> = kept.iter().map(|&channel| channel as u32).collect();
                Tensor::new(kept, &self.device)
            };
            target.kept.as_ref().map(index).transpose()
        });
        let kept_channels = kept_channels.collect::<Result<Vec<_>>>()?;
        Ok(Box::new(ReferencePlan { steps, subgraph, kept_channels, values: Vec::new() }))
    }
}

impl Reference {
    /// Copies constants to the device.
    fn tensor(&self, data: &[f32], shape: &[usize]) -> Result<Tensor> {
        Tensor::from_slice(data, shape, &Device::Cpu)?.to_dtype(self.dtype)?.to_device(&self.device)
    }

    fn operation(&self, op: &Op, inputs: &[&Shape], output: &Shape) -> Result<Option<Box<dyn Operation>>> {
        Ok(Some(match op {
            Op::Input | Op::Constant(_) => return Ok(None),
            Op::Conv(conv) => Box::new(conv::Conv::new(self, conv, inputs[0], output)?),
            Op::Dense { weight, bias } => Box::new(matmul::Dense::new(self, weight, bias.as_ref())?),
            Op::MatMul => Box::new(matmul::MatMul::new(self.precision, output)),
            Op::Affine { scale, shift } => Box::new(binary::Affine::new(self, scale, shift, inputs[0])?),
            Op::Activation(activation) => Box::new(activation::Activated::new(self, activation, inputs[0])?),
            Op::Unary(function) => Box::new(unary::Function(*function)),
            Op::Select => Box::new(binary::Select { rank: output.len() }),
            Op::Binary(kind) => Box::new(binary::Elementwise { kind: *kind, rank: output.len() }),
            Op::Concat { axis } => Box::new(rearrange::Concat { dim: axis + 1 }),
            Op::MaxPool(window) => Box::new(pool::MaxPool::new(self, window, inputs[0], output)?),
            Op::AveragePool { window, count_padding } => {
                Box::new(pool::AveragePool::new(self, window, *count_padding, inputs[0], output)?)
            }
            Op::Reduce { kind, axes, keep } => Box::new(reduce::Reduced::new(*kind, axes, *keep, output)),
            Op::Pad { before, after, mode } => Box::new(rearrange::Pad::new(self, before, after, *mode, inputs[0])?),
            Op::Reshape(_) => Box::new(rearrange::Reshape { target: output.to_vec() }),
            Op::Transpose(order) => Box::new(rearrange::Transpose::new(order)),
            Op::Slice { axis, start, end, step } => {
                let indices = (*start..(*end).min(inputs[0][*axis])).step_by(*step).collect();
                Box::new(rearrange::Select::new(self, axis + 1, indices, inputs[0][*axis])?)
            }
            Op::Gather { axis, indices } => {
                let indices = indices.iter().map(|&index| index as usize).collect();
                Box::new(rearrange::Select::new(self, axis + 1, indices, inputs[0][*axis])?)
            }
            Op::Resize(resize) => Box::new(rearrange::Resized::new(self, resize, inputs[0], output)?),
            Op::Normalize(normalize) => Box::new(normalize::Normalized::new(self, normalize, inputs[0])?),
            Op::LocalResponse(norm) => Box::new(local_response::LocalResponseNorm(*norm)),
            Op::Softmax { axis } => Box::new(reduce::Softmax { dim: axis + 1 }),
            Op::LogSoftmax { axis } => Box::new(reduce::LogSoftmax { dim: axis + 1 }),
            Op::DynamicQuantize => Box::new(quantize::DynamicQuantize),
        }))
    }
}

/// A per-sample shape with a leading batch axis of 1.
fn batched(shape: &[usize]) -> Vec<usize> {
    std::iter::once(1).chain(shape.iter().copied()).collect()
}

/// Shape `[1, C, 1, ...]` that broadcasts one value per channel over a tensor of `rank` axes, including the batch.
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
    constant: Option<Tensor>,
    /// Factor of the temperature of a soft gate.
    scale: f32,
}

struct ReferencePlan {
    /// One per node of the subgraph.
    steps: Vec<Step>,
    subgraph: Subgraph,
    /// The channels that each target's node computes; `None` for all.
    kept_channels: Vec<Option<Tensor>>,
    /// Outputs of all steps in the last forward pass.
    values: Vec<Tensor>,
}

impl Plan for ReferencePlan {
    fn forward(&mut self, images: &Tensor, forward: Forward) -> std::result::Result<Vec<Tensor>, EngineError> {
        self.subgraph.check_images(images)?;
        let mut values: Vec<Tensor> = Vec::with_capacity(self.steps.len());
        for (step, node) in self.steps.iter().zip(&self.subgraph.nodes) {
            let inputs: Vec<&Tensor> = node.inputs.iter().map(|&i| &values[i]).collect();
            values.push(match (&step.operation, &step.constant) {
                (Some(operation), _) => operation.forward(&inputs, forward)?,
                (None, Some(constant)) => constant.clone(),
                (None, None) => images.contiguous()?,
            });
        }
        self.values = values;
        let output = |(target, kept): (&SubgraphTarget, &Option<Tensor>)| {
            let values = &self.values[target.node];
            let Some(kept) = kept else { return Ok(values.clone()) };
            let whole = [&[values.dims()[0]], &target.shape[..]].concat();
            Ok(Tensor::zeros(whole, values.dtype(), values.device())?.index_add(kept, &values.contiguous()?, 1)?)
        };
        self.subgraph.targets.iter().zip(&self.kept_channels).map(output).collect()
    }

    fn backward(&mut self, seeds: &[Tensor], gate: Gate) -> std::result::Result<Tensor, EngineError> {
        let batch = self.values.first().map_or(0, |images| images.dims()[0]);
        self.subgraph.check_seeds(seeds, batch)?;
        let mut gradients: Vec<Option<Tensor>> = vec![None; self.steps.len()];
        for ((target, kept), seed) in self.subgraph.targets.iter().zip(&self.kept_channels).zip(seeds) {
            let seed = match kept {
                Some(kept) => seed.contiguous()?.index_select(kept, 1)?,
                None => seed.clone(),
            };
            accumulate(&mut gradients[target.node], seed)?;
        }
        let nodes = &self.subgraph.nodes;
        for (i, (step, node)) in self.steps.iter().zip(nodes).enumerate().rev() {
            let Some(operation) = &step.operation else { continue };
            let Some(gradient) = gradients[i].take().filter(|_| node.needs_gradient) else { continue };
            let inputs: Vec<&Tensor> = node.inputs.iter().map(|&i| &self.values[i]).collect();
            let wanted: Vec<bool> = node.inputs.iter().map(|&i| nodes[i].needs_gradient).collect();
            let (output, gate) = (&self.values[i], gate.at_scale(step.scale));
            let pass = Backward { inputs: &inputs, output, gradient: &gradient, wanted: &wanted, gate };
            for (&input, part) in node.inputs.iter().zip(operation.backward(pass)?) {
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

    fn set_scales(&mut self, scales: &BTreeMap<NodeId, f32>) {
        for (step, node) in self.steps.iter_mut().zip(&self.subgraph.nodes) {
            step.scale = scale_of(scales, node.id);
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
