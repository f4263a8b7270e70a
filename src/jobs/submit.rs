//! Submission of jobs, with group commit: submissions that arrive while one group is written form the next group.
//!
//! A commit waits for the disk once, however many jobs it holds. Many concurrent clients therefore cost little more
//! than one, and devices that report results do not wait long for the database.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use tokio::sync::oneshot;
use tracing::Span;
use uuid::Uuid;

use super::error::{StoreError, SubmitError};
use super::images;
use super::job::{Idempotency, Job, NewJob};
use super::metrics;
use super::row::{self, columns};
use super::store::Store;
use super::table::{Table, query};
use super::writer::{Caller, WriteTransaction};
use proxygrad::maximize::Settings;

/// Largest number of jobs in one commit.
const MAX_GROUP: usize = 1024;
/// Pause after a group per submission in it, while jobs run (back-pressure): devices take precedence over clients.
const PAUSE: Duration = Duration::from_millis(4);
/// Longest such pause.
const MAX_PAUSE: Duration = Duration::from_millis(250);

/// An accepted job or study.
#[derive(Debug, Clone, PartialEq)]
pub enum Submitted<T = Job> {
    /// A new one.
    Created(T),
    /// The same request was submitted before under the same idempotency key; this is its job or study now.
    Replayed(T),
}

impl Submitted {
    /// The job, new or not.
    pub fn job(&self) -> &Job {
        match self {
            Self::Created(job) | Self::Replayed(job) => job,
        }
    }
}

/// Queue of submissions to write.
#[derive(Debug, Default)]
pub(super) struct Submissions(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    jobs: VecDeque<Submission>,
    /// Whether a task is writing them.
    has_writer: bool,
}

#[derive(Debug)]
struct Submission {
    new: NewJob,
    reply: oneshot::Sender<Result<Submitted, SubmitError>>,
    span: Span,
}

impl Submissions {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a submission. Returns whether the caller has to start the task that writes them.
    fn push(&self, submission: Submission) -> bool {
        let mut waiting = self.waiting();
        waiting.jobs.push_back(submission);
        !std::mem::replace(&mut waiting.has_writer, true)
    }

    /// The next group; `None` if the queue is empty, which ends the task that writes.
    fn next(&self) -> Option<Vec<Submission>> {
        let mut waiting = self.waiting();
        let size = waiting.jobs.len().min(MAX_GROUP);
        waiting.has_writer = size > 0;
        (size > 0).then(|| waiting.jobs.drain(..size).collect())
    }
}

/// If the task that writes panics, lets the next submission start another.
struct WriterGuard<'a>(&'a Submissions);

impl Drop for WriterGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.waiting().has_writer = false;
        }
    }
}

impl WriteTransaction<'_> {
    /// The row that an earlier submission with this idempotency key created.
    pub(super) async fn replayed(
        &mut self,
        table: Table,
        idempotency: Option<&Idempotency>,
    ) -> Result<Option<SqliteRow>, SubmitError> {
        let Some(Idempotency { key, fingerprint }) = idempotency else { return Ok(None) };
        let select = query!(table, "SELECT * FROM ", " WHERE idempotency_key = ?");
        match select.bind(key).fetch_optional(self.db()).await? {
            Some(row) if row.try_get::<&str, _>("fingerprint")? == fingerprint => Ok(Some(row)),
            Some(_) => Err(SubmitError::KeyReused),
            None => Ok(None),
        }
    }

    /// Number of queued jobs or studies.
    pub(super) async fn queued(&mut self, table: Table) -> Result<u64, StoreError> {
        let select = query!(table, "SELECT COUNT(*) AS queued FROM ", " WHERE state = 'queued'");
        let queued: i64 = select.fetch_one(self.db()).await?.try_get("queued")?;
        Ok(u64::try_from(queued).unwrap_or(0))
    }

    /// Inserts a job and its client images.
    async fn insert(&mut self, new: &NewJob) -> Result<Job, StoreError> {
        let NewJob { model, model_digest, resolved, idempotency } = new;
        // Created under the write lock, so that ids and commits have the same order.
        let id = Uuid::now_v7();
        let insert = "INSERT INTO jobs (id, state, model, model_digest, batch_key, size, request, created_at, \
                      idempotency_key, fingerprint) VALUES (?, 'queued', ?, ?, ?, ?, ?, ?, ?, ?)";
        sqlx::query(insert)
            .bind(row::key(id))
            .bind(model)
            .bind(model_digest)
            .bind(batch_key(new)?)
            .bind(i64::try_from(resolved.stimuli()).unwrap_or(i64::MAX))
            .bind(row::json(resolved)?)
            .bind(row::now())
            .bind(idempotency.as_ref().map(|known| &known.key))
            .bind(idempotency.as_ref().map(|known| &known.fingerprint))
            .execute(self.db())
            .await?;
        images::insert(self.db(), id, &resolved.reference_images).await?;
        let select = sqlx::query(concat!("SELECT ", columns!(), " FROM jobs WHERE id = ?"));
        row::job(&select.bind(row::key(id)).fetch_one(self.db()).await?)
    }
}

