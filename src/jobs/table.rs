//! Tables of the database: one for jobs, one for studies, with the same states.

use std::fmt;

/// A table, and the kind of its rows.
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

/// An SQL query on a table: the text before and after the name of the table.
macro_rules! query {
    ($table:expr, $front:literal, $back:literal) => {
        sqlx::query(match $table {
            $crate::jobs::table::Table::Jobs => concat!($front, "jobs", $back),
            $crate::jobs::table::Table::Studies => concat!($front, "studies", $back),
        })
    };
}
pub(super) use query;

/// Logs a state change of a job or study.
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
