//! Pagination of lists of jobs and studies.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use super::job::Job;
use super::run_state::RunState;
use proxygrad::Invalid;

/// Filter of a list of jobs; by default all jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// Only jobs in this state.
    pub state: Option<RunState>,
    /// Only jobs of the model with this id.
    pub model: Option<String>,
}

/// Start of a page: the id of the last item before it. An opaque text for clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor(pub(super) Uuid);

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.simple().fmt(f)
    }
}

impl FromStr for Cursor {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let expected = "the value of next from the previous page";
        Uuid::try_parse(text).map(Self).map_err(|_| Invalid::new("cursor", text, expected))
    }
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T = Job> {
    /// Newest first.
    pub items: Vec<T>,
    /// Cursor of the next page; `None` on the last page.
    pub next: Option<Cursor>,
}