impl Store {
    /// Accepts a job. When this returns, the job is on the disk.
    ///
    /// # Errors
    /// If the queue is full, the idempotency key belongs to another request, the disk has no space for the job and its
    /// results, or the database fails.
    pub async fn submit(&self, new: NewJob) -> Result<Submitted, SubmitError> {
        let (reply, answer) = oneshot::channel();
        if self.inner.submissions.push(Submission { new, reply, span: Span::current() }) {
            // A separate task: a client that disconnects does not abort other submissions.
            tokio::spawn(write_submissions(self.clone()));
        }
        let interrupted = |_| Err(StoreError::Interrupted("the submission was not written".into()).into());
        answer.await.unwrap_or_else(interrupted)
    }

    /// Writes a group of submissions and answers each.
    async fn write_group(&self, group: Vec<Submission>) {
        let (submissions, answers): (Vec<_>, Vec<_>) =
            group.into_iter().map(|submission| (submission.new, (submission.reply, submission.span))).unzip();
        let error = match self.submit_together(&submissions).await {
            Ok(results) => {
                for ((result, new), (reply, span)) in results.into_iter().zip(&submissions).zip(answers) {
                    if let Ok(Submitted::Created(job)) = &result {
                        span.in_scope(|| log_accepted(job, new));
                    }
                    // The caller may have stopped waiting.
                    let _ = reply.send(result);
                }
                return;
            }
            Err(error) => error,
        };
        let fault = error.fault();
        if let Some(fault) = fault {
            self.write_failed(fault);
        }
        let mut error = Some(error);
        let alone = submissions.len() == 1;
        for (new, (reply, span)) in submissions.into_iter().zip(answers) {
            let result = match fault {
                Some(fault) => Err(StoreError::Unwritable(fault).into()),
                // A single one may be the cause; try each on its own.
                None if !alone => {
                    let alone = self.submit_together(std::slice::from_ref(&new)).await;
                    alone.map_err(SubmitError::from).and_then(|mut results| {
                        results.pop().unwrap_or_else(|| Err(StoreError::Interrupted("no result".into()).into()))
                    })
                }
                None => Err(error.take().unwrap_or_else(|| StoreError::Interrupted("no error".into())).into()),
            };
            if let Ok(Submitted::Created(job)) = &result {
                span.in_scope(|| log_accepted(job, &new));
            }
            let _ = reply.send(result);
        }
    }

    /// Writes submissions in one commit. Returns a result for each, or an error that affects all of them.
    async fn submit_together(&self, submissions: &[NewJob]) -> Result<Vec<Result<Submitted, SubmitError>>, StoreError> {
        let mut write = self.write(Caller::Client).await?;
        let limit = self.inner.config.queue_limit;
        let mut queued = write.queued(Table::Jobs).await?;
        let mut results = Vec::with_capacity(submissions.len());
        let (mut created, mut space) = (0_usize, None);
        for new in submissions {
            let result = match write.replayed(Table::Jobs, new.idempotency.as_ref()).await {
                Ok(Some(known)) => {
                    row::job(&known).map(|job| Submitted::Replayed(self.with_live_progress(job))).map_err(Into::into)
                }
                Err(SubmitError::Store(error)) => return Err(error),
                Err(refused) => Err(refused),
                Ok(None) if queued >= limit => Err(SubmitError::QueueFull { limit }),
                Ok(None) => {
                    if space.is_none() {
                        space = Some(self.check_space().await.err().and_then(|error| error.fault()));
                    }
                    match space.flatten() {
                        Some(fault) => Err(StoreError::Unwritable(fault).into()),
                        None => {
                            (queued, created) = (queued + 1, created + 1);
                            Ok(Submitted::Created(write.insert(new).await?))
                        }
                    }
                }
            };
            results.push(result);
        }
        if created == 0 {
            write.rollback().await?;
        } else {
            let _guard = write.commit().await?;
            self.inner.arrivals.send_replace(());
        }
        if let Some(fault) = space.flatten() {
            self.write_failed(fault);
        }
        Ok(results)
    }
}

/// Writes submissions group by group until the queue is empty.
async fn write_submissions(mut store: Store) {
    while let Some(group) = store.inner.submissions.next() {
        let size = u32::try_from(group.len()).unwrap_or(u32::MAX);
        {
            let _guard = WriterGuard(&store.inner.submissions);
            store.write_group(group).await;
        }
        if !store.running().is_empty() {
            // No strong reference while pausing: dropping the last store must release the data directory.
            let inner = Arc::downgrade(&store.inner);
            drop(store);
            tokio::time::sleep(PAUSE.saturating_mul(size).min(MAX_PAUSE)).await;
            let Some(inner) = inner.upgrade() else { return };
            store = Store { inner };
        }
    }
}

/// Logs and counts an accepted job.
fn log_accepted(job: &Job, new: &NewJob) {
    metrics::accepted(Table::Jobs);
    let stimuli = new.resolved.stimuli();
    tracing::info!(job.id = %job.id, job.state = "queued", job.stimuli = stimuli, model = new.model, "job accepted");
}

/// Key of jobs that may share a batch: same model, target layers and settings.
fn batch_key(new: &NewJob) -> Result<Vec<u8>, StoreError> {
    let terms = new.resolved.objectives.iter().flat_map(|objective| &objective.terms);
    let layers: BTreeSet<&str> = terms.map(|term| term.unit.layer.as_str()).collect();
    // Two models may share weights and differ in preprocessing.
    let settings: Vec<&Settings> = new.resolved.all_settings().collect();
    let text = row::json(&(&new.model, &new.model_digest, layers, settings))?;
    Ok(Sha256::digest(text).to_vec())
}
