//! The pool: takes jobs and studies from their queues, runs them on devices, and reports how they end.
//!
//! Every device has an OS thread that runs the blocking [`maximize`](proxygrad::maximize::maximize()) and an async task that
//! claims jobs, batches their stimuli, watches cancellation and time limits, and reports. A panic or an engine error in a
//! batch of several jobs runs each of them again alone, so that only the one at fault fails.
//!
//! Jobs come first: a device runs a batch of a study only when no job waits, and then looks for jobs again. It stays with
//! its study until that ends, and takes no other one before.

mod batch;
mod device;
mod device_thread;
mod metrics;
mod observer;
mod pool;
mod report;
mod run;
mod running_job;
mod sources;
mod status;
mod stop_signal;
mod study;

pub use metrics::describe_metrics;
pub use pool::{Pool, PoolConfig};
pub use sources::{LoadModel, OpenEngine, Sources};
pub use status::{DeviceState, DeviceStatus};
