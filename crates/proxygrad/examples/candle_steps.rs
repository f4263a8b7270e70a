//! Runs training steps of candle's own operations and automatic differentiation on request, for comparison with the
//! program's (`benches/compare_training.py`).
//!
//! `cargo run --release --example candle_steps -- --network resnet8 --batch 64`
//!
//! Answers like the example `train_steps`. The network is the program's, computed by candle's convolutions and pools, with
//! batch normalization from its elementary operations. Steps are those of plain gradient descent.

use std::io::Write;
use std::time::Instant;

use anyhow::{Context, bail};
use candle_core::{DType, Device, Tensor, Var};
use clap::Parser;
use proxygrad::network::trainable::{
    Family, Initialization, TensorId, TrainableArchitecture, TrainableNetwork, TrainableNode, TrainableOp,
};
use proxygrad::network::{Activation, Binary, Op, Window};

/// Runs training steps of candle on request.
#[derive(Parser)]
struct Arguments {
    /// The architecture, as for `proxygrad train`.
    #[arg(long)]
    network: String,
    /// Stride of the first convolution.
    #[arg(long, default_value_t = 1)]
    stem_stride: usize,
    /// Batch size.
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// Derivative of rectifiers in the backward pass: only plain.
    #[arg(long, default_value = "plain", value_parser = ["plain"])]
    surrogate: String,
    /// Threads; all cores if 0.
    #[arg(long, default_value_t = 0)]
    threads: usize,
}

/// Height and width of the images, which have one channel.
const SIZE: usize = 28;
const CLASSES: usize = 10;
const RATE: f64 = 0.01;

struct Candle {
    network: TrainableNetwork,
    tensors: Vec<Var>,
}

impl Candle {
    fn tensor(&self, id: TensorId) -> &Tensor {
        self.tensors[id].as_tensor()
    }

    /// A tensor per channel, for maps `[N,C,H,W]`.
    fn per_channel(&self, id: TensorId) -> anyhow::Result<Tensor> {
        Ok(self.tensor(id).reshape((1, (), 1, 1))?)
    }

    fn logits(&self, images: &Tensor) -> anyhow::Result<Tensor> {
        let mut values: Vec<Tensor> = Vec::new();
        for node in self.network.nodes() {
            let inputs: Vec<&Tensor> = node.inputs.iter().map(|&input| &values[input]).collect();
            let value = if inputs.is_empty() { images.clone() } else { self.compute(node, &inputs)? };
            values.push(value);
        }
        values.pop().context("a network without nodes")
    }

    fn compute(&self, node: &TrainableNode, inputs: &[&Tensor]) -> anyhow::Result<Tensor> {
        let x = inputs[0];
        Ok(match &node.op {
            TrainableOp::Conv { weight, bias, window, groups } => {
                let [padding, stride] = square(window)?;
                let sums = x.conv2d(self.tensor(*weight), padding, stride, 1, *groups)?;
                match bias {
                    Some(bias) => sums.broadcast_add(&self.per_channel(*bias)?)?,
                    None => sums,
                }
            }
            TrainableOp::Dense { weight, bias } => {
                let sums = x.matmul(&self.tensor(*weight).t()?)?;
                match bias {
                    Some(bias) => sums.broadcast_add(self.tensor(*bias))?,
                    None => sums,
                }
            }
            TrainableOp::BatchNorm(norm) => {
                let mean = |x: &Tensor| x.mean_keepdim(0)?.mean_keepdim(2)?.mean_keepdim(3);
                let centered = x.broadcast_sub(&mean(x)?)?;
                let deviation = (mean(&centered.sqr()?)? + f64::from(norm.epsilon))?.sqrt()?;
                let scaled = centered.broadcast_div(&deviation)?.broadcast_mul(&self.per_channel(norm.scale)?)?;
                scaled.broadcast_add(&self.per_channel(norm.shift)?)?
            }
            TrainableOp::Fixed(Op::Activation(Activation::Relu)) => x.relu()?,
            TrainableOp::Fixed(Op::Binary(Binary::Add)) => (x + inputs[1])?,
            TrainableOp::Fixed(Op::MaxPool(window)) => x.max_pool2d_with_stride(window.kernel[0], window.stride[0])?,
            TrainableOp::Fixed(Op::Reduce { .. }) => x.mean(3)?.mean(2)?,
            TrainableOp::Fixed(Op::Reshape(_)) => x.flatten_from(1)?,
            other => bail!("{}: candle's step has no {other:?}", node.name),
        })
    }

    fn step(&self, images: &Tensor, labels: &Tensor) -> anyhow::Result<()> {
        let logits = self.logits(images)?;
        let shifted = logits.broadcast_sub(&logits.max_keepdim(1)?)?;
        let log_sums = shifted.exp()?.sum_keepdim(1)?.log()?;
        let loss = (log_sums - shifted.gather(labels, 1)?)?.mean_all()?;
        if !loss.to_scalar::<f32>()?.is_finite() {
            bail!("the loss is not finite");
        }
        let gradients = loss.backward()?;
        for (spec, var) in self.network.tensors().iter().zip(&self.tensors) {
            if let Some(gradient) = gradients.get(var).filter(|_| spec.is_trained()) {
                var.set(&(var.as_tensor() - (gradient * RATE)?)?)?;
            }
        }
        Ok(())
    }
}

/// Padding and stride of a window that has the same ones on all sides.
fn square(window: &Window) -> anyhow::Result<[usize; 2]> {
    let (padding, stride) = (window.padding.top, window.stride[0]);
    let sides = [window.padding.left, window.padding.bottom, window.padding.right];
    if sides.iter().any(|&side| side != padding) || window.stride != [stride; 2] || window.dilation != [1, 1] {
        bail!("candle has no such window: {window:?}");
    }
    Ok([padding, stride])
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if arguments.threads > 0 {
        rayon::ThreadPoolBuilder::new().num_threads(arguments.threads).build_global()?;
    }
    let architecture: TrainableArchitecture = arguments.network.parse()?;
    let stem_stride = match architecture.family {
        Family::ResNet(_) => Some(arguments.stem_stride),
        _ => None,
    };
    let network = TrainableArchitecture { stem_stride, ..architecture }.build([1, SIZE, SIZE], CLASSES)?;
    let parameters = network.initialize(Initialization::He, 0);
    let tensors = network.tensors().iter().enumerate().map(|(id, spec)| {
        Ok(Var::from_tensor(&Tensor::from_slice(parameters.get(id), &spec.shape[..], &Device::Cpu)?)?)
    });
    let tensors = tensors.collect::<anyhow::Result<_>>()?;
    let candle = Candle { network, tensors };
    let images = Tensor::randn(0f32, 1.0, (arguments.batch, 1, SIZE, SIZE), &Device::Cpu)?;
    let labels =
        (Tensor::rand(0f32, CLASSES as f32, (arguments.batch, 1), &Device::Cpu)? * 0.999)?.to_dtype(DType::U32)?;
    candle.step(&images, &labels)?;
    println!("ready");
    for line in std::io::stdin().lines() {
        let count: usize = line?.trim().parse()?;
        let started = Instant::now();
        for _ in 0..count {
            candle.step(&images, &labels)?;
        }
        println!("{:.6}", started.elapsed().as_secs_f64());
        std::io::stdout().flush()?;
    }
    Ok(())
}
