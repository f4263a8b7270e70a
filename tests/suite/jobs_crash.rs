//! Jobs when the process dies, or the disk and the database fail. A store that is dropped without further ado leaves
//! behind what a killed process would.

use std::fs;

use proxygrad::jobs::{Deleted, JobProblem, JobState, MOST_ATTEMPTS, ProblemCode, Store, StoreError};
use serde_json::json;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};

use crate::job_fixture::{claim_one, config, ids, job, open, outcome, small, state, submit};

/// Another program that has the job database open.
async fn intruder(folder: &std::path::Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(folder.join("jobs.sqlite3")).connect().await.unwrap()
}

#[tokio::test]
async fn jobs_that_ran_when_the_process_died_run_again_before_later_ones() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let running = submit(&store, small(0)).await.id;
    let queued = submit(&store, small(1)).await.id;
    claim_one(&store).await;
    drop(store);
    let store = open(folder.path()).await;
    let found = store.get(running).await.unwrap().unwrap();
    assert_eq!((found.state, found.attempts, found.started_at), (JobState::Queued, 1, None));
    let claims = store.claim(8).await.unwrap();
    assert_eq!(ids(&claims), [running], "what may have brought the process down takes no other job with it");
    assert_eq!(ids(&store.claim(8).await.unwrap()), [queued]);
    assert!(store.succeed(&claims[0], &[outcome(b"png")]).await.unwrap());
}

#[tokio::test]
async fn a_job_whose_process_dies_every_time_fails_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let id = submit(&open(folder.path()).await, small(0)).await.id;
    for attempt in 1..=MOST_ATTEMPTS {
        let store = open(folder.path()).await;
        assert_eq!(state(&store, id).await, JobState::Queued);
        assert_eq!(claim_one(&store).await.job.attempts, attempt);
    }
    let store = open(folder.path()).await;
    let failed = store.get(id).await.unwrap().unwrap();
    assert_eq!(failed.state, JobState::Failed);
    assert_eq!(failed.problem.unwrap().code, ProblemCode::Interrupted);
    assert!(failed.finished_at.is_some());
    assert!(store.claim(8).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_interrupted_run_counts_and_an_orderly_stop_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let id = submit(&store, small(0)).await.id;
    for _ in 0..10 {
        store.requeue(&[claim_one(&store).await.lease]).await.unwrap();
    }
    assert_eq!(store.get(id).await.unwrap().unwrap().attempts, 0);
    for _ in 0..MOST_ATTEMPTS {
        assert_eq!(state(&store, id).await, JobState::Queued);
        store.interrupted(&[claim_one(&store).await.lease]).await.unwrap();
    }
    assert_eq!(state(&store, id).await, JobState::Failed);
}

#[tokio::test]
async fn a_job_that_was_to_stop_when_the_process_died_is_canceled() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let id = submit(&store, small(0)).await.id;
    claim_one(&store).await;
    store.cancel(id).await.unwrap();
    drop(store);
    assert_eq!(state(&open(folder.path()).await, id).await, JobState::Canceled);
}

#[tokio::test]
async fn a_result_that_was_not_committed_is_made_again_over_the_pngs_it_left() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let id = submit(&store, small(0)).await.id;
    let claim = claim_one(&store).await;
    let mut intruder = intruder(folder.path()).await;
    sqlx::query("BEGIN EXCLUSIVE").execute(&mut intruder).await.unwrap();
    let error = store.succeed(&claim, &[outcome(b"png")]).await.unwrap_err();
    assert!(matches!(error, StoreError::Database(_)), "{error}");
    assert_eq!(state(&store, id).await, JobState::Running);
    let pngs = folder.path().join("stimuli").join(id.to_string());
    assert_eq!(pngs.read_dir().unwrap().count(), 1, "the PNG is there before the commit");
    assert_eq!(store.png(id, 0).await.unwrap(), None, "but no result");
    sqlx::query("ROLLBACK").execute(&mut intruder).await.unwrap();
    drop((store, intruder));

    let store = open(folder.path()).await;
    let claim = claim_one(&store).await;
    assert!(store.succeed(&claim, &[outcome(b"png")]).await.unwrap());
    assert_eq!(store.png(id, 0).await.unwrap().unwrap(), &b"png"[..]);
    assert_eq!(pngs.read_dir().unwrap().count(), 1);
}

#[tokio::test]
async fn a_locked_database_gives_errors_and_works_again_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let id = submit(&store, small(0)).await.id;
    let mut intruder = intruder(folder.path()).await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut intruder).await.unwrap();
    assert!(store.submit(small(1)).await.is_err());
    assert!(store.claim(1).await.is_err());
    assert!(store.cancel(id).await.is_err());
    assert_eq!(state(&store, id).await, JobState::Queued, "reading goes on");
    sqlx::query("ROLLBACK").execute(&mut intruder).await.unwrap();
    assert_eq!(claim_one(&store).await.job.id, id);
    submit(&store, small(1)).await;
    assert_eq!(store.counts().await.unwrap()[&JobState::Queued], 1);
    intruder.close().await.unwrap();
}

