//! Worker pool: all devices, from start to graceful shutdown.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::device::Device;
use super::device_thread::DeviceThread;
use super::run::RunContext;
use super::sources::Sources;
use super::status::{DeviceState, DeviceStatus, SharedStatus};
use crate::jobs::Store;
use proxygrad::engine::EngineError;

/// How long a shutdown waits for interrupted runs to end; longer than the patience with a single step.
const INTERRUPT_WAIT: Duration = Duration::from_secs(20);

/// Configuration of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolConfig {
    /// Names of the devices, such as `cpu` or `cuda:0`; a name that appears twice runs two batches at once.
    pub devices: Vec<String>,
    /// Largest number of stimuli in a batch.
    pub max_batch: usize,
    /// Time limit of a job, from its claim, and of a batch of a study. Trainings have none.
    pub job_time_limit: Duration,
    /// Memory limit of a run in bytes; batches are cut to fit.
    pub run_memory: u64,
    /// Limit of the steps of a training.
    pub max_training_steps: u64,
    /// How long a result is kept that cannot be stored, before its job is requeued.
    pub result_patience: Duration,
}

impl Default for PoolConfig {
    /// The CPU, batches of 16 stimuli, one hour, unlimited memory and steps, two minutes.
    fn default() -> Self {
        Self {
            devices: vec!["cpu".into()],
            max_batch: 16,
            job_time_limit: Duration::from_secs(3600),
            run_memory: u64::MAX,
            max_training_steps: u64::MAX,
            result_patience: Duration::from_secs(120),
        }
    }
}

/// A running pool. If dropped without [`Pool::shutdown`], its runs end within one step and their jobs are requeued.
#[derive(Debug)]
pub struct Pool {
    devices: Vec<(String, Arc<SharedStatus>)>,
    tasks: TaskTracker,
    /// When canceled, devices claim nothing more.
    drain: CancellationToken,
    /// When canceled, runs end within one step.
    interrupt_runs: CancellationToken,
}

impl Pool {
    /// Opens every device and starts claiming. Canceling `drain` ends claiming; running batches finish.
    ///
    /// # Errors
    /// If a device cannot be opened; no device is started then.
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
            opened.unwrap_or_else(|_| Err(failed("the device thread ended".into())))?;
            threads.push((name.clone(), Arc::new(thread)));
        }
        let drain = drain.child_token();
        let (interrupt_runs, tasks) = (CancellationToken::new(), TaskTracker::new());
        let start = |(name, thread): (String, Arc<DeviceThread>)| {
            let shared = Arc::new(SharedStatus::new());
            let context = RunContext {
                device: name.clone(),
                thread,
                store: store.clone(),
                load: Arc::clone(&sources.model),
                trainings: sources.trainings.clone(),
                max_training_steps: config.max_training_steps,
                max_batch: config.max_batch,
                time_limit: config.job_time_limit,
                run_memory: config.run_memory,
                patience: config.result_patience,
                interrupt: interrupt_runs.clone(),
            };
            let (drain, status) = (drain.clone(), Arc::clone(&shared));
            let device = Device { context, open_engine: Arc::clone(&sources.engine), drain, status };
            tasks.spawn(device.work());
            (name, shared)
        };
        let devices = threads.into_iter().map(start).collect();
        tasks.close();
        Ok(Self { devices, tasks, drain, interrupt_runs })
    }

    /// Graceful shutdown: stops claiming and lets running batches finish within `grace`. After that, batches are
    /// interrupted within one step and their jobs requeued as if they had never started. Studies are requeued between
    /// two batches, trainings between two steps.
    pub async fn shutdown(&self, grace: Duration) {
        self.drain.cancel();
        if tokio::time::timeout(grace, self.tasks.wait()).await.is_err() {
            self.interrupt_runs.cancel();
            if tokio::time::timeout(INTERRUPT_WAIT, self.tasks.wait()).await.is_err() {
                tracing::error!("a device did not stop in time; its jobs repeat at the next start");
            }
        }
    }

    /// Whether at least one device accepts jobs.
    pub fn ready(&self) -> bool {
        let accepts = |state| matches!(state, DeviceState::Idle | DeviceState::Busy);
        !self.drain.is_cancelled() && self.devices.iter().any(|(_, status)| accepts(status.get().0))
    }

    /// State of each device, in the order of the configuration.
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
