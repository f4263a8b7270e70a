//! Training on the reference engine: weight gradients, batch normalization and surrogates, as tensor operations on any
//! device and in any float type.

use candle_core::{DType, Device, Result, Tensor};

use super::taps::{Gather, Taps};
use super::{Backward, Operation, Reference, accumulate};
use crate::engine::training::{
    BSILU_OFFSET, Gradients, Mode, Surrogate, TrainingEngine, TrainingPlan, batch_size, rectifier_leak,
};
use crate::engine::{EngineError, Forward, Gate};
use crate::network::trainable::{BatchNorm, Parameters, TensorId, TrainableNetwork, TrainableOp};
use crate::network::{Array, Op, SELU_ALPHA, SELU_LAMBDA, Shape};

impl TrainingEngine for Reference {
    fn training_plan(&self, network: &TrainableNetwork) -> std::result::Result<Box<dyn TrainingPlan>, EngineError> {
        let columns = network.nodes().iter().map(|node| match &node.op {
            TrainableOp::Conv { window, .. } => {
                let input = &network.nodes()[node.inputs[0]].shape;
                Taps::new(window, [input[1], input[2]], [node.shape[1], node.shape[2]]).columns(self).map(Some)
            }
            _ => Ok(None),
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        Ok(Box::new(ReferenceTraining {
            engine: self.clone(),
            network: network.clone(),
            columns,
            operations: Vec::new(),
            values: Vec::new(),
            norms: Vec::new(),
            trained: false,
        }))
    }
}

struct ReferenceTraining {
    engine: Reference,
    network: TrainableNetwork,
    /// im2col of each convolution.
    columns: Vec<Option<Gather>>,
    /// Operations of the last forward pass, with its weights.
    operations: Vec<Option<Box<dyn Operation>>>,
    /// Outputs of all nodes in the last forward pass.
    values: Vec<Tensor>,
    /// What the batch normalizations of the last forward pass computed.
    norms: Vec<Option<Normalized>>,
    /// Whether the last forward pass was one of training.
    trained: bool,
}

/// A batch normalization of a batch.
struct Normalized {
    /// `(x - mean) / sqrt(variance + epsilon)`, `[N,C,P]`.
    normal: Tensor,
    /// `scale / sqrt(variance + epsilon)`, `[1,C,1]`.
    factor: Tensor,
}

impl ReferenceTraining {
    fn tensor(&self, values: &[f32], shape: &[usize]) -> Result<Tensor> {
        self.engine.tensor(values, shape)
    }

    /// Images, or gradients of logits, in the engine's type.
    fn batch(&self, values: &[f32], shape: &Shape) -> Result<Tensor> {
        let size = shape.elements().max(1);
        self.tensor(values, &[&[values.len() / size], &shape[..]].concat())
    }

    fn norm_forward(
        &self,
        norm: &BatchNorm,
        x: &Tensor,
        parameters: &mut Parameters,
        mode: Mode,
    ) -> Result<(Tensor, Option<Normalized>)> {
        let (n, channels) = (x.dim(0)?, x.dim(1)?);
        let flat = x.contiguous()?.reshape((n, channels, ()))?;
        let per_channel = |engine: &Self, id: TensorId| engine.tensor(parameters.get(id), &[1, channels, 1]);
        let (scale, shift) = (per_channel(self, norm.scale)?, per_channel(self, norm.shift)?);
        let (mean, variance) = match mode {
            Mode::Inference => (per_channel(self, norm.mean)?, per_channel(self, norm.variance)?),
            Mode::Training { .. } => {
                let count = (n * flat.dim(2)?) as f64;
                let mean = (flat.sum_keepdim((0, 2))? / count)?;
                let variance = (flat.broadcast_sub(&mean)?.sqr()?.sum_keepdim((0, 2))? / count)?;
                if mode == (Mode::Training { update: true }) {
                    let unbiased = (&variance * (count / (count - 1.0).max(1.0)))?;
                    for (id, batch) in [(norm.mean, &mean), (norm.variance, &unbiased)] {
                        let batch = to_f32(batch)?;
                        for (running, batch) in parameters.get_mut(id).iter_mut().zip(batch) {
                            *running += norm.momentum * (batch - *running);
                        }
                    }
                }
                (mean, variance)
            }
        };
        let inverse = (variance + f64::from(norm.epsilon))?.sqrt()?.recip()?;
        let normal = flat.broadcast_sub(&mean)?.broadcast_mul(&inverse)?;
        let y = normal.broadcast_mul(&scale)?.broadcast_add(&shift)?.reshape(x.dims())?;
        let factor = (scale * inverse)?;
        Ok((y, matches!(mode, Mode::Training { .. }).then_some(Normalized { normal, factor })))
    }

    /// Gradients of the tensors of a node.
    fn weight_gradients(&self, index: usize, gradient: &Tensor) -> Result<Vec<(TensorId, Tensor)>> {
        let node = &self.network.nodes()[index];
        let input = || &self.values[node.inputs[0]];
        let rest: Vec<usize> = (0..gradient.rank()).filter(|&axis| axis != 1).collect();
        let per_channel = |product: Tensor| product.sum_keepdim(rest.clone())?.flatten_all();
        Ok(match &node.op {
            TrainableOp::Conv { weight, bias, groups, .. } => {
                let Some(columns) = &self.columns[index] else { return Ok(Vec::new()) };
                let n = gradient.dim(0)?;
                let columns = columns.apply(input())?;
                let outputs = gradient.dim(1)? / groups;
                let gradient_rows = gradient.contiguous()?.reshape((n, *groups, outputs, ()))?;
                let positions = gradient_rows.dim(3)?;
                let columns = columns.reshape((n, *groups, (), positions))?.transpose(2, 3)?.contiguous()?;
                let product = gradient_rows.matmul(&columns)?.sum(0)?.flatten_all()?;
                let bias = bias.map(|bias| Ok::<_, candle_core::Error>((bias, per_channel(gradient.clone())?)));
                std::iter::once(Ok((*weight, product))).chain(bias).collect::<Result<_>>()?
            }
            TrainableOp::Dense { weight, bias } => {
                let product = gradient.t()?.contiguous()?.matmul(&input().contiguous()?)?.flatten_all()?;
                let bias = bias.map(|bias| Ok::<_, candle_core::Error>((bias, per_channel(gradient.clone())?)));
                std::iter::once(Ok((*weight, product))).chain(bias).collect::<Result<_>>()?
            }
            TrainableOp::Affine { scale, shift } => {
                vec![(*scale, per_channel((gradient * input())?)?), (*shift, per_channel(gradient.clone())?)]
            }
            TrainableOp::BatchNorm(norm) => {
                let Some(done) = &self.norms[index] else { return Ok(Vec::new()) };
                let flat = gradient.contiguous()?.reshape(done.normal.dims())?;
                let sums = |product: Tensor| product.sum_keepdim((0, 2))?.flatten_all();
                vec![(norm.scale, sums((&flat * &done.normal)?)?), (norm.shift, sums(flat)?)]
            }
            TrainableOp::Fixed(_) => Vec::new(),
        })
    }

    /// Gradients of the inputs of a node.
    fn input_gradients(&self, index: usize, gradient: &Tensor, surrogate: Surrogate) -> Result<Vec<Option<Tensor>>> {
        let node = &self.network.nodes()[index];
        if let (TrainableOp::BatchNorm(_), Some(done)) = (&node.op, &self.norms[index]) {
            // Ioffe & Szegedy, section 3: the mean and the variance depend on every value.
            let flat = gradient.contiguous()?.reshape(done.normal.dims())?;
            let count = (flat.dim(0)? * flat.dim(2)?) as f64;
            let mean = (flat.sum_keepdim((0, 2))? / count)?;
            let along = ((&flat * &done.normal)?.sum_keepdim((0, 2))? / count)?;
            let rest = flat.broadcast_sub(&mean)?.broadcast_sub(&done.normal.broadcast_mul(&along)?)?;
            return Ok(vec![Some(rest.broadcast_mul(&done.factor)?.reshape(gradient.dims())?)]);
        }
        let inputs: Vec<&Tensor> = node.inputs.iter().map(|&input| &self.values[input]).collect();
        let gate = match (&node.op, surrogate.gate()) {
            (TrainableOp::Fixed(Op::Activation(activation)), None) if rectifier_leak(activation).is_some() => {
                return Ok(vec![Some((gradient * smooth_derivative(surrogate, inputs[0])?)?)]);
            }
            (_, gate) => gate.unwrap_or(Gate::Plain),
        };
        let Some(operation) = &self.operations[index] else { return Ok(vec![None; inputs.len()]) };
        let wanted = vec![true; inputs.len()];
        operation.backward(Backward { inputs: &inputs, output: &self.values[index], gradient, wanted: &wanted, gate })
    }
}

/// The derivative of the function that replaces activations.
fn smooth_derivative(surrogate: Surrogate, z: &Tensor) -> Result<Tensor> {
    let sigmoid = || z.neg()?.exp()?.affine(1.0, 1.0)?.recip();
    // s + (z + offset) s (1 - s)
    let swish = |offset: f64| {
        let s = sigmoid()?;
        let slope = (&s * s.affine(-1.0, 1.0)?)?;
        &s + (z.affine(1.0, offset)? * slope)?
    };
    let elu = |alpha: f64, factor: f64| {
        let above = z.gt(0.0)?.to_dtype(z.dtype())?;
        let below = z.minimum(&z.zeros_like()?)?.exp()?.affine(alpha, 0.0)?;
        (&above + (above.affine(-1.0, 1.0)? * below)?)? * factor
    };
    match surrogate {
        Surrogate::BSilu => swish(BSILU_OFFSET),
        Surrogate::Silu => swish(0.0),
        Surrogate::Elu => elu(1.0, 1.0),
        Surrogate::Selu => elu(SELU_ALPHA, SELU_LAMBDA),
        Surrogate::Plain | Surrogate::Decoupled { .. } | Surrogate::TrueProxy { .. } => z.ones_like(),
    }
}

fn to_f32(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}

impl TrainingPlan for ReferenceTraining {
    fn forward(
        &mut self,
        images: &[f32],
        parameters: &mut Parameters,
        mode: Mode,
        forward: Forward,
    ) -> std::result::Result<Vec<f64>, EngineError> {
        let batch = batch_size(&self.network, images)?;
        let (mut values, mut operations, mut norms): (Vec<Tensor>, Vec<_>, Vec<_>) = Default::default();
        for node in self.network.nodes() {
            let inputs: Vec<&Tensor> = node.inputs.iter().map(|&input| &values[input]).collect();
            let shapes: Vec<&Shape> = node.inputs.iter().map(|&input| &self.network.nodes()[input].shape).collect();
            let (value, operation, norm) = match &node.op {
                TrainableOp::Fixed(Op::Input) => (self.batch(images, &node.shape)?, None, None),
                TrainableOp::Fixed(Op::Constant(array)) => {
                    let one = self.tensor(array.data(), &[&[1], array.shape()].concat())?;
                    (one.broadcast_as([&[batch], array.shape()].concat())?.contiguous()?, None, None)
                }
                TrainableOp::BatchNorm(norm) => {
                    let (value, done) = self.norm_forward(norm, inputs[0], parameters, mode)?;
                    (value, None, done)
                }
                op => {
                    let array = |id: TensorId| -> std::result::Result<Array, EngineError> {
                        parameters.array(&self.network, id).map_err(|why| EngineError::Mismatch(why.to_string()))
                    };
                    let op = op.with_values(array)?;
                    let operation = self.engine.operation(&op, &shapes, &node.shape)?;
                    let Some(operation) = operation else { continue };
                    (operation.forward(&inputs, forward)?, Some(operation), None)
                }
            };
            values.push(value);
            operations.push(operation);
            norms.push(norm);
        }
        (self.values, self.operations, self.norms) = (values, operations, norms);
        self.trained = matches!(mode, Mode::Training { .. });
        let logits = self.values.last().map(|logits| logits.to_device(&Device::Cpu)?.to_dtype(DType::F64));
        Ok(logits.transpose()?.map(|logits| logits.flatten_all()?.to_vec1()).transpose()?.unwrap_or_default())
    }

    fn backward(&mut self, seeds: &[f32], surrogate: Surrogate) -> std::result::Result<Gradients, EngineError> {
        let nodes = self.network.nodes();
        let (last, batch) = (nodes.len() - 1, self.values.first().map_or(0, |images| images.dims()[0]));
        if !self.trained || seeds.len() != batch * nodes[last].shape.elements() {
            let why = format!("a backward pass needs a forward pass of training and {} seeds", self.network.classes());
            return Err(EngineError::Mismatch(why));
        }
        let mut sums: Vec<Option<Tensor>> = vec![None; nodes.len()];
        sums[last] = Some(self.batch(seeds, &nodes[last].shape)?);
        let mut gradients: Gradients = vec![Vec::new(); self.network.tensors().len()];
        for index in (1..nodes.len()).rev() {
            let Some(gradient) = sums[index].take() else { continue };
            for (id, weight) in self.weight_gradients(index, &gradient)? {
                gradients[id] = to_f32(&weight)?;
            }
            let parts = self.input_gradients(index, &gradient, surrogate)?;
            for (&input, part) in nodes[index].inputs.iter().zip(parts) {
                if let Some(part) = part {
                    accumulate(&mut sums[input], part)?;
                }
            }
        }
        Ok(gradients)
    }

    fn value(&self, node: usize) -> std::result::Result<Vec<f32>, EngineError> {
        match self.values.get(node) {
            Some(value) => Ok(to_f32(value)?),
            None => Err(EngineError::Mismatch("there was no forward pass".into())),
        }
    }
}
