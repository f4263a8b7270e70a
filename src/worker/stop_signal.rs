//! Why and when a run ends before its last step.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// Why a run ends before its last step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopReason {
    /// Somebody asked for it.
    Canceled,
    /// It ran too long.
    TimeLimit,
    /// The pool stops; what ran runs again later.
    Stopped,
}

/// What may end a run early; asked before every step on the device's thread, and watched by the task that reports.
#[derive(Debug)]
pub(super) struct StopSignal {
    canceled: CancellationToken,
    stop: CancellationToken,
    deadline: Instant,
    /// Set once: what ended the run stays what ended it.
    reason: OnceLock<(StopReason, Instant)>,
}

impl StopSignal {
    /// A run that begins now.
    pub(super) fn new(canceled: CancellationToken, stop: CancellationToken, limit: Duration) -> Self {
        let now = Instant::now();
        // A limit beyond what a clock can count is a limit of a century.
        let deadline = now.checked_add(limit).unwrap_or(now + Duration::from_secs(3_000_000_000));
        Self { canceled, stop, deadline, reason: OnceLock::new() }
    }

    /// Whether the run must end now, and why.
    pub(super) fn reason(&self) -> Option<StopReason> {
        if let Some((reason, _)) = self.reason.get() {
            return Some(*reason);
        }
        let reason = if self.canceled.is_cancelled() {
            StopReason::Canceled
        } else if self.stop.is_cancelled() {
            StopReason::Stopped
        } else if Instant::now() >= self.deadline {
            StopReason::TimeLimit
        } else {
            return None;
        };
        Some(self.reason.get_or_init(|| (reason, Instant::now())).0)
    }

    /// Whether a reason stands for longer than the patience with a single step: the step that it waits for does not end.
    pub(super) fn overdue(&self) -> bool {
        let patience = if self.stop.is_cancelled() { LAST_PATIENCE } else { PATIENCE };
        self.reason().is_some() && self.reason.get().is_some_and(|(_, since)| since.elapsed() >= patience)
    }

    /// Waits until there is a reason.
    pub(super) async fn triggered(&self) {
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
