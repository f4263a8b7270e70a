//! `proxygrad serve`

use anyhow::Context;
use proxygrad_server::config::Config;
use proxygrad_server::service::Service;

use super::log;

/// Serves until a signal asks to stop, then ends in order.
pub fn serve(config: Config) -> anyhow::Result<()> {
    log::start(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        let mut stop = Stop::listen()?;
        let grace = config.shutdown_grace;
        let service = Service::start(config).await?;
        let address = service.address();
        println!("proxygrad listens on http://{address} (documentation: http://{address}/docs)");
        let signal = stop.received().await;
        tracing::info!(signal, grace_s = grace.as_secs(), "shutting down; a second signal ends at once");
        tokio::select! {
            () = service.shutdown() => Ok(()),
            signal = stop.received() => anyhow::bail!("ended at once by a second signal ({signal})"),
        }
    });
    // A model may still be on its way on a thread of its own; nobody waits for it any more.
    runtime.shutdown_background();
    done
}

/// The signals that ask a process to end.
struct Stop {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    /// Caught, so that a file beyond the process's size limit (RLIMIT_FSIZE) is a failed write and not the end.
    #[cfg(unix)]
    _file_too_large: tokio::signal::unix::Signal,
}

impl Stop {
    fn listen() -> anyhow::Result<Self> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let terminate = signal(SignalKind::terminate()).context("no SIGTERM")?;
            let too_large = signal(SignalKind::from_raw(libc::SIGXFSZ)).context("no SIGXFSZ")?;
            Ok(Self { terminate, _file_too_large: too_large })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    /// The name of the next signal.
    async fn received(&mut self) -> &'static str {
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
