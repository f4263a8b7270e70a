//! `proxygrad healthcheck`: for containers and scripts.

use std::time::Duration;

use anyhow::{Context, bail};

/// What to ask.
#[derive(Debug, clap::Args)]
pub struct Healthcheck {
    /// Address of the server.
    #[arg(long, env = "PROXYGRAD_HEALTHCHECK_URL", value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: String,

    /// Seconds to wait for the answer.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
}

impl Healthcheck {
    /// Asks once; an error when the server is not ready.
    pub fn run(&self) -> anyhow::Result<()> {
        let url = format!("{}/readyz", self.url.trim_end_matches('/'));
        let client =
            reqwest::blocking::Client::builder().timeout(Duration::from_secs(self.timeout)).no_proxy().build()?;
        let answer = client.get(&url).send().with_context(|| format!("{url} does not answer"))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        bail!("{url} answers {status}: {}", answer.text().unwrap_or_default().chars().take(1000).collect::<String>())
    }
}
