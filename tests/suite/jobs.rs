//! The queue as its clients and its workers see it.

use std::collections::HashSet;

use proxygrad_server::jobs::{Deleted, Failure, FailureCode, JobFilter, RunOutcome, RunState, Store, Submitted};
use serde_json::json;
use uuid::Uuid;

use crate::job_fixture::{claim_one, config, ids, is_full, job, keyed, open, outcome, small, state, submit};

#[tokio::test]
async fn an_accepted_job_is_there_after_a_restart_exactly_as_it_was_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let accepted = submit(
        &store,
        job(json!({
            "objectives": ["logits:1", "relu:2@top0.25", {"sum": [{"layer": "logits", "channel": 0}, {"layer": "logits", "channel": 3, "weight": -0.1}]}],
            "gate": {"kind": "soft", "temperature": 0.7}, "transforms": ["jitter:2", "rotate:10@0.3"], "seed": 9_007_199_254_740_991_u64
        })),
    )
    .await;
    assert_eq!(accepted.state, RunState::Queued);
    assert_eq!((accepted.progress.step, accepted.progress.steps), (0, 3 * accepted.settings.steps));
    drop(store);
    assert_eq!(open(folder.path()).await.get(accepted.id).await.unwrap(), Some(accepted));
}

#[tokio::test]
async fn a_job_is_shown_in_the_words_of_the_service() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let id = submit(&store, small(2)).await.id;
    let claim = claim_one(&store).await;
    let mut infinite = outcome(b"png");
    infinite.findings.final_score = f32::NAN;
    assert!(store.succeed(&claim, &[infinite]).await.unwrap());
    let shown = serde_json::to_value(store.get(id).await.unwrap().unwrap()).unwrap();
    assert_eq!(shown["state"], "succeeded");
    assert_eq!(shown["objectives"], json!(["logits:2"]));
    assert_eq!(shown["progress"], json!({"step": 4, "steps": 4}));
    for time in ["created_at", "started_at", "finished_at"] {
        let text = shown[time].as_str().unwrap();
        assert!(text.ends_with('Z') && text.contains('T'), "{time}: {text}");
    }
    let stimulus = &shown["stimuli"][0];
    assert_eq!(stimulus["objective"], "logits:2");
    assert_eq!(stimulus["score"], 2.5);
    assert_eq!(stimulus["final_score"], json!(null), "JSON has no NaN");
    assert_eq!(stimulus["sha256"].as_str().unwrap().len(), 64);
    assert_eq!((&stimulus["bytes"], &stimulus["width"]), (&json!(3), &json!(6)));
    assert!(shown.get("problem").is_none());
}

#[tokio::test]
async fn a_full_queue_refuses_new_jobs_and_still_answers_known_ones() {
    let folder = tempfile::tempdir().unwrap();
    let store =
        Store::open(&proxygrad_server::jobs::StoreConfig { queue_limit: 2, ..config(folder.path()) }).await.unwrap();
    let first = submit(&store, keyed(small(0), "a", "1")).await;
    submit(&store, small(1)).await;
    assert!(is_full(&store.submit(small(2)).await));
    assert_eq!(store.submit(keyed(small(0), "a", "1")).await.unwrap(), Submitted::Replayed(first.clone()));
    store.cancel(first.id).await.unwrap();
    submit(&store, small(3)).await;
    assert!(is_full(&store.submit(small(4)).await));
    claim_one(&store).await;
    submit(&store, small(4)).await;
}

