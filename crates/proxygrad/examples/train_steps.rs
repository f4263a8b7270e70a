//! Runs training steps on request, for comparison with other programs (`benches/compare_training.py`).
//!
//! `cargo run --release --example train_steps -- --network resnet8 --batch 64`
//!
//! Prints `ready`; for each line with a number N on standard input runs N steps and prints the seconds they took: images,
//! forward and backward pass, clipping and the optimizer. Standard error reports the peak memory at the end.

use std::io::Write;
use std::num::NonZeroUsize;
use std::time::Instant;

use clap::Parser;
use proxygrad::engine::{Cpu, CpuSettings};
use proxygrad::train::{Dataset, Recipe, Splits, Training};

/// Runs training steps on request.
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
    /// Derivative of rectifiers in the backward pass.
    #[arg(long, default_value = "plain")]
    surrogate: String,
    /// Threads; all cores if 0.
    #[arg(long, default_value_t = 0)]
    threads: usize,
}

/// Height and width of the images, which have one channel.
const SIZE: usize = 28;
const CLASSES: usize = 10;
/// Batches of an epoch; the test images after it, one batch, take a share of the time that does not matter.
const BATCHES: usize = 200;
/// Steps before timing.
const WARM_UP: usize = 3;

/// Noise, and labels in turn.
fn images(count: usize) -> anyhow::Result<Dataset> {
    let mut state = 1u32;
    let mut noise = || {
        // The generator of Numerical Recipes.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let pixels = (0..count * SIZE * SIZE).map(|_| noise()).collect();
    let labels = (0..count).map(|index| (index % CLASSES) as u32).collect();
    Ok(Dataset::new([1, SIZE, SIZE], pixels, labels, (0..CLASSES).map(|class| class.to_string()).collect())?)
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let recipe = Recipe {
        architecture: arguments.network.parse()?,
        stem_stride: Some(arguments.stem_stride),
        surrogate: arguments.surrogate.parse()?,
        learning_rate: 0.01,
        epochs: 1_000_000,
        batch: arguments.batch,
        ..Recipe::default()
    };
    let splits = Splits { train: images(BATCHES * arguments.batch)?, test: images(arguments.batch)? };
    let settings = CpuSettings { threads: NonZeroUsize::new(arguments.threads), ..CpuSettings::default() };
    let mut training = Training::new(recipe, splits, &Cpu::new(&settings)?)?;

    let mut requests = std::io::stdin().lines();
    let (mut left, mut started, mut failure) = (WARM_UP, None::<Instant>, None);
    let mut on_step = |_| {
        left -= 1;
        if left > 0 {
            return false;
        }
        let answer =
            started.map_or_else(|| "ready".to_owned(), |started| format!("{:.6}", started.elapsed().as_secs_f64()));
        let request = (|| -> anyhow::Result<Option<usize>> {
            println!("{answer}");
            std::io::stdout().flush()?;
            Ok(requests.next().transpose()?.map(|line| line.trim().parse()).transpose()?)
        })();
        left = match request {
            Ok(Some(count)) if count > 0 => count,
            Ok(_) => return true,
            Err(error) => {
                failure = Some(error);
                return true;
            }
        };
        started = Some(Instant::now());
        false
    };
    while training.epoch(&mut on_step)?.is_some() {}
    if let Some(error) = failure {
        return Err(error);
    }
    if let Some(peak) = peak_memory() {
        eprintln!("peak: {peak}");
    }
    Ok(())
}

/// Peak memory of this process, if the system reports it (Linux).
fn peak_memory() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")).map(|peak| peak.trim().to_owned())
}
