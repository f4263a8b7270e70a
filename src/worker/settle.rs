//! Reports how runs ended, until the store has it.

use std::time::{Duration, Instant};

use futures_util::{FutureExt, StreamExt, stream};
use tokio_util::sync::CancellationToken;

use crate::jobs::{Claim, JobProblem, Lease, ProblemCode, RunEnd, Store, StoreError};
use proxygrad::maximize::Outcome;

/// A run that has ended, and is not stored yet.
#[derive(Debug)]
pub(super) struct Ended {
    lease: Lease,
    /// Canceled when somebody asked to stop it.
    canceled: CancellationToken,
    end: End,
    /// Failures that are not the data directory's.
    failures: u32,
}

/// What is known about the end of a run.
#[derive(Debug)]
enum End {
    /// A result whose PNGs are still to be written.
    Found(Box<Claim>, Vec<Outcome>),
    /// Everything else.
    Known(RunEnd),
}

/// Wait before the second try; it doubles with each try.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// Longest wait between two tries.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// Jobs whose PNGs are written at a time.
const WRITERS: usize = 8;
/// Tries after which a result is given up that cannot be stored although the data directory can be written: a fault of
/// the program.
const TRIES: u32 = 5;

impl Ended {
    /// A job that found these outcomes.
    pub(super) fn found(claim: &Claim, outcomes: Vec<Outcome>) -> Self {
        let end = End::Found(Box::new(claim.clone()), outcomes);
        Self { lease: claim.lease, canceled: claim.canceled.clone(), end, failures: 0 }
    }

    /// A job or study that ended in another way.
    pub(super) fn known(lease: Lease, canceled: &CancellationToken, end: RunEnd) -> Self {
        Self { lease, canceled: canceled.clone(), end: End::Known(end), failures: 0 }
    }

    fn has_result(&self) -> bool {
        matches!(self.end, End::Found(..) | End::Known(RunEnd::Succeeded { .. }))
    }

    /// Drops the result, if there is one, for another end.
    fn instead(&mut self, end: RunEnd) {
        if self.has_result() {
            self.end = End::Known(end);
        }
    }
}

/// Stores the ends of runs. While the data directory cannot be written, keeps them and tries again: a job on a device never
/// just stays `running`, and a result is never lost to a fault that passes. A result that could not be stored for `patience`
/// goes, and its job back into the queue; one that is canceled meanwhile is canceled. Gives up only when the pool stops; the
/// next start of the service finds the jobs then.
pub(super) async fn settle(store: &Store, mut runs: Vec<Ended>, stop: &CancellationToken, patience: Duration) {
    let (begin, mut wait, mut told) = (Instant::now(), FIRST_WAIT, false);
    while let Some(error) = report(store, &mut runs).await {
        let ids: Vec<String> = runs.iter().map(|run| run.lease.id.to_string()).collect();
        if stop.is_cancelled() {
            // The last try: what cannot be stored runs again.
            runs.iter_mut().for_each(|run| run.instead(RunEnd::Requeued));
            if report(store, &mut runs).await.is_some() {
                tracing::error!(?ids, %error, "the ends of runs could not be stored; they run again at the next start");
            }
            return;
        }
        if !std::mem::replace(&mut told, true) {
            tracing::error!(?ids, %error, "the ends of runs could not be stored; trying again");
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => {}
        }
        wait = (wait * 2).min(LONGEST_WAIT);
        let over = begin.elapsed() >= patience;
        for run in &mut runs {
            if run.canceled.is_cancelled() {
                run.instead(RunEnd::Canceled);
            } else if over && run.has_result() {
                tracing::error!(id = %run.lease.id, "a result could not be stored for too long; its job is queued again");
                run.instead(RunEnd::Requeued);
            } else if run.failures >= TRIES {
                let problem = JobProblem::new(ProblemCode::Internal, "the result could not be stored");
                run.instead(RunEnd::Failed(problem));
            }
        }
    }
}

/// Stores what can be stored, and leaves the rest in `runs`; the last error if there is a rest.
async fn report(store: &Store, runs: &mut Vec<Ended>) -> Option<StoreError> {
    let mut failed = None;
    let mut writes = Vec::with_capacity(runs.len());
    for run in runs.iter() {
        writes.push(
            async move {
                match &run.end {
                    End::Found(claim, outcomes) => Some(store.store_pngs(claim, outcomes).await),
                    End::Known(_) => None,
                }
            }
            .boxed(),
        );
    }
    let written: Vec<_> = stream::iter(writes).buffered(WRITERS).collect().await;
    for (run, written) in runs.iter_mut().zip(written) {
        match written {
            None => {}
            Some(Ok(end)) => run.end = End::Known(end),
            Some(Err(error)) => {
                run.failures += u32::from(error.fault().is_none());
                failed = Some(error);
            }
        }
    }
    // Ends without a result may use the space that is kept back for them.
    for results in [false, true] {
        let ready = |run: &Ended| match &run.end {
            End::Known(end) if matches!(end, RunEnd::Succeeded { .. }) == results => Some((run.lease, end.clone())),
            _ => None,
        };
        let ends: Vec<(Lease, RunEnd)> = runs.iter().filter_map(ready).collect();
        if ends.is_empty() {
            continue;
        }
        match store.end_runs(ends).await {
            Ok(_) => runs.retain(|run| ready(run).is_none()),
            Err(error) if error.fault().is_some() => failed = Some(error),
            // One of them may be at fault; each is tried alone.
            Err(error) => {
                failed = Some(error);
                let mut rest = Vec::with_capacity(runs.len());
                for mut run in runs.drain(..) {
                    let alone = match ready(&run) {
                        Some(end) => store.end_runs(vec![end]).await,
                        None => {
                            rest.push(run);
                            continue;
                        }
                    };
                    if let Err(error) = alone {
                        run.failures += u32::from(error.fault().is_none());
                        failed = Some(error);
                        rest.push(run);
                    }
                }
                *runs = rest;
            }
        }
    }
    if runs.is_empty() { None } else { failed }
}