#[tokio::test]
async fn one_idempotency_key_is_one_job_as_long_as_the_job_exists() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let first = submit(&store, keyed(small(0), "k", "f")).await;
    let again = store.submit(keyed(small(0), "k", "f")).await.unwrap();
    assert_eq!(again, Submitted::Replayed(first.clone()));
    let other = store.submit(keyed(small(1), "k", "g")).await;
    assert!(matches!(other, Err(proxygrad_server::jobs::SubmitError::KeyReused)), "{other:?}");
    drop(store);
    let store = open(folder.path()).await;
    store.cancel(first.id).await.unwrap();
    let again = store.submit(keyed(small(0), "k", "f")).await.unwrap();
    assert!(matches!(again, Submitted::Replayed(job) if job.id == first.id && job.state == RunState::Canceled));
    assert_eq!(store.delete(first.id).await.unwrap(), Deleted::Gone);
    assert_ne!(submit(&store, keyed(small(1), "k", "g")).await.id, first.id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn submissions_at_the_same_moment_under_one_key_make_one_job() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let submissions: Vec<_> = (0..20)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.submit(keyed(small(0), "k", "f")).await.unwrap() })
        })
        .collect();
    let mut created = 0;
    let mut seen = HashSet::new();
    for submission in submissions {
        let submitted = submission.await.unwrap();
        created += usize::from(matches!(submitted, Submitted::Created(_)));
        seen.insert(submitted.job().id);
    }
    assert_eq!((created, seen.len()), (1, 1));
    assert_eq!(store.counts().await.unwrap()[&RunState::Queued], 1);
}

#[tokio::test]
async fn jobs_are_claimed_oldest_first_with_those_that_may_share_their_batch() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let a = submit(&store, small(0)).await.id;
    let other_layer = submit(&store, job(json!({"objective": "relu:0", "steps": 4}))).await.id;
    let b = submit(&store, job(json!({"objective": "logits:1", "steps": 4, "seed": 5}))).await.id;
    let other_steps = submit(&store, job(json!({"objective": "logits:0", "steps": 5}))).await.id;
    let pair = submit(&store, job(json!({"objectives": ["logits:2", "logits:3"], "steps": 4}))).await.id;
    let mut other_model = small(0);
    other_model.model = "twin".into();
    let other_model = submit(&store, other_model).await.id;
    let c = submit(&store, small(4)).await.id;

    let claims = store.claim(3).await.unwrap();
    assert_eq!(ids(&claims), [a, b], "the pair would make four; whoever came behind it waits for it");
    for claim in &claims {
        assert_eq!((claim.job.state, claim.job.attempts), (RunState::Running, 1));
        assert_eq!(store.get(claim.job.id).await.unwrap().unwrap(), claim.job);
    }
    assert_eq!(ids(&store.claim(3).await.unwrap()), [other_layer]);
    assert_eq!(ids(&store.claim(3).await.unwrap()), [other_steps]);
    assert_eq!(ids(&store.claim(3).await.unwrap()), [pair, c]);
    assert_eq!(ids(&store.claim(3).await.unwrap()), [other_model]);
    assert!(store.claim(3).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_job_with_more_stimuli_than_fit_is_claimed_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let large = submit(&store, job(json!({"objectives": vec!["logits:0"; 5], "steps": 4}))).await.id;
    let small = submit(&store, small(1)).await.id;
    assert_eq!(ids(&store.claim(3).await.unwrap()), [large]);
    assert_eq!(ids(&store.claim(3).await.unwrap()), [small]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn devices_that_claim_at_the_same_moment_never_get_the_same_job() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let mut queued = HashSet::new();
    for n in 0..40 {
        queued.insert(submit(&store, small(n % 5)).await.id);
    }
    let devices: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut mine = Vec::new();
                loop {
                    let claims = store.claim(3).await.unwrap();
                    if claims.is_empty() {
                        return mine;
                    }
                    mine.extend(ids(&claims));
                }
            })
        })
        .collect();
    let mut claimed = Vec::new();
    for device in devices {
        claimed.extend(device.await.unwrap());
    }
    assert_eq!(claimed.len(), 40);
    assert_eq!(claimed.into_iter().collect::<HashSet<_>>(), queued);
}