#[tokio::test]
async fn a_png_that_cannot_be_written_is_an_error_and_the_job_can_still_fail() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let id = submit(&store, small(0)).await.id;
    let claim = claim_one(&store).await;
    // A file where the folder should be: not even an administrator can write there.
    fs::remove_dir(folder.path().join("stimuli")).unwrap();
    fs::write(folder.path().join("stimuli"), "").unwrap();
    let error = store.succeed(&claim, &[outcome(b"png")]).await.unwrap_err();
    assert!(matches!(error, StoreError::Objects(_)), "{error}");
    assert_eq!(state(&store, id).await, JobState::Running);
    assert!(store.fail(claim.lease, JobProblem::new(ProblemCode::Internal, "no disk")).await.unwrap());
    assert_eq!(state(&store, id).await, JobState::Failed);
}

#[tokio::test]
async fn a_png_that_was_changed_or_lost_is_never_delivered() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let id = submit(&store, small(0)).await.id;
    let claim = claim_one(&store).await;
    assert!(store.succeed(&claim, &[outcome(b"png")]).await.unwrap());
    let sha256 = store.get(id).await.unwrap().unwrap().stimuli.remove(0).sha256;
    let png = folder.path().join("stimuli").join(id.to_string()).join(format!("{sha256}.png"));
    fs::write(&png, "pnG").unwrap();
    assert!(matches!(store.png(id, 0).await, Err(StoreError::Lost { .. })));
    fs::remove_file(&png).unwrap();
    assert!(matches!(store.png(id, 0).await, Err(StoreError::Lost { .. })));
    assert_eq!(store.delete(id).await.unwrap(), Deleted::Gone);
}

#[tokio::test]
async fn a_damaged_row_stops_neither_the_queue_nor_lists() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let damaged = submit(&store, job(json!({"objective": "relu:0", "steps": 4}))).await.id;
    let fine = submit(&store, small(0)).await.id;
    let mut intruder = intruder(folder.path()).await;
    let damage = sqlx::query("UPDATE jobs SET request = '{}' WHERE id = ?");
    damage.bind(damaged.as_bytes().to_vec()).execute(&mut intruder).await.unwrap();
    intruder.close().await.unwrap();
    assert_eq!(claim_one(&store).await.job.id, fine);
    let list = store.list(&Default::default(), None, 10).await.unwrap();
    assert_eq!(list.items.iter().map(|job| job.id).collect::<Vec<_>>(), [fine]);
    let error = store.get(damaged).await.unwrap_err();
    assert!(error.to_string().contains(&damaged.to_string()), "{error}");
    assert_eq!(store.counts().await.unwrap()[&JobState::Failed], 1);
    assert_eq!(store.delete(damaged).await.unwrap(), Deleted::Gone);
}

#[tokio::test]
async fn pngs_of_a_deleted_job_that_could_not_be_removed_go_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let id = submit(&store, small(0)).await.id;
    let claim = claim_one(&store).await;
    assert!(store.succeed(&claim, &[outcome(b"png")]).await.unwrap());
    let (stimuli, away) = (folder.path().join("stimuli"), folder.path().join("away"));
    fs::rename(&stimuli, &away).unwrap();
    fs::write(&stimuli, "").unwrap();
    assert_eq!(store.delete(id).await.unwrap(), Deleted::Gone);
    drop(store);
    fs::remove_file(&stimuli).unwrap();
    fs::rename(&away, &stimuli).unwrap();
    assert!(stimuli.join(id.to_string()).exists());
    open(folder.path()).await;
    assert!(!stimuli.join(id.to_string()).exists());
}

#[tokio::test]
async fn one_data_directory_serves_one_process_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let id = submit(&store, small(0)).await.id;
    claim_one(&store).await;
    let second = Store::open(&config(folder.path())).await;
    assert!(matches!(second, Err(StoreError::InUse { .. })), "{second:?}");
    assert_eq!(state(&store, id).await, JobState::Running, "the first one's jobs are left alone");
    let late = store.clone();
    store.close().await;
    open(folder.path()).await;
    assert!(late.get(id).await.is_err(), "a closed store gives errors");
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_used_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Store::open(&config(&file)).await.unwrap_err();
    assert!(matches!(error, StoreError::Directory { .. }), "{error}");
    assert!(error.to_string().contains(&*file.to_string_lossy()), "{error}");

    let garbage = folder.path().join("garbage");
    fs::create_dir(&garbage).unwrap();
    fs::write(garbage.join("jobs.sqlite3"), "no database, and long enough to be sure of it ".repeat(100)).unwrap();
    assert!(Store::open(&config(&garbage)).await.is_err());
}

#[tokio::test]
async fn a_database_of_a_later_version_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()).await);
    let mut later = intruder(folder.path()).await;
    let migration = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                     VALUES (9999, 'later', TRUE, x'00', 0)";
    sqlx::query(migration).execute(&mut later).await.unwrap();
    later.close().await.unwrap();
    let error = Store::open(&config(folder.path())).await.unwrap_err();
    assert!(matches!(error, StoreError::Migration(_)), "{error}");
}
