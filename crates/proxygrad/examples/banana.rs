//! The library on its own: finds a stimulus for the class "banana".
//!
//! `cargo run --release --example banana` (the first run fetches the model)

use proxygrad::engine::{Cpu, CpuSettings};
use proxygrad::maximize::{Limits, NoCallback, Request, maximize};
use proxygrad::network::catalog::{Models, ModelsConfig};

fn main() -> anyhow::Result<()> {
    let model = Models::new(ModelsConfig::new("proxygrad-data"))?.load("efficientnet-lite0")?;
    let request = Request::new("efficientnet-lite0", "logits:954".parse()?);
    let resolved = request.resolve(&model, &Limits::default())?;
    let outcomes =
        maximize(&Cpu::new(&CpuSettings::default())?, &model, &resolved.tasks(), &resolved.settings, &mut NoCallback)?;
    for outcome in outcomes.into_iter().flatten() {
        println!(
            "from {} to {} in {} passes",
            outcome.findings.initial_score, outcome.findings.score, outcome.findings.passes
        );
        std::fs::write("banana.png", outcome.png)?;
    }
    Ok(())
}
