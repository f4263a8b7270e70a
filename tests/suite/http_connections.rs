//! Connection limits: idle and slow clients do not keep others from being served.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::http_events::watch_at;
use crate::http_service::{Answer, DEADLINE, Server, endless, patient, quick};

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.base.strip_prefix("http://").unwrap()).await.unwrap()
}

async fn connect_and_send(server: &Server, bytes: &[u8]) -> TcpStream {
    let mut stream = connect(server).await;
    stream.write_all(bytes).await.unwrap();
    stream
}

/// Everything the server sends until it closes the connection.
async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset also ends the connection.
    let _ = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("the server hangs up");
    String::from_utf8_lossy(&answer).into_owned()
}

/// A request on a new connection.
async fn fresh(server: &Server, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
    let client = crate::http_service::client().timeout(DEADLINE).build().unwrap();
    let mut request = client.request(method.clone(), format!("{}{path}", server.base));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if method == Method::POST {
        request = request.json(&quick());
    }
    Answer::read(request.send().await.unwrap()).await
}

const HALF_A_HEAD: &[u8] = b"GET /v1/jobs HTTP/1.1\r\nHost: local";
const HALF_A_BODY: &[u8] = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                             Content-Length: 1000\r\n\r\n{";

/// Requests for more response data than any system buffers for a client that does not read.
fn greedy() -> Vec<u8> {
    b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(200)
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_are_evicted_for_clients_that_send_requests() {
    let server = Server::with(|config| config.max_connections = 4).await;
    for (name, bytes) in [
        ("silent", vec![]),
        ("half a head", HALF_A_HEAD.to_vec()),
        ("half a body", HALF_A_BODY.to_vec()),
        ("unread", greedy()),
    ] {
        let mut bad = Vec::new();
        for _ in 0..12 {
            let mut stream = connect(&server).await;
            // Writing fails once the server has closed the connection.
            let _ = tokio::time::timeout(Duration::from_millis(100), stream.write_all(&bytes)).await;
            bad.push(stream);
        }
        for path in ["/livez", "/readyz", "/metrics", "/v1/models"] {
            assert_eq!(fresh(&server, Method::GET, path, &[]).await.status, 200, "{name}: {path}");
        }
        assert_eq!(fresh(&server, Method::POST, "/v1/jobs", &[]).await.status, 202, "{name}");
        // The longest idle connections are closed.
        for stream in &mut bad[..8] {
            rest(stream).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_evicted_in_the_middle_of_a_body_gets_a_response() {
    let server = Server::with(|config| config.max_connections = 1).await;
    let start = Instant::now();
    let answer = loop {
        let mut slow = connect_and_send(&server, HALF_A_BODY).await;
        assert_eq!(fresh(&server, Method::GET, "/livez", &[]).await.status, 200);
        let answer = rest(&mut slow).await;
        // Closed without a response if its head had not been read.
        if !answer.is_empty() {
            break answer;
        }
        assert!(start.elapsed() < DEADLINE, "never got a response");
    };
    assert!(answer.contains("/problems/overloaded"), "{answer}");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.to_lowercase().contains("retry-after: 1"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_every_connection_in_use_probes_are_answered_and_other_requests_get_retry_after() {
    let server = Server::with(|config| {
        patient(config);
        (config.max_connections, config.max_streams) = (1, 1);
    })
    .await;
    let job = server.submit(endless()).await;
    let path = format!("/v1/jobs/{}/events", job["id"].as_str().unwrap());
    let mut watching = watch_at(&server, &path, None).await.unwrap();
    assert_eq!(watching.next().await.unwrap().name, "job", "the only connection is in use");
    for _ in 0..3 {
        for path in ["/livez", "/readyz", "/metrics"] {
            assert_eq!(fresh(&server, Method::GET, path, &[]).await.status, 200, "{path}");
        }
        for (method, path) in [(Method::GET, "/v1/models"), (Method::POST, "/v1/jobs"), (Method::GET, "/nowhere")] {
            let answer = fresh(&server, method, path, &[]).await;
            assert_eq!((answer.status, answer.json()["type"].as_str()), (503, Some("/problems/overloaded")), "{path}");
            assert_eq!(answer.headers["connection"], "close", "{path}: the next request comes on another connection");
            assert_eq!(answer.headers["retry-after"], "1");
        }
    }
    // Many additional silent connections change nothing.
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(connect(&server).await);
    }
    assert_eq!(fresh(&server, Method::GET, "/livez", &[]).await.status, 200);
    assert!(watching.next().await.is_some(), "busy connections stay open");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_beyond_the_limit_are_rejected_until_one_is_closed() {
    let server = Server::with(|config| {
        patient(config);
        config.max_streams = 2;
    })
    .await;
    let job = server.submit(endless()).await;
    let path = format!("/v1/jobs/{}/events", job["id"].as_str().unwrap());
    let first = watch_at(&server, &path, None).await.unwrap();
    let _second = watch_at(&server, &path, None).await.unwrap();
    let refused = server.get(&path).await;
    assert_eq!((refused.status, refused.json()["type"].as_str()), (503, Some("/problems/overloaded")));
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(server.get("/v1/jobs").await.status, 200, "quick requests need no permit");
    drop(first);
    let start = Instant::now();
    while watch_at(&server, &path, None).await.is_err() {
        assert!(start.elapsed() < DEADLINE, "the permit is not released");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_limit_of_waiting_requests_the_job_is_returned_immediately() {
    let server = Server::with(|config| {
        patient(config);
        config.max_waiting = 1;
    })
    .await;
    let ask = async || {
        let request = server.request(Method::POST, "/v1/jobs").header("Prefer", "wait=2").json(&endless());
        let answer = server.send(request).await;
        assert_eq!(answer.status, 202);
        assert!(answer.headers["location"].starts_with("/v1/jobs/"));
        answer.headers.get("preference-applied").cloned()
    };
    let start = Instant::now();
    loop {
        match tokio::join!(ask(), ask()) {
            (Some(waited), None) | (None, Some(waited)) => {
                assert_eq!(waited, "wait=2");
                break;
            }
            // One after the other.
            (Some(_), Some(_)) => assert!(start.elapsed() < DEADLINE, "both wait"),
            (None, None) => panic!("neither waits"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_is_not_read_times_out() {
    let server = Server::with(|config| config.request_timeout = Duration::from_secs(1)).await;
    let mut stream = connect(&server).await;
    let _ = tokio::time::timeout(Duration::from_millis(200), stream.write_all(&greedy())).await;
    let start = Instant::now();
    // Without reading, a closed connection is noticed only by writing.
    loop {
        match tokio::time::timeout(Duration::from_millis(50), stream.write_all(b"x")).await {
            Ok(Err(_)) => break,
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
        assert!(start.elapsed() < DEADLINE, "the server keeps the response forever");
    }
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn one_address_is_limited_to_its_share() {
    let server = Server::with(|config| {
        config.trusted_proxy = vec!["none".parse().unwrap()];
        config.max_connections_per_client = 2;
    })
    .await;
    let from = async |address: &str| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{address}:0").parse().unwrap()).unwrap();
        socket.connect(server.base.strip_prefix("http://").unwrap().parse().unwrap()).await.unwrap()
    };
    let mut other = from("127.0.0.3").await;
    let mut own = Vec::new();
    for _ in 0..6 {
        own.push(from("127.0.0.2").await);
    }
    for stream in &mut own[..4] {
        assert_eq!(rest(stream).await, "");
    }
    for stream in own[4..].iter_mut().chain([&mut other]) {
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
        assert!(rest(stream).await.starts_with("HTTP/1.1 200 "));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_gets_the_same_responses() {
    let server = Server::start().await;
    let client = crate::http_service::client().http2_prior_knowledge().timeout(DEADLINE).build().unwrap();
    let get = async |path: &str| Answer::read(client.get(format!("{}{path}", server.base)).send().await.unwrap()).await;
    let document = get("/openapi.json").await;
    assert!(document.body.len() > 100_000, "more than one part");
    assert_eq!(document.body, server.get("/openapi.json").await.body);
    let job = client.post(format!("{}/v1/jobs", server.base)).header("Prefer", "wait=30").json(&quick());
    let answer = Answer::read(job.send().await.unwrap()).await;
    assert_eq!(answer.status, 200);
    let events = get(&format!("{}/events", answer.headers["location"])).await;
    assert!(events.text().contains("event: state"));
    assert_eq!(answer.json()["model"], json!("fashion-resnet8"));
}
