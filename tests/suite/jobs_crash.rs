//! Jobs when the process dies, or the disk and the database fail. A store that is dropped without further ado leaves
//! behind what a killed process would.

use std::fs;
use std::path::Path;

use proxygrad_server::jobs::{
    Deleted, Failure, FailureCode, MAX_INTERRUPTIONS, RunOutcome, RunState, Store, StoreError,
};
use serde_json::json;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use uuid::Uuid;

use crate::job_fixture::{claim_one, config, ids, job, open, outcome, small, state, submit};
use crate::worker_studies::submit_study;

/// Another program that has the job database open.
pub async fn intruder(folder: &Path) -> SqliteConnection {
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
    assert_eq!((found.state, found.attempts, found.started_at), (RunState::Queued, 1, None));
    let claims = store.claim(8).await.unwrap();
    assert_eq!(ids(&claims), [running], "what may have brought the process down takes no other job with it");
    assert_eq!(ids(&store.claim(8).await.unwrap()), [queued]);
    assert!(store.succeed(&claims[0], &[outcome(b"png")]).await.unwrap());
}

#[tokio::test]
async fn a_job_whose_process_dies_every_time_fails_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let id = submit(&open(folder.path()).await, small(0)).await.id;
    for attempt in 1..=MAX_INTERRUPTIONS {
        let store = open(folder.path()).await;
        assert_eq!(state(&store, id).await, RunState::Queued);
        assert_eq!(claim_one(&store).await.job.attempts, attempt);
    }
    let store = open(folder.path()).await;
    let failed = store.get(id).await.unwrap().unwrap();
    assert_eq!(failed.state, RunState::Failed);
    assert_eq!(failed.problem.unwrap().code, FailureCode::Interrupted);
    assert!(failed.finished_at.is_some());
    assert!(store.claim(8).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_interrupted_run_counts_and_a_graceful_shutdown_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let id = submit(&store, small(0)).await.id;
    for _ in 0..10 {
        store.finish(claim_one(&store).await.lease, RunOutcome::Requeued).await.unwrap();
    }
    assert_eq!(store.get(id).await.unwrap().unwrap().attempts, 0);
    for _ in 0..MAX_INTERRUPTIONS {
        assert_eq!(state(&store, id).await, RunState::Queued);
        store.finish(claim_one(&store).await.lease, RunOutcome::Interrupted { alone: true }).await.unwrap();
    }
    assert_eq!(state(&store, id).await, RunState::Failed);
}

#[tokio::test]
async fn what_ran_beside_the_culprit_is_not_blamed() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let innocent = submit(&store, small(0)).await.id;
    let culprit = submit(&store, small(1)).await.id;
    drop(store);
    // On two devices, each crash finds both.
    for _ in 0..2 {
        let store = open(folder.path()).await;
        assert_eq!(claim_one(&store).await.job.id, innocent);
        assert_eq!(claim_one(&store).await.job.id, culprit);
    }
    let store = open(folder.path()).await;
    let alone = claim_one(&store).await;
    assert_eq!(alone.job.id, innocent);
    let next = store.claim_ahead_of(8, None).await.unwrap();
    assert!(next.jobs.is_empty() && next.blocked, "what was there at two crashes runs with nothing beside it");
    assert!(store.succeed(&alone, &[outcome(b"png")]).await.unwrap());
    drop(store);
    for _ in 0..MAX_INTERRUPTIONS {
        let store = open(folder.path()).await;
        assert_eq!(claim_one(&store).await.job.id, culprit);
        submit(&store, small(2)).await;
        assert!(store.claim(8).await.unwrap().is_empty());
    }
    let store = open(folder.path()).await;
    let failed = store.get(culprit).await.unwrap().unwrap();
    assert_eq!(failed.problem.unwrap().code, FailureCode::Interrupted);
    assert_eq!(state(&store, innocent).await, RunState::Succeeded);
    assert_eq!(store.counts().await.unwrap()[&RunState::Queued], u64::from(MAX_INTERRUPTIONS), "the queue goes on");
    assert_eq!(store.claim(8).await.unwrap().len(), 3);
}

