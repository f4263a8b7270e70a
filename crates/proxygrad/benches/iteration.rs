//! Time of one iteration of activation maximization: forward to a layer, backward to the images with a gate.
//!
//! `cargo bench --bench iteration -- --quick`

mod networks;

use std::sync::Arc;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, SamplingMode, Throughput};
use networks::ascent::{Ascent, images};
use proxygrad::engine::{CpuSettings, Engine, Gate, open};
use proxygrad::network::Network;

const PROXY: Gate = Gate::Proxy { slope: 0.3 };

/// An early layer of each of [`networks::NAMES`].
const EARLY: [&str; 3] = ["layer1.1", "blocks.4.add", "fire5"];

fn main() -> anyhow::Result<()> {
    let mut criterion = Criterion::default().sample_size(10).configure_from_args();
    let engine = open("cpu", &CpuSettings::default())?;
    for (name, early) in networks::NAMES.into_iter().zip(EARLY) {
        layers(&mut criterion, &*engine, name, early)?;
    }
    for name in ["resnet18", "efficientnet-lite0"] {
        gates(&mut criterion, &*engine, name)?;
    }
    criterion.final_summary();
    Ok(())
}

/// Time up to the logits and up to an early layer, for three batch sizes.
fn layers(criterion: &mut Criterion, engine: &dyn Engine, name: &str, early: &str) -> anyhow::Result<()> {
    let network = networks::build(name)?;
    let mut group = group(criterion, name);
    for layer in ["logits", early] {
        for batch in [1, 4, 16] {
            group.throughput(Throughput::Elements(batch as u64));
            measure(&mut group, BenchmarkId::new(layer, batch), engine, &network, layer, batch, PROXY);
        }
    }
    group.finish();
    Ok(())
}

/// Time of each gate.
fn gates(criterion: &mut Criterion, engine: &dyn Engine, name: &str) -> anyhow::Result<()> {
    let network = networks::build(name)?;
    let mut group = group(criterion, &format!("{name} gates"));
    let gates = [
        ("plain", Gate::Plain),
        ("proxy 0.3", PROXY),
        ("redirect", Gate::Redirect),
        ("soft", Gate::Soft { temperature: 0.5 }),
        ("identity", Gate::Identity),
    ];
    for (gate_name, gate) in gates {
        measure(&mut group, BenchmarkId::from_parameter(gate_name), engine, &network, "logits", 1, gate);
    }
    group.finish();
    Ok(())
}

fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.sampling_mode(SamplingMode::Flat).warm_up_time(Duration::from_secs(1));
    group
}

/// Creates the plan lazily, so that filtered benchmarks cost nothing.
fn measure(
    group: &mut BenchmarkGroup<'_, WallTime>,
    id: BenchmarkId,
    engine: &dyn Engine,
    network: &Arc<Network>,
    layer: &str,
    batch: usize,
    gate: Gate,
) {
    let prepare = || anyhow::Ok((Ascent::new(engine, network, layer, batch, gate)?, images(batch)?));
    let mut prepared = None;
    group.bench_function(id, |bencher| {
        let (ascent, images) = prepared.get_or_insert_with(|| prepare().unwrap_or_else(|error| panic!("{error:#}")));
        bencher.iter(|| ascent.run(images).unwrap_or_else(|error| panic!("{error:#}")));
    });
}
