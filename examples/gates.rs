//! Compares gates on the same units of a model, from the same starts, at equal passes.
//!
//! `cargo run --release --example gates -- --model squeezenet1.1 --layers fire3,fire6,fire9 --reduce @center`
//!
//! Units are drawn by the seed before anything runs. A unit is dead under a gate when its score never rises above 0;
//! ratios are taken over the units that `plain` brings to life.

use anyhow::Context;
use clap::Parser;
use proxygrad::engine::{Cpu, CpuSettings, Engine};
use proxygrad::maximize::{GateKind, GateRequest, Limits, Objective, Request, Unobserved, maximize};
use proxygrad::network::Model;
use proxygrad::network::catalog::{Models, ModelsConfig};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Compares gates on the same units of a model.
#[derive(Parser)]
struct Arguments {
    /// Id of the model.
    #[arg(long, default_value = "fashion-resnet8")]
    model: String,
    /// Layers whose units are drawn.
    #[arg(long, value_delimiter = ',', default_value = "layer2/Relu_1,layer3/Relu_1")]
    layers: Vec<String>,
    /// Units per layer.
    #[arg(long, default_value_t = 8)]
    units: usize,
    /// What stands behind the channel in a unit's name: nothing (mean), @center, @max.
    #[arg(long, default_value = "")]
    reduce: String,
    /// Steps of two passes; gates that need three passes a step get fewer.
    #[arg(long, default_value_t = 128)]
    steps: u32,
    /// Seed of the choice of units and of the starts.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Stimuli in one batch.
    #[arg(long, default_value_t = 4)]
    batch: usize,
    /// Data directory with pulled models.
    #[arg(long, default_value = "proxygrad-data")]
    data_dir: std::path::PathBuf,
}

fn gate(kind: GateKind) -> GateRequest {
    kind.into()
}

/// The gates, in the order of the table; `plain` first, for the others are measured against it.
fn gates() -> Vec<(&'static str, GateRequest)> {
    let fixed =
        |slope| GateRequest { slope: Some(slope), anneal: Some(0.0), polish: Some(0.0), ..gate(GateKind::Decoupled) };
    let annealed = |slope| GateRequest { slope: Some(slope), ..gate(GateKind::Decoupled) };
    vec![
        ("plain", gate(GateKind::Plain)),
        ("redirect", gate(GateKind::Redirect)),
        ("soft, anneal + polish", gate(GateKind::Soft)),
        ("decoupled, slope 0.1 fixed", fixed(0.1)),
        ("decoupled, slope 0.3 fixed", fixed(0.3)),
        ("decoupled, slope 0.1, anneal + polish", annealed(0.1)),
        ("decoupled, slope 0.3, anneal + polish", annealed(0.3)),
        ("true-proxy, slope 0.3, anneal + polish", GateRequest { slope: Some(0.3), ..gate(GateKind::TrueProxy) }),
        ("identity, polish 0.3", GateRequest { polish: Some(0.3), ..gate(GateKind::Identity) }),
    ]
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let models = Models::new(ModelsConfig::new(&arguments.data_dir))?;
    let model = models.load(&arguments.model)?;
    let units = draw_units(&model, &arguments)?;
    let layers = arguments.layers.join(", ");
    println!("{}: {} units of {layers}; {} steps, seed {}\n", model.id, units.len(), arguments.steps, arguments.seed);
    println!("| gate | dead | median score | median / plain | worst / plain | best / plain | seconds |");
    println!("|---|---|---|---|---|---|---|");
    let mut plain: Option<Vec<f32>> = None;
    for (name, gate) in gates() {
        let started = std::time::Instant::now();
        let scores = scores(&Cpu::new(&CpuSettings::default())?, &model, &units, gate, &arguments)?;
        let seconds = started.elapsed().as_secs_f32();
        let plain = plain.get_or_insert_with(|| scores.clone());
        let ratios =
            scores.iter().zip(plain.iter()).filter(|(_, plain)| **plain > 0.0).map(|(score, plain)| score / plain);
        let ratios = sorted(ratios.collect());
        let dead = scores.iter().filter(|score| **score <= 0.0).count();
        let at = |share: f32| ratios.get(((ratios.len().max(1) - 1) as f32 * share).round() as usize).copied();
        let [worst, middle, best] = [0.0, 0.5, 1.0].map(|share| at(share).unwrap_or(f32::NAN));
        let median = sorted(scores.clone())[scores.len() / 2];
        println!(
            "| {name} | {dead} of {} | {median:.3} | {middle:.3} | {worst:.3} | {best:.3} | {seconds:.0} |",
            units.len()
        );
    }
    Ok(())
}

fn draw_units(model: &Model, arguments: &Arguments) -> anyhow::Result<Vec<Objective>> {
    let mut rng = ChaCha8Rng::seed_from_u64(arguments.seed);
    let mut units = Vec::new();
    for layer in &arguments.layers {
        let id = model.network.find(layer).with_context(|| format!("{} has no layer {layer}", model.id))?;
        let channels = model.network.node(id).shape.channels();
        let mut left: Vec<usize> = (0..channels).collect();
        for _ in 0..arguments.units.min(channels) {
            let channel = left.swap_remove(rng.random_range(0..left.len()));
            units.push(format!("{layer}:{channel}{}", arguments.reduce).parse()?);
        }
    }
    Ok(units)
}

/// The score reached on every unit; each keeps its own start whatever the gate.
fn scores(
    engine: &dyn Engine,
    model: &Model,
    units: &[Objective],
    gate: GateRequest,
    arguments: &Arguments,
) -> anyhow::Result<Vec<f32>> {
    let steps = if gate.kind == GateKind::TrueProxy { arguments.steps * 2 / 3 } else { arguments.steps };
    let mut scores = Vec::with_capacity(units.len());
    for (chunk, units) in units.chunks(arguments.batch.max(1)).enumerate() {
        let mut request = Request::new(&*arguments.model, units[0].clone());
        request.objective = None;
        request.objectives = Some(units.to_vec());
        request.gate = Some(gate.clone());
        request.steps = Some(steps);
        request.seed = Some(arguments.seed);
        let resolved = request.resolve(model, &Limits::default())?;
        let mut tasks = resolved.tasks();
        for (i, task) in tasks.iter_mut().enumerate() {
            task.stream = (chunk * arguments.batch + i) as u64;
        }
        let outcomes = maximize(engine, model, &tasks, &resolved.settings, &mut Unobserved)?;
        scores.extend(outcomes.into_iter().flatten().map(|outcome| outcome.findings.score));
    }
    Ok(scores)
}

fn sorted(mut values: Vec<f32>) -> Vec<f32> {
    values.sort_by(f32::total_cmp);
    values
}
