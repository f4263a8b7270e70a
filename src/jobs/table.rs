//! The two kinds of work: jobs and studies. Each has a table; both go through the same states.

use std::fmt;

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    Jobs,
    Studies,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Jobs => "job",
            Self::Studies => "study",
        })
    }
}

/// A query on the table of a kind of work: its text, with the name of the table where the texts meet.
macro_rules! query {
    ($table:expr, $front:literal, $back:literal) => {
        sqlx::query(match $table {
            $crate::jobs::table::Table::Jobs => concat!($front, "jobs", $back),
            $crate::jobs::table::Table::Studies => concat!($front, "studies", $back),
        })
    };
}
pub(super) use query;

/// Logs a change of state of a job or study.
macro_rules! log_state {
    ($level:ident, $table:expr, $id:expr, $state:expr, $what:literal $(, $($fields:tt)*)?) => {
        match $table {
            $crate::jobs::table::Table::Jobs => {
                tracing::$level!(job.id = %$id, job.state = %$state, $($($fields)*,)? concat!("job ", $what))
            }
            $crate::jobs::table::Table::Studies => {
                tracing::$level!(study.id = %$id, study.state = %$state, $($($fields)*,)? concat!("study ", $what))
            }
        }
    };
}
pub(super) use log_state;
