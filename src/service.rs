//! The whole service: the rooms wired together, started and ended in order.

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

/// A running service.
pub struct Service {
    config: Config,
    store: Store,
    pool: Arc<Pool>,
    server: Server,
    ending: CancellationToken,
}

impl Service {
    /// Opens the data directory, starts the workers and listens.
    ///
    /// # Errors
    /// When the data directory cannot be used, a device does not exist, or the address is taken.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        // Before anything that takes time: a second server on the same address must fail at once.
        let listener = api::listen(config.listen).with_context(|| format!("listen = {}", config.listen))?;
        let store =
            StoreConfig { queue_limit: u64::from(config.queue_limit), ..StoreConfig::new(&config.places.data_dir) };
        let store = Store::open(&store).await?;
        let models = Arc::new(Models::new(config.places.models())?);
        let pool = PoolConfig {
            devices: config.devices.clone(),
            max_batch: config.max_batch,
            job_time_limit: config.job_time_limit,
            run_memory: config.memory.run_bytes(),
            ..PoolConfig::default()
        };
        let load = Arc::clone(&models);
        let cpu = config.cpu.settings(&config.places.data_dir);
        let sources = Sources::new(cpu, move |id| load.load(id));
        let pool = Arc::new(Pool::start(pool, store.clone(), sources, CancellationToken::new()).await?);
        let ending = CancellationToken::new();
        tokio::spawn(release_unused(Arc::clone(&models), config.model_idle_time, ending.clone()));
        let api = Api::new(config.clone(), store.clone(), models, Arc::clone(&pool), ending.clone())?;
        let server = Server::start(listener, api::router(api)?, &config)?;
        Ok(Self { config, store, pool, server, ending })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Accepts nothing more, gives running jobs and open requests the configured grace, and puts back into the queue
    /// what has not ended by then.
    pub async fn shutdown(self) {
        let grace = self.config.shutdown_grace;
        self.store.ending();
        self.server.stop();
        self.pool.shutdown(grace).await;
        // Jobs stand still now: whoever waits for one is told how it stands.
        self.ending.cancel();
        self.server.shutdown(LAST_WORDS).await;
        self.store.close().await;
    }
}

/// Time that open connections have to take their answers once no job runs any more.
const LAST_WORDS: std::time::Duration = std::time::Duration::from_secs(5);

/// Longest time between two looks for models that may leave memory.
const BETWEEN_LOOKS: Duration = Duration::from_secs(30);

/// Lets models leave memory that were removed, or that nobody asked for during `idle`.
async fn release_unused(models: Arc<Models>, idle: Duration, ending: CancellationToken) {
    let between = (idle / 4).clamp(Duration::from_millis(250), BETWEEN_LOOKS);
    while ending.run_until_cancelled(tokio::time::sleep(between)).await.is_some() {
        let models = Arc::clone(&models);
        let released = tokio::task::spawn_blocking(move || {
            let released = models.release_unused(idle);
            if released > 0 {
                free_memory::give_back();
            }
            released
        });
        match released.await {
            Ok(0) => {}
            Ok(released) => tracing::info!(models = released, "models left memory"),
            Err(error) => tracing::error!(%error, "looking for unused models broke down"),
        }
    }
}
