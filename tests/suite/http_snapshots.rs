//! Snapshots of what clients read: a job, a study, a training, their lists, and problem documents.
//!
//! A change of one is a change of the API. `INSTA_UPDATE=always cargo test --test suite snapshots` writes them anew.

use reqwest::Method;
use serde_json::{Value, json};

use crate::http_service::{Answer, Server};
use crate::http_studies::submit;
use crate::http_trainings;

/// Asserts that a document is the snapshot of this name, without what differs between runs and between machines.
fn assert_snapshot(name: &str, document: Value) {
    insta::with_settings!({ prepend_module_to_snapshot => false, snapshot_path => "snapshots", omit_expression => true }, {
        insta::assert_json_snapshot!(name, redacted("", document, false));
    });
}

/// The document without ids, times, digests, and the figures of what was `measured` in a run.
fn redacted(key: &str, value: Value, measured: bool) -> Value {
    let redaction = |what: &str| Value::String(format!("[{what}]"));
    match value {
        Value::String(_) if key.ends_with("_at") => redaction("time"),
        Value::String(_) if ["sha256", "digest", "model_digest"].contains(&key) => redaction("digest"),
        Value::String(text) => {
            let is_id = |part: &&str| uuid::Uuid::parse_str(part).is_ok();
            let ids: Vec<&str> = text.split(['/', ' ']).filter(is_id).collect();
            Value::String(ids.iter().fold(text.clone(), |text, id| text.replace(id, "[id]")))
        }
        Value::Number(number)
            if measured && (number.is_f64() || ["best_step", "bytes", "wins", "ties"].contains(&key)) =>
        {
            redaction("number")
        }
        Value::Array(items) => items.into_iter().map(|item| redacted(key, item, measured)).collect(),
        Value::Object(fields) => {
            let measured = |field: &str| match field {
                "stimuli" | "summary" | "last" | "best" | "test_accuracy" => true,
                "objective" | "gate" => false,
                _ => measured,
            };
            fields
                .into_iter()
                .map(|(field, value)| (field.clone(), redacted(&field, value, measured(&field))))
                .collect()
        }
        other => other,
    }
}

fn problem(answer: &Answer, status: u16) -> Value {
    assert_eq!(answer.status, status, "{answer:?}");
    answer.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_of_a_job() {
    let server = Server::start().await;
    let body = json!({
        "model": "fashion-resnet8", "steps": 4, "seed": 7, "animation": {"frames": 3}, "diagnostics": true,
        "objectives": ["layer1/Relu_1:3", {"sum": ["logits:Sneaker", {"layer": "logits", "channel": 2, "weight": -0.5}]}],
    });
    let job = server.submit(body).await;
    let id = job["id"].as_str().unwrap();
    assert_snapshot("job", server.state(id, "succeeded").await);
    assert_snapshot("jobs", server.get("/v1/jobs").await.json());
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_of_a_study() {
    let server = Server::start().await;
    let path = submit(
        &server,
        &json!({
            "models": [{"id": "fashion-resnet8", "layers": ["layer3/Relu@center"]}], "units_per_layer": 1, "logits": 1,
            "seed": 4, "seeds": 2, "steps": 4, "arms": ["plain", "slope:0.1"], "methods": ["pixel"], "images": 0,
        }),
    )
    .await;
    assert_snapshot("study", server.state_at(&path, "succeeded").await);
    assert_snapshot("studies", server.get("/v1/studies").await.json());
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_of_a_training() {
    let datasets = http_trainings::datasets();
    let server = http_trainings::server(&datasets).await;
    let path = http_trainings::submit(&server, &http_trainings::small()).await;
    assert_snapshot("training", server.state_at(&path, "succeeded").await);
    assert_snapshot("trainings", server.get("/v1/trainings").await.json());
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_of_problems() {
    let server = Server::start().await;
    let post = |body: &'static str| {
        server.send(server.request(Method::POST, "/v1/jobs").header("Content-Type", "application/json").body(body))
    };
    let broken = post(r#"{"model": "#).await;
    assert_snapshot("problem_malformed_json", problem(&broken, 400));
    let missing = post(r#"{"model": "fashion-resnet8"}"#).await;
    assert_snapshot("problem_required_field", problem(&missing, 422));
    let channel = post(r#"{"model": "fashion-resnet8", "objective": "logits:99"}"#).await;
    assert_snapshot("problem_invalid_channel", problem(&channel, 422));
    let old = post(r#"{"model": "fashion-resnet8", "objective": "logits:1", "certificates": true}"#).await;
    assert_snapshot("problem_renamed_field", problem(&old, 422));
    let unknown = server.get("/v1/jobs/01a22c22-a363-77da-b2f9-ac061d7b7ce2").await;
    assert_snapshot("problem_unknown_job", problem(&unknown, 404));
    let method = server.send(server.request(Method::PUT, "/v1/jobs")).await;
    assert_snapshot("problem_method_not_allowed", problem(&method, 405));
}
