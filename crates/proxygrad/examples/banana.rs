//! The library in a few lines: finds a stimulus for the class "banana".
//!
//! `cargo run --release --example banana` (the first run downloads the model)

use proxygrad::{Maximizer, Models};

fn main() -> anyhow::Result<()> {
    let model = Models::open("proxygrad-data")?.load("efficientnet-lite0")?;
    let banana = Maximizer::new(&model).objective("logits:banana").run()?;
    let found = &banana.findings;
    println!("from {} to {} in {} passes", found.initial_score, found.score, found.passes);
    std::fs::write("banana.png", &banana.png)?;
    Ok(())
}
