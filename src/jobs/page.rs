//! Lists of jobs and studies, page by page.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use super::job::Job;
use super::run_state::RunState;
use proxygrad::Invalid;

/// Which jobs a list shows; everything unless given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// Only jobs in this state.
    pub state: Option<RunState>,
    /// Only jobs of the model with this id.
    pub model: Option<String>,
}

/// Where the next page starts: behind a job or study. Written as text that a client hands back unread.
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
        let expected = "the value of next from the page before";
        Uuid::try_parse(text).map(Self).map_err(|_| Invalid::new("cursor", text, expected))
    }
}

/// Some jobs, or studies, of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T = Job> {
    /// Newest first.
    pub items: Vec<T>,
    /// Where the next page starts; nothing on the last page.
    pub next: Option<Cursor>,
}
