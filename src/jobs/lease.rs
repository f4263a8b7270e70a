//! Lease: the right to report the outcome of one run.

use uuid::Uuid;

use super::table::Table;

/// The right to report the outcome of one run of a job, study or training. Stale once that is requeued or finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The job, study or training.
    pub id: Uuid,
    pub(super) table: Table,
    /// Grows with every run.
    pub(super) number: i64,
}