#[tokio::test]
async fn a_queued_job_is_canceled_at_once_and_never_claimed() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let id = submit(&store, small(0)).await.id;
    let canceled = store.cancel(id).await.unwrap().unwrap();
    assert_eq!(canceled.state, RunState::Canceled);
    assert!(canceled.finished_at.is_some() && canceled.cancel_requested);
    assert!(store.claim(8).await.unwrap().is_empty());
    assert_eq!(store.cancel(id).await.unwrap(), Some(canceled), "again changes nothing");
    assert_eq!(store.cancel(Uuid::now_v7()).await.unwrap(), None);
}

#[tokio::test]
async fn a_running_job_is_told_to_stop_and_says_so_until_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let id = submit(&store, small(0)).await.id;
    let claim = claim_one(&store).await;
    assert!(!claim.cancel_requested.is_cancelled());
    let asked = store.cancel(id).await.unwrap().unwrap();
    assert_eq!((asked.state, asked.cancel_requested), (RunState::Running, true));
    assert!(claim.cancel_requested.is_cancelled());
    assert!(store.finish(claim.lease, RunOutcome::Canceled).await.unwrap());
    assert_eq!(state(&store, id).await, RunState::Canceled);
}

#[tokio::test]
async fn a_job_that_ended_never_changes_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let id = submit(&store, small(0)).await.id;
    let claim = claim_one(&store).await;
    assert!(store.succeed(&claim, &[outcome(b"one")]).await.unwrap());
    let ended = store.get(id).await.unwrap();
    assert!(!store.succeed(&claim, &[outcome(b"two")]).await.unwrap());
    assert!(!store.finish(claim.lease, RunOutcome::Failed(Failure::new(FailureCode::Engine, "late"))).await.unwrap());
    assert!(!store.finish(claim.lease, RunOutcome::Canceled).await.unwrap());
    store.finish(claim.lease, RunOutcome::Requeued).await.unwrap();
    store.finish(claim.lease, RunOutcome::Interrupted { alone: true }).await.unwrap();
    store.cancel(id).await.unwrap();
    assert_eq!(store.get(id).await.unwrap(), ended);
    assert_eq!(store.png(id, 0).await.unwrap().unwrap(), &b"one"[..]);
    drop(store);
    assert_eq!(open(folder.path()).await.get(id).await.unwrap(), ended);
}

#[tokio::test]
async fn only_the_run_that_holds_the_job_can_end_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let id = submit(&store, small(0)).await.id;
    let old = claim_one(&store).await;
    store.finish(old.lease, RunOutcome::Requeued).await.unwrap();
    let new = claim_one(&store).await;
    assert_eq!((new.job.id, new.job.attempts), (id, 1), "the attempt was given back");
    assert!(!store.succeed(&old, &[outcome(b"old")]).await.unwrap());
    assert_eq!(state(&store, id).await, RunState::Running);
    assert!(store.succeed(&new, &[outcome(b"new")]).await.unwrap());
    assert_eq!(store.png(id, 0).await.unwrap().unwrap(), &b"new"[..]);
}

#[tokio::test]
async fn a_job_asked_to_stop_is_canceled_rather_than_requeued() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let id = submit(&store, small(0)).await.id;
    let claim = claim_one(&store).await;
    store.cancel(id).await.unwrap();
    store.finish(claim.lease, RunOutcome::Requeued).await.unwrap();
    assert_eq!(state(&store, id).await, RunState::Canceled);
}

#[tokio::test]
async fn a_job_is_deleted_with_its_pngs_once_it_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let id = submit(&store, job(json!({"objectives": ["logits:0", "logits:1"], "steps": 4}))).await.id;
    assert_eq!(store.delete(id).await.unwrap(), Deleted::NotFinished(RunState::Queued));
    let claim = claim_one(&store).await;
    assert_eq!(store.delete(id).await.unwrap(), Deleted::NotFinished(RunState::Running));
    assert!(store.succeed(&claim, &[outcome(b"one"), outcome(b"two")]).await.unwrap());
    let pngs = folder.path().join("stimuli").join(id.to_string());
    assert_eq!(pngs.read_dir().unwrap().count(), 2);
    assert_eq!(store.delete(id).await.unwrap(), Deleted::Gone);
    assert!(!pngs.exists());
    assert_eq!(store.get(id).await.unwrap(), None);
    assert_eq!(store.png(id, 0).await.unwrap(), None);
    assert_eq!(store.delete(id).await.unwrap(), Deleted::Unknown);
    assert!(!store.succeed(&claim, &[outcome(b"one"), outcome(b"two")]).await.unwrap(), "a late result is ignored");
    assert_eq!(store.get(id).await.unwrap(), None);
}

