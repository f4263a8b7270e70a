//! What a step costs outside the engine: the loop on an engine whose passes take no time.
//!
//! `cargo run --release --example loop_share`
//!
//! Prints milliseconds per step and image for networks that read 224x224 RGB images (as ResNets do) and BGR levels (as
//! SqueezeNet does), with transforms off and on, and the cost of a run that does not grow with its steps.
#![allow(missing_docs)]

use std::sync::Arc;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use proxygrad::engine::{Engine, EngineError, Forward, Gate, Plan};
use proxygrad::maximize::{Limits, Request, Unobserved, maximize};
use proxygrad::network::{Array, ChannelOrder, Model, Network, NodeId, Op, Preprocessing, Reduce, Shape};

/// Classes of the network's last layer.
const CLASSES: usize = 1000;

/// An engine that answers every call with the same values.
struct Still;

/// Outputs and gradient of one image, and of as many as the last batch had.
struct StillPlan {
    sample: Vec<Tensor>,
    batch: Vec<Tensor>,
}

impl Engine for Still {
    fn device(&self) -> &Device {
        &Device::Cpu
    }

    fn dtype(&self) -> DType {
        DType::F32
    }

    fn plan(&self, network: &Arc<Network>, targets: &[NodeId], input: &Shape) -> Result<Box<dyn Plan>, EngineError> {
        let shapes = targets.iter().map(|&target| &network.node(target).shape).chain([input]);
        let noise = shapes.map(|shape| Tensor::randn(0f32, 1.0, &shape[..], &Device::Cpu)?.unsqueeze(0));
        let sample = noise.collect::<candle_core::Result<Vec<_>>>()?;
        Ok(Box::new(StillPlan { batch: sample.clone(), sample }))
    }
}

impl Plan for StillPlan {
    fn forward(&mut self, images: &Tensor, _: Forward) -> Result<Vec<Tensor>, EngineError> {
        let size = images.dims()[0];
        if self.batch[0].dims()[0] != size {
            let repeated = self.sample.iter().map(|sample| Tensor::cat(&vec![sample; size], 0));
            self.batch = repeated.collect::<candle_core::Result<Vec<_>>>()?;
        }
        Ok(self.batch[..self.batch.len() - 1].to_vec())
    }

    fn backward(&mut self, _: &[Tensor], _: Gate) -> Result<Tensor, EngineError> {
        Ok(self.batch[self.batch.len() - 1].clone())
    }
}

/// A network that reads 224x224 pixels in three channels and has 1000 logits.
fn model(preprocessing: Preprocessing) -> Result<Model, String> {
    let mut network = Network::new(3, 224, 224);
    let mean = Op::Reduce { kind: Reduce::Mean, axes: vec![1, 2], keep: false };
    let pool = network.push("pool", mean, &[Network::INPUT])?;
    let weight = Array::new([CLASSES, 3], vec![0.0; 3 * CLASSES])?;
    network.push("logits", Op::Dense { weight, bias: None }, &[pool])?;
    Ok(Model {
        id: "still".into(),
        digest: String::new(),
        network: Arc::new(network),
        preprocessing,
        classes: Vec::new(),
    })
}

/// Seconds of a whole run.
fn seconds(model: &Model, transforms: &[&str], batch: usize, steps: u32) -> anyhow::Result<f64> {
    let mut request = Request::new("still", "logits:0".parse()?);
    let objectives = (0..batch).map(|class| format!("logits:{class}").parse()).collect::<Result<_, _>>()?;
    (request.objective, request.objectives) = (None, Some(objectives));
    request.transforms = Some(transforms.iter().map(|text| text.parse()).collect::<Result<_, _>>()?);
    request.steps = Some(steps);
    let resolved = request.resolve(model, &Limits::default())?;
    let started = Instant::now();
    maximize(&Still, model, &resolved.tasks(), &resolved.settings, &mut Unobserved)?;
    Ok(started.elapsed().as_secs_f64())
}

fn main() -> anyhow::Result<()> {
    let resnet = Preprocessing {
        channels: ChannelOrder::Rgb,
        range: 1.0,
        mean: vec![0.485, 0.456, 0.406],
        std: vec![0.229, 0.224, 0.225],
    };
    let squeezenet = Preprocessing {
        channels: ChannelOrder::Bgr,
        range: 255.0,
        mean: vec![104.006, 116.669, 122.679],
        std: vec![1.0; 3],
    };
    println!("| input | images | transforms | ms per step and image | ms per run and image |");
    println!("|---|---|---|---|---|");
    for (name, preprocessing) in [("RGB", resnet), ("BGR", squeezenet)] {
        let model = model(preprocessing).map_err(anyhow::Error::msg)?;
        for batch in [1, 4, 16] {
            for (label, transforms) in
                [("off", &[][..]), ("on", &["jitter:16", "scale:0.9,1.1", "rotate:10", "blur:0.5"])]
            {
                let (few, many) = (8, 40);
                let best = |steps| {
                    let runs = (0..5).map(|_| seconds(&model, transforms, batch, steps));
                    runs.collect::<anyhow::Result<Vec<_>>>().map(|runs| runs.into_iter().fold(f64::INFINITY, f64::min))
                };
                let (short, long) = (best(few)?, best(many)?);
                let step = (long - short) / f64::from(many - few);
                let fixed = short - step * f64::from(few);
                let share = 1e3 / batch as f64;
                println!("| {name} | {batch} | {label} | {:.3} | {:.1} |", step * share, fixed * share);
            }
        }
    }
    Ok(())
}
