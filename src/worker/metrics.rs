//! Metrics of the pool.

use metrics::{Counter, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

const BATCH_STIMULI: &str = "proxygrad_batch_stimuli";
const STEPS: &str = "proxygrad_steps_total";
const BUSY: &str = "proxygrad_device_busy";
const STUDY_RUNS: &str = "proxygrad_study_runs_total";
const TRAINING_STEPS: &str = "proxygrad_training_steps_total";
const FAILURES: &str = "proxygrad_engine_failures_total";

/// Describes the metrics of the pool to the metrics recorder.
pub fn describe_metrics() {
    describe_histogram!(BATCH_STIMULI, "Stimuli that ran in one batch");
    describe_counter!(STEPS, "Steps of jobs, counted per stimulus");
    describe_counter!(STUDY_RUNS, "Finished runs of studies");
    describe_counter!(TRAINING_STEPS, "Steps of trainings");
    describe_gauge!(BUSY, "Whether a device runs jobs, a study or a training (1) or not (0)");
    describe_counter!(FAILURES, "Batches that failed on an engine");
}

pub(super) fn batch(stimuli: usize) {
    histogram!(BATCH_STIMULI).record(stimuli as f64);
}

pub(super) fn steps() -> Counter {
    counter!(STEPS)
}

pub(super) fn study_runs(runs: usize) {
    counter!(STUDY_RUNS).increment(runs as u64);
}

pub(super) fn training_steps() -> Counter {
    counter!(TRAINING_STEPS)
}

pub(super) fn busy(device: &str, busy: bool) {
    gauge!(BUSY, "device" => device.to_owned()).set(if busy { 1.0 } else { 0.0 });
}

pub(super) fn engine_failed(device: &str) {
    counter!(FAILURES, "device" => device.to_owned()).increment(1);
}
