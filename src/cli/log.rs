//! Logging to standard error, as text or JSON.

use std::io::IsTerminal;

use proxygrad_server::config::{Config, LogFormat};
use tracing_subscriber::EnvFilter;

/// Initializes logging.
pub fn start(config: &Config) -> anyhow::Result<()> {
    let filter: EnvFilter = config.log.parse()?;
    // Reporting a failed write to standard error on standard error panics: the log may be a file on a full disk.
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
    match config.log_format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    }
    .map_err(|error| anyhow::anyhow!("cannot initialize logging: {error}"))
}
