//! The CPU engine: planned buffers, channels-last maps, matrix products over taps.
//!
//! Every image of a batch runs through the network on its own, in its own buffers ([`Lane`]): with one image the work of
//! each operation is spread over the threads, with more each thread takes whole images. Work is always cut in the same
//! pieces, so a result depends neither on the number of threads nor on the batch.

mod activation;
mod binary;
mod conv;
mod depthwise;
mod gather;
mod lane;
mod layout;
mod matrix;
mod pool;
mod reduce;
mod taps;

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use self::lane::{Lane, Step};
use super::outline::{Outline, Outlined};
use super::{Engine, EngineError, Forward, Gate, Plan};
use crate::network::{Network, NodeId, Op, Shape};

/// The CPU engine, in f32.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cpu;

impl Engine for Cpu {
    fn device(&self) -> &Device {
        &Device::Cpu
    }

    fn dtype(&self) -> DType {
        DType::F32
    }

    fn plan(&self, network: &Arc<Network>, targets: &[NodeId], input: &Shape) -> Result<Box<dyn Plan>, EngineError> {
        let outline = Outline::new(network, targets, input)?;
        let step = |node: &Outlined| {
            let op = &network.node(node.id).op;
            let kernel = kernel(op, &outline.input_shapes(node), &node.shape).map_err(EngineError::Mismatch)?;
            let (inputs, depends, elements) = (node.inputs.clone(), node.depends, node.shape.elements());
            Ok(Step { kernel, inputs, depends, elements })
        };
        let steps = outline.nodes.iter().map(step).collect::<Result<Vec<_>, EngineError>>()?;
        Ok(Box::new(CpuPlan { steps, outline, lanes: Vec::new(), batch: 0 }))
    }
}

/// One operation with its weights laid out for this machine. Maps are channels-last, see [`layout`].
trait Kernel: Send + Sync {
    /// Fills `output`; `memory` is the operation's own, kept for the backward pass.
    fn forward(&self, inputs: &[&[f32]], output: &mut [f32], memory: &mut Vec<u8>, pass: Pass);

    /// Adds the gradient with respect to input `i` to `sink`.
    fn backward(&self, i: usize, view: &View<'_>, gate: Gate, sink: &mut [f32]);
}

/// How a forward pass runs.
#[derive(Clone, Copy)]
struct Pass {
    forward: Forward,
    /// Whether to spread the work over threads.
    spread: bool,
}

/// What a backward pass may look at.
struct View<'a> {
    inputs: &'a [&'a [f32]],
    output: &'a [f32],
    memory: &'a [u8],
    gradient: &'a [f32],
    /// Whether to spread the work over threads.
    spread: bool,
}

/// `None` for the input, which has nothing to compute.
fn kernel(op: &Op, inputs: &[&Shape], output: &Shape) -> Result<Option<Box<dyn Kernel>>, String> {
    Ok(Some(match op {
        Op::Input => return Ok(None),
        Op::Constant(array) => Box::new(gather::Constant::new(array, output)),
        Op::Conv(conv) if depthwise::fits(conv) => Box::new(depthwise::Depthwise::new(conv, inputs[0], output)),
        Op::Conv(conv) => Box::new(conv::Conv::new(conv, inputs[0], output)),
        Op::Dense { weight, bias } => Box::new(conv::Dense::new(weight, bias.as_ref())),
        Op::Affine { scale, shift } => Box::new(binary::Affine::new(scale, shift, inputs[0])),
        Op::Activation(activation) => Box::new(activation::Activated::new(activation, inputs[0])),
        Op::Binary(kind) => Box::new(binary::Elementwise::new(*kind, inputs[0], inputs[1], output)),
        Op::Concat { axis } => Box::new(gather::Concat::new(*axis, inputs, output)),
        Op::MaxPool(window) => Box::new(pool::MaxPool::new(window, inputs[0], output)),
        Op::AveragePool { window, count_padding } => {
            Box::new(pool::AveragePool::new(window, *count_padding, inputs[0], output))
        }
        Op::Reduce { kind, axes, .. } => Box::new(reduce::Reduced::new(*kind, axes, inputs[0], output)),
        Op::Pad { before, mode, .. } => Box::new(gather::Gather::pad(before, *mode, inputs[0], output)),
        Op::Reshape(_) => Box::new(gather::Gather::reshape(inputs[0], output)),
        Op::Transpose(order) => Box::new(gather::Gather::transpose(order, inputs[0], output)),
        Op::Slice { axis, start, step, .. } => Box::new(gather::Gather::slice(*axis, *start, *step, inputs[0], output)),
        Op::Resize(resize) => Box::new(gather::Resized::new(resize, inputs[0], output)),
        Op::Softmax { axis } => Box::new(reduce::Softmax::new(*axis, inputs[0])),
    }))
}

struct CpuPlan {
    steps: Vec<Step>,
    outline: Outline,
    /// One per image; kept from call to call.
    lanes: Vec<Lane>,
    /// Number of lanes that took part in the last forward pass.
    batch: usize,
}

/// The values of a tensor in row-major order.
fn values(tensor: &Tensor) -> Result<Vec<f32>, EngineError> {
    Ok(tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?)
}

impl Plan for CpuPlan {
    fn forward(&mut self, images: &Tensor, forward: Forward) -> Result<Vec<Tensor>, EngineError> {
        self.outline.check_images(images)?;
        self.batch = images.dims()[0];
        while self.lanes.len() < self.batch {
            self.lanes.push(Lane::new(&self.steps));
        }
        let images = values(images)?;
        let pass = Pass { forward, spread: self.batch == 1 };
        let input = &self.outline.input;
        let size = input.elements();
        self.lanes[..self.batch].par_iter_mut().enumerate().for_each(|(n, lane)| {
            lane.load(&images[n * size..(n + 1) * size], input);
            lane.forward(&self.steps, pass);
        });
        let output = |(&target, shape): (&usize, &Shape)| {
            let mut data = Vec::with_capacity(self.batch * shape.elements());
            for lane in &self.lanes[..self.batch] {
                lane.store(target, shape, &mut data);
            }
            let mut dims = vec![self.batch];
            dims.extend_from_slice(shape);
            Ok(Tensor::from_vec(data, dims, &Device::Cpu)?)
        };
        self.outline.targets.iter().zip(self.outline.target_shapes()).map(output).collect()
    }

    fn backward(&mut self, seeds: &[Tensor], gate: Gate) -> Result<Tensor, EngineError> {
        self.outline.check_seeds(seeds, self.batch)?;
        let seeds = seeds.iter().map(values).collect::<Result<Vec<_>, _>>()?;
        let spread = self.batch == 1;
        self.lanes[..self.batch].par_iter_mut().enumerate().for_each(|(n, lane)| {
            let targets = self.outline.targets.iter().zip(self.outline.target_shapes());
            for ((&target, shape), seed) in targets.zip(&seeds) {
                let size = shape.elements();
                lane.seed(target, shape, &seed[n * size..(n + 1) * size]);
            }
            lane.backward(&self.steps, gate, spread);
        });
        let input = &self.outline.input;
        let mut data = Vec::with_capacity(self.batch * input.elements());
        for lane in &mut self.lanes[..self.batch] {
            lane.take_gradient(input, &mut data);
        }
        let mut dims = vec![self.batch];
        dims.extend_from_slice(input);
        Ok(Tensor::from_vec(data, dims, &Device::Cpu)?)
    }
}
