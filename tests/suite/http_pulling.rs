//! Jobs for models that have to be downloaded from a failing package index.

use std::net::{Shutdown, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proxygrad::network::catalog::PackageIndex;
use serde_json::json;

use crate::http_service::{Server, quick};

fn job() -> serde_json::Value {
    json!({"model": "efficientnet-lite0", "objective": "logits:954", "steps": 1})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_download_is_reported_and_can_be_retried() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let index = PackageIndex::new(&format!("http://{closed}/simple/")).unwrap();
    let server = Server::with(|config| config.storage.package_index = index).await;
    for _ in 0..2 {
        let refused = server.post("/v1/jobs", &job()).await;
        let problem = refused.json();
        assert_eq!((refused.status, problem["type"].as_str()), (503, Some("/problems/model-unavailable")), "{problem}");
        assert!(refused.headers["retry-after"].parse::<u32>().unwrap() > 0);
        assert!(problem["detail"].as_str().unwrap().contains("efficientnet-lite0"), "{problem}");
    }
    assert_eq!(server.get("/v1/models/efficientnet-lite0/layers").await.status, 503);
    assert_eq!(server.get("/v1/models/efficientnet-lite0").await.json()["state"], "pullable");
    assert_eq!(server.get("/v1/jobs").await.json()["jobs"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_a_model_times_out_and_all_requests_share_one_download() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let index = PackageIndex::new(&format!("http://{}/simple/", listener.local_addr().unwrap())).unwrap();
    // Accepts connections and never responds.
    let taken = Arc::new(Mutex::new(Vec::new()));
    let takes = Arc::clone(&taken);
    std::thread::spawn(move || listener.incoming().for_each(|stream| takes.lock().unwrap().push(stream.unwrap())));
    let server = Server::with(|config| {
        config.storage.package_index = index;
        config.model_timeout = Duration::from_secs(1);
    })
    .await;
    let body = job();
    let waiting = futures_util::future::join_all((0..40).map(|_| server.post("/v1/jobs", &body)));
    let others = async {
        let job = server.submit(quick()).await;
        server.state(job["id"].as_str().unwrap(), "succeeded").await;
    };
    let (answers, ()) = tokio::join!(waiting, others);
    for answer in answers {
        assert_eq!((answer.status, answer.json()["type"].as_str()), (503, Some("/problems/model-unavailable")));
    }
    let taken = taken.lock().unwrap();
    assert_eq!(taken.len(), 1, "one connection for all");
    // The download continues; it need not outlive the test.
    taken.iter().for_each(|stream| stream.shutdown(Shutdown::Both).unwrap());
}
