//! What a watcher of a job sees.

use std::time::Duration;

use proxygrad_server::jobs::{Event, Progress, RunOutcome, RunState, Store, Subscription, Update};
use uuid::Uuid;

use crate::job_fixture::{claim_one, next, open, outcome, small, submit};

async fn watch(store: &Store, id: Uuid, after: Option<u64>) -> Subscription {
    store.subscribe(id, after).await.unwrap().expect("the job exists")
}

fn step(store: &Store, id: Uuid, step: u32) {
    store.feed().publish(id, Event::Progress { step, steps: 4, stimulus: 0, score: 0.5 });
}

/// Everything up to the end, without ids.
async fn rest(mut events: Subscription) -> Vec<String> {
    let mut seen = Vec::new();
    while let Some(update) = next(&mut events).await {
        seen.push(match update {
            Update::Event { event: Event::State { state }, .. } => state.to_string(),
            Update::Event { event: Event::Progress { step, .. }, .. } => step.to_string(),
            Update::Event { event: Event::Study(progress), .. } => progress.done.to_string(),
            Update::Event { event: Event::Training(progress), .. } => progress.epochs_done.to_string(),
            Update::Event { event: Event::Epoch(epoch), .. } => epoch.epoch.to_string(),
            Update::Skipped { events } => format!("skipped {events}"),
        });
    }
    seen
}

async fn event(events: &mut Subscription) -> (u64, Event) {
    match next(events).await {
        Some(Update::Event { id, event }) => (id, event),
        other => panic!("no event but {other:?}"),
    }
}

#[tokio::test]
async fn a_watcher_sees_a_job_from_the_queue_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let id = submit(&store, small(0)).await.id;
    let mut events = watch(&store, id, None).await;
    let (first, queued) = event(&mut events).await;
    assert_eq!(queued, Event::State { state: RunState::Queued });
    let claim = claim_one(&store).await;
    let (second, running) = event(&mut events).await;
    assert_eq!(running, Event::State { state: RunState::Running });
    assert!(second > first);
    step(&store, id, 1);
    assert_eq!(store.get(id).await.unwrap().unwrap().progress, Progress { step: 1, steps: 4 });
    assert!(store.succeed(&claim, &[outcome(b"png")]).await.unwrap());
    step(&store, id, 2);
    assert_eq!(rest(events).await, ["1", "succeeded"]);
    assert_eq!(store.get(id).await.unwrap().unwrap().progress, Progress { step: 4, steps: 4 });
}

#[tokio::test]
async fn watchers_before_during_and_after_see_the_same_end() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let id = submit(&store, small(0)).await.id;
    let before = watch(&store, id, None).await;
    let claim = claim_one(&store).await;
    step(&store, id, 1);
    let during = watch(&store, id, None).await;
    store.cancel(id).await.unwrap();
    assert!(store.finish(claim.lease, RunOutcome::Canceled).await.unwrap());
    let after = watch(&store, id, None).await;
    for events in [before, during, after] {
        assert_eq!(rest(events).await, ["queued", "running", "1", "canceled"]);
    }
    drop(store);
    let store = open(folder.path()).await;
    assert_eq!(rest(watch(&store, id, None).await).await, ["canceled"], "also after a restart");
    assert_eq!(store.get(id).await.unwrap().unwrap().progress.step, 1);
}

#[tokio::test]
async fn a_watcher_that_comes_back_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let id = submit(&store, small(0)).await.id;
    let mut events = watch(&store, id, None).await;
    event(&mut events).await;
    let claim = claim_one(&store).await;
    let (seen, _) = event(&mut events).await;
    drop(events);
    step(&store, id, 1);
    assert!(store.succeed(&claim, &[outcome(b"png")]).await.unwrap());
    assert_eq!(rest(watch(&store, id, Some(seen)).await).await, ["1", "succeeded"]);
    assert_eq!(rest(watch(&store, id, Some(seen + 2)).await).await, Vec::<String>::new(), "it saw the end already");
    assert_eq!(rest(watch(&store, id, Some(u64::MAX)).await).await, ["queued", "running", "1", "succeeded"]);
    drop(store);
    let store = open(folder.path()).await;
    assert_eq!(rest(watch(&store, id, Some(seen)).await).await.last().unwrap(), "succeeded");
}

#[tokio::test]
async fn a_watcher_that_is_too_slow_learns_how_much_it_missed_and_still_knows_the_state() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let id = submit(&store, small(0)).await.id;
    let mut slow = watch(&store, id, None).await;
    event(&mut slow).await;
    let claim = claim_one(&store).await;
    for n in 0..1000 {
        step(&store, id, n);
    }
    let mut late = watch(&store, id, None).await;
    assert_eq!(next(&mut late).await, Some(Update::Skipped { events: 1 }), "queued");
    assert_eq!(event(&mut late).await.1, Event::State { state: RunState::Running });
    assert_eq!(next(&mut late).await, Some(Update::Skipped { events: 744 }), "all but the latest 256");
    assert!(store.succeed(&claim, &[outcome(b"png")]).await.unwrap());
    let slow = rest(slow).await;
    assert_eq!(slow[..2], ["skipped 746", "745"]);
    assert_eq!(slow[slow.len() - 2..], ["999", "succeeded"]);
    assert_eq!(slow.len(), 1 + 256);
}

#[tokio::test]
async fn a_requeued_job_is_queued_again_for_its_watchers() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let id = submit(&store, small(0)).await.id;
    let claim = claim_one(&store).await;
    let mut events = watch(&store, id, None).await;
    step(&store, id, 3);
    store.finish(claim.lease, RunOutcome::Requeued).await.unwrap();
    assert_eq!(store.get(id).await.unwrap().unwrap().progress.step, 0);
    for state in [RunState::Running, RunState::Queued] {
        while event(&mut events).await.1 != (Event::State { state }) {}
    }
}

#[tokio::test]
async fn nobody_watches_a_job_that_does_not_exist() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    for _ in 0..10 {
        assert!(store.subscribe(Uuid::now_v7(), None).await.unwrap().is_none());
        assert!(store.wait(Uuid::now_v7(), Duration::ZERO).await.unwrap().is_none());
    }
    assert_eq!(store.feed().channels_in_memory(), 0);
}

#[tokio::test]
async fn waiting_ends_with_the_job_or_with_patience() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let id = submit(&store, small(0)).await.id;
    let job = store.wait(id, Duration::from_millis(20)).await.unwrap().unwrap();
    assert_eq!(job.state, RunState::Queued);
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.wait(id, Duration::from_secs(60)).await.unwrap().unwrap() }
    });
    let claim = claim_one(&store).await;
    assert!(store.succeed(&claim, &[outcome(b"png")]).await.unwrap());
    assert_eq!(waiting.await.unwrap().state, RunState::Succeeded);
}

#[tokio::test]
async fn every_stream_ends_when_the_store_closes() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let id = submit(&store, small(0)).await.id;
    let events = watch(&store, id, None).await;
    store.close().await;
    assert_eq!(rest(events).await, ["queued"]);
}
