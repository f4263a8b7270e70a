//! Reports how a run ended, until the store has it.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::claimed::Claimed;
use crate::jobs::{JobProblem, ProblemCode, Store, StoreError};
use crate::maximize::Outcome;

/// How a run ended.
#[derive(Debug, Clone)]
pub(super) enum End {
    Succeeded(Vec<Outcome>),
    Failed(JobProblem),
    Canceled,
    /// Runs again; the attempt does not count.
    Requeued,
    /// Runs again unless it was interrupted too often.
    Interrupted,
}

/// How often a result is tried to be stored; the job fails then, so that it does not stay running.
const TRIES: u32 = 5;
/// Wait before the second try; it doubles with each try.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// Longest wait between two tries.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Reports the end of a run. While the disk or the database fails, tries again: a job on a device never just stays
/// `running`. Gives up only when the pool stops; the next start of the service finds the job then.
pub(super) async fn settle(store: &Store, job: &Claimed, mut end: End, stop: &CancellationToken) {
    let id = job.claim.job.id;
    let mut wait = FIRST_WAIT;
    for attempt in 1_u32.. {
        let Err(error) = report(store, job, &end).await else { return };
        if stop.is_cancelled() {
            tracing::error!(job.id = %id, %error, "the end of a job could not be stored; it runs again at the next start");
            return;
        }
        if attempt == 1 {
            tracing::error!(job.id = %id, %error, "the end of a job could not be stored; trying again");
        }
        if attempt >= TRIES && matches!(end, End::Succeeded(_)) {
            end = End::Failed(JobProblem::new(ProblemCode::Internal, "the result could not be stored"));
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => {}
        }
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

async fn report(store: &Store, job: &Claimed, end: &End) -> Result<(), StoreError> {
    let lease = job.claim.lease;
    match end {
        End::Succeeded(outcomes) => store.succeed(&job.claim, outcomes).await.map(drop),
        End::Failed(problem) => store.fail(lease, problem.clone()).await.map(drop),
        End::Canceled => store.canceled(lease).await.map(drop),
        End::Requeued => store.requeue(&[lease]).await,
        End::Interrupted => store.interrupted(&[lease]).await,
    }
}
