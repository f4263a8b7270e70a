//! Runs iterations of activation maximization on request, for comparison with other programs (`benches/compare.py`).
//!
//! `cargo run --release --example iterate -- --network resnet18 --batch 4`
//!
//! Prints `ready`; for each line with a number N on standard input runs N iterations and prints the seconds they took.
//! Standard error reports the unit's value and the gradient's norm at the start, and the peak memory at the end.

#[path = "../benches/networks/mod.rs"]
mod networks;
#[path = "../benches/networks/steps.rs"]
mod steps;

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Instant;

use candle_core::{Device, Tensor};
use clap::{Parser, ValueEnum};
use networks::ascent::{Ascent, images};
use proxygrad::engine::{CpuSettings, Gate, Instructions};
use rayon::prelude::*;

/// Runs iterations of activation maximization on request.
#[derive(Parser)]
struct Arguments {
    /// The network: one of resnet18, efficientnet-lite0 and squeezenet1.1, whose weights are random with a fixed seed,
    /// or an ONNX file whose image is 224 pixels high and wide.
    #[arg(long)]
    network: String,
    /// Batch size.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1024))]
    batch: u64,
    /// The layer whose channel 42 is maximized.
    #[arg(long, default_value = "logits")]
    layer: String,
    /// Backward rule of activations.
    #[arg(long, value_enum, default_value_t = GateName::Plain)]
    gate: GateName,
    /// Device: cpu, or cpu+bf16 where the processor multiplies bf16.
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Threads; all cores if 0.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Vector instructions; by default the fastest available.
    #[arg(long)]
    instructions: Option<Instructions>,
    /// File with measured convolution algorithms; without it nothing is measured.
    #[arg(long)]
    tuning: Option<PathBuf>,
    /// Print the time of each step at the end.
    #[arg(long)]
    steps: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum GateName {
    /// The activation's own derivative.
    Plain,
    /// Slope 0.3 on flat sides.
    Proxy,
    /// The incoming gradient where the gradient of a whole layer vanishes.
    Redirect,
    /// Logistic steps of width 0.1.
    Soft,
    /// Slope 1 everywhere.
    Identity,
}

/// Step length per image.
const STEP: f32 = 0.5;

/// Warm-up iterations before timing.
const WARM_UP: usize = 3;

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let gate = match arguments.gate {
        GateName::Plain => Gate::Plain,
        GateName::Proxy => Gate::Proxy { slope: 0.3 },
        GateName::Redirect => Gate::Redirect,
        GateName::Soft => Gate::Soft { temperature: 0.1 },
        GateName::Identity => Gate::Identity,
    };
    let settings = CpuSettings {
        threads: NonZeroUsize::new(arguments.threads),
        instructions: arguments.instructions,
        tuning: arguments.tuning.clone(),
        timed: arguments.steps,
        ..CpuSettings::default()
    };
    let engine = proxygrad::engine::open(&arguments.device, &settings)?;
    let (network, batch) = (networks::build(&arguments.network)?, arguments.batch as usize);
    let mut ascent = Ascent::new(&*engine, &network, &arguments.layer, batch, gate)?;
    let mut images = images(batch)?;

    let (output, gradient) = ascent.run(&images)?;
    let score = (output * &ascent.seed)?.sum_all()?.to_scalar::<f32>()?;
    eprintln!("start: {score} {}", norm(&gradient.flatten_all()?.to_vec1::<f32>()?));
    for _ in 0..WARM_UP {
        step(&mut ascent, &mut images)?;
    }
    ascent.plan.take_times();
    let mut iterations = 0;
    println!("ready");
    for line in std::io::stdin().lines() {
        let count: usize = line?.trim().parse()?;
        let started = Instant::now();
        for _ in 0..count {
            step(&mut ascent, &mut images)?;
        }
        println!("{:.6}", started.elapsed().as_secs_f64());
        std::io::stdout().flush()?;
        iterations += count;
    }
    if arguments.steps {
        steps::print(&network, &ascent.plan.take_times(), iterations, batch)?;
    }
    if let Some(peak) = peak_memory() {
        eprintln!("peak: {peak}");
    }
    Ok(())
}

/// Moves each image along its gradient.
fn step(ascent: &mut Ascent, images: &mut Tensor) -> anyhow::Result<()> {
    let (_, gradient) = ascent.run(images)?;
    let gradient = gradient.flatten_all()?.to_vec1::<f32>()?;
    let mut pixels = images.flatten_all()?.to_vec1::<f32>()?;
    let length = networks::input().elements();
    pixels.par_chunks_mut(length).zip(gradient.par_chunks(length)).for_each(|(image, gradient)| {
        let factor = STEP / norm(gradient).max(1e-12);
        image.iter_mut().zip(gradient).for_each(|(pixel, slope)| *pixel += factor * slope);
    });
    *images = Tensor::from_vec(pixels, images.dims(), &Device::Cpu)?;
    Ok(())
}

/// Euclidean norm, with 16 partial sums for vectorization.
fn norm(values: &[f32]) -> f32 {
    let (chunks, rest) = values.as_chunks::<16>();
    let mut sums = [0.0; 16];
    for chunk in chunks {
        sums.iter_mut().zip(chunk).for_each(|(sum, value)| *sum += value * value);
    }
    (sums.iter().sum::<f32>() + rest.iter().map(|value| value * value).sum::<f32>()).sqrt()
}

/// Peak memory of this process, if the system reports it (Linux).
fn peak_memory() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")).map(|peak| peak.trim().to_owned())
}
