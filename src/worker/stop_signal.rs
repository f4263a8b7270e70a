//! Stop signal of a run: cancellation, time limit and shutdown, and the stop reason.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// Reason for stopping a run before its last step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopReason {
    /// A client canceled it.
    Canceled,
    /// It exceeded its time limit.
    TimeLimit,
    /// The pool shuts down; the run repeats later.
    Shutdown,
}

/// Signal to stop a run. Checked before every step on the device thread, and awaited by the task that reports.
#[derive(Debug)]
pub(super) struct StopSignal {
    cancel_requested: CancellationToken,
    shutdown: CancellationToken,
    deadline: Instant,
    /// The first reason, which never changes, and when it applied.
    reason: OnceLock<(StopReason, Instant)>,
}

impl StopSignal {
    /// Signal of a run that starts now.
    pub(super) fn new(cancel_requested: CancellationToken, shutdown: CancellationToken, limit: Duration) -> Self {
        let now = Instant::now();
        // Limits that the clock cannot represent become a century.
        let deadline = now.checked_add(limit).unwrap_or(now + Duration::from_secs(3_000_000_000));
        Self { cancel_requested, shutdown, deadline, reason: OnceLock::new() }
    }

    /// Why the run must stop now; `None` if it may continue.
    pub(super) fn reason(&self) -> Option<StopReason> {
        if let Some((reason, _)) = self.reason.get() {
            return Some(*reason);
        }
        let reason = if self.cancel_requested.is_cancelled() {
            StopReason::Canceled
        } else if self.shutdown.is_cancelled() {
            StopReason::Shutdown
        } else if Instant::now() >= self.deadline {
            StopReason::TimeLimit
        } else {
            return None;
        };
        Some(self.reason.get_or_init(|| (reason, Instant::now())).0)
    }

    /// Whether the run was asked to stop longer ago than the patience, and its current step has not returned.
    pub(super) fn is_overdue(&self) -> bool {
        let patience = if self.shutdown.is_cancelled() { SHUTDOWN_PATIENCE } else { PATIENCE };
        self.reason().is_some() && self.reason.get().is_some_and(|(_, since)| since.elapsed() >= patience)
    }

    /// Waits until the run must stop.
    pub(super) async fn triggered(&self) {
        tokio::select! {
            () = self.cancel_requested.cancelled() => {}
            () = self.shutdown.cancelled() => {}
            () = tokio::time::sleep_until(self.deadline.into()) => {}
        }
    }
}

/// How long a step may continue after its run was asked to stop; then the outcome is reported without it. The device
/// is not used until the step returns.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same during a shutdown, when nothing waits for the device.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(2);
