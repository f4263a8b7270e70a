//! Cost of a step outside the engine: the loop on an engine whose passes take no time.
//!
//! `cargo run --release --example loop_share`
//!
//! Prints milliseconds per step and image for 224x224 RGB input (as in ResNets) and BGR input (as in SqueezeNet),
//! without and with transforms, and the fixed cost per run. The processor time (of all cores, Linux only) is more
//! reliable than wall-clock time on a busy machine.
#![allow(missing_docs)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use proxygrad::engine::{Engine, EngineError, Forward, Gate, MemoryModel, Plan, Target};
use proxygrad::maximize::{Limits, NoCallback, Request, maximize};
use proxygrad::network::{
    Array, ChannelOrder, ImageStatistics, Model, Network, NodeId, Op, Preprocessing, Reduce, Shape,
};

/// Number of classes.
const CLASSES: usize = 1000;

/// An engine that returns the same values for every call.
struct ConstantEngine;

/// Outputs and gradient of one image, and repeated for the size of the last batch.
struct ConstantPlan {
    sample: Vec<Tensor>,
    batch: Vec<Tensor>,
}

impl Engine for ConstantEngine {
    fn device(&self) -> &Device {
        &Device::Cpu
    }

    fn dtype(&self) -> DType {
        DType::F32
    }

    fn memory_model(&self) -> MemoryModel {
        MemoryModel::tensors(size_of::<f32>())
    }

    fn plan(&self, network: &Arc<Network>, targets: &[Target], input: &Shape) -> Result<Box<dyn Plan>, EngineError> {
        let shapes = targets.iter().map(|target| &network.node(target.layer).shape).chain([input]);
        let noise = shapes.map(|shape| Tensor::randn(0f32, 1.0, &shape[..], &Device::Cpu)?.unsqueeze(0));
        let sample = noise.collect::<candle_core::Result<Vec<_>>>()?;
        Ok(Box::new(ConstantPlan { batch: sample.clone(), sample }))
    }
}

impl Plan for ConstantPlan {
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

    fn set_scales(&mut self, _: &BTreeMap<NodeId, f32>) {}
}

/// A network with input `[3,224,224]` and 1000 logits.
fn model(preprocessing: Preprocessing) -> anyhow::Result<Model> {
    let mut network = Network::new(3, 224, 224);
    let mean = Op::Reduce { kind: Reduce::Mean, axes: vec![1, 2], keep: false };
    let pool = network.push("pool", mean, &[Network::INPUT])?;
    let weight = Array::new([CLASSES, 3], vec![0.0; 3 * CLASSES])?;
    network.push("logits", Op::Dense { weight, bias: None }, &[pool])?;
    Ok(Model {
        id: "constant".into(),
        digest: String::new(),
        network: Arc::new(network),
        preprocessing,
        classes: Vec::new(),
        calibration: None,
        statistics: ImageStatistics::default(),
    })
}

/// Time of a run in seconds.
#[derive(Clone, Copy)]
struct Cost {
    wall: f64,
    processor: f64,
}

/// Processor time of this process in seconds; NaN if unknown.
fn processor_seconds() -> f64 {
    // User and system time in ticks of 10 ms, the 12th and 13th field after the name in parentheses.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |i: usize| fields.get(i).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(f64::NAN);
    (ticks(11) + ticks(12)) / 100.0
}

/// Cost of a whole run: the shortest wall-clock time and the mean processor time of several runs.
fn cost(model: &Model, transforms: &[&str], batch: usize, steps: u32) -> anyhow::Result<Cost> {
    const RUNS: u32 = 6;
    let mut request = Request::new("constant", "logits:0".parse()?);
    let objectives = (0..batch).map(|class| format!("logits:{class}").parse()).collect::<Result<_, _>>()?;
    (request.objective, request.objectives) = (None, Some(objectives));
    request.transforms = Some(transforms.iter().map(|text| text.parse()).collect::<Result<_, _>>()?);
    request.steps = Some(steps);
    let resolved = request.resolve(model, &Limits::default())?;
    let (mut wall, start) = (f64::INFINITY, processor_seconds());
    for _ in 0..RUNS {
        let started = Instant::now();
        maximize(&ConstantEngine, model, &resolved.tasks(), &resolved.settings, &mut NoCallback)?;
        wall = wall.min(started.elapsed().as_secs_f64());
    }
    Ok(Cost { wall, processor: (processor_seconds() - start) / f64::from(RUNS) })
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
    println!("| input | images | transforms | ms per step and image | processor ms | ms per run and image |");
    println!("|---|---|---|---|---|---|");
    let transforms = ["jitter:16", "scale:0.9,1.1", "rotate:10", "blur:0.5"];
    for (name, preprocessing) in [("RGB", resnet), ("BGR", squeezenet)] {
        let model = model(preprocessing)?;
        for batch in [1, 4, 16] {
            for (label, transforms) in [("off", &[][..]), ("on", &transforms)] {
                let (few, many) = (8, 40);
                let (short, long) = (cost(&model, transforms, batch, few)?, cost(&model, transforms, batch, many)?);
                let per_step = |short: f64, long: f64| (long - short) / f64::from(many - few);
                let step = per_step(short.wall, long.wall);
                let work = per_step(short.processor, long.processor);
                let fixed = short.wall - step * f64::from(few);
                let [step, work, fixed] = [step, work, fixed].map(|seconds| 1e3 * seconds / batch as f64);
                println!("| {name} | {batch} | {label} | {step:.2} | {work:.2} | {fixed:.1} |");
            }
        }
    }
    Ok(())
}
