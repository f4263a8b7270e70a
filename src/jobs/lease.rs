//! Lease: the right to report the outcome of one run.

use uuid::Uuid;

use super::table::Table;

/// The right to report the outcome of one run of a job or study. Stale once the job or study is requeued or finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The job or study.
    pub id: Uuid,
    pub(super) table: Table,
    /// Grows with every run.
    pub(super) number: i64,
}
