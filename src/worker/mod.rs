//! Worker pool: claims jobs, studies and trainings from their queues, runs them on devices and reports the outcomes.
//!
//! Every device has an OS thread that runs the blocking [`maximize`](proxygrad::maximize::maximize()), and an async
//! task that claims jobs, batches their stimuli, watches cancellation and time limits, and reports. If a batch of
//! several jobs panics or its engine fails, each job is repeated alone, so that only the one at fault fails.
//!
//! Jobs take precedence: a device runs a batch of a study, or some steps of a training, only when no job is queued, then
//! looks for jobs again. It claims no other study or training before the one that it holds has ended.

mod batch;
mod device;
mod device_thread;
mod job_progress;
mod long_run;
mod metrics;
mod pool;
mod report;
mod run;
mod running_job;
mod sources;
mod status;
mod stop_signal;
mod study;
mod training;

pub use metrics::describe_metrics;
pub use pool::{Pool, PoolConfig};
pub use sources::{AddModel, LoadModel, OpenEngine, Sources, TrainingSources};
pub use status::{DeviceState, DeviceStatus};