#[tokio::test]
async fn jobs_that_share_a_batch_outlive_any_number_of_crashes() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let mut ids = Vec::new();
    for class in 0..4 {
        ids.push(submit(&store, small(class)).await.id);
    }
    assert_eq!(store.claim(8).await.unwrap().len(), 4);
    drop(store);
    // From now on one at a time, and each comes to its end between two crashes.
    for &id in &ids {
        let store = open(folder.path()).await;
        let claim = claim_one(&store).await;
        assert_eq!(claim.job.id, id);
        assert!(store.succeed(&claim, &[outcome(b"png")]).await.unwrap());
    }
    let store = open(folder.path()).await;
    assert_eq!(store.counts().await.unwrap()[&RunState::Succeeded], 4);
}

#[tokio::test]
async fn a_process_that_was_asked_to_end_and_then_killed_counts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let id = submit(&open(folder.path()).await, small(0)).await.id;
    for _ in 0..2 * MAX_INTERRUPTIONS {
        let store = open(folder.path()).await;
        let job = claim_one(&store).await.job;
        assert_eq!((job.id, job.attempts), (id, 1));
        store.mark_graceful_shutdown();
    }
    assert_eq!(state(&open(folder.path()).await, id).await, RunState::Queued);
}

#[tokio::test]
async fn a_study_that_waits_for_jobs_has_no_part_in_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let study = submit_study(&open(folder.path()).await, "test").await;
    let job = submit(&open(folder.path()).await, small(0)).await.id;
    for _ in 0..MAX_INTERRUPTIONS {
        let store = open(folder.path()).await;
        let waits = store.claim_study().await.unwrap().unwrap();
        let claimed = store.claim_ahead_of(8, Some(waits.lease)).await.unwrap();
        assert_eq!(ids(&claimed.jobs), [job]);
    }
    let store = open(folder.path()).await;
    assert_eq!(state(&store, job).await, RunState::Failed, "it ran alone three times");
    assert_eq!(store.study(study).await.unwrap().unwrap().state, RunState::Queued);
    // One that goes on after the jobs is there itself.
    let goes_on = store.claim_study().await.unwrap().unwrap();
    let done = submit(&store, small(1)).await.id;
    let claimed = store.claim_ahead_of(8, Some(goes_on.lease)).await.unwrap();
    assert!(store.succeed(&claimed.jobs[0], &[outcome(b"png")]).await.unwrap());
    store.resumed(goes_on.lease).await.unwrap();
    drop(store);
    for _ in 1..MAX_INTERRUPTIONS {
        open(folder.path()).await.claim_study().await.unwrap().unwrap();
    }
    let store = open(folder.path()).await;
    assert_eq!(store.study(study).await.unwrap().unwrap().state, RunState::Failed);
    assert_eq!(state(&store, done).await, RunState::Succeeded);
}

#[tokio::test]
async fn a_study_that_may_be_what_crashes_lets_no_job_pass_before_its_next_batch() {
    let folder = tempfile::tempdir().unwrap();
    submit_study(&open(folder.path()).await, "test").await;
    for _ in 0..2 {
        open(folder.path()).await.claim_study().await.unwrap().unwrap();
    }
    let store = open(folder.path()).await;
    let suspect = store.claim_study().await.unwrap().unwrap();
    let job = submit(&store, small(0)).await.id;
    let claimed = store.claim_ahead_of(8, Some(suspect.lease)).await.unwrap();
    assert!(claimed.jobs.is_empty() && !claimed.blocked, "the study goes on at once");
    store.record_study_progress(suspect.lease, 1).await.unwrap();
    let claimed = store.claim_ahead_of(8, Some(suspect.lease)).await.unwrap();
    assert_eq!(ids(&claimed.jobs), [job], "it is not what crashed");
}

/// Closes the store, and puts another copy of the database in the place of the one there; gives the one there.
async fn put_back(store: Store, folder: &Path, copy: Option<Vec<u8>>) -> Vec<u8> {
    store.close().await;
    let database = folder.join("jobs.sqlite3");
    let there = fs::read(&database).unwrap();
    assert!(!folder.join("jobs.sqlite3-wal").exists(), "a store that was closed in order leaves no log");
    match copy {
        Some(copy) => fs::write(&database, copy).unwrap(),
        None => fs::remove_file(&database).unwrap(),
    }
    there
}

