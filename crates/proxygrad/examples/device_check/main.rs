//! Compares a device with f64 on the CPU, for every network of the catalog and every gate, and times it.
//!
//! `cargo run --release --example device_check -- --device cuda:0+tf32`; `tools/cuda/check.sh` runs it on a machine
//! with a GPU. Needs no files and no network access. The device `reference` is the tensor engine that GPUs use, on the
//! CPU; `reference+tf32` and `reference+bf16` emulate the precision of a GPU there.

mod networks;

use std::sync::Arc;
use std::time::Instant;

use candle_core::{DType, Device, Result as TensorResult, Tensor};
use clap::Parser;
use proxygrad::engine::{self, CpuSettings, Engine, Forward, Gate, Plan, Precision, Reference, Target};
use proxygrad::network::Network;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Check and time a device.
#[derive(Parser)]
struct Arguments {
    /// Device to check: cpu, cuda:0, cuda:0+tf32, cuda:0+bf16, metal, reference, …
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Networks to check, by name or ONNX file; an empty string for none.
    #[arg(long, value_delimiter = ',', default_values_t = networks::NAMES.map(String::from))]
    networks: Vec<String>,
    /// Batch size of the check.
    #[arg(long, default_value_t = 2)]
    images: usize,
    /// Batch sizes for timing ResNet-18; an empty string for none.
    #[arg(long, value_delimiter = ',', default_value = "1,16,64")]
    batches: Vec<String>,
    /// Seconds of timing per batch size.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

/// The gates, and whether their derivative is constant: then two implementations differ only by rounding. Otherwise
/// rounding flips the decision of some ReLUs.
const GATES: [(&str, Gate, bool); 6] = [
    ("identity", Gate::Identity, true),
    ("slope 1", Gate::Proxy { slope: 1.0 }, true),
    ("slope 0.3", Gate::Proxy { slope: 0.3 }, false),
    ("plain", Gate::Plain, false),
    ("redirect", Gate::Redirect, false),
    ("soft", Gate::Soft { temperature: 0.5 }, false),
];

/// Largest relative distances of outputs, of gradients of gates with constant derivative, and of other gradients. Max
/// pools have discontinuous gradients with every gate.
fn limits(device: &str) -> [f64; 3] {
    match device.split_once('+').map(|(_, precision)| precision) {
        None => [1e-5, 2e-3, 1e-2],
        Some("tf32") => [5e-3, 0.15, 0.25],
        Some(_) => [3e-2, 0.4, 0.5],
    }
}

fn open(name: &str) -> anyhow::Result<Box<dyn Engine>> {
    let precision = match name {
        "reference" => Precision::Full,
        "reference+tf32" => Precision::Tf32,
        "reference+bf16" => Precision::Bf16,
        name => return Ok(engine::open(name, &CpuSettings::default())?),
    };
    Ok(Box::new(Reference::new(Device::Cpu, DType::F32).with_precision(precision)))
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let engine = open(&arguments.device)?;
    let names: Vec<&String> = arguments.networks.iter().filter(|name| !name.is_empty()).collect();
    let mut passed = true;
    if !names.is_empty() {
        let limits = limits(&arguments.device);
        println!("{}: relative Euclidean distance from f64 on the CPU", arguments.device);
        println!(
            "(limits: outputs {:.0e}, identity and slope 1 {:.0e}, other gates {:.0e})\n",
            limits[0], limits[1], limits[2]
        );
        print!("{:<20} {:>8}", "network", "outputs");
        GATES.iter().for_each(|(name, ..)| print!(" {name:>9}"));
        println!("  same in a batch");
        for name in names {
            passed &= check(name, engine.as_ref(), arguments.images, limits)?;
        }
        println!();
    }
    for batch in arguments.batches.iter().filter(|batch| !batch.is_empty()) {
        let batch = batch.parse()?;
        let milliseconds = time(engine.as_ref(), batch, arguments.seconds)?;
        println!("speed\tproxygrad {}\t{batch}\t{milliseconds:.3}", arguments.device);
    }
    anyhow::ensure!(passed, "{} is too far from f64", arguments.device);
    Ok(())
}

/// Checks one network, prints its row, and returns whether all distances are within the limits.
fn check(name: &str, engine: &dyn Engine, images: usize, limits: [f64; 3]) -> anyhow::Result<bool> {
    let network = Arc::new(networks::build(name)?);
    let exact_engine = Reference::new(Device::Cpu, DType::F64);
    let mut exact = plan(&network, &exact_engine)?;
    let mut plan = plan(&network, engine)?;

    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let images = noise(&mut rng, images, network.input_shape())?;
    let on_device = images.to_device(engine.device())?;
    let expected = exact.forward(&images.to_dtype(DType::F64)?, Forward::Original)?.remove(0);
    let found = plan.forward(&on_device, Forward::Original)?.remove(0);
    let mut passed = true;
    let mut check_distance = |distance: f64, limit: f64| {
        // NaN fails.
        passed &= distance <= limit;
        distance
    };
    print!(
        "{:<20} {:>8.1e}",
        name.rsplit('/').next().unwrap_or(name),
        check_distance(distance(&found, &expected)?, limits[0])
    );

    let seed = noise(&mut rng, expected.dim(0)?, &expected.dims()[1..])?;
    let (exact_seed, seed) = (seed.to_dtype(DType::F64)?, seed.to_device(engine.device())?);
    for (_, gate, smooth) in GATES {
        let expected = exact.backward(std::slice::from_ref(&exact_seed), gate)?;
        let found = plan.backward(std::slice::from_ref(&seed), gate)?;
        print!(" {:>9.1e}", check_distance(distance(&found, &expected)?, limits[if smooth { 1 } else { 2 }]));
    }

    let gate = Gate::Proxy { slope: 0.3 };
    let in_batch = plan.backward(std::slice::from_ref(&seed), gate)?.get(0)?;
    plan.forward(&on_device.narrow(0, 0, 1)?, Forward::Original)?;
    let alone = plan.backward(&[seed.narrow(0, 0, 1)?], gate)?.get(0)?;
    let same = values(&in_batch)? == values(&alone)?;
    println!("  {}{}", if same { "yes" } else { "no" }, if passed { "" } else { "  TOO FAR" });
    Ok(passed)
}

fn plan(network: &Arc<Network>, engine: &dyn Engine) -> anyhow::Result<Box<dyn Plan>> {
    Ok(engine.plan(network, &Target::whole(network.outputs()), network.input_shape())?)
}

/// Uniform random numbers between -2 and 2, `[n, shape]`.
fn noise(rng: &mut ChaCha8Rng, n: usize, shape: &[usize]) -> TensorResult<Tensor> {
    let mut dims = vec![n];
    dims.extend_from_slice(shape);
    let count = dims.iter().product();
    let values: Vec<f32> = (0..count).map(|_| 4.0 * rng.random::<f32>() - 2.0).collect();
    Tensor::from_vec(values, dims, &Device::Cpu)
}

fn values(tensor: &Tensor) -> TensorResult<Vec<f64>> {
    tensor.to_device(&Device::Cpu)?.flatten_all()?.to_dtype(DType::F64)?.to_vec1()
}

/// `|found - expected| / |expected|`.
fn distance(found: &Tensor, expected: &Tensor) -> TensorResult<f64> {
    let (found, expected) = (values(found)?, values(expected)?);
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let apart = norm(&mut found.iter().zip(&expected).map(|(a, b)| a - b));
    Ok(apart / norm(&mut expected.iter().copied()))
}

/// Median time of one iteration of gradient ascent on ResNet-18 in milliseconds: forward to one logit, backward with a
/// proxy gate, and a step of fixed length. Only one number is read back at the end of each measurement.
fn time(engine: &dyn Engine, batch: usize, seconds: f64) -> anyhow::Result<f64> {
    let network = Arc::new(networks::build("resnet18")?);
    let mut plan = plan(&network, engine)?;
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let mut images = noise(&mut rng, batch, network.input_shape())?.to_device(engine.device())?;
    let unit: Vec<f32> = (0..1000).map(|i| if i == 42 { 1.0 } else { 0.0 }).collect();
    let seed = Tensor::from_vec(unit.repeat(batch), (batch, 1000), &Device::Cpu)?.to_device(engine.device())?;
    let mut iterate = |count: usize| -> anyhow::Result<f64> {
        let begin = Instant::now();
        for _ in 0..count {
            plan.forward(&images, Forward::Original)?;
            let gradient = plan.backward(std::slice::from_ref(&seed), Gate::Proxy { slope: 0.3 })?;
            let length = gradient.sqr()?.sum_keepdim((1, 2, 3))?.sqrt()?.affine(1.0, 1e-12)?;
            images = (&images + gradient.broadcast_div(&length)?.affine(0.5, 0.0)?)?;
        }
        let sum = images.sum_all()?.to_scalar::<f32>()?;
        anyhow::ensure!(sum.is_finite(), "the images are not finite");
        Ok(begin.elapsed().as_secs_f64())
    };
    iterate(3)?;
    let one = iterate(1)?;
    let count = ((seconds / 7.0 / one) as usize).max(1);
    let mut times = (0..7).map(|_| iterate(count)).collect::<anyhow::Result<Vec<f64>>>()?;
    times.sort_by(f64::total_cmp);
    Ok(times[3] / count as f64 * 1e3)
}
