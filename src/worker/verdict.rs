//! Why and when a run ends before its last step.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// Why a run ends before its last step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Somebody asked for it.
    Canceled,
    /// It ran too long.
    TimeLimit,
    /// The pool stops; what ran runs again later.
    Stopped,
}

/// What may end a run early; asked before every step on the device's thread, and watched by the task that reports.
#[derive(Debug)]
pub(super) struct Trial {
    canceled: CancellationToken,
    stop: CancellationToken,
    deadline: Instant,
    /// Set once: what ended the run stays what ended it.
    verdict: OnceLock<(Verdict, Instant)>,
}

impl Trial {
    /// A run that begins now.
    pub(super) fn new(canceled: CancellationToken, stop: CancellationToken, limit: Duration) -> Self {
        let now = Instant::now();
        // A limit beyond what a clock can count is a limit of a century.
        let deadline = now.checked_add(limit).unwrap_or(now + Duration::from_secs(3_000_000_000));
        Self { canceled, stop, deadline, verdict: OnceLock::new() }
    }

    /// Whether the run must end now, and why.
    pub(super) fn verdict(&self) -> Option<Verdict> {
        if let Some((verdict, _)) = self.verdict.get() {
            return Some(*verdict);
        }
        let verdict = if self.canceled.is_cancelled() {
            Verdict::Canceled
        } else if self.stop.is_cancelled() {
            Verdict::Stopped
        } else if Instant::now() >= self.deadline {
            Verdict::TimeLimit
        } else {
            return None;
        };
        Some(self.verdict.get_or_init(|| (verdict, Instant::now())).0)
    }

    /// Whether a verdict stands for longer than the patience with a single step: the step that it waits for does not end.
    pub(super) fn overdue(&self) -> bool {
        let patience = if self.stop.is_cancelled() { LAST_PATIENCE } else { PATIENCE };
        self.verdict().is_some() && self.verdict.get().is_some_and(|(_, since)| since.elapsed() >= patience)
    }

    /// Waits until there is a verdict.
    pub(super) async fn verdict_falls(&self) {
        tokio::select! {
            () = self.canceled.cancelled() => {}
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep_until(self.deadline.into()) => {}
        }
    }
}

/// How long a step may go on after its run was to end, before the run ends without it. The device is not used again
/// until the step is over.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same when the pool stops: nothing is waiting for the device then.
const LAST_PATIENCE: Duration = Duration::from_secs(2);
