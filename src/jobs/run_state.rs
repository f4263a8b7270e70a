//! Lifecycle shared by jobs, studies and trainings: states, and why a run failed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use proxygrad::Invalid;

/// State of a job: `queued -> running -> succeeded | failed | canceled`.
///
/// The last three are terminal and never change again. A running job goes back to `queued` when its run is interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = JobState)]
pub enum RunState {
    /// Accepted and waiting for a device.
    Queued,
    /// On a device.
    Running,
    /// Every stimulus was found.
    Succeeded,
    /// Ended without a result; `problem` says why.
    Failed,
    /// Ended because a client canceled it.
    Canceled,
}

impl RunState {
    /// All states, in the order of a run's life.
    pub const ALL: [Self; 5] = [Self::Queued, Self::Running, Self::Succeeded, Self::Failed, Self::Canceled];

    /// The state's name: `queued`, `running`, `succeeded`, `failed`, `canceled`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }

    /// Whether the state is final.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Canceled)
    }
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for RunState {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let expected = "queued, running, succeeded, failed or canceled";
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| Invalid::new("state", text, expected))
    }
}

/// Why a job, study or training failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = JobProblem)]
pub struct Failure {
    /// Kind of failure; stable across versions.
    pub code: FailureCode,
    /// What happened, in words.
    pub detail: String,
}

/// Kind of failure of a job, study or training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = ProblemCode)]
pub enum FailureCode {
    /// It ran longer than the service allows.
    TimeLimit,
    /// The network could not run: not enough memory, no device, or an operation that does not support this image size.
    Engine,
    /// The service crashed repeatedly while it was running.
    Interrupted,
    /// A bug of the service; see its log.
    Internal,
    /// The model could not be loaded or added, or its weights have changed since the submission.
    Model,
    /// The dataset could not be read, or the settings do not fit it.
    Dataset,
    /// The loss of a training is no longer a number.
    Diverged,
}

impl FailureCode {
    /// The code as shown: `time-limit`, `engine`, `interrupted`, `internal`, `model`, `dataset`,
    /// `diverged`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TimeLimit => "time-limit",
            Self::Engine => "engine",
            Self::Interrupted => "interrupted",
            Self::Internal => "internal",
            Self::Model => "model",
            Self::Dataset => "dataset",
            Self::Diverged => "diverged",
        }
    }
}

impl Failure {
    /// A failure of this kind.
    pub fn new(code: FailureCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }
}
