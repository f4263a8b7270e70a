//! Reports how a run ended, until the store has it.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::jobs::{Claim, JobProblem, Lease, ProblemCode, Store, StoreError};
use crate::maximize::Outcome;

/// What has ended.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ended<'a> {
    Job(&'a Claim),
    Study(Lease),
}

/// How a run ended.
#[derive(Debug, Clone)]
pub(super) enum End {
    /// With what a job found; a study has it in its folder.
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
pub(super) async fn settle(store: &Store, ended: Ended<'_>, mut end: End, stop: &CancellationToken) {
    let id = ended.lease().id;
    let mut wait = FIRST_WAIT;
    for attempt in 1_u32.. {
        let Err(error) = report(store, ended, &end).await else { return };
        if stop.is_cancelled() {
            tracing::error!(%id, %error, "the end of a run could not be stored; it runs again at the next start");
            return;
        }
        if attempt == 1 {
            tracing::error!(%id, %error, "the end of a run could not be stored; trying again");
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

impl Ended<'_> {
    fn lease(self) -> Lease {
        match self {
            Self::Job(claim) => claim.lease,
            Self::Study(lease) => lease,
        }
    }
}

async fn report(store: &Store, ended: Ended<'_>, end: &End) -> Result<(), StoreError> {
    let lease = ended.lease();
    match end {
        End::Succeeded(outcomes) => match ended {
            Ended::Job(claim) => store.succeed(claim, outcomes).await.map(drop),
            Ended::Study(lease) => store.study_succeeded(lease).await.map(drop),
        },
        End::Failed(problem) => store.fail(lease, problem.clone()).await.map(drop),
        End::Canceled => store.canceled(lease).await.map(drop),
        End::Requeued => store.requeue(&[lease]).await,
        End::Interrupted => store.interrupted(&[lease]).await,
    }
}
