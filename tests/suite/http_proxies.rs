//! Reverse proxies: base paths, trusted headers and buffering.

use reqwest::Method;
use serde_json::{Value, json};

use crate::http_service::{Answer, Server, quick};

async fn ask(server: &Server, method: Method, path: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Answer {
    let client = crate::http_service::client().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let mut request = client.request(method, format!("{}{path}", server.base));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Answer::read(body.iter().fold(request, |request, body| request.json(body)).send().await.unwrap()).await
}

/// Collects all strings in a document that are paths on the server.
fn paths(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) if text.contains("/v1/") && !text.contains(' ') => found.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| paths(item, found)),
        Value::Object(fields) => fields.values().for_each(|field| paths(field, found)),
        _ => {}
    }
}

/// Checks that all links of the server begin with `/xai`.
async fn all_under_xai(server: &Server, headers: &[(&str, &str)]) {
    let body = json!({"model": "fashion-resnet8", "objective": "logits:1", "steps": 2, "animation": {"frames": 2}});
    let prefer = [headers, &[("Prefer", "wait=30")]].concat();
    let job = ask(server, Method::POST, "/v1/jobs", &prefer, Some(&body)).await;
    assert_eq!(job.status, 200, "{job:?}");
    assert!(job.headers["location"].starts_with("/xai/v1/jobs/"), "{job:?}");
    let study = json!({"models": ["fashion-resnet8"], "units_per_layer": 1, "steps": 2});
    let study = ask(server, Method::POST, "/v1/studies", headers, Some(&study)).await;
    assert!(study.headers["location"].starts_with("/xai/v1/studies/"), "{study:?}");

    let mut documents = vec![job.json(), study.json()];
    for path in ["/v1/jobs", "/v1/studies", &job.headers["location"][4..], &study.headers["location"][4..]] {
        documents.push(ask(server, Method::GET, path, headers, None).await.json());
    }
    for end in ["/cancel"] {
        for made in [&job, &study] {
            let path = made.headers["location"][4..].to_owned() + end;
            documents.push(ask(server, Method::POST, &path, headers, None).await.json());
        }
    }
    let events = job.json()["links"]["events"].as_str().unwrap()[4..].to_owned();
    let events = ask(server, Method::GET, &events, headers, None).await;
    let first = events.text().lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    documents.push(serde_json::from_str(first).unwrap());
    for document in &documents {
        let mut found = Vec::new();
        paths(document, &mut found);
        assert!(found.len() >= 3, "{document}");
        assert!(found.iter().all(|path| path.starts_with("/xai/v1/")), "{found:?}");
    }
    assert!(documents[0]["stimuli"][0]["animation"].as_str().unwrap().starts_with("/xai/"), "{}", documents[0]);

    let document = ask(server, Method::GET, "/openapi.json", headers, None).await.json();
    assert_eq!(document["servers"], json!([{"url": "/xai"}]));
    for path in ["/v1/jobs/0", "/nowhere"] {
        let problem = ask(server, Method::GET, path, headers, None).await.json();
        assert!(problem["type"].as_str().unwrap().starts_with("/xai/problems/"), "{problem}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn links_begin_with_the_base_path_and_lead_back() {
    let server = Server::with(|config| config.base_path = "/xai".parse().unwrap()).await;
    all_under_xai(&server, &[]).await;
    // The proxy need not remove the prefix.
    let job = ask(&server, Method::POST, "/xai/v1/jobs", &[("Prefer", "wait=30")], Some(&quick())).await;
    let job = ask(&server, Method::GET, &job.headers["location"], &[], None).await.json();
    let png = job["stimuli"][0]["png"].as_str().unwrap();
    assert_eq!(ask(&server, Method::GET, png, &[], None).await.status, 200);
    let problem = ask(&server, Method::GET, "/xai/v1/jobs/0", &[], None).await.json();
    assert_eq!(ask(&server, Method::GET, problem["type"].as_str().unwrap(), &[], None).await.status, 200);
    assert_eq!(ask(&server, Method::GET, "/xai/livez", &[], None).await.status, 200);
    assert_eq!(ask(&server, Method::GET, "/xaiver/livez", &[], None).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_prefix_of_a_trusted_proxy_is_used() {
    all_under_xai(&Server::start().await, &[("X-Forwarded-Prefix", "/xai/")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_from_an_untrusted_client_is_ignored() {
    let server = Server::with(|config| config.trusted_proxy = vec!["10.0.0.0/8".parse().unwrap()]).await;
    let forged = [("X-Forwarded-Prefix", "/xai")];
    let job = ask(&server, Method::POST, "/v1/jobs", &forged, Some(&quick())).await;
    assert!(job.headers["location"].starts_with("/v1/jobs/"), "{job:?}");
    let server = Server::start().await;
    for bad in ["//evil.example", "https://evil.example", "/a\"b", "/../x"] {
        let job = ask(&server, Method::POST, "/v1/jobs", &[("X-Forwarded-Prefix", bad)], Some(&quick())).await;
        assert!(job.headers["location"].starts_with("/v1/jobs/"), "{bad}: {job:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documentation_page_works_under_any_path_without_a_setting() {
    let server = Server::start().await;
    let docs = ask(&server, Method::GET, "/docs", &[], None).await;
    assert!((300..400).contains(&docs.status), "{docs:?}");
    assert_eq!(docs.headers["location"], "docs/");
    let initializer = ask(&server, Method::GET, "/docs/swagger-initializer.js", &[], None).await;
    assert!(initializer.text().contains("\"../openapi.json\""), "{}", initializer.text());
    assert!(initializer.headers["content-type"].contains("javascript"), "{initializer:?}");
    assert_eq!(ask(&server, Method::GET, "/docs/none.js", &[], None).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn proxies_do_not_buffer_events() {
    let server = Server::start().await;
    let job = server.submit(quick()).await;
    let study = json!({"models": ["fashion-resnet8"], "units_per_layer": 1, "steps": 2});
    let study = server.post("/v1/studies", &study).await.json();
    for watched in [job, study] {
        let request = server.request(Method::GET, watched["links"]["events"].as_str().unwrap());
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["x-accel-buffering"], "no");
    }
}
