//! Metrics of jobs, studies and trainings.

use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use super::error::StoreError;
use super::run_state::RunState;
use super::store::Store;
use super::table::Table;

/// Names of the metrics of a table.
struct Names {
    accepted: &'static str,
    ended: &'static str,
    requeued: &'static str,
    queue_seconds: &'static str,
    run_seconds: &'static str,
    stored: &'static str,
}

const fn names(table: Table) -> Names {
    match table {
        Table::Jobs => Names {
            accepted: "proxygrad_jobs_accepted_total",
            ended: "proxygrad_jobs_total",
            requeued: "proxygrad_jobs_requeued_total",
            queue_seconds: "proxygrad_job_queue_seconds",
            run_seconds: "proxygrad_job_run_seconds",
            stored: "proxygrad_queue_jobs",
        },
        Table::Studies => Names {
            accepted: "proxygrad_studies_accepted_total",
            ended: "proxygrad_studies_total",
            requeued: "proxygrad_studies_requeued_total",
            queue_seconds: "proxygrad_study_queue_seconds",
            run_seconds: "proxygrad_study_run_seconds",
            stored: "proxygrad_queue_studies",
        },
        Table::Trainings => Names {
            accepted: "proxygrad_trainings_accepted_total",
            ended: "proxygrad_trainings_total",
            requeued: "proxygrad_trainings_requeued_total",
            queue_seconds: "proxygrad_training_queue_seconds",
            run_seconds: "proxygrad_training_run_seconds",
            stored: "proxygrad_queue_trainings",
        },
    }
}

/// Describes the metrics of jobs, studies and trainings to the metrics recorder.
pub fn describe_metrics() {
    let jobs = names(Table::Jobs);
    describe_counter!(jobs.accepted, "Jobs accepted");
    describe_counter!(jobs.ended, "Jobs that reached a terminal state, by state");
    describe_counter!(jobs.requeued, "Runs that ended without a result and were requeued");
    let seconds = metrics::Unit::Seconds;
    describe_histogram!(jobs.queue_seconds, seconds, "Time from a job's submission to the start of a run");
    describe_histogram!(jobs.run_seconds, seconds, "Time from the start of a job's last run to its end");
    describe_gauge!(jobs.stored, "Jobs stored, by state");
    let studies = names(Table::Studies);
    describe_counter!(studies.accepted, "Studies accepted");
    describe_counter!(studies.ended, "Studies that reached a terminal state, by state");
    describe_counter!(studies.requeued, "Studies that were interrupted and requeued");
    describe_histogram!(studies.queue_seconds, seconds, "Time from a study's submission to its start");
    describe_histogram!(studies.run_seconds, seconds, "Time from a study's last start to its end");
    describe_gauge!(studies.stored, "Studies stored, by state");
    let trainings = names(Table::Trainings);
    describe_counter!(trainings.accepted, "Trainings accepted");
    describe_counter!(trainings.ended, "Trainings that reached a terminal state, by state");
    describe_counter!(trainings.requeued, "Trainings that were interrupted and requeued");
    describe_histogram!(trainings.queue_seconds, seconds, "Time from a training's submission to its start");
    describe_histogram!(trainings.run_seconds, seconds, "Time from a training's last start to its end");
    describe_gauge!(trainings.stored, "Trainings stored, by state");
}

impl Store {
    /// Updates the gauges of jobs, studies and trainings by state; call before metrics are read.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn measure(&self) -> Result<(), StoreError> {
        for table in Table::ALL {
            for (state, stored) in self.count(table).await? {
                gauge!(names(table).stored, "state" => state.as_str()).set(stored as f64);
            }
        }
        Ok(())
    }
}

fn seconds(milliseconds: u64) -> f64 {
    Duration::from_millis(milliseconds).as_secs_f64()
}

pub(super) fn accepted(table: Table) {
    counter!(names(table).accepted).increment(1);
}

pub(super) fn started(table: Table, queued_ms: u64) {
    histogram!(names(table).queue_seconds).record(seconds(queued_ms));
}

pub(super) fn finished(table: Table, state: RunState, run_ms: Option<u64>) {
    counter!(names(table).ended, "state" => state.as_str()).increment(1);
    if let Some(run_ms) = run_ms {
        histogram!(names(table).run_seconds, "state" => state.as_str()).record(seconds(run_ms));
    }
}

pub(super) fn requeued(table: Table) {
    counter!(names(table).requeued).increment(1);
}

pub(super) fn recovered(table: Table, canceled: u64, failed: u64, requeued: u64) {
    let names = names(table);
    counter!(names.ended, "state" => RunState::Canceled.as_str()).increment(canceled);
    counter!(names.ended, "state" => RunState::Failed.as_str()).increment(failed);
    counter!(names.requeued).increment(requeued);
}
