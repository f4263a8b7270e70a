//! Self-description of the server: OpenAPI document, documentation page, probes, metrics, models.

use std::collections::{BTreeSet, HashMap};

use reqwest::Method;
use serde_json::{Value, json};

use crate::http_service::{Server, quick};

#[test]
fn the_committed_openapi_document_is_the_generated_one() {
    let generated = proxygrad_server::api::openapi_document().unwrap();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/openapi.json");
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(generated == committed, "the API has changed: cargo run -- openapi > openapi/openapi.json");
}

#[test]
fn every_reference_in_the_openapi_document_leads_somewhere() {
    let document: Value = serde_json::from_str(&proxygrad_server::api::openapi_document().unwrap()).unwrap();
    let mut references = BTreeSet::new();
    collect(&document, &mut references);
    for reference in &references {
        let target = document.pointer(reference.strip_prefix('#').unwrap());
        assert!(target.is_some(), "{reference}");
    }
    let used: BTreeSet<&str> = references.iter().map(|r| r.rsplit_once('/').unwrap().1).collect();
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        assert!(used.contains(name.as_str()), "nothing refers to {name}");
    }
}

fn collect(value: &Value, references: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => object.iter().for_each(|(key, value)| match (key.as_str(), value) {
            ("$ref", Value::String(reference)) => drop(references.insert(reference.clone())),
            (_, value) => collect(value, references),
        }),
        Value::Array(items) => items.iter().for_each(|item| collect(item, references)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_in_the_openapi_document_work() {
    let server = Server::start().await;
    let document = server.get("/openapi.json").await.json();
    for path in ["/v1/jobs", "/v1/studies"] {
        let body = &document["paths"][path]["post"]["requestBody"]["content"]["application/json"];
        for (name, example) in body["examples"].as_object().unwrap() {
            let answer = server.post(path, &example["value"]).await;
            assert_eq!(answer.status, 202, "{name}: {answer:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_served_document_has_the_limits_of_this_server() {
    let server = Server::with(|config| (config.max_steps, config.max_side, config.max_objectives) = (7, 32, 3)).await;
    let request = &server.get("/openapi.json").await.json()["components"]["schemas"]["Request"]["properties"];
    assert_eq!(request["steps"]["maximum"], 7);
    assert_eq!(request["size"]["items"]["maximum"], 32);
    assert_eq!(request["objectives"]["maxItems"], 3);
    for body in [
        json!({"model": "fashion-resnet8", "objective": "logits:1", "steps": 8}),
        json!({"model": "fashion-resnet8", "objective": "layer1/Relu_1:1", "steps": 1, "size": [33, 32]}),
        json!({"model": "fashion-resnet8", "objectives": ["logits:1", "logits:2", "logits:3", "logits:4"], "steps": 1}),
    ] {
        assert_eq!(server.post("/v1/jobs", &body).await.status, 422, "{body}");
    }
    assert_eq!(
        server.post("/v1/jobs", &json!({"model": "fashion-resnet8", "objective": "logits:1"})).await.status,
        202
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documentation_page_loads_nothing_from_other_servers() {
    let server = Server::start().await;
    let page = server.get("/docs/").await;
    assert_eq!((page.status, page.media_type()), (200, Some("text/html")));
    let mut parts = vec!["swagger-initializer.js".to_owned()];
    for attribute in ["src=\"", "href=\""] {
        parts.extend(page.text().split(attribute).skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()));
    }
    assert!(parts.len() > 3, "{parts:?}");
    for part in &parts {
        assert!(!part.contains("//"), "{part} is elsewhere");
        let answer = server.get(&format!("/docs/{}", part.trim_start_matches("./"))).await;
        assert_eq!(answer.status, 200, "{part}");
        if part.ends_with("initializer.js") {
            assert!(answer.text().contains("\"../openapi.json\""), "{}", answer.text());
            assert!(answer.text().contains("\"validatorUrl\": \"none\""), "{}", answer.text());
            assert!(!answer.text().contains("http"), "{}", answer.text());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_metrics_answer() {
    let server = Server::start().await;
    assert_eq!(server.get("/livez").await.json()["status"], "alive");
    let ready = server.get("/readyz").await;
    assert_eq!((ready.status, ready.json()["status"].clone()), (200, json!("ready")));
    let job = server.submit(quick()).await;
    server.state(job["id"].as_str().unwrap(), "succeeded").await;
    server.get("/no/such/path").await;
    assert_eq!(server.get("/readyz").await.json()["jobs"]["succeeded"], 1);

    let metrics = server.get("/metrics").await;
    assert!(metrics.headers["content-type"].starts_with("text/plain; version=0.0.4"), "{:?}", metrics.headers);
    for line in [
        "proxygrad_http_requests_total{method=\"GET\",path=\"/v1/jobs/{id}\",status=\"200\"}",
        "proxygrad_http_requests_total{method=\"GET\",path=\"unmatched\",status=\"404\"}",
        "proxygrad_http_request_duration_seconds_bucket{method=\"POST\",path=\"/v1/jobs\",le=",
        "proxygrad_queue_jobs{state=\"succeeded\"}",
        "proxygrad_queue_studies{state=\"queued\"}",
    ] {
        assert!(metrics.text().contains(line), "{line} is missing in\n{}", metrics.text());
    }
    assert!(!metrics.text().contains("/no/such/path"), "made-up paths make no series");
}

#[tokio::test(flavor = "multi_thread")]
async fn models_list_their_state_and_layers() {
    let server = Server::start().await;
    let models = server.get("/v1/models").await.json();
    let states: HashMap<&str, &str> = models["models"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| (model["id"].as_str().unwrap(), model["state"].as_str().unwrap()))
        .collect();
    assert_eq!(states["fashion-resnet8"], "ready");
    assert_eq!(states["efficientnet-lite0"], "pullable");

    let model = server.get("/v1/models/fashion-resnet8").await.json();
    assert_eq!((&model["input"], &model["preprocessing"]["channels"]), (&json!([1, 28, 28]), &json!("grey")));
    assert_eq!(model["class_names"][8], "Bag");
    let pullable = server.get("/v1/models/efficientnet-lite0").await.json();
    assert_eq!(
        (&pullable["state"], &pullable["class_names"]),
        (&json!("pullable"), &Value::Null),
        "it was not fetched"
    );

    let layers = server.get("/v1/models/fashion-resnet8/layers").await.json();
    let layers = layers["layers"].as_array().unwrap();
    let relu = layers.iter().find(|layer| layer["name"] == "layer1/Relu_1").unwrap();
    assert_eq!((&relu["op"], &relu["units"]), (&json!("relu"), &relu["shape"][0]));
    for layer in layers {
        let body = json!({"model": "fashion-resnet8", "objective": layer["example"], "steps": 1});
        let answer = server.post("/v1/jobs", &body).await;
        assert_eq!(answer.status, 202, "{layer}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_problem_type_has_a_documentation_page() {
    let server = Server::start().await;
    let problem = server.get("/v1/jobs/0").await.json();
    let page = server.get(problem["type"].as_str().unwrap()).await;
    assert!(page.text().contains(problem["title"].as_str().unwrap()), "{}", page.text());
    assert_eq!(server.get("/problems/none").await.status, 404);
    let all = server.get("/problems").await;
    assert!(all.text().contains("/problems/queue-full"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_get_route_supports_head() {
    let server = Server::start().await;
    for path in ["/livez", "/readyz", "/v1/jobs", "/v1/studies", "/v1/models", "/openapi.json", "/docs/", "/metrics"] {
        let (head, get) = (server.send(server.request(Method::HEAD, path)).await, server.get(path).await);
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        assert_eq!(head.headers["content-type"], get.headers["content-type"], "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_keeps_the_id_of_its_client() {
    let server = Server::start().await;
    let ask = |id: &str| server.send(server.request(Method::GET, "/livez").header("X-Request-Id", id.to_owned()));
    assert_eq!(ask("order-7").await.headers["x-request-id"], "order-7");
    let forged = ask("a b\" c").await;
    assert_ne!(forged.headers["x-request-id"], "a b\" c", "ids that are not safe to log are replaced");
}
