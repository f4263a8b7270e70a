//! Studies on devices, and in the store.

use std::sync::Arc;
use std::time::Duration;

use proxygrad::network::Model;
use proxygrad::study::{Design, Plan, Variants};
use proxygrad_server::jobs::{FailureCode, MAX_INTERRUPTIONS, NewStudy, RunOutcome, RunState, Store, Study, Submitted};
use proxygrad_server::worker::{Pool, PoolConfig, Sources};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::job_fixture::{Script, ended, eventually, model, open, small, state, submit};

/// All five classes of the tiny model under two arms: runs of two steps, and the score of what is delivered.
pub fn plan(device: &str) -> Plan {
    let variants = Variants::default();
    let design = Design {
        models: vec![(model(), Vec::new())],
        units_per_layer: 0,
        logits: 5,
        reduce: "mean".into(),
        seed: 1,
        repeats: 1,
        steps: 2,
        base: variants.base.clone(),
        arms: ["plain", "slope:0.1"].map(|arm| variants.arm(arm).unwrap()).to_vec(),
        methods: vec![variants.method("pixel").unwrap()],
        device: device.into(),
        toys: None,
        judges: Vec::new(),
    };
    Plan::new(&design).unwrap()
}

pub async fn submit_study(store: &Store, device: &str) -> Uuid {
    let new = NewStudy { plan: plan(device), images: 0, idempotency: None };
    match store.submit_study(new).await.unwrap() {
        Submitted::Created(study) => study.id,
        other => panic!("not accepted: {other:?}"),
    }
}

async fn start(store: &Store, script: &Arc<Script>, model: Arc<Model>) -> Pool {
    let script = Arc::clone(script);
    let sources = Sources {
        engine: Arc::new(move |_| script.open()),
        model: Arc::new(move |_| Ok(Arc::clone(&model))),
        trainings: None,
    };
    let config = PoolConfig { devices: vec!["test".into()], max_batch: 4, ..PoolConfig::default() };
    Pool::start(config, store.clone(), sources, CancellationToken::new()).await.unwrap()
}

async fn study(store: &Store, id: Uuid) -> Study {
    store.study(id).await.unwrap().unwrap()
}

pub async fn study_ended(store: &Store, id: Uuid) -> Study {
    let study = store.wait_for_study(id, Duration::from_secs(60)).await.unwrap().unwrap();
    assert!(study.state.is_terminal(), "still {} after a minute", study.state);
    study
}