#[tokio::test]
async fn studies_that_an_older_database_does_not_know_are_set_aside_and_come_back() {
    for new_database in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path()).await;
        submit(&store, small(0)).await;
        let older = put_back(store, folder.path(), Some(Vec::new())).await;
        fs::write(folder.path().join("jobs.sqlite3"), &older).unwrap();
        let store = open(folder.path()).await;
        let study = submit_study(&store, "test").await;
        let lease = store.claim_study().await.unwrap().unwrap().lease;
        let studies = folder.path().join("studies");
        let place = studies.join(study.to_string());
        fs::create_dir_all(place.join("images")).unwrap();
        let files =
            [("plan.json", "{}"), ("runs.csv", "head\nrun\n"), ("images/one.png", "png"), ("report.html", "<p>")];
        for (name, contents) in files {
            fs::write(place.join(name), contents).unwrap();
        }
        assert!(store.finish(lease, RunOutcome::completed()).await.unwrap());
        // What a process left that died before a first run: nothing is lost with it.
        let empty = studies.join(Uuid::now_v7().to_string());
        fs::create_dir_all(empty.join("images")).unwrap();
        for (name, contents) in [("plan.json", "{}"), ("runs.csv", "head\n"), ("lock", ""), ("plan.json.part", "{")] {
            fs::write(empty.join(name), contents).unwrap();
        }
        let newer = put_back(store, folder.path(), (!new_database).then_some(older)).await;

        let store = open(folder.path()).await;
        assert!(!place.exists() && !empty.exists());
        let aside = folder.path().join("set-aside").join("studies").join(study.to_string());
        for (name, contents) in files {
            assert_eq!(fs::read_to_string(aside.join(name)).unwrap(), contents, "{name}");
        }
        put_back(store, folder.path(), Some(newer)).await;
        let store = open(folder.path()).await;
        assert_eq!(store.study(study).await.unwrap().unwrap().state, RunState::Succeeded);
        for (name, contents) in files {
            assert_eq!(fs::read_to_string(place.join(name)).unwrap(), contents, "{name}");
        }
        // Deleting is still deleting.
        assert_eq!(store.delete_study(study).await.unwrap(), Deleted::Gone);
        assert!(!place.exists() && !aside.exists());
    }
}

#[tokio::test]
async fn stimuli_that_an_older_database_does_not_know_stay() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let older = put_back(store, folder.path(), Some(Vec::new())).await;
    fs::write(folder.path().join("jobs.sqlite3"), &older).unwrap();
    let store = open(folder.path()).await;
    let id = submit(&store, small(0)).await.id;
    let claim = claim_one(&store).await;
    assert!(store.succeed(&claim, &[outcome(b"png")]).await.unwrap());
    put_back(store, folder.path(), Some(older)).await;
    let store = open(folder.path()).await;
    assert_eq!(store.get(id).await.unwrap(), None);
    assert_eq!(folder.path().join("stimuli").join(id.to_string()).read_dir().unwrap().count(), 1);
}

#[tokio::test]
async fn a_job_that_was_to_stop_when_the_process_died_is_canceled() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let id = submit(&store, small(0)).await.id;
    claim_one(&store).await;
    store.cancel(id).await.unwrap();
    drop(store);
    assert_eq!(state(&open(folder.path()).await, id).await, RunState::Canceled);
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
    assert_eq!(state(&store, id).await, RunState::Running);
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
    assert_eq!(state(&store, id).await, RunState::Queued, "reading goes on");
    sqlx::query("ROLLBACK").execute(&mut intruder).await.unwrap();
    assert_eq!(claim_one(&store).await.job.id, id);
    submit(&store, small(1)).await;
    assert_eq!(store.counts().await.unwrap()[&RunState::Queued], 1);
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
    assert_eq!(state(&store, id).await, RunState::Running);
    assert!(
        store.finish(claim.lease, RunOutcome::Failed(Failure::new(FailureCode::Internal, "no disk"))).await.unwrap()
    );
    assert_eq!(state(&store, id).await, RunState::Failed);
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
    assert_eq!(store.counts().await.unwrap()[&RunState::Failed], 1);
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
    assert_eq!(state(&store, id).await, RunState::Running, "the first one's jobs are left alone");
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
