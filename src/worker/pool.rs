//! The pool: all devices, from start to shutdown.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::device::Device;
use super::device_thread::DeviceThread;
use super::sources::Sources;
use super::status::{DeviceState, DeviceStatus, SharedStatus};
use crate::jobs::Store;
use proxygrad::engine::EngineError;

/// How long a shutdown waits for runs to end after they were told to: longer than the patience with a single step.
const LAST_WAIT: Duration = Duration::from_secs(20);

/// Which devices run jobs, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolConfig {
    /// Names of the devices, such as `cpu` or `cuda:0`; a name that stands twice runs two batches at once.
    pub devices: Vec<String>,
    /// Most stimuli in one batch.
    pub max_batch: usize,
    /// Longest time a job may run, from its claim on, and a batch of a study.
    pub job_time_limit: Duration,
    /// Most bytes of memory that a run may take: batches are made no larger than fit.
    pub run_memory: u64,
    /// How long a result is kept that cannot be stored, before its job goes back into the queue.
    pub result_patience: Duration,
}

impl Default for PoolConfig {
    /// The CPU, batches of 16, an hour, as much memory as it takes, two minutes.
    fn default() -> Self {
        Self {
            devices: vec!["cpu".into()],
            max_batch: 16,
            job_time_limit: Duration::from_secs(3600),
            run_memory: u64::MAX,
            result_patience: Duration::from_secs(120),
        }
    }
}

/// The running pool. Dropped without [`Pool::shutdown`], its runs end within one step and their jobs are requeued.
#[derive(Debug)]
pub struct Pool {
    devices: Vec<(String, Arc<SharedStatus>)>,
    tasks: TaskTracker,
    drain: CancellationToken,
    interrupt_runs: CancellationToken,
}

impl Pool {
    /// Opens every device and starts running jobs. `cancel` ends claiming; batches that run then go on to their ends.
    ///
    /// # Errors
    /// If a device cannot be opened; nothing runs then.
    pub async fn start(
        config: PoolConfig,
        store: Store,
        sources: Sources,
        drain: CancellationToken,
    ) -> Result<Self, EngineError> {
        let mut threads = Vec::with_capacity(config.devices.len());
        for name in &config.devices {
            let failed = |why: String| EngineError::Device { device: name.clone(), why };
            let thread =
                DeviceThread::start(name, Arc::clone(&sources.engine)).map_err(|error| failed(error.to_string()))?;
            let opened = thread.open().await;
            opened.unwrap_or_else(|_| Err(failed("its thread ended".into())))?;
            threads.push((name.clone(), Arc::new(thread)));
        }
        let drain = drain.child_token();
        let (interrupt_runs, tasks) = (CancellationToken::new(), TaskTracker::new());
        let start = |(name, thread): (String, Arc<DeviceThread>)| {
            let status = Arc::new(SharedStatus::new());
            let device = Device {
                name: name.clone(),
                thread,
                config: config.clone(),
                store: store.clone(),
                sources: sources.clone(),
                drain: drain.clone(),
                interrupt_runs: interrupt_runs.clone(),
                status: Arc::clone(&status),
            };
            tasks.spawn(device.work());
            (name, status)
        };
        let devices = threads.into_iter().map(start).collect();
        tasks.close();
        Ok(Self { devices, tasks, drain, interrupt_runs })
    }

    /// Stops claiming, lets running batches finish within `grace`, and otherwise stops them within one step and puts
    /// their jobs back into the queue, as if they had never started. Studies go back between two batches.
    pub async fn shutdown(&self, grace: Duration) {
        self.drain.cancel();
        if tokio::time::timeout(grace, self.tasks.wait()).await.is_err() {
            self.interrupt_runs.cancel();
            if tokio::time::timeout(LAST_WAIT, self.tasks.wait()).await.is_err() {
                tracing::error!("a device does not stop; its jobs run again at the next start");
            }
        }
    }

    /// Whether some device takes jobs.
    pub fn ready(&self) -> bool {
        let takes = |state| matches!(state, DeviceState::Idle | DeviceState::Busy);
        !self.drain.is_cancelled() && self.devices.iter().any(|(_, status)| takes(status.get().0))
    }

    /// What the devices do, in the order of the configuration.
    pub fn devices(&self) -> Vec<DeviceStatus> {
        let status = |(device, status): &(String, Arc<SharedStatus>)| {
            let (state, jobs) = status.get();
            DeviceStatus { device: device.clone(), state, jobs }
        };
        self.devices.iter().map(status).collect()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.drain.cancel();
        self.interrupt_runs.cancel();
    }
}