fn code(study: &Study) -> FailureCode {
    study.problem.as_ref().unwrap_or_else(|| panic!("{} without a problem", study.state)).code
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_waits_for_one_batch_of_a_study_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let id = submit_study(&store, "test").await;
    let script = Arc::new(Script::held());
    let pool = start(&store, &script, model()).await;
    eventually("the first batch begins", async || script.forwards() == 1).await;
    let job = submit(&store, small(0)).await.id;
    let now = study(&store, id).await;
    assert_eq!((now.state, now.progress.total), (RunState::Running, 10));
    // The rest of this batch, then the job.
    while state(&store, job).await != RunState::Succeeded {
        script.let_through(1);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let sizes = script.batches.lock().unwrap().clone();
    let first = sizes.iter().position(|&size| size == 1).unwrap();
    assert_eq!(sizes[..first], [4; 4], "two steps, the last score and the score of the PNG");
    script.let_through(usize::MAX);
    let study = study_ended(&store, id).await;
    assert_eq!((study.state, study.progress.done, study.problem), (RunState::Succeeded, 10.0, None));
    assert_eq!(store.study_folder(id).rows().unwrap().len(), 10);
    pool.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_study_whose_model_changed_fails_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let id = submit_study(&store, "test").await;
    let other = Arc::new(Model { digest: "07e4".into(), ..Model::clone(&model()) });
    let pool = start(&store, &Arc::default(), other).await;
    let study = study_ended(&store, id).await;
    assert_eq!((study.state, code(&study)), (RunState::Failed, FailureCode::Model));
    let detail = study.problem.unwrap().detail;
    assert!(detail.contains("tiny") && detail.contains("07e4"), "{detail}");
    pool.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_study_keeps_to_the_devices_that_it_was_planned_for() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let (here, elsewhere) = (submit_study(&store, "cpu, test").await, submit_study(&store, "cpu").await);
    let pool = start(&store, &Arc::default(), model()).await;
    assert_eq!(study_ended(&store, here).await.state, RunState::Succeeded);
    let elsewhere = study_ended(&store, elsewhere).await;
    assert_eq!(code(&elsewhere), FailureCode::Engine);
    assert!(elsewhere.problem.unwrap().detail.contains("planned for device cpu; this device is test"));
    pool.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_or_a_failure_ends_the_study_and_the_device_lives_on() {
    for (script, expected) in [
        (Script { panics_on: Some(3), ..Script::default() }, FailureCode::Internal),
        (Script { fails_on: Some(3), ..Script::default() }, FailureCode::Engine),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path()).await;
        let id = submit_study(&store, "test").await;
        let pool = start(&store, &Arc::new(script), model()).await;
        let study = study_ended(&store, id).await;
        assert_eq!((study.state, code(&study)), (RunState::Failed, expected));
        let job = submit(&store, small(0)).await.id;
        assert_eq!(ended(&store, job).await.state, RunState::Succeeded);
        pool.shutdown(Duration::ZERO).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_study_stops_within_one_step_whether_it_runs_or_waits_behind_jobs() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let id = submit_study(&store, "test").await;
    let script = Arc::new(Script::held());
    let pool = start(&store, &script, model()).await;
    eventually("the first batch begins", async || script.forwards() == 1).await;
    let running = store.cancel_study(id).await.unwrap().unwrap();
    assert_eq!((running.state, running.cancel_requested), (RunState::Running, true));
    script.let_through(1);
    let canceled = study_ended(&store, id).await;
    assert_eq!((canceled.state, canceled.progress.done, script.forwards()), (RunState::Canceled, 0.0, 1));

    let waits = submit_study(&store, "test").await;
    eventually("its first batch begins", async || script.forwards() == 2).await;
    let job = submit(&store, small(0)).await.id;
    while state(&store, job).await == RunState::Queued {
        script.let_through(1);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    store.cancel_study(waits).await.unwrap();
    assert_eq!(study_ended(&store, waits).await.state, RunState::Canceled);
    assert_eq!(state(&store, job).await, RunState::Running);
    script.let_through(usize::MAX);
    assert_eq!(ended(&store, job).await.state, RunState::Succeeded);
    pool.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_study_that_comes_further_was_not_interrupted_too_often() {
    let folder = tempfile::tempdir().unwrap();
    let id = submit_study(&open(folder.path()).await, "test").await;
    // A store that is dropped without further ado leaves behind what a killed process would.
    for done in 1..=2 * MAX_INTERRUPTIONS as usize {
        let store = open(folder.path()).await;
        let claim = store.claim_study().await.unwrap().unwrap();
        assert_eq!((claim.study.id, claim.plan), (id, plan("test")));
        store.record_study_progress(claim.lease, done).await.unwrap();
    }
    // The last of these ended after a batch was done, with the next one on the device.
    for _ in 1..MAX_INTERRUPTIONS {
        let store = open(folder.path()).await;
        assert_eq!(study(&store, id).await.state, RunState::Queued);
        store.claim_study().await.unwrap().unwrap();
    }
    let failed = study(&open(folder.path()).await, id).await;
    assert_eq!((failed.state, code(&failed)), (RunState::Failed, FailureCode::Interrupted));
    assert_eq!(failed.progress.done, 2.0 * f64::from(MAX_INTERRUPTIONS));
}

#[tokio::test]
async fn an_end_counts_once_and_only_under_its_lease() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let id = submit_study(&store, "test").await;
    let old = store.claim_study().await.unwrap().unwrap().lease;
    assert!(store.claim_study().await.unwrap().is_none(), "it runs already");
    store.finish(old, RunOutcome::Requeued).await.unwrap();
    let lease = store.claim_study().await.unwrap().unwrap().lease;
    store.record_study_progress(old, 7).await.unwrap();
    assert!(!store.finish(old, RunOutcome::completed()).await.unwrap());
    assert_eq!((study(&store, id).await.state, study(&store, id).await.progress.done), (RunState::Running, 0.0));
    assert!(store.finish(lease, RunOutcome::completed()).await.unwrap());
    assert!(!store.finish(lease, RunOutcome::Canceled).await.unwrap());
    assert_eq!(study(&store, id).await.state, RunState::Succeeded);
}
