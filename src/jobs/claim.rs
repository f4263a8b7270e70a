//! Claims: moves jobs from the queue to a device.

use std::sync::atomic::Ordering;

use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::error::StoreError;
use super::feed::Event;
use super::job::Job;
use super::lease::Lease;
use super::metrics;
use super::row::{self, columns};
use super::run_state::{Failure, FailureCode, RunState};
use super::store::Store;
use super::table::{Table, query};
use super::writer::{Caller, WriteTransaction};

/// Work that was running at this many crashes, together with other work, next runs with nothing else: if the
/// process crashes again, the cause is known.
const SUSPECT_CRASHES: i64 = 2;

/// A running job, owned by its claimer.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The job as it was claimed.
    pub job: Job,
    /// Required to report its outcome.
    pub lease: Lease,
    /// Canceled when a client cancels the job.
    pub cancel_requested: CancellationToken,
}

/// Result of asking for jobs.
#[derive(Debug, Default)]
pub struct ClaimedJobs {
    /// Jobs to run together; empty when there are none.
    pub jobs: Vec<Claim>,
    /// Nothing may start or continue now, because a job or study has to run with nothing else: it is running, or waits
    /// until the other devices are free.
    pub blocked: bool,
}

impl Store {
    /// Changes when a job, study or training joins the queue. To miss none: mark it unchanged, look for work, then wait for a
    /// change.
    pub fn arrivals(&self) -> watch::Receiver<()> {
        self.inner.arrivals.subscribe()
    }

    /// Claims the oldest queued job, together with later ones that may share its batch, up to `max_stimuli` stimuli in
    /// all. A larger job is claimed alone, as is one that was running at a crash, so that another crash affects no
    /// other job. Empty if nothing is queued, or if the oldest job has to wait until nothing else runs.
    ///
    /// # Errors
    /// If the database fails; nothing is claimed then.
    pub async fn claim(&self, max_stimuli: usize) -> Result<Vec<Claim>, StoreError> {
        Ok(self.claim_ahead_of(max_stimuli, None).await?.jobs)
    }

    /// Like [`Store::claim`], for a device that holds a study or training, which pauses while the jobs run. One that has
    /// to run with nothing else lets no job pass until its next batch is done.
    ///
    /// # Errors
    /// If the database fails; nothing is claimed then.
    pub async fn claim_ahead_of(&self, max_stimuli: usize, held: Option<Lease>) -> Result<ClaimedJobs, StoreError> {
        self.detached(move |store| async move {
            loop {
                if let Some(claimed) = store.claim_batch(max_stimuli, held).await? {
                    return Ok(claimed);
                }
            }
        })
        .await
    }

    /// Claims once; `None` if all rows found were damaged. Those are marked failed, so that the next try proceeds.
    async fn claim_batch(&self, max_stimuli: usize, held: Option<Lease>) -> Result<Option<ClaimedJobs>, StoreError> {
        let mut write = self.write(Caller::Worker).await?;
        if let Some(held) = held
            && write.is_suspect_held(held).await?
        {
            // If it paused, other devices would start work that then runs next to it.
            write.rollback().await?;
            return Ok(Some(ClaimedJobs::default()));
        }
        let others = write.others(held).await?;
        let mut rows = candidates(&mut write, max_stimuli).await?;
        let blocked = others.suspects || others.running && is_suspect(rows.first())?;
        if blocked {
            self.inner.blocked.store(true, Ordering::Release);
            rows.clear();
        }
        if rows.is_empty() {
            write.rollback().await?;
            return Ok(Some(ClaimedJobs { jobs: Vec::new(), blocked }));
        }
        let now = row::now();
        let mut started = Vec::new();
        let mut damaged = Vec::new();
        for candidate in rows {
            let id = row::id(&candidate)?;
            match row::job(&candidate) {
                Ok(job) => {
                    let update = sqlx::query(
                        "UPDATE jobs SET state = 'running', started_at = ?, attempts = attempts + 1, \
                         lease = lease + 1 WHERE id = ?",
                    );
                    update.bind(now).bind(row::key(id)).execute(write.db()).await?;
                    started.push((job, candidate.try_get::<i64, _>("lease")? + 1));
                }
                Err(error) => {
                    let problem = Failure::new(FailureCode::Internal, "the stored job is damaged");
                    let update =
                        sqlx::query("UPDATE jobs SET state = 'failed', finished_at = ?, problem = ? WHERE id = ?");
                    let update = update.bind(now).bind(row::json(&problem)?).bind(row::key(id));
                    update.execute(write.db()).await?;
                    damaged.push((id, error));
                }
            }
        }
        if let Some(held) = held.filter(|held| !started.is_empty() && held.table != Table::Jobs) {
            let waits =
                query!(held.table, "UPDATE ", " SET waits = 1 WHERE id = ? AND lease = ? AND state = 'running'");
            waits.bind(row::key(held.id)).bind(held.number).execute(write.db()).await?;
        }
        let _guard = write.commit().await?;
        for (id, error) in damaged {
            tracing::error!(job.id = %id, job.state = "failed", %error, "job row is damaged");
            self.publish_state(id, RunState::Failed);
            metrics::finished(Table::Jobs, RunState::Failed, None);
        }
        if started.is_empty() {
            return Ok(None);
        }
        let jobs = started.into_iter().map(|(job, number)| self.start_job(job, now, number)).collect();
        Ok(Some(ClaimedJobs { jobs, blocked }))
    }

