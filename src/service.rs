//! The service: wires store, models, workers and HTTP server together; startup and graceful shutdown.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use crate::api::{self, Api, Server};
use crate::config::Config;
use crate::free_memory;
use crate::jobs::{Store, StoreConfig};
use crate::worker::{Pool, PoolConfig, Sources};
use proxygrad::network::catalog::Models;
use proxygrad::train::data::DatasetRoot;

/// A running service.
pub struct Service {
    config: Config,
    store: Store,
    pool: Arc<Pool>,
    server: Server,
    /// Ends waiting requests, event streams and background tasks.
    shutdown: CancellationToken,
}

impl Service {
    /// Opens the data directory, starts the workers and listens.
    ///
    /// # Errors
    /// If the data directory cannot be used, a device does not exist, or the address is in use.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        // First, so that a second server on the same address fails immediately.
        let listener = api::listen(config.listen).with_context(|| format!("listen = {}", config.listen))?;
        let store =
            StoreConfig { queue_limit: u64::from(config.queue_limit), ..StoreConfig::new(&config.storage.data_dir) };
        let store = Store::open(&store).await?;
        let models = Arc::new(Models::new(config.storage.models())?);
        let datasets = config.datasets.as_deref().map(|path| {
            DatasetRoot::new(path).with_context(|| format!("datasets = {}: expected a folder", path.display()))
        });
        let datasets = datasets.transpose()?;
        let pool = PoolConfig {
            devices: config.devices.clone(),
            max_batch: config.max_batch,
            job_time_limit: config.job_time_limit,
            run_memory: config.memory.run_bytes(),
            max_training_steps: config.max_training_steps,
            ..PoolConfig::default()
        };
        let cpu = config.cpu.settings(&config.storage.data_dir);
        let load = Arc::clone(&models);
        let sources = Sources::new(cpu, move |id| load.load(id)).with_trainings(datasets.clone(), &models);
        let pool = Arc::new(Pool::start(pool, store.clone(), sources, CancellationToken::new()).await?);
        let shutdown = CancellationToken::new();
        tokio::spawn(release_idle_models(Arc::clone(&models), config.model_idle_time, shutdown.clone()));
        let api = Api::new(config.clone(), store.clone(), models, Arc::clone(&pool), datasets, shutdown.clone())?;
        let server = Server::start(listener, api::router(api)?, &config)?;
        Ok(Self { config, store, pool, server, shutdown })
    }

    /// The local address of the HTTP server.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Stops accepting connections and waits up to `shutdown_grace` for running jobs; unfinished ones go back to the
    /// queue.
    pub async fn shutdown(self) {
        let grace = self.config.shutdown_grace;
        self.store.mark_graceful_shutdown();
        self.server.drain();
        self.pool.shutdown(grace).await;
        // No job runs any more: requests that wait for one get its current state.
        self.shutdown.cancel();
        self.server.shutdown(RESPONSE_GRACE).await;
        self.store.close().await;
    }
}

/// Time for open connections to read their responses after all jobs have stopped.
const RESPONSE_GRACE: Duration = Duration::from_secs(5);

/// Longest interval between two checks for idle models.
const MAX_CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// Periodically drops models from memory that were removed, or not used for `idle`.
async fn release_idle_models(models: Arc<Models>, idle: Duration, shutdown: CancellationToken) {
    let interval = (idle / 4).clamp(Duration::from_millis(250), MAX_CHECK_INTERVAL);
    while shutdown.run_until_cancelled(tokio::time::sleep(interval)).await.is_some() {
        let models = Arc::clone(&models);
        let released = tokio::task::spawn_blocking(move || {
            let released = models.release_unused(idle);
            if released > 0 {
                free_memory::trim();
            }
            released
        });
        match released.await {
            Ok(0) => {}
            Ok(released) => tracing::info!(models = released, "released idle models"),
            Err(error) => tracing::error!(%error, "releasing idle models failed"),
        }
    }
}
