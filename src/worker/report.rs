//! Reports the outcomes of runs to the store, with retries while the data directory cannot be written.

use std::time::{Duration, Instant};

use futures_util::{FutureExt, StreamExt, stream};
use tokio_util::sync::CancellationToken;

use crate::jobs::{Claim, Failure, FailureCode, Lease, RunOutcome, Store, StoreError};
use proxygrad::maximize::Outcome;

/// A run that has ended and whose outcome is not stored yet.
#[derive(Debug)]
pub(super) struct PendingReport {
    lease: Lease,
    /// Canceled when a client cancels the job or study.
    cancel_requested: CancellationToken,
    content: Content,
    /// Failures with another cause than the data directory.
    failures: u32,
}

/// What is to be stored.
#[derive(Debug)]
enum Content {
    /// Stimuli whose PNGs are not written yet.
    Stimuli(Box<Claim>, Vec<Outcome>),
    Outcome(RunOutcome),
}

/// Wait before the second try; it doubles with each try.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// Longest wait between two tries.
const MAX_WAIT: Duration = Duration::from_secs(2);
/// Jobs whose PNGs are written concurrently.
const CONCURRENT_WRITES: usize = 8;
/// Tries after which a result is dropped that cannot be stored although the data directory can be written: a bug.
const MAX_FAILURES: u32 = 5;

impl PendingReport {
    /// A job for which these stimuli were found.
    pub(super) fn with_stimuli(claim: &Claim, outcomes: Vec<Outcome>) -> Self {
        let content = Content::Stimuli(Box::new(claim.clone()), outcomes);
        Self { lease: claim.lease, cancel_requested: claim.cancel_requested.clone(), content, failures: 0 }
    }

    /// A job or study with any other outcome.
    pub(super) fn with_outcome(lease: Lease, cancel_requested: &CancellationToken, outcome: RunOutcome) -> Self {
        Self { lease, cancel_requested: cancel_requested.clone(), content: Content::Outcome(outcome), failures: 0 }
    }

    fn has_result(&self) -> bool {
        matches!(self.content, Content::Stimuli(..) | Content::Outcome(RunOutcome::Succeeded { .. }))
    }

    /// Drops the result, if there is one, in favour of another outcome.
    fn replace_result(&mut self, outcome: RunOutcome) {
        if self.has_result() {
            self.content = Content::Outcome(outcome);
        }
    }
}

/// Stores the outcomes of runs, and retries while the data directory cannot be written, so that no job stays `running`
/// forever and no result is lost to a temporary fault. A result that could not be stored for `patience` is dropped and
/// its job requeued, or canceled if a client canceled it meanwhile. Gives up only when `interrupt` is canceled; the
/// next start of the service then recovers the jobs.
pub(super) async fn report_with_retry(
    store: &Store,
    mut reports: Vec<PendingReport>,
    interrupt: &CancellationToken,
    patience: Duration,
) {
    let (begin, mut wait, mut logged) = (Instant::now(), FIRST_WAIT, false);
    while let Some(error) = try_report(store, &mut reports).await {
        let ids: Vec<String> = reports.iter().map(|report| report.lease.id.to_string()).collect();
        if interrupt.is_cancelled() {
            // Last try: results that cannot be stored are computed again.
            reports.iter_mut().for_each(|report| report.replace_result(RunOutcome::Requeued));
            if try_report(store, &mut reports).await.is_some() {
                tracing::error!(?ids, %error, "outcomes of runs could not be stored; repeated at the next start");
            }
            return;
        }
        if !std::mem::replace(&mut logged, true) {
            tracing::error!(?ids, %error, "outcomes of runs could not be stored; retrying");
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = interrupt.cancelled() => {}
        }
        wait = (wait * 2).min(MAX_WAIT);
        let expired = begin.elapsed() >= patience;
        for report in &mut reports {
            if report.cancel_requested.is_cancelled() {
                report.replace_result(RunOutcome::Canceled);
            } else if expired && report.has_result() {
                let waited_s = begin.elapsed().as_secs();
                tracing::error!(id = %report.lease.id, waited_s, "result could not be stored; dropped and requeued");
                report.replace_result(RunOutcome::Requeued);
            } else if report.failures >= MAX_FAILURES {
                let problem = Failure::new(FailureCode::Internal, "the result could not be stored");
                report.replace_result(RunOutcome::Failed(problem));
            }
        }
    }
}

/// Stores what can be stored and leaves the rest in `reports`. Returns the last error if anything is left.
async fn try_report(store: &Store, reports: &mut Vec<PendingReport>) -> Option<StoreError> {
    let mut failed = None;
    let mut writes = Vec::with_capacity(reports.len());
    for report in reports.iter() {
        writes.push(
            async move {
                match &report.content {
                    Content::Stimuli(claim, outcomes) => Some(store.store_pngs(claim, outcomes).await),
                    Content::Outcome(_) => None,
                }
            }
            .boxed(),
        );
    }
    let written: Vec<_> = stream::iter(writes).buffered(CONCURRENT_WRITES).collect().await;
    for (report, written) in reports.iter_mut().zip(written) {
        match written {
            None => {}
            Some(Ok(outcome)) => report.content = Content::Outcome(outcome),
            Some(Err(error)) => {
                report.failures += u32::from(error.fault().is_none());
                failed = Some(error);
            }
        }
    }
    // Outcomes without results may use the disk reserve.
    for with_results in [false, true] {
        let ready = |report: &PendingReport| match &report.content {
            Content::Outcome(outcome) if matches!(outcome, RunOutcome::Succeeded { .. }) == with_results => {
                Some((report.lease, outcome.clone()))
            }
            _ => None,
        };
        let outcomes: Vec<(Lease, RunOutcome)> = reports.iter().filter_map(ready).collect();
        if outcomes.is_empty() {
            continue;
        }
        match store.finish_all(outcomes).await {
            Ok(_) => reports.retain(|report| ready(report).is_none()),
            Err(error) if error.fault().is_some() => failed = Some(error),
            // A single one may be the cause; try each on its own.
            Err(error) => {
                failed = Some(error);
                let mut rest = Vec::with_capacity(reports.len());
                for mut report in reports.drain(..) {
                    let alone = match ready(&report) {
                        Some((lease, outcome)) => store.finish(lease, outcome).await,
                        None => {
                            rest.push(report);
                            continue;
                        }
                    };
                    if let Err(error) = alone {
                        report.failures += u32::from(error.fault().is_none());
                        failed = Some(error);
                        rest.push(report);
                    }
                }
                *reports = rest;
            }
        }
    }
    if reports.is_empty() { None } else { failed }
}
