//! Browsers: cross-site requests are rejected and cannot be read, except from configured origins.

use std::collections::BTreeSet;

use proxygrad::network::catalog::PackageIndex;
use proxygrad_server::config::Config;
use reqwest::Method;
use serde_json::json;

use crate::http_service::{Answer, Server, quick};

const DASH: &str = "https://dash.example";

async fn ask(server: &Server, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = server.request(method, path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    server.send(request).await
}

fn dashboards(origins: &'static [&str]) -> impl FnOnce(&mut Config) {
    |config| config.cors_origin = origins.iter().map(|origin| origin.parse().unwrap()).collect()
}

/// Items of a list header.
fn words(answer: &Answer, name: &str) -> BTreeSet<String> {
    let list = answer.headers.get(name).map(String::as_str).unwrap_or_default();
    list.split(',').map(|word| word.trim().to_lowercase()).filter(|word| !word.is_empty()).collect()
}

fn holds(answer: &Answer, name: &str, expected: &[&str]) {
    let found = words(answer, name);
    assert!(expected.iter().all(|word| found.contains(&word.to_lowercase())), "{name}: {found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_sites_cannot_change_anything() {
    let server = Server::start().await;
    let job = server.submit(quick()).await;
    let id = job["id"].as_str().unwrap();
    server.state(id, "succeeded").await;
    let document = server.get("/openapi.json").await.json();
    let mut tried = 0;
    for (path, calls) in document["paths"].as_object().unwrap() {
        for method in calls.as_object().unwrap().keys().filter(|method| *method != "get") {
            let method: Method = method.to_uppercase().parse().unwrap();
            for headers in [
                &[("Origin", "https://evil.example"), ("Sec-Fetch-Site", "cross-site")][..],
                &[("Origin", "https://evil.example")],
                &[("Origin", "http://127.0.0.1:1"), ("Sec-Fetch-Site", "same-site")],
                &[("Origin", "null"), ("Content-Type", "multipart/form-data; boundary=b")],
                &[("Sec-Fetch-Site", "cross-site")],
            ] {
                let refused = ask(&server, method.clone(), &path.replace("{id}", id), headers).await;
                let kind = refused.json()["type"].clone();
                assert_eq!((refused.status, kind), (403, json!("/problems/cross-site-request")), "{method} {path}");
                tried += 1;
            }
        }
    }
    assert!(tried >= 30, "{tried}");
    assert_eq!(server.get("/v1/jobs").await.json()["jobs"].as_array().unwrap().len(), 1, "nothing was accepted");
    assert_eq!(server.get(&format!("/v1/jobs/{id}")).await.status, 200, "nothing was deleted");

    let own = [("Origin", server.base.as_str()), ("Sec-Fetch-Site", "same-origin")];
    assert_eq!(ask(&server, Method::DELETE, &format!("/v1/jobs/{id}"), &own).await.status, 204, "its own pages may");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_host_is_rejected_with_a_hint_to_the_setting() {
    let server = Server::start().await;
    for path in ["/v1/models", "/v1/jobs", "/docs/", "/openapi.json", "/metrics", "/problems", "/nowhere"] {
        let refused = ask(&server, Method::GET, path, &[("Host", "evil.example:8080")]).await;
        let problem = refused.json();
        assert_eq!((refused.status, &problem["type"]), (421, &json!("/problems/unknown-host")), "{path}");
        assert!(problem["detail"].as_str().unwrap().contains("--allowed-host evil.example"), "{problem}");
        assert_eq!(ask(&server, Method::GET, "/v1/models", &[("Host", "localhost")]).await.status, 200);
    }
    for path in ["/livez", "/readyz"] {
        assert_eq!(ask(&server, Method::GET, path, &[("Host", "evil.example")]).await.status, 200, "{path}");
    }
    let server = Server::with(|config| {
        config.allowed_host = ["xai.example.org", "*.internal"].map(|host| host.parse().unwrap()).into();
    })
    .await;
    for (host, status) in
        [("xai.example.org", 200), ("XAI.example.org.:443", 200), ("a.internal", 200), ("evil.example", 421)]
    {
        assert_eq!(ask(&server, Method::GET, "/v1/models", &[("Host", host)]).await.status, status, "{host}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_page_of_another_origin_reads_anything_unless_it_is_configured() {
    let server = Server::start().await;
    let headers = [("Origin", DASH), ("Access-Control-Request-Method", "POST")];
    for (method, path) in [(Method::OPTIONS, "/v1/jobs"), (Method::GET, "/v1/models"), (Method::GET, "/nowhere")] {
        let answer = ask(&server, method.clone(), path, &headers).await;
        assert!(!answer.headers.keys().any(|name| name.starts_with("access-control-")), "{method} {path} {answer:?}");
        assert!(method != Method::OPTIONS || answer.status == 405, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configured_dashboard_can_send_requests_and_read_responses() {
    let server = Server::with(dashboards(&[DASH, "http://localhost:3000"])).await;
    let job = server.submit(quick()).await;
    let id = job["id"].as_str().unwrap().to_owned();
    server.state(&id, "succeeded").await;
    let asks = "content-type,prefer,idempotency-key,last-event-id,if-none-match";
    let headers = [
        ("Origin", DASH),
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", asks),
        ("Sec-Fetch-Site", "cross-site"),
    ];
    for path in ["/v1/jobs", "/v1/studies", "/v1/jobs/x/cancel", "/v1/jobs/x"] {
        let preflight = Answer::read(
            headers
                .iter()
                .fold(server.request(Method::OPTIONS, path), |request, (name, value)| request.header(*name, *value))
                .send()
                .await
                .unwrap(),
        )
        .await;
        assert!(matches!(preflight.status, 200 | 204), "{preflight:?}");
        assert_eq!(preflight.headers["access-control-allow-origin"], DASH);
        holds(&preflight, "access-control-allow-methods", &["GET", "POST", "DELETE"]);
        holds(&preflight, "access-control-allow-headers", &asks.split(',').collect::<Vec<_>>());
        holds(&preflight, "vary", &["origin"]);
    }

    let png = job["links"]["self"].as_str().unwrap().to_owned() + "/stimuli/0";
    let from = [("Origin", DASH), ("Sec-Fetch-Site", "cross-site")];
    for (path, status) in [("/v1/models", 200), (&png, 200), ("/v1/jobs/0", 400), ("/nowhere", 404)] {
        let answer = ask(&server, Method::GET, path, &from).await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.headers["access-control-allow-origin"], DASH, "{path}");
        let readable =
            ["location", "etag", "retry-after", "preference-applied", "idempotency-replayed", "x-request-id"];
        holds(&answer, "access-control-expose-headers", &readable);
        holds(&answer, "vary", &["origin"]);
    }
    let request =
        from.iter().fold(server.request(Method::POST, "/v1/jobs"), |r, (name, value)| r.header(*name, *value));
    assert_eq!(server.send(request.json(&quick())).await.status, 202, "the dashboard may submit");

    for origin in ["https://evil.example", "http://dash.example", "https://dash.example.evil.example", "null"] {
        let answer = ask(&server, Method::GET, "/v1/models", &[("Origin", origin)]).await;
        assert_eq!((answer.status, answer.headers.get("access-control-allow-origin")), (200, None), "{origin}");
        holds(&answer, "vary", &["origin"]);
        let refused = ask(&server, Method::POST, &format!("/v1/jobs/{id}/cancel"), &[("Origin", origin)]).await;
        assert_eq!(refused.status, 403, "{origin}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_origins_are_allowed_if_configured() {
    let server = Server::with(dashboards(&["*"])).await;
    let from = [("Origin", "https://any.example"), ("Sec-Fetch-Site", "cross-site")];
    assert_eq!(ask(&server, Method::GET, "/nowhere", &from).await.headers["access-control-allow-origin"], "*");
    let request =
        from.iter().fold(server.request(Method::POST, "/v1/jobs"), |r, (name, value)| r.header(*name, *value));
    assert_eq!(server.send(request.json(&quick())).await.status, 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_response_forbids_sniffing_and_framing() {
    let server = Server::start().await;
    let job = server.submit(quick()).await;
    server.state(job["id"].as_str().unwrap(), "succeeded").await;
    let png = job["links"]["self"].as_str().unwrap().to_owned() + "/stimuli/0";
    for path in ["/livez", "/metrics", "/v1/jobs", &png, "/docs", "/docs/", "/openapi.json", "/problems", "/nowhere"] {
        let answer = Answer::read(server.request(Method::GET, path).send().await.unwrap()).await;
        assert_eq!(answer.headers["x-content-type-options"], "nosniff", "{path}");
        let policy = &answer.headers["content-security-policy"];
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{path}: {policy}");
    }
    let page = server.get("/docs/").await;
    assert!(page.headers["content-security-policy"].contains("script-src 'self'"), "{page:?}");
    // The page does not use what its policy forbids.
    for bad in ["<script>", " onclick=", "javascript:"] {
        assert!(!page.text().contains(bad), "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_site_cannot_start_a_download() {
    // No server listens there: a download would fail with 503.
    let server =
        Server::with(|config| config.storage.package_index = PackageIndex::new("http://127.0.0.1:9/").unwrap()).await;
    let foreign = [("Sec-Fetch-Site", "cross-site")];
    for path in ["layers", "layers/x/units/0", "layers/x/units/0/patches/0"] {
        let pullable = ask(&server, Method::GET, &format!("/v1/models/efficientnet-lite0/{path}"), &foreign).await;
        assert_eq!((pullable.status, pullable.json()["type"].as_str()), (403, Some("/problems/cross-site-request")));
    }
    assert_eq!(ask(&server, Method::GET, "/v1/models/fashion-resnet8/layers", &foreign).await.status, 200);
    let own = ask(&server, Method::GET, "/v1/models/efficientnet-lite0/layers", &[]).await;
    assert_eq!(own.status, 503, "{own:?}");
}