    /// The claim of a job that was just marked running.
    fn start_job(&self, mut job: Job, now: i64, number: i64) -> Claim {
        job.state = RunState::Running;
        job.started_at = row::time(now).ok();
        job.attempts += 1;
        let cancel_requested = CancellationToken::new();
        self.running().insert(job.id, cancel_requested.clone());
        self.inner.feed.publish(job.id, Event::State { state: RunState::Running });
        let queued_ms = row::milliseconds(job.created_at, job.started_at);
        metrics::started(Table::Jobs, queued_ms);
        tracing::info!(
            job.id = %job.id, job.state = "running", job.attempts, model = job.model, queued_ms, "job started"
        );
        Claim { lease: Lease { id: job.id, table: Table::Jobs, number }, job, cancel_requested }
    }
}

/// Work on other devices.
pub(super) struct OtherWork {
    /// Whether anything is running.
    pub(super) running: bool,
    /// Whether any of it has to run with nothing else.
    pub(super) suspects: bool,
}

impl WriteTransaction<'_> {
    /// Whether what a device holds has to run with nothing else.
    async fn is_suspect_held(&mut self, held: Lease) -> Result<bool, StoreError> {
        let select = query!(held.table, "SELECT crashes FROM ", " WHERE id = ?").bind(row::key(held.id));
        is_suspect(select.fetch_optional(self.db()).await?.as_ref())
    }

    /// What is running, apart from what a device holds.
    pub(super) async fn others(&mut self, held: Option<Lease>) -> Result<OtherWork, StoreError> {
        let select = sqlx::query(
            "SELECT COUNT(*) AS running, COALESCE(MAX(crashes), 0) AS crashes FROM (\
             SELECT crashes FROM jobs WHERE state = 'running' UNION ALL \
             SELECT crashes FROM studies WHERE state = 'running' AND waits = 0 AND id != ?1 UNION ALL \
             SELECT crashes FROM trainings WHERE state = 'running' AND waits = 0 AND id != ?1)",
        );
        let own = held.map_or_else(Vec::new, |held| row::key(held.id));
        let found = select.bind(own).fetch_one(self.db()).await?;
        let (running, crashes) = (found.try_get::<i64, _>("running")?, found.try_get::<i64, _>("crashes")?);
        Ok(OtherWork { running: running > 0, suspects: crashes >= SUSPECT_CRASHES })
    }
}

/// Whether the work of this row has to run with nothing else.
pub(super) fn is_suspect(row: Option<&SqliteRow>) -> Result<bool, StoreError> {
    Ok(row.map(|row| row.try_get::<i64, _>("crashes")).transpose()?.is_some_and(|crashes| crashes >= SUSPECT_CRASHES))
}

/// Rows of the jobs to claim together.
async fn candidates(write: &mut WriteTransaction<'_>, max_stimuli: usize) -> Result<Vec<SqliteRow>, StoreError> {
    let select = sqlx::query(concat!(
        "SELECT ",
        columns!(),
        ", batch_key, size, lease, crashes FROM jobs WHERE state = 'queued' ORDER BY id LIMIT 1"
    ));
    let Some(first) = select.fetch_optional(write.db()).await? else { return Ok(Vec::new()) };
    let max = i64::try_from(max_stimuli).unwrap_or(i64::MAX);
    let mut stimuli: i64 = first.try_get("size")?;
    if stimuli >= max || first.try_get::<i64, _>("crashes")? > 0 {
        return Ok(vec![first]);
    }
    let select = sqlx::query(concat!(
        "SELECT ",
        columns!(),
        ", batch_key, size, lease FROM jobs \
         WHERE state = 'queued' AND batch_key = ? AND id > ? AND crashes = 0 ORDER BY id LIMIT ?"
    ));
    let batch_key: Vec<u8> = first.try_get("batch_key")?;
    let alike = select.bind(batch_key).bind(row::key(row::id(&first)?)).bind(max - stimuli);
    let mut rows = vec![first];
    for row in alike.fetch_all(write.db()).await? {
        stimuli += row.try_get::<i64, _>("size")?;
        if stimuli > max {
            break;
        }
        rows.push(row);
    }
    Ok(rows)
}
