//! Tables of the database: one each for jobs, studies and trainings, with the same states.

use std::fmt;

/// A table, and the kind of its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    Jobs,
    Studies,
    Trainings,
}

impl Table {
    /// All tables.
    pub(super) const ALL: [Self; 3] = [Self::Jobs, Self::Studies, Self::Trainings];
    /// Those whose rows have a folder, and give way to jobs between two batches.
    pub(super) const LONG: [Self; 2] = [Self::Studies, Self::Trainings];

    /// Name of the table, and of the folder of its files.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Jobs => "jobs",
            Self::Studies => "studies",
            Self::Trainings => "trainings",
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Jobs => "job",
            Self::Studies => "study",
            Self::Trainings => "training",
        })
    }
}

/// An SQL query on a table: the text before and after the name of the table.
macro_rules! query {
    ($table:expr, $front:literal, $back:literal) => {
        sqlx::query(match $table {
            $crate::jobs::table::Table::Jobs => concat!($front, "jobs", $back),
            $crate::jobs::table::Table::Studies => concat!($front, "studies", $back),
            $crate::jobs::table::Table::Trainings => concat!($front, "trainings", $back),
        })
    };
}
pub(super) use query;

/// Logs a state change of a job, study or training.
macro_rules! log_state {
    ($level:ident, $table:expr, $id:expr, $state:expr, $what:literal $(, $($fields:tt)*)?) => {
        match $table {
            $crate::jobs::table::Table::Jobs => {
                tracing::$level!(job.id = %$id, job.state = %$state, $($($fields)*,)? concat!("job ", $what))
            }
            $crate::jobs::table::Table::Studies => {
                tracing::$level!(study.id = %$id, study.state = %$state, $($($fields)*,)? concat!("study ", $what))
            }
            $crate::jobs::table::Table::Trainings => {
                tracing::$level!(
                    training.id = %$id, training.state = %$state, $($($fields)*,)? concat!("training ", $what)
                )
            }
        }
    };
}
pub(super) use log_state;
