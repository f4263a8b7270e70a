//! Writes that fail, of every kind and for every reason, and what works when the fault is over.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libsqlite3_sys::{SQLITE_BUSY, SQLITE_FULL, SQLITE_IOERR_WRITE, SQLITE_READONLY};
use proxygrad_server::jobs::{
    Claim, Deleted, Failure, FailureCode, NewStudy, RunOutcome, RunState, StorageFault, Store, StoreError, StudyClaim,
    SubmitError, Submitted,
};
use proxygrad_server::worker::{Pool, PoolConfig, Sources};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::job_fixture::{
    Script, claim_one, config, ended, eventually, job, keyed, model, open, outcome, small, state, submit,
};
use crate::sqlite_faults::{Faulty, install};
use crate::worker_studies::{plan, study_ended, submit_study};

/// Result codes of SQLite, and what they mean.
const FAULTS: [(i32, StorageFault); 4] = [
    (SQLITE_FULL, StorageFault::NoSpace),
    (SQLITE_IOERR_WRITE, StorageFault::Io),
    (SQLITE_BUSY, StorageFault::Locked),
    (SQLITE_READONLY, StorageFault::ReadOnly),
];
/// Time after the end of a fault in which everything must work again.
const RECOVERY: Duration = Duration::from_secs(5);

/// Work in every state from which something can be written.
struct Work {
    store: Store,
    succeeds: Claim,
    fails: Claim,
    stops: Claim,
    returns: Claim,
    breaks: Claim,
    queued: Uuid,
    over: Uuid,
    study_runs: StudyClaim,
    study_over: Uuid,
    study_queued: Uuid,
}

/// Every kind of write. The order matters: an end comes after what needs the thing alive.
const WRITES: [&str; 15] = [
    "submit",
    "submit with a key",
    "submit a study",
    "succeed",
    "fail",
    "stop",
    "requeue",
    "interrupt",
    "delete",
    "cancel",
    "claim",
    "advance a study",
    "end a study",
    "cancel a study",
    "delete a study",
];

impl Work {
    async fn prepare(folder: &Path) -> Self {
        let store = open(folder).await;
        let mut claims = Vec::new();
        for class in 0..5 {
            submit(&store, small(class)).await;
            claims.push(claim_one(&store).await);
        }
        let over = submit(&store, small(0)).await.id;
        store.cancel(over).await.unwrap();
        submit(&store, small(1)).await;
        let queued = submit(&store, small(2)).await.id;
        submit_study(&store, "test").await;
        let study_runs = store.claim_study().await.unwrap().unwrap();
        let study_over = submit_study(&store, "test").await;
        store.cancel_study(study_over).await.unwrap();
        let study_queued = submit_study(&store, "test").await;
        let mut next = || claims.pop().unwrap();
        let (succeeds, fails, stops, returns, breaks) = (next(), next(), next(), next(), next());
        Self { store, succeeds, fails, stops, returns, breaks, queued, over, study_runs, study_over, study_queued }
    }

