//! Jobs on devices.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use proxygrad::engine::{CpuSettings, EngineError};
use proxygrad::network::Model;
use proxygrad_server::jobs::{Event, FailureCode, Job, NewJob, RunState, Store, StoreConfig, Update};
use proxygrad_server::worker::{DeviceState, Pool, PoolConfig, Sources};
use serde_json::json;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tokio_util::sync::CancellationToken;

use crate::job_fixture::{Script, config, ended, eventually, job, model, next, open, small, state, submit};

fn pool_config() -> PoolConfig {
    PoolConfig {
        devices: vec!["test".into()],
        max_batch: 8,
        job_time_limit: Duration::from_secs(600),
        ..PoolConfig::default()
    }
}

/// The tiny model on engines that follow the script.
fn sources(script: &Arc<Script>) -> Sources {
    let script = Arc::clone(script);
    let model = model();
    Sources {
        engine: Arc::new(move |_| script.open()),
        model: Arc::new(move |_| Ok(Arc::clone(&model))),
        trainings: None,
    }
}

async fn start(store: &Store, script: &Arc<Script>) -> Pool {
    start_with(pool_config(), store, sources(script)).await
}

async fn start_with(config: PoolConfig, store: &Store, sources: Sources) -> Pool {
    Pool::start(config, store.clone(), sources, CancellationToken::new()).await.unwrap()
}

/// A job of more steps than any test waits for.
fn endless(class: usize) -> NewJob {
    job(json!({"objective": format!("logits:{class}"), "steps": 1_000_000}))
}

