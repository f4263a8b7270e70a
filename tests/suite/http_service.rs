//! Test server: the real service on a free port with a temporary data directory.
//!
//! Every response is compared with the OpenAPI document: the operation must declare its status and media type.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use proxygrad_server::config::Config;
use proxygrad_server::service::Service;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Time limit of every wait; only reached on failure.
pub const DEADLINE: Duration = Duration::from_secs(60);

pub struct Server {
    pub base: String,
    pub client: reqwest::Client,
    document: Value,
    service: Option<Service>,
    /// Deleted when the server is dropped.
    pub folder: Option<TempDir>,
}

/// A complete response.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

/// A client that asks nobody but the server.
pub fn client() -> reqwest::ClientBuilder {
    proxygrad::network::catalog::install_crypto_provider();
    reqwest::Client::builder().no_proxy()
}

impl Server {
    /// A server with default settings.
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// A server with settings changed by `adjust`.
    pub async fn with(adjust: impl FnOnce(&mut Config)) -> Self {
        Self::on(tempfile::tempdir().unwrap(), adjust).await
    }

    /// A server on an existing data directory.
    pub async fn on(folder: TempDir, adjust: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::defaults();
        config.listen = "127.0.0.1:0".parse().unwrap();
        config.storage.data_dir = folder.path().into();
        adjust(&mut config);
        let service = Service::start(config).await.unwrap();
        let base = format!("http://{}", service.address());
        Self { service: Some(service), folder: Some(folder), ..Self::at(base) }
    }

    /// A server that runs in another process.
    pub fn at(base: String) -> Self {
        let client = client().timeout(DEADLINE).build().unwrap();
        let document = serde_json::from_str(&proxygrad_server::api::openapi_document().unwrap()).unwrap();
        Self { base, client, document, service: None, folder: None }
    }

    /// Shuts the server down gracefully and returns its data directory.
    pub async fn shutdown(mut self) -> TempDir {
        self.service.take().unwrap().shutdown().await;
        self.folder.take().unwrap()
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    /// Sends a request and checks the response against the OpenAPI document.
    pub async fn send(&self, request: RequestBuilder) -> Answer {
        let request = request.build().unwrap();
        let (method, path) = (request.method().clone(), request.url().path().to_owned());
        let response = self.client.execute(request).await.unwrap();
        let answer = Answer::read(response).await;
        self.check(&method, &path, &answer);
        answer
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    /// Submits a job and returns it.
    pub async fn submit(&self, body: Value) -> Value {
        let answer = self.post("/v1/jobs", &body).await;
        assert!(matches!(answer.status, 200 | 202), "{answer:?}");
        answer.json()
    }

    /// Polls a path until its document satisfies `reached`.
    pub async fn until_at(&self, path: &str, reached: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            let found = self.get(path).await.json();
            if reached(&found) {
                return found;
            }
            assert!(start.elapsed() < DEADLINE, "not reached: {found}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Polls a job or study until it is in this state.
    pub async fn state_at(&self, path: &str, state: &str) -> Value {
        let over = |found: &Value| matches!(found["state"].as_str(), Some("succeeded" | "failed" | "canceled"));
        let found = self.until_at(path, |found| found["state"] == state || over(found)).await;
        assert_eq!(found["state"], state, "{found}");
        found
    }

    /// Polls a job until it satisfies `reached`.
    pub async fn until(&self, id: &str, reached: impl Fn(&Value) -> bool) -> Value {
        self.until_at(&format!("/v1/jobs/{id}"), reached).await
    }

    /// Polls a job until it is in this state.
    pub async fn state(&self, id: &str, state: &str) -> Value {
        self.state_at(&format!("/v1/jobs/{id}"), state).await
    }

    fn check(&self, method: &Method, path: &str, answer: &Answer) {
        let shown = || format!("{method} {path}: {} {:?}", answer.status, String::from_utf8_lossy(&answer.body));
        assert!(answer.headers.contains_key("x-request-id"), "{}", shown());
        if answer.status >= 400 {
            assert_eq!(answer.media_type(), Some("application/problem+json"), "{}", shown());
            let problem = answer.json();
            assert_eq!(problem["status"], answer.status, "{}", shown());
            assert!(problem["type"].as_str().unwrap().starts_with("/problems/"), "{}", shown());
        }
        let paths = self.document["paths"].as_object().unwrap();
        let Some((_, item)) = paths.iter().find(|(template, _)| matches(template, path)) else { return };
        let method = if *method == Method::HEAD { "get" } else { &method.as_str().to_lowercase() };
        let Some(call) = item.get(method) else { return };
        let declared = call["responses"].get(answer.status.to_string());
        let declared = declared.unwrap_or_else(|| panic!("the status is not declared: {}", shown()));
        let media_types: Vec<&String> = declared["content"].as_object().into_iter().flatten().map(|(k, _)| k).collect();
        match answer.media_type() {
            Some(media_type) => assert!(media_types.iter().any(|declared| *declared == media_type), "{}", shown()),
            None => assert!(media_types.is_empty() || answer.body.is_empty(), "{}", shown()),
        }
    }
}

/// Whether a path matches a template such as `/v1/jobs/{id}`.
fn matches(template: &str, path: &str) -> bool {
    let (template, path): (Vec<&str>, Vec<&str>) = (template.split('/').collect(), path.split('/').collect());
    template.len() == path.len() && template.iter().zip(&path).all(|(t, p)| t.starts_with('{') || t == p)
}

impl Answer {
    pub async fn read(response: reqwest::Response) -> Self {
        let status = response.status().as_u16();
        let text = |value: &reqwest::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = response.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        Self { status, headers, body: response.bytes().await.unwrap().into() }
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn media_type(&self) -> Option<&str> {
        self.headers.get("content-type").map(|value| value.split(';').next().unwrap().trim())
    }
}

/// A request for a short job.
pub fn quick() -> Value {
    json!({"model": "fashion-resnet8", "objective": "layer1/Relu_1:3", "steps": 4})
}

/// A request for a job that runs until it is cancelled; needs `max_steps` of a million.
pub fn endless() -> Value {
    json!({"model": "fashion-resnet8", "objective": "layer1/Relu_1:3", "steps": 1_000_000})
}

/// Settings that accept [`endless`].
pub fn patient(config: &mut Config) {
    config.max_steps = 1_000_000;
    config.job_time_limit = Duration::from_secs(86_400);
}