    async fn write(&self, write: &str) -> Result<(), StoreError> {
        let submitted = |result: Result<(), SubmitError>| match result {
            Err(SubmitError::Store(error)) => Err(error),
            Err(refused) => panic!("{refused}"),
            Ok(()) => Ok(()),
        };
        let store = &self.store;
        match write {
            "submit" => submitted(store.submit(small(0)).await.map(drop)),
            "submit with a key" => submitted(store.submit(keyed(small(0), "key", "print")).await.map(drop)),
            "submit a study" => {
                let new = NewStudy { plan: plan("test"), images: 0, idempotency: None };
                submitted(store.submit_study(new).await.map(drop))
            }
            "succeed" => store.succeed(&self.succeeds, &[outcome(b"png")]).await.map(|counted| assert!(counted)),
            "fail" => {
                let problem = Failure::new(FailureCode::Engine, "of its own");
                store.finish(self.fails.lease, RunOutcome::Failed(problem)).await.map(|counted| assert!(counted))
            }
            "stop" => store.finish(self.stops.lease, RunOutcome::Canceled).await.map(|counted| assert!(counted)),
            "requeue" => store.finish(self.returns.lease, RunOutcome::Requeued).await.map(|counted| assert!(counted)),
            "interrupt" => {
                let outcome = RunOutcome::Interrupted { alone: true };
                store.finish(self.breaks.lease, outcome).await.map(|counted| assert!(counted))
            }
            "delete" => store.delete(self.over).await.map(|deleted| assert_eq!(deleted, Deleted::Gone)),
            "cancel" => store.cancel(self.queued).await.map(drop),
            "claim" => store.claim(1).await.map(|claims| assert_eq!(claims.len(), 1)),
            "advance a study" => store.record_study_progress(self.study_runs.lease, 3).await,
            "end a study" => {
                store.finish(self.study_runs.lease, RunOutcome::completed()).await.map(|counted| assert!(counted))
            }
            "cancel a study" => store.cancel_study(self.study_queued).await.map(drop),
            "delete a study" => store.delete_study(self.study_over).await.map(drop),
            other => panic!("{other}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_write_fails_with_its_reason_and_works_when_the_fault_is_over() {
    install();
    for (code, fault) in FAULTS {
        let folder = tempfile::tempdir().unwrap();
        let work = Work::prepare(folder.path()).await;
        for write in WRITES {
            let before = work.store.counts().await.unwrap();
            let faulty = Faulty::writes(folder.path(), code);
            for _ in 0..2 {
                let error = work.write(write).await.expect_err(write);
                assert_eq!(error.fault(), Some(fault), "{write}: {error}");
            }
            assert_eq!(work.store.counts().await.unwrap(), before, "{write}: nothing is half done");
            drop(faulty);
            work.write(write).await.unwrap_or_else(|error| panic!("{write} after {fault}: {error}"));
        }
        let store = &work.store;
        assert_eq!(state(store, work.succeeds.job.id).await, RunState::Succeeded);
        assert_eq!(state(store, work.fails.job.id).await, RunState::Failed);
        assert_eq!(state(store, work.stops.job.id).await, RunState::Canceled);
        assert_eq!(state(store, work.queued).await, RunState::Canceled);
        assert_eq!(store.get(work.over).await.unwrap(), None);
        match store.submit(keyed(small(0), "key", "print")).await {
            Ok(Submitted::Replayed(_)) => {}
            other => panic!("the key was not kept: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_knows_whether_it_can_be_written_before_anybody_tries() {
    install();
    for (code, fault) in FAULTS {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path()).await;
        assert_eq!(store.check_writable(RECOVERY).await, None);
        tokio::time::sleep(Duration::from_millis(600)).await;
        let faulty = Faulty::writes(folder.path(), code);
        assert_eq!(store.check_writable(RECOVERY).await, Some(fault));
        drop(faulty);
        let over = Instant::now();
        tokio::time::timeout(RECOVERY, store.wait_until_writable())
            .await
            .expect("it is not found out that the fault is over");
        assert_eq!(store.check_writable(RECOVERY).await, None, "{:?}", over.elapsed());
    }
}

#[tokio::test]
async fn an_answer_about_writing_comes_at_once_also_while_a_write_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    assert_eq!(store.check_writable(RECOVERY).await, None);
    tokio::time::sleep(Duration::from_millis(600)).await;
    let mut intruder = crate::jobs_crash::intruder(folder.path()).await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut intruder).await.unwrap();
    for _ in 0..20 {
        let begin = Instant::now();
        store.check_writable(Duration::from_millis(50)).await;
        assert!(begin.elapsed() < Duration::from_millis(100), "{:?}", begin.elapsed());
    }
    eventually("the lock is noticed", async || {
        store.check_writable(Duration::ZERO).await == Some(StorageFault::Locked)
    })
    .await;
    sqlx::query("ROLLBACK").execute(&mut intruder).await.unwrap();
    eventually("the end of the lock is noticed", async || store.check_writable(Duration::ZERO).await.is_none()).await;
}

async fn start(store: &Store, script: &Arc<Script>, config: PoolConfig) -> Pool {
    let (script, model) = (Arc::clone(script), model());
    let sources = Sources {
        engine: Arc::new(move |_| script.open()),
        model: Arc::new(move |_| Ok(Arc::clone(&model))),
        trainings: None,
    };
    let config = PoolConfig { devices: vec!["test".into()], max_batch: 4, ..config };
    Pool::start(config, store.clone(), sources, CancellationToken::new()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_wait_in_memory_until_the_database_can_be_written() {
    install();
    for (code, fault) in FAULTS {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path()).await;
        let script = Arc::new(Script::held());
        let mut ids = Vec::new();
        for class in 0..4 {
            ids.push(submit(&store, small(class)).await.id);
        }
        let pool = start(&store, &script, PoolConfig::default()).await;
        eventually("the first step begins", async || script.forwards() == 1).await;
        let faulty = Faulty::writes(folder.path(), code);
        script.let_through(usize::MAX);
        eventually("the result cannot be stored", async || store.check_writable(Duration::ZERO).await == Some(fault))
            .await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        for &id in &ids {
            assert_eq!(state(&store, id).await, RunState::Running);
        }
        let computed = script.forwards();
        drop(faulty);
        let over = Instant::now();
        for id in ids {
            let job = ended(&store, id).await;
            assert_eq!((job.state, job.attempts), (RunState::Succeeded, 1), "{fault}");
        }
        assert!(over.elapsed() < RECOVERY, "{:?}", over.elapsed());
        assert_eq!(script.forwards(), computed, "nothing is computed twice");
        pool.shutdown(Duration::ZERO).await;
    }
}

/// Puts a file where a folder was: not even an administrator can write into it.
struct Blocked {
    folder: std::path::PathBuf,
    away: std::path::PathBuf,
}

impl Blocked {
    fn new(folder: std::path::PathBuf) -> Self {
        let away = folder.with_extension("away");
        fs::rename(&folder, &away).unwrap();
        fs::write(&folder, "").unwrap();
        Self { folder, away }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        fs::remove_file(&self.folder).unwrap();
        fs::rename(&self.away, &self.folder).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_wait_in_memory_until_their_pngs_can_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let script = Arc::new(Script::default());
    let blocked = Blocked::new(folder.path().join("stimuli"));
    let pool = start(&store, &script, PoolConfig::default()).await;
    let id = submit(&store, small(0)).await.id;
    eventually("the PNG cannot be stored", async || {
        store.check_writable(Duration::ZERO).await == Some(StorageFault::Io)
    })
    .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(state(&store, id).await, RunState::Running);
    let computed = script.forwards();
    drop(blocked);
    let over = Instant::now();
    let job = ended(&store, id).await;
    assert_eq!((job.state, job.attempts), (RunState::Succeeded, 1));
    assert!(over.elapsed() < RECOVERY, "{:?}", over.elapsed());
    assert_eq!(script.forwards(), computed);
    assert!(store.png(id, 0).await.unwrap().is_some());
    pool.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_that_cannot_be_stored_for_long_is_given_up_and_its_job_queued_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let script = Arc::new(Script::default());
    let blocked = Blocked::new(folder.path().join("stimuli"));
    let config = PoolConfig { result_patience: Duration::from_millis(300), ..PoolConfig::default() };
    let pool = start(&store, &script, config).await;
    let id = submit(&store, small(0)).await.id;
    eventually("the job runs", async || script.forwards() > 0).await;
    eventually("the job is queued again", async || state(&store, id).await == RunState::Queued).await;
    let waits = submit(&store, small(1)).await.id;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(state(&store, waits).await, RunState::Queued, "nothing is begun that could not be stored");
    drop(blocked);
    for id in [id, waits] {
        let job = ended(&store, id).await;
        assert_eq!((job.state, job.attempts), (RunState::Succeeded, 1), "a run that was given up does not count");
    }
    pool.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_result_cannot_be_stored_can_be_canceled() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let script = Arc::new(Script::default());
    let _blocked = Blocked::new(folder.path().join("stimuli"));
    let pool = start(&store, &script, PoolConfig::default()).await;
    let id = submit(&store, small(0)).await.id;
    eventually("the PNG cannot be stored", async || {
        store.check_writable(Duration::ZERO).await == Some(StorageFault::Io)
    })
    .await;
    store.cancel(id).await.unwrap();
    assert_eq!(ended(&store, id).await.state, RunState::Canceled);
    pool.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_of_a_study_wait_in_memory_until_they_can_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let undisturbed = {
        let script = Arc::new(Script::default());
        let id = submit_study_with_images(&store).await;
        let pool = start(&store, &script, PoolConfig::default()).await;
        assert_eq!(study_ended(&store, id).await.state, RunState::Succeeded);
        pool.shutdown(Duration::ZERO).await;
        script.forwards()
    };
    let script = Arc::new(Script::held());
    let id = submit_study_with_images(&store).await;
    let pool = start(&store, &script, PoolConfig::default()).await;
    eventually("the first batch begins", async || script.forwards() == 1).await;
    let blocked = Blocked::new(folder.path().join("studies"));
    script.let_through(usize::MAX);
    eventually("the first batch is computed", async || script.forwards() == 4).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let study = store.study(id).await.unwrap().unwrap();
    assert_eq!((study.state, script.forwards()), (RunState::Running, 4), "nothing more is computed meanwhile");
    drop(blocked);
    let study = study_ended(&store, id).await;
    assert_eq!((study.state, study.progress.done), (RunState::Succeeded, 10.0));
    assert_eq!(script.forwards(), undisturbed, "nothing is computed twice");
    assert_eq!(store.study_folder(id).rows().unwrap().len(), 10);
    pool.shutdown(Duration::ZERO).await;
}

async fn submit_study_with_images(store: &Store) -> Uuid {
    let new = NewStudy { plan: plan("test"), images: 5, idempotency: None };
    match store.submit_study(new).await.unwrap() {
        Submitted::Created(study) => study.id,
        other => panic!("not accepted: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn submissions_at_once_are_all_there_once_each_in_the_order_of_their_ids() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let one = |n: usize| {
        let store = store.clone();
        async move { store.submit(keyed(small(n % 5), &format!("key {}", n / 2), &(n / 2).to_string())).await.unwrap() }
    };
    let submitted = futures_util::future::join_all((0..200).map(|n| tokio::spawn(one(n)))).await;
    let submitted: Vec<Submitted> = submitted.into_iter().map(Result::unwrap).collect();
    let created = submitted.iter().filter(|submitted| matches!(submitted, Submitted::Created(_))).count();
    assert_eq!(created, 100, "every key makes one job");
    drop(store);
    let store = open(folder.path()).await;
    for submitted in &submitted {
        assert_eq!(state(&store, submitted.job().id).await, RunState::Queued);
    }
    let page = store.list(&Default::default(), None, 1000).await.unwrap();
    assert_eq!(page.items.len(), 100);
    assert!(page.items.is_sorted_by_key(|job| std::cmp::Reverse((job.created_at, job.id))), "ids follow commits");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_refuses_only_what_does_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let store =
        Store::open(&proxygrad_server::jobs::StoreConfig { queue_limit: 10, ..config(folder.path()) }).await.unwrap();
    let submitted = futures_util::future::join_all((0..30).map(|n| store.submit(small(n % 5)))).await;
    let refused = submitted.iter().filter(|result| crate::job_fixture::is_full(result)).count();
    assert_eq!((refused, submitted.iter().filter(|result| result.is_ok()).count()), (20, 10));
}

#[tokio::test]
async fn a_group_of_ends_is_one_commit_and_void_ones_are_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    for class in 0..3 {
        submit(&store, job(json!({"objective": format!("logits:{class}"), "steps": 4}))).await;
    }
    let claims = store.claim(3).await.unwrap();
    store.finish(claims[1].lease, RunOutcome::Canceled).await.unwrap();
    let mut ends = Vec::new();
    for claim in &claims {
        ends.push((claim.lease, store.store_pngs(claim, &[outcome(b"png")]).await.unwrap()));
    }
    assert_eq!(store.finish_all(ends).await.unwrap(), [true, false, true]);
    let mut states = Vec::new();
    for claim in &claims {
        states.push(state(&store, claim.job.id).await);
    }
    assert_eq!(states, [RunState::Succeeded, RunState::Canceled, RunState::Succeeded]);
}