fn code(job: &Job) -> FailureCode {
    job.problem.as_ref().unwrap_or_else(|| panic!("{} without a problem", job.state)).code
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_becomes_stimuli_with_their_pngs() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let pool = start(&store, &Arc::default()).await;
    let request = json!({"objectives": ["logits:0", "logits:3", "relu:1"], "steps": 20, "size": [6, 6]});
    let id = submit(&store, job(request)).await.id;
    let job = ended(&store, id).await;
    assert_eq!((job.state, job.attempts, job.problem), (RunState::Succeeded, 1, None));
    assert_eq!((job.progress.step, job.progress.steps), (60, 60));
    assert_eq!(job.stimuli.len(), 3);
    for (n, (stimulus, objective)) in job.stimuli.iter().zip(&job.objectives).enumerate() {
        assert_eq!(&stimulus.objective, objective);
        assert!(stimulus.findings.score > stimulus.findings.initial_score, "{n}");
        assert_eq!(stimulus.findings.trajectory.len(), 21);
        let png = store.png(id, n).await.unwrap().unwrap();
        assert_eq!(png.len() as u64, stimulus.bytes);
        let image = image::load_from_memory(&png).unwrap();
        assert_eq!((image.width(), image.height()), (stimulus.width, stimulus.height));
    }
    assert_eq!(store.png(id, 3).await.unwrap(), None);
    pool.shutdown(Duration::from_secs(60)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queued_jobs_of_a_kind_run_as_one_batch_and_give_what_they_give_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let request = |n: usize| job(json!({"objective": format!("logits:{}", n % 5), "steps": 6, "seed": n}));
    let mut jobs = Vec::new();
    for n in 0..8 {
        jobs.push(submit(&store, request(n)).await.id);
    }
    let script = Arc::new(Script::default());
    let pool = start(&store, &script).await;
    let mut together = Vec::new();
    for &id in &jobs {
        together.push(ended(&store, id).await.stimuli);
    }
    let batches = std::mem::take(&mut *script.batches.lock().unwrap());
    assert_eq!(batches, [8; 8], "six steps, the last score and the score of the PNG, all of them together");
    for (n, together) in together.into_iter().enumerate() {
        let id = submit(&store, request(n)).await.id;
        assert_eq!(ended(&store, id).await.stimuli, together);
    }
    assert_eq!(*script.batches.lock().unwrap(), [1; 64]);
    pool.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_larger_than_a_batch_runs_in_parts() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let script = Arc::new(Script::default());
    let pool = start_with(PoolConfig { max_batch: 2, ..pool_config() }, &store, sources(&script)).await;
    let objectives: Vec<String> = (0..5).map(|class| format!("logits:{class}")).collect();
    let id = submit(&store, job(json!({"objectives": objectives, "steps": 1}))).await.id;
    let job = ended(&store, id).await;
    assert_eq!(*script.batches.lock().unwrap(), [2, 2, 2, 2, 2, 2, 1, 1, 1]);
    let found: Vec<String> = job.stimuli.iter().map(|stimulus| stimulus.objective.to_string()).collect();
    assert_eq!(found, objectives);
    pool.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canceled_job_stops_within_one_step_and_its_batch_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let stops = submit(&store, job(json!({"objective": "logits:0", "steps": 20}))).await.id;
    let goes_on = submit(&store, job(json!({"objective": "logits:1", "steps": 20}))).await.id;
    let script = Arc::new(Script::held());
    let pool = start(&store, &script).await;
    script.let_through(5);
    eventually("the sixth step begins", async || script.forwards() == 6).await;
    assert_eq!(store.cancel(stops).await.unwrap().unwrap().state, RunState::Running);
    script.let_through(1000);
    assert_eq!(ended(&store, goes_on).await.state, RunState::Succeeded);
    assert_eq!(ended(&store, stops).await.state, RunState::Canceled);
    let batches = script.batches.lock().unwrap().clone();
    assert_eq!(batches[..6], [2; 6]);
    assert_eq!(batches[6..], [1; 16], "the step that ran when the job was canceled was its last");
    pool.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_runs_too_long_fails_within_one_step_and_the_device_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let script = Arc::new(Script { slow: Some(Duration::from_millis(5)), ..Script::default() });
    let limit = Duration::from_millis(200);
    let pool = start_with(PoolConfig { job_time_limit: limit, ..pool_config() }, &store, sources(&script)).await;
    let long = submit(&store, endless(0)).await.id;
    let job = ended(&store, long).await;
    assert_eq!((job.state, code(&job)), (RunState::Failed, FailureCode::TimeLimit));
    assert!(job.progress.step <= 40, "{:?}", job.progress);
    let short = submit(&store, small(1)).await.id;
    assert_eq!(ended(&store, short).await.state, RunState::Succeeded);
    pool.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_fails_the_job_at_fault_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let mut jobs = Vec::new();
    for class in 0..5 {
        jobs.push(submit(&store, small(class)).await.id);
    }
    let script = Arc::new(Script { panics_on: Some(3), ..Script::default() });
    let pool = start(&store, &script).await;
    for (class, &id) in jobs.iter().enumerate() {
        let job = ended(&store, id).await;
        if class == 3 {
            assert_eq!((job.state, code(&job)), (RunState::Failed, FailureCode::Internal));
            assert!(!job.problem.unwrap().detail.contains("cursed"), "the cause is for the log");
        } else {
            assert_eq!((job.state, job.attempts), (RunState::Succeeded, 1), "class {class}");
        }
    }
    assert!(script.opened.load(Ordering::SeqCst) > 1, "the engine that panicked is not used again");
    let later = submit(&store, small(0)).await.id;
    assert_eq!(ended(&store, later).await.state, RunState::Succeeded);
    assert!(pool.ready());
    pool.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_error_fails_the_job_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let script = Arc::new(Script { fails_on: Some(2), ..Script::default() });
    let pool = start(&store, &script).await;
    let id = submit(&store, small(2)).await.id;
    let job = ended(&store, id).await;
    assert_eq!((job.state, code(&job)), (RunState::Failed, FailureCode::Engine));
    assert_eq!(job.problem.unwrap().detail, "this class does not fit");
    pool.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_is_gone_gives_its_jobs_back_and_runs_them_when_it_returns() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let script = Arc::new(Script { panics_on: Some(3), opening_fails: AtomicUsize::new(3), ..Script::default() });
    let pool = start(&store, &script).await;
    let cursed = submit(&store, small(3)).await.id;
    eventually("the device is unavailable", async || pool.devices()[0].state == DeviceState::Unavailable).await;
    assert!(!pool.ready());
    let fine = submit(&store, small(0)).await.id;
    let job = ended(&store, cursed).await;
    assert_eq!((code(&job), job.attempts), (FailureCode::Internal, 2), "once the device works, the job is at fault");
    assert_eq!(ended(&store, fine).await.state, RunState::Succeeded);
    eventually("the device waits for jobs", async || pool.devices()[0].state == DeviceState::Idle).await;
    assert!(pool.ready());
    pool.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_cannot_be_loaded_or_has_changed_fails_the_job() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let broken: Sources = Sources::new(CpuSettings::default(), |_: &str| {
        Err::<Arc<Model>, _>(std::io::Error::other("no route to the model"))
    });
    let broken = Sources { engine: sources(&Arc::default()).engine, ..broken };
    let pool = start_with(pool_config(), &store, broken).await;
    let id = submit(&store, small(0)).await.id;
    let job = ended(&store, id).await;
    assert_eq!((job.state, code(&job)), (RunState::Failed, FailureCode::Model));
    assert_eq!(job.problem.unwrap().detail, "no route to the model");
    pool.shutdown(Duration::ZERO).await;

    let pool = start(&store, &Arc::default()).await;
    let mut old = small(0);
    old.model_digest = "older".into();
    let id = submit(&store, old).await.id;
    let job = ended(&store, id).await;
    assert_eq!(code(&job), FailureCode::Model);
    assert!(job.problem.unwrap().detail.contains("older"));
    pool.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_can_be_canceled_while_its_model_loads() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let (loaded, loads) = mpsc::channel::<()>();
    let (loads, loading) = (std::sync::Mutex::new(loads), Arc::new(AtomicBool::new(false)));
    let begun = Arc::clone(&loading);
    let slow = Sources {
        model: Arc::new(move |_| {
            begun.store(true, Ordering::SeqCst);
            let _ = loads.lock().unwrap().recv();
            Ok(model())
        }),
        ..sources(&Arc::default())
    };
    let pool = start_with(pool_config(), &store, slow).await;
    let id = submit(&store, small(0)).await.id;
    eventually("the model loads", async || loading.load(Ordering::SeqCst)).await;
    store.cancel(id).await.unwrap();
    assert_eq!(ended(&store, id).await.state, RunState::Canceled);
    drop(loaded);
    let next = submit(&store, small(0)).await.id;
    assert_eq!(ended(&store, next).await.state, RunState::Succeeded);
    pool.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_without_grace_requeues_what_runs_as_if_it_had_never_started() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let script = Arc::new(Script { slow: Some(Duration::from_millis(1)), ..Script::default() });
    let pool = start(&store, &script).await;
    let runs = submit(&store, endless(0)).await.id;
    eventually("the job runs", async || state(&store, runs).await == RunState::Running).await;
    let waits = submit(&store, small(0)).await.id;
    let begin = Instant::now();
    pool.shutdown(Duration::ZERO).await;
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
    for id in [runs, waits] {
        let job = store.get(id).await.unwrap().unwrap();
        assert_eq!((job.state, job.attempts, job.started_at), (RunState::Queued, 0, None));
    }
    store.cancel(runs).await.unwrap();
    let pool = start(&store, &script).await;
    assert_eq!(ended(&store, waits).await.state, RunState::Succeeded);
    pool.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_with_grace_finishes_what_runs_and_starts_nothing_new() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let script = Arc::new(Script::held());
    let cancel = CancellationToken::new();
    let pool = Pool::start(pool_config(), store.clone(), sources(&script), cancel.clone()).await.unwrap();
    let runs = submit(&store, small(0)).await.id;
    eventually("the first step begins", async || script.forwards() == 1).await;
    let waits = submit(&store, small(1)).await.id;
    cancel.cancel();
    assert!(!pool.ready());
    script.let_through(1000);
    pool.shutdown(Duration::from_secs(60)).await;
    assert_eq!(state(&store, runs).await, RunState::Succeeded);
    assert_eq!(state(&store, waits).await, RunState::Queued);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_does_not_wait_for_a_step_that_never_ends() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let script = Arc::new(Script::held());
    let pool = start(&store, &script).await;
    let id = submit(&store, small(0)).await.id;
    eventually("the first step begins", async || script.forwards() == 1).await;
    pool.shutdown(Duration::ZERO).await;
    let job = store.get(id).await.unwrap().unwrap();
    assert_eq!((job.state, job.attempts), (RunState::Queued, 0));
    let pool = start(&store, &Arc::default()).await;
    assert_eq!(ended(&store, id).await.state, RunState::Succeeded);
    let stimuli = store.get(id).await.unwrap().unwrap().stimuli;
    script.let_through(1000);
    pool.shutdown(Duration::ZERO).await;
    assert_eq!(store.get(id).await.unwrap().unwrap().stimuli, stimuli);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_devices_run_two_jobs_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let script = Arc::new(Script::held());
    let two = PoolConfig { devices: vec!["one".into(), "two".into()], ..pool_config() };
    let pool = start_with(two, &store, sources(&script)).await;
    let a = submit(&store, small(0)).await.id;
    eventually("the first device is busy", async || script.forwards() == 1).await;
    let b = submit(&store, small(0)).await.id;
    eventually("both devices are busy", async || script.forwards() == 2).await;
    let busy = |status: &proxygrad_server::worker::DeviceStatus| (status.state, status.jobs) == (DeviceState::Busy, 1);
    assert!(pool.devices().iter().all(busy), "{:?}", pool.devices());
    script.let_through(1000);
    assert_eq!(ended(&store, a).await.stimuli, ended(&store, b).await.stimuli);
    pool.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_device_that_does_not_exist_is_an_error_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let devices = vec!["cpu".into(), "abacus".into()];
    let sources = Sources::new(CpuSettings::default(), |_: &str| Ok::<_, std::io::Error>(model()));
    let started = Pool::start(PoolConfig { devices, ..pool_config() }, store, sources, CancellationToken::new()).await;
    match started {
        Err(EngineError::Device { device, .. }) => assert_eq!(device, "abacus"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_waits_for_a_locked_database() {
    let folder = tempfile::tempdir().unwrap();
    let impatient = StoreConfig { busy_timeout: Duration::from_millis(10), ..config(folder.path()) };
    let store = Store::open(&impatient).await.unwrap();
    let script = Arc::new(Script::held());
    let pool = start(&store, &script).await;
    let id = submit(&store, small(0)).await.id;
    eventually("the first step begins", async || script.forwards() == 1).await;
    let database = SqliteConnectOptions::new().filename(folder.path().join("jobs.sqlite3"));
    let mut intruder = database.busy_timeout(Duration::from_secs(10)).connect().await.unwrap();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut intruder).await.unwrap();
    script.let_through(1000);
    let pngs = folder.path().join("stimuli").join(id.to_string());
    eventually("the PNG is written", async || pngs.exists()).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(state(&store, id).await, RunState::Running);
    sqlx::query("ROLLBACK").execute(&mut intruder).await.unwrap();
    intruder.close().await.unwrap();
    let job = ended(&store, id).await;
    assert_eq!((job.state, job.attempts), (RunState::Succeeded, 1));
    pool.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_is_told_about_ten_times_a_second_and_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let script = Arc::new(Script { slow: Some(Duration::from_millis(1)), ..Script::default() });
    let pool = start(&store, &script).await;
    let begin = Instant::now();
    let id = submit(&store, job(json!({"objectives": ["logits:0", "logits:1"], "steps": 400}))).await.id;
    let mut events = store.subscribe(id, None).await.unwrap().unwrap();
    let (mut told, mut seen, mut last) = (0, [false; 2], 0);
    while let Some(update) = next(&mut events).await {
        let Update::Event { event: Event::Progress { step, steps, stimulus, .. }, .. } = update else { continue };
        assert_eq!(steps, 800);
        assert!(step >= last, "{step} after {last}");
        (told, last, seen[stimulus]) = (told + 1, step, true);
    }
    // The first and the last of each stimulus come whatever the time.
    let most = 4 + begin.elapsed().as_millis() / 100;
    assert!(told <= most, "{told} events, at most {most} expected");
    assert!(told >= 4 && seen == [true; 2]);
    assert_eq!(last, 800);
    pool.shutdown(Duration::ZERO).await;
}
