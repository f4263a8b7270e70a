//! What jobs tell the metrics.

use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use super::error::StoreError;
use super::job::JobState;
use super::store::Store;

const ACCEPTED: &str = "proxygrad_jobs_accepted_total";
const ENDED: &str = "proxygrad_jobs_total";
const REQUEUED: &str = "proxygrad_jobs_requeued_total";
const QUEUE_SECONDS: &str = "proxygrad_job_queue_seconds";
const RUN_SECONDS: &str = "proxygrad_job_run_seconds";
const JOBS: &str = "proxygrad_queue_jobs";

/// Tells the metrics recorder what the metrics of jobs mean.
pub fn describe_metrics() {
    describe_counter!(ACCEPTED, "Jobs accepted");
    describe_counter!(ENDED, "Jobs that reached a terminal state, by state");
    describe_counter!(REQUEUED, "Runs that ended without a result and went back into the queue");
    describe_histogram!(QUEUE_SECONDS, metrics::Unit::Seconds, "Time from a job's submission to the start of a run");
    describe_histogram!(RUN_SECONDS, metrics::Unit::Seconds, "Time from the start of a job's last run to its end");
    describe_gauge!(JOBS, "Jobs stored, by state");
}

impl Store {
    /// Sets the gauges of jobs by state; to be called before metrics are read.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn measure(&self) -> Result<(), StoreError> {
        for (state, jobs) in self.counts().await? {
            gauge!(JOBS, "state" => state.as_str()).set(jobs as f64);
        }
        Ok(())
    }
}

fn seconds(milliseconds: u64) -> f64 {
    Duration::from_millis(milliseconds).as_secs_f64()
}

pub(super) fn accepted() {
    counter!(ACCEPTED).increment(1);
}

pub(super) fn started(queued_ms: u64) {
    histogram!(QUEUE_SECONDS).record(seconds(queued_ms));
}

pub(super) fn ended(state: JobState, run_ms: Option<u64>) {
    counter!(ENDED, "state" => state.as_str()).increment(1);
    if let Some(run_ms) = run_ms {
        histogram!(RUN_SECONDS, "state" => state.as_str()).record(seconds(run_ms));
    }
}

pub(super) fn requeued() {
    counter!(REQUEUED).increment(1);
}

pub(super) fn recovered(canceled: u64, failed: u64, requeued: u64) {
    counter!(ENDED, "state" => JobState::Canceled.as_str()).increment(canceled);
    counter!(ENDED, "state" => JobState::Failed.as_str()).increment(failed);
    counter!(REQUEUED).increment(requeued);
}