#[tokio::test]
async fn pages_show_every_job_once_newest_first_whatever_is_submitted_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let mut jobs = Vec::new();
    for n in 0..7 {
        jobs.push(submit(&store, small(n % 5)).await.id);
    }
    jobs.reverse();
    let mut seen = Vec::new();
    let mut cursor = None;
    loop {
        let page = store.list(&JobFilter::default(), cursor, 3).await.unwrap();
        seen.extend(page.items.iter().map(|job| job.id));
        submit(&store, small(0)).await;
        let Some(next) = page.next else { break };
        // As a client hands it back.
        cursor = Some(next.to_string().parse().unwrap());
    }
    assert_eq!(seen, jobs);
    assert!("somewhere".parse::<proxygrad_server::jobs::Cursor>().is_err());
}

#[tokio::test]
async fn lists_can_be_narrowed_to_a_state_and_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let tiny = submit(&store, small(0)).await.id;
    let mut other = small(0);
    other.model = "other".into();
    let other = submit(&store, other).await.id;
    let canceled = submit(&store, small(1)).await.id;
    store.cancel(canceled).await.unwrap();
    let list = async |state: Option<RunState>, model: Option<&str>| {
        let filter = JobFilter { state, model: model.map(Into::into) };
        let page = store.list(&filter, None, 10).await.unwrap();
        assert!(page.next.is_none());
        page.items.iter().map(|job| job.id).collect::<Vec<_>>()
    };
    assert_eq!(list(None, None).await, [canceled, other, tiny]);
    assert_eq!(list(Some(RunState::Queued), None).await, [other, tiny]);
    assert_eq!(list(None, Some("tiny")).await, [canceled, tiny]);
    assert_eq!(list(Some(RunState::Queued), Some("tiny")).await, [tiny]);
    assert!(list(Some(RunState::Failed), None).await.is_empty());
    let counts = store.counts().await.unwrap();
    assert_eq!(counts.len(), 5);
    assert_eq!((counts[&RunState::Queued], counts[&RunState::Canceled], counts[&RunState::Running]), (2, 1, 0));
}

#[test]
fn metrics_count_what_happens_to_jobs() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let read = recorder.handle();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    metrics::with_local_recorder(&recorder, || {
        proxygrad_server::jobs::describe_metrics();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let store = open(folder.path()).await;
            for class in 0..4 {
                submit(&store, small(class)).await;
            }
            let claims = store.claim(3).await.unwrap();
            assert!(store.succeed(&claims[0], &[outcome(b"png")]).await.unwrap());
            assert!(
                store
                    .finish(claims[1].lease, RunOutcome::Failed(Failure::new(FailureCode::Engine, "no")))
                    .await
                    .unwrap()
            );
            store.finish(claims[2].lease, RunOutcome::Requeued).await.unwrap();
            store.measure().await.unwrap();
        });
    });
    let text = read.render();
    for line in [
        "proxygrad_jobs_accepted_total 4",
        "proxygrad_jobs_total{state=\"succeeded\"} 1",
        "proxygrad_jobs_total{state=\"failed\"} 1",
        "proxygrad_jobs_requeued_total 1",
        "proxygrad_job_queue_seconds_count 3",
        "proxygrad_job_run_seconds_count{state=\"succeeded\"} 1",
        "proxygrad_queue_jobs{state=\"queued\"} 2",
        "proxygrad_queue_jobs{state=\"running\"} 0",
        "# TYPE proxygrad_jobs_total counter",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
    }
}
