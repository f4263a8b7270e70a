//! `proxygrad serve`: runs the service until a signal ends it.

use anyhow::Context;
use proxygrad_server::config::Config;
use proxygrad_server::service::Service;

use super::log;

/// Serves until SIGTERM or Ctrl-C, then shuts down gracefully.
pub fn serve(config: Config) -> anyhow::Result<()> {
    log::start(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        let mut signals = ShutdownSignals::listen()?;
        let grace = config.shutdown_grace;
        let service = Service::start(config).await?;
        let address = service.address();
        println!("proxygrad listens on http://{address} (documentation: http://{address}/docs)");
        let signal = signals.next().await;
        tracing::info!(signal, grace_s = grace.as_secs(), "shutting down; a second signal exits immediately");
        tokio::select! {
            () = service.shutdown() => Ok(()),
            signal = signals.next() => anyhow::bail!("exited immediately after a second signal ({signal})"),
        }
    });
    // Does not wait for model loads that are still running on blocking threads.
    runtime.shutdown_background();
    done
}

/// Signals that end the process.
struct ShutdownSignals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    /// Handled so that exceeding the file size limit (RLIMIT_FSIZE) is a write error instead of the end of the process.
    #[cfg(unix)]
    _file_too_large: tokio::signal::unix::Signal,
}

impl ShutdownSignals {
    fn listen() -> anyhow::Result<Self> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
            let too_large = signal(SignalKind::from_raw(libc::SIGXFSZ)).context("cannot handle SIGXFSZ")?;
            Ok(Self { terminate, _file_too_large: too_large })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    /// Waits for a signal and returns its name.
    async fn next(&mut self) -> &'static str {
        #[cfg(unix)]
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = tokio::signal::ctrl_c() => "SIGINT",
        }
        #[cfg(not(unix))]
        {
            let _ = tokio::signal::ctrl_c().await;
            "Ctrl-C"
        }
    }
}
