//! Server-sent events of jobs.

use std::time::Duration;

use futures_util::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};

use crate::http_service::{DEADLINE, Server, endless, patient, quick};

/// A parsed event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub name: String,
    pub id: Option<u64>,
    pub data: Value,
}

/// An open event stream.
pub struct Events {
    text: String,
    chunks: futures_util::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
}

async fn watch(server: &Server, id: &str, last: Option<&str>) -> Result<Events, u16> {
    watch_at(server, &format!("/v1/jobs/{id}/events"), last).await
}

/// Opens the event stream at a path; the status if it is not 200.
pub async fn watch_at(server: &Server, path: &str, last: Option<&str>) -> Result<Events, u16> {
    let mut request = server.request(Method::GET, path);
    if let Some(last) = last {
        request = request.header("Last-Event-ID", last);
    }
    let response = request.send().await.unwrap();
    match response.status().as_u16() {
        200 => {
            assert_eq!(response.headers()["content-type"], "text/event-stream");
            Ok(Events { text: String::new(), chunks: response.bytes_stream().boxed() })
        }
        other => Err(other),
    }
}

impl Events {
    /// The next event; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let (event, rest) = (parse(event), rest.to_owned());
                self.text = rest;
                if let Some(event) = event {
                    return Some(event);
                }
                continue;
            }
            let chunk = tokio::time::timeout(DEADLINE, self.chunks.next()).await.expect("an event or the end")?;
            self.text += std::str::from_utf8(&chunk.unwrap()).unwrap();
        }
    }

    pub async fn all(mut self) -> Vec<Event> {
        let mut all = Vec::new();
        while let Some(event) = self.next().await {
            all.push(event);
        }
        all
    }
}

/// `None` for keep-alive comments.
fn parse(text: &str) -> Option<Event> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    Some(Event {
        name: field("event")?.to_owned(),
        id: field("id").map(|id| id.parse().unwrap()),
        data: serde_json::from_str(field("data")?).unwrap(),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_sees_the_job_its_steps_and_its_end() {
    let server = Server::start().await;
    let job = server.submit(quick()).await;
    let id = job["id"].as_str().unwrap();
    let events = watch(&server, id, None).await.unwrap().all().await;
    assert_eq!((events[0].name.as_str(), &events[0].data["id"]), ("job", &job["id"]));
    let states: Vec<&Value> = events.iter().filter(|e| e.name == "state").map(|e| &e.data["state"]).collect();
    assert_eq!(*states.last().unwrap(), "succeeded", "{events:?}");
    assert!(events[1..].is_sorted_by_key(|event| event.id), "{events:?}");
    for event in events.iter().filter(|event| event.name == "progress") {
        assert_eq!(event.data["steps"], 4, "{event:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stimuli_that_stop_early_are_seen_as_done() {
    let server = Server::start().await;
    let body = json!({"model": "fashion-resnet8", "objectives": ["layer1/Relu_1:3", "layer1/Relu_1:5"], "preset": "maximum",
        "gate": "plain", "optimizer": "l2-ascent", "steps": 400, "patience": 10});
    let job = server.submit(body).await;
    let id = job["id"].as_str().unwrap();
    let events = watch(&server, id, None).await.unwrap().all().await;
    let progress: Vec<&Value> =
        events.iter().filter(|event| event.name == "progress").map(|event| &event.data).collect();
    assert!(progress.iter().is_sorted_by_key(|progress| progress["step"].as_u64()), "{progress:?}");
    let last = progress.last().unwrap();
    assert_eq!((&last["step"], &last["steps"]), (&json!(800), &json!(800)), "{progress:?}");
    let job = server.state(id, "succeeded").await;
    assert_eq!((&job["settings"]["patience"], &job["progress"]), (&json!(10), &json!({"step": 800, "steps": 800})));
    for stimulus in job["stimuli"].as_array().unwrap() {
        let steps = stimulus["steps"].as_u64().unwrap();
        assert!((11..400).contains(&steps), "{stimulus}");
        assert_eq!(stimulus["trajectory"].as_array().unwrap().last().unwrap()["step"], steps);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_comes_back_misses_nothing_and_sees_nothing_twice() {
    let server = Server::with(patient).await;
    let job = server.submit(endless()).await;
    let id = job["id"].as_str().unwrap();
    let mut first = watch(&server, id, None).await.unwrap();
    let last = loop {
        let event = first.next().await.unwrap();
        if event.name == "progress" {
            break event.id.unwrap();
        }
    };
    drop(first);

    let mut second = watch(&server, id, Some(&last.to_string())).await.unwrap();
    let next = second.next().await.unwrap();
    assert!(next.id > Some(last) || next.name == "skipped", "{next:?} after {last}");
    server.send(server.request(Method::POST, &format!("/v1/jobs/{id}/cancel"))).await;
    let rest = second.all().await;
    let end = rest.last().unwrap_or(&next);
    assert_eq!(end.data["state"], "canceled", "{rest:?}");
    assert!(rest.iter().all(|event| event.id.is_none_or(|id| id > last)), "{rest:?}");

    let end = end.id.unwrap().to_string();
    assert_eq!(watch(&server, id, Some(&end)).await.err(), Some(204), "an EventSource must not come back for ever");
    let unreadable = watch(&server, id, Some("what")).await.unwrap().all().await;
    assert_eq!(unreadable[0].name, "job", "an unknown id starts from the beginning");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_ended_long_ago_still_sends_its_final_state() {
    let server = Server::start().await;
    let job = server.submit(quick()).await;
    let id = job["id"].as_str().unwrap();
    server.state(id, "succeeded").await;
    let folder = server.shutdown().await;
    let server = Server::on(folder, |_| {}).await;
    let events = watch(&server, id, None).await.unwrap().all().await;
    assert_eq!(events[0].data["state"], "succeeded");
    assert_eq!(events.last().unwrap().data["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_when_the_service_ends() {
    let server = Server::with(|config| {
        patient(config);
        config.shutdown_grace = Duration::ZERO;
    })
    .await;
    let job = server.submit(endless()).await;
    let mut events = watch(&server, job["id"].as_str().unwrap(), None).await.unwrap();
    assert_eq!(events.next().await.unwrap().name, "job");
    let reading = tokio::spawn(events.all());
    server.shutdown().await;
    tokio::time::timeout(DEADLINE, reading).await.unwrap().unwrap();
}
